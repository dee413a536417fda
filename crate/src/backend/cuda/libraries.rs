//! Loads NVIDIA's driver, cuBLAS and NVRTC at run time, when a GPU is first used.
//!
//! dfdx's cudarc is linked to the three libraries. A program that contains it would not start on a machine without
//! them, and a notebook could not report which one is missing. So this module defines every function that cudarc calls
//! as a jump to an address in a table, and [`load`] fills the table from the libraries that it finds. The linker takes
//! these definitions, so that a program depends on none of NVIDIA's libraries, and runs with those of CUDA 12 and of
//! CUDA 13.

use crate::error::Result;

/// Loads the three libraries, once per process.
///
/// # Errors
/// [`Error::Cuda`](crate::Error::Cuda) with the first library that is missing.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn load() -> Result<()> {
    jumps::load()
}

/// On other systems programs are linked to the libraries.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) fn load() -> Result<()> {
    Ok(())
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[allow(unsafe_code)]
mod jumps {
    use std::ffi::{CStr, CString, c_void};
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicPtr, Ordering};
    use std::sync::{Mutex, PoisonError};

    use crate::error::{Error, Result};

    struct Library {
        /// The name of the library in the error if it is missing.
        description: &'static str,
        /// The names of the library's file, the newest version first.
        file_names: &'static [&'static str],
        /// How to install the library.
        hint: &'static str,
        /// Whether toolkits contain it.
        in_toolkit: bool,
        /// Prefix of the files beside the library that it opens by name at run time.
        companion_prefix: Option<&'static str>,
        functions: &'static [Function],
    }

    struct Function {
        name: &'static CStr,
        /// The target of the jump.
        address: &'static AtomicPtr<c_void>,
    }

    /// Defines each function of a library as `name: jmp [address]`. Until the library is loaded, and if its version
    /// lacks the function, the address is that of a function that returns `$status`, an error code of the library.
    macro_rules! library {
        ($library:ident, $status:literal, [$($name:ident)*]) => {
            mod $library {
                #![allow(non_upper_case_globals)]

                use std::ffi::{c_uint, c_void};
                use std::sync::atomic::AtomicPtr;

                use super::Function;

                extern "C" fn not_found() -> c_uint {
                    $status
                }

                $(static $name: AtomicPtr<c_void> = AtomicPtr::new(not_found as *mut c_void);)*

                pub(super) static FUNCTIONS: &[Function] =
                    &[$(Function { name: super::c_name(concat!(stringify!($name), "\0")), address: &$name }),*];

                $(super::jump!($name);)*
            }
        };
    }

    /// `.hidden` limits the definition to this program or library, so that it does not replace those of other
    /// libraries.
    #[cfg(target_arch = "x86_64")]
    macro_rules! jump {
        ($name:ident) => {
            std::arch::global_asm!(
                ".pushsection .text",
                concat!(".globl ", stringify!($name)),
                concat!(".hidden ", stringify!($name)),
                concat!(".type ", stringify!($name), ", @function"),
                concat!(stringify!($name), ":"),
                "jmp qword ptr [rip + {address}]",
                ".popsection",
                address = sym $name,
            );
        };
    }

    #[cfg(target_arch = "aarch64")]
    macro_rules! jump {
        ($name:ident) => {
            std::arch::global_asm!(
                ".pushsection .text",
                ".balign 4",
                concat!(".globl ", stringify!($name)),
                concat!(".hidden ", stringify!($name)),
                concat!(".type ", stringify!($name), ", %function"),
                concat!(stringify!($name), ":"),
                "adrp x16, {address}",
                "ldr x16, [x16, :lo12:{address}]",
                "br x16",
                ".popsection",
                address = sym $name,
            );
        };
    }

    use jump;

    const fn c_name(name: &'static str) -> &'static CStr {
        match CStr::from_bytes_with_nul(name.as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!("the name of a function has one NUL, at its end"),
        }
    }

    // 500 is CUDA_ERROR_NOT_FOUND.
    library!(driver, 500, [
        cuCtxGetCurrent cuCtxSetCurrent cuDestroyExternalMemory cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount
        cuDeviceGetDefaultMemPool cuDeviceGetName cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuDeviceTotalMem_v2
        cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventRecord cuExternalMemoryGetMappedBuffer cuGetErrorName
        cuGetErrorString cuImportExternalMemory cuInit cuLaunchKernel cuMemAllocAsync cuMemAlloc_v2 cuMemFreeAsync cuMemFree_v2
        cuMemGetInfo_v2 cuMemPoolSetAttribute cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2
        cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemsetD8Async cuMemsetD8_v2 cuModuleGetFunction cuModuleLoad cuModuleLoadData
        cuModuleUnload cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveBlocksPerMultiprocessor
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxActiveClusters cuOccupancyMaxPotentialBlockSize
        cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyMaxPotentialClusterSize cuProfilerStart cuProfilerStop
        cuStreamCreate cuStreamDestroy_v2 cuStreamSynchronize cuStreamWaitEvent
    ]);

    // 15 is CUBLAS_STATUS_NOT_SUPPORTED.
    library!(cublas, 15, [
        cublasCreate_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasDgemm_v2 cublasDgemv_v2 cublasGemmEx
        cublasGemmStridedBatchedEx cublasHgemm cublasHgemmStridedBatched cublasSetStream_v2 cublasSgemmBatched
        cublasSgemmStridedBatched cublasSgemm_v2 cublasSgemv_v2
    ]);

    // 11 is NVRTC_ERROR_INTERNAL_ERROR.
    library!(nvrtc, 11, [
        nvrtcCompileProgram nvrtcCreateProgram nvrtcDestroyProgram nvrtcGetPTX nvrtcGetPTXSize nvrtcGetProgramLog
        nvrtcGetProgramLogSize
    ]);

    const LIBRARIES: [Library; 3] = [
        Library {
            description: "NVIDIA's driver",
            file_names: &["libcuda.so.1"],
            hint: "install it from nvidia.com/drivers or with your distribution (`nvidia-smi` then lists the GPUs)",
            in_toolkit: false,
            companion_prefix: None,
            functions: driver::FUNCTIONS,
        },
        Library {
            description: "cuBLAS, which comes with the CUDA toolkit",
            file_names: &["libcublas.so.13", "libcublas.so.12", "libcublas.so"],
            hint: TOOLKIT,
            in_toolkit: true,
            companion_prefix: None, // it finds its companions itself, relative to its own file
            functions: cublas::FUNCTIONS,
        },
        Library {
            description: "NVRTC, which comes with the CUDA toolkit",
            file_names: &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            hint: TOOLKIT,
            in_toolkit: true,
            companion_prefix: Some("libnvrtc-builtins.so"),
            functions: nvrtc::FUNCTIONS,
        },
    ];

    const TOOLKIT: &str = "install CUDA 12 or 13 from developer.nvidia.com/cuda-downloads; if it is installed in an unusual place, set CUDA_ROOT \
                           to its folder, or LD_LIBRARY_PATH to the folder of the file";

    /// Fills the table. Libraries stay loaded until the process ends.
    pub(super) fn load() -> Result<()> {
        static LOADED: Mutex<bool> = Mutex::new(false);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*loaded {
            let handles: Vec<*mut c_void> = LIBRARIES.iter().map(open).collect::<Result<_>>()?;
            for (library, handle) in LIBRARIES.iter().zip(handles) {
                for function in library.functions {
                    // SAFETY: the handle is that of an open library, and the name ends with a NUL.
                    let address = unsafe { libc::dlsym(handle, function.name.as_ptr()) };
                    if !address.is_null() {
                        function.address.store(address, Ordering::Release);
                    }
                }
            }
            *loaded = true;
        }
        Ok(())
    }

    /// Opens the first file that works, and returns its handle.
    fn open(library: &Library) -> Result<*mut c_void> {
        let mut first_error = None;
        let folders = if library.in_toolkit { toolkit_folders() } else { Vec::new() };
        for name in library.file_names {
            // A name without a folder is searched for in LD_LIBRARY_PATH and in the system's folders.
            let files = std::iter::once(PathBuf::from(name)).chain(folders.iter().map(|folder| folder.join(name)));
            for file in files {
                if let Some(handle) = open_file(&file) {
                    library.companion_prefix.into_iter().for_each(|prefix| open_companions(&file, prefix));
                    return Ok(handle);
                }
                // SAFETY: `dlerror` returns null or a text that is valid until this thread's next call of `dl…`.
                let error = unsafe { libc::dlerror() };
                // The error of the newest version without a folder is the most informative one.
                if first_error.is_none() && !error.is_null() {
                    // SAFETY: as above.
                    first_error = Some(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned());
                }
            }
        }
        let error = first_error.as_deref().unwrap_or(library.file_names[0]);
        Err(Error::Cuda { missing: format!("{} ({error})", library.description), hint: library.hint.into() })
    }

    fn open_file(file: &Path) -> Option<*mut c_void> {
        let path = CString::new(file.as_os_str().as_encoded_bytes()).ok()?;
        // SAFETY: the path ends with a NUL. The initializers of NVIDIA's libraries are trusted.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        (!handle.is_null()).then_some(handle)
    }

    /// Opens the files beside a library that the library will open by name. The system finds them if they are open
    /// already; otherwise it searches its own folders only.
    fn open_companions(file: &Path, prefix: &str) {
        if file.components().count() == 1 {
            return; // the system found the library by name, and will find these
        }
        let Ok(file) = file.canonicalize() else { return };
        let siblings = file.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten();
        for sibling in siblings.filter(|it| it.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())) {
            open_file(&sibling.path()); // on failure the library reports it when it needs the file
        }
    }

    /// The library folders of toolkits: first those in environment variables, then the usual places.
    fn toolkit_folders() -> Vec<PathBuf> {
        let variables = ["CUDA_ROOT", "CUDA_PATH", "CUDA_HOME", "CUDA_TOOLKIT_ROOT_DIR", "CONDA_PREFIX"];
        let roots = variables.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let roots = roots.chain(["/usr/local/cuda".into(), "/opt/cuda".into()]);
        roots.flat_map(|root| [root.join("lib64"), root.join("lib")]).collect()
    }
}
