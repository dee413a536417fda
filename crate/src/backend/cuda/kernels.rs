//! The kernels of `kernels.cu`, compiled when a GPU is opened, and their launch configurations.

use std::sync::Arc;

use cudarc::driver::{CudaDevice, CudaFunction, LaunchConfig};
use cudarc::nvrtc::result::NvrtcError;
use cudarc::nvrtc::{CompileError, compile_ptx};

use super::error::CudaError;
use crate::config::ActFn;

const SOURCE: &str = include_str!("kernels.cu");

/// Threads in a block: `BLOCK` in `kernels.cu`.
const BLOCK: u32 = 256;
/// More blocks than this do not make element-wise kernels faster. Each thread computes several elements instead.
const MAX_BLOCKS: usize = 1 << 16;
/// The name of the compiled module on the GPU.
const MODULE: &str = "attention_tokens";

macro_rules! kernels {
    ($($name:ident)*) => {
        pub(super) struct Kernels {
            $(pub(super) $name: CudaFunction,)*
        }

        impl Kernels {
            pub(super) fn compile(device: &Arc<CudaDevice>) -> Result<Self, CudaError> {
                // Compile to PTX for NVRTC's oldest architecture; the driver JIT-compiles it for the GPU present.
                let ptx = compile_ptx(SOURCE).map_err(|error| match error {
                    CompileError::CompileError { log, .. } => CudaError(format!("NVRTC: {}", log.to_string_lossy())),
                    CompileError::CreationError(error) => nvrtc_error(error),
                    CompileError::GetLogError(error) => nvrtc_error(error),
                    CompileError::GetPtxError(error) => nvrtc_error(error),
                    CompileError::DestroyError(error) => nvrtc_error(error),
                })?;
                device.load_ptx(ptx, MODULE, &[$(stringify!($name)),*])?;
                let function = |name| {
                    device.get_func(MODULE, name).ok_or_else(|| CudaError(format!("the kernel {name} is missing")))
                };
                Ok(Self { $($name: function(stringify!($name))?,)* })
            }
        }
    };
}

kernels!(
    add add_bias causal_softmax edit_rows edited_causal_softmax embed layer_norm list_head_addresses multiply_rows top_tokens
);

/// A status of NVRTC by number: cudarc's enum ends with the statuses of CUDA 11.8, and formatting another one would be
/// undefined behaviour.
fn nvrtc_error(error: NvrtcError) -> CudaError {
    CudaError(format!("NVRTC status {}, see nvrtcResult", error.0 as u32))
}

/// One block per row.
pub(super) fn block_per_row(rows: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (rows as u32, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 }
}

/// One thread per element, in blocks of [`BLOCK`] columns of a row.
pub(super) fn thread_per_column(rows: usize, columns: usize) -> LaunchConfig {
    block_per_row(rows * columns.div_ceil(BLOCK as usize))
}

/// One thread per element, or per several elements if there are more than `MAX_BLOCKS * BLOCK`.
pub(super) fn thread_per_element(n: usize) -> LaunchConfig {
    block_per_row(n.div_ceil(BLOCK as usize).clamp(1, MAX_BLOCKS))
}

/// The function that `add_bias` applies after the addition, by its number in `kernels.cu`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Epilogue {
    None = 0,
    GeluNew = 1,
    Gelu = 2,
    Relu = 3,
    Silu = 4,
    Tanh = 5,
}

impl From<ActFn> for Epilogue {
    fn from(act_fn: ActFn) -> Self {
        match act_fn {
            ActFn::GeluNew => Self::GeluNew,
            ActFn::Gelu => Self::Gelu,
            ActFn::Relu => Self::Relu,
            ActFn::Silu => Self::Silu,
            ActFn::Tanh => Self::Tanh,
        }
    }
}
