//! Error messages of the driver and of cuBLAS.

use std::ffi::{CStr, c_char, c_uint};

use cudarc::cublas::result::CublasError;
use cudarc::driver::{DriverError, sys};

/// An error of the GPU or of one of NVIDIA's libraries, as a message for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CudaError(pub(super) String);

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> Self {
        Self(match error.0 {
            sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
                "the driver is older than NVRTC and cannot load the PTX that it makes: install a newer driver, or the toolkit of \
                 an older CUDA"
                    .into()
            }
            status => driver_message(status as u32),
        })
    }
}

impl From<CublasError> for CudaError {
    fn from(error: CublasError) -> Self {
        let status = error.0 as u32;
        let name = match status {
            1 => {
                "not initialized; the driver may be older than cuBLAS: `nvidia-smi` shows the newest CUDA that it supports"
            }
            3 => "out of memory",
            7 => "invalid size or address",
            8 => "the GPU lacks a feature that it needs",
            11 => "memory could not be accessed",
            13 => "execution on the GPU failed",
            14 => "internal error",
            15 => "not supported",
            _ => "see cublasStatus_t",
        };
        Self(format!("cuBLAS status {status}, {name}"))
    }
}

/// The driver's message for a status. By number: cudarc's enum ends with the statuses of CUDA 11.8, and formatting
/// another one would be undefined behaviour.
#[allow(unsafe_code)]
fn driver_message(status: u32) -> String {
    unsafe extern "C" {
        fn cuGetErrorString(status: c_uint, text: *mut *const c_char) -> c_uint;
    }
    let mut text = std::ptr::null();
    // SAFETY: the driver writes the address of a static text, or null for an unknown number.
    let text = unsafe {
        cuGetErrorString(status, &mut text);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
    };
    format!("driver status {status}, {}", text.as_deref().unwrap_or("which the driver does not describe"))
}
