//! What the driver and the libraries say when something fails.

use std::ffi::{CStr, c_char, c_uint};

use cudarc::cublas::result::CublasError;
use cudarc::driver::{DriverError, sys};

/// What a gpu or a library said, for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CudaError(pub(super) String);

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> Self {
        Self(match error.0 {
            sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
                "the driver is older than NVRTC, and does not know what it makes: install a newer driver, or the toolkit of an \
                 older CUDA"
                    .into()
            }
            status => said_by_driver(status as u32),
        })
    }
}

impl From<CublasError> for CudaError {
    fn from(error: CublasError) -> Self {
        let status = error.0 as u32;
        let name = match status {
            1 => {
                "not initialized; a driver older than cuBLAS may be why: `nvidia-smi` shows the newest CUDA that it is for"
            }
            3 => "it could not allocate memory",
            7 => "a size or an address is not allowed",
            8 => "the GPU lacks something that it needs",
            11 => "memory could not be reached",
            13 => "it did not run on the GPU",
            14 => "an internal error",
            15 => "not supported",
            _ => "see cublasStatus_t",
        };
        Self(format!("cuBLAS said {status}, {name}"))
    }
}

/// A status in words, by its number: cudarc's names end with those of CUDA 11.8, and to print another would be undefined.
#[allow(unsafe_code)]
fn said_by_driver(status: u32) -> String {
    unsafe extern "C" {
        fn cuGetErrorString(status: c_uint, text: *mut *const c_char) -> c_uint;
    }
    let mut text = std::ptr::null();
    // SAFETY: the driver writes the address of a text that it never frees, or null for a number that it does not know.
    let text = unsafe {
        cuGetErrorString(status, &mut text);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
    };
    format!("the driver said {status}, {}", text.as_deref().unwrap_or("which it has no words for"))
}
