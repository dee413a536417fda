//! NVIDIA's libraries, found when they are first needed.
//!
//! dfdx's cudarc is linked to the driver, cuBLAS and NVRTC: a program that has it would not even start on a machine that
//! lacks one of them, and a notebook could not say what is missing. So this module defines every function that cudarc calls,
//! as a jump to an address of a table, and [`load`] fills the table from the libraries that it finds. What is defined here the
//! linker takes from here, so that a program depends on no library of NVIDIA's, and runs with CUDA 12's as with 13's.

use crate::error::Result;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn load() -> Result<()> {
    jumps::load()
}

/// Elsewhere programs are linked to the libraries.
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
        what: &'static str,
        /// The file's names, the newest version first.
        names: &'static [&'static str],
        install: &'static str,
        /// Whether it is worth looking where toolkits are installed.
        in_toolkit: bool,
        /// How the names of files begin that it opens by their names alone, and that lie beside it.
        opens: Option<&'static str>,
        functions: &'static [Epilogue],
    }

    struct Epilogue {
        name: &'static CStr,
        address: &'static AtomicPtr<c_void>,
    }

    /// Defines the functions of a library: `name: jmp [address]`, where the address, to begin with, is that of a function that
    /// answers `$status`, "not found" in the library's own numbers. (Which is also what a function answers that an old library
    /// lacks.)
    macro_rules! library {
        ($library:ident, $status:literal, [$($name:ident)*]) => {
            mod $library {
                #![allow(non_upper_case_globals)]

                use std::ffi::{c_uint, c_void};
                use std::sync::atomic::AtomicPtr;

                use super::Epilogue;

                extern "C" fn not_found() -> c_uint {
                    $status
                }

                $(static $name: AtomicPtr<c_void> = AtomicPtr::new(not_found as *mut c_void);)*

                pub(super) static FUNCTIONS: &[Epilogue] =
                    &[$(Epilogue { name: super::c_name(concat!(stringify!($name), "\0")), address: &$name }),*];

                $(super::jump!($name);)*
            }
        };
    }

    /// Hidden: what is outside of this program or library keeps its own.
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
            Err(_) => panic!("the name of a function has no zero inside, and one behind it"),
        }
    }

    // CUDA_ERROR_NOT_FOUND
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

    // CUBLAS_STATUS_NOT_SUPPORTED
    library!(cublas, 15, [
        cublasCreate_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasDgemm_v2 cublasDgemv_v2 cublasGemmEx
        cublasGemmStridedBatchedEx cublasHgemm cublasHgemmStridedBatched cublasSetStream_v2 cublasSgemmBatched
        cublasSgemmStridedBatched cublasSgemm_v2 cublasSgemv_v2
    ]);

    // NVRTC_ERROR_INTERNAL_ERROR
    library!(nvrtc, 11, [
        nvrtcCompileProgram nvrtcCreateProgram nvrtcDestroyProgram nvrtcGetPTX nvrtcGetPTXSize nvrtcGetProgramLog
        nvrtcGetProgramLogSize
    ]);

    const LIBRARIES: [Library; 3] = [
        Library {
            what: "NVIDIA's driver",
            names: &["libcuda.so.1"],
            install: "install it from nvidia.com/drivers or with your distribution (`nvidia-smi` then lists the GPUs)",
            in_toolkit: false,
            opens: None,
            functions: driver::FUNCTIONS,
        },
        Library {
            what: "cuBLAS, which comes with the CUDA toolkit",
            names: &["libcublas.so.13", "libcublas.so.12", "libcublas.so"],
            install: TOOLKIT,
            in_toolkit: true,
            opens: None, // it says itself where it lies
            functions: cublas::FUNCTIONS,
        },
        Library {
            what: "NVRTC, which comes with the CUDA toolkit",
            names: &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            install: TOOLKIT,
            in_toolkit: true,
            opens: Some("libnvrtc-builtins.so"),
            functions: nvrtc::FUNCTIONS,
        },
    ];

    const TOOLKIT: &str = "install CUDA 12 or 13 from developer.nvidia.com/cuda-downloads, and set CUDA_ROOT to its folder, or \
                           LD_LIBRARY_PATH to that of the file, if it lies in an unusual place";

    /// Fills the table; what is loaded stays loaded.
    pub(super) fn load() -> Result<()> {
        static LOADED: Mutex<bool> = Mutex::new(false);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*loaded {
            let handles: Vec<*mut c_void> = LIBRARIES.iter().map(open).collect::<Result<_>>()?;
            for (library, handle) in LIBRARIES.iter().zip(handles) {
                for function in library.functions {
                    // SAFETY: the handle is of a library that is open, and the name ends with a zero.
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

    /// The first file that opens.
    fn open(library: &Library) -> Result<*mut c_void> {
        let mut problem = None;
        let folders = if library.in_toolkit { toolkit_folders() } else { Vec::new() };
        for name in library.names {
            // By its name alone, the system looks in LD_LIBRARY_PATH and in its own folders.
            let files = std::iter::once(PathBuf::from(name)).chain(folders.iter().map(|folder| folder.join(name)));
            for file in files {
                if let Some(handle) = open_file(&file) {
                    library.opens.into_iter().for_each(|opens| open_beside(&file, opens));
                    return Ok(handle);
                }
                // SAFETY: `dlerror` gives null or a text that this thread's next call of `dl…` may change.
                let said = unsafe { libc::dlerror() };
                // The first attempt is the one with the newest version and without a folder: its answer says most.
                if problem.is_none() && !said.is_null() {
                    // SAFETY: as above.
                    problem = Some(unsafe { CStr::from_ptr(said) }.to_string_lossy().into_owned());
                }
            }
        }
        Err(Error::Cuda {
            missing: format!("{} ({})", library.what, problem.as_deref().unwrap_or(library.names[0])),
            hint: library.install.into(),
        })
    }

    fn open_file(file: &Path) -> Option<*mut c_void> {
        let path = CString::new(file.as_os_str().as_encoded_bytes()).ok()?;
        // SAFETY: the path ends with a zero. What NVIDIA's libraries do when they are loaded is theirs.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        (!handle.is_null()).then_some(handle)
    }

    /// What a library will open by its name alone the system finds if it is open already; otherwise it looks in its own folders.
    fn open_beside(file: &Path, names: &str) {
        if file.components().count() == 1 {
            return; // found by its name alone: so will the others be
        }
        let Ok(file) = file.canonicalize() else { return };
        let beside = file.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten();
        for other in beside.filter(|other| other.file_name().as_encoded_bytes().starts_with(names.as_bytes())) {
            open_file(&other.path()); // where it fails, the library says so when it needs it
        }
    }

    /// Where toolkits lie: what the environment says, then the usual place.
    fn toolkit_folders() -> Vec<PathBuf> {
        let variables = ["CUDA_ROOT", "CUDA_PATH", "CUDA_HOME", "CUDA_TOOLKIT_ROOT_DIR", "CONDA_PREFIX"];
        let roots = variables.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let roots = roots.chain(["/usr/local/cuda".into(), "/opt/cuda".into()]);
        roots.flat_map(|root| [root.join("lib64"), root.join("lib")]).collect()
    }
}
