//! The kernels of `kernels.cu`, compiled for the gpu when it is opened.

use std::sync::Arc;

use cudarc::driver::{CudaDevice, CudaFunction, LaunchConfig};
use cudarc::nvrtc::result::NvrtcError;
use cudarc::nvrtc::{CompileError, compile_ptx};

use super::error::CudaError;
use crate::config::ActFn;

pub(super) const SOURCE: &str = include_str!("kernels.cu");

/// Threads of a block: `BLOCK` of `kernels.cu`.
const BLOCK: u32 = 256;
/// More blocks than this do not make work on single numbers faster: each thread then takes several.
const MOST_BLOCKS: usize = 1 << 16;

macro_rules! kernels {
    ($($name:ident)*) => {
        pub(super) struct Kernels {
            $(pub(super) $name: CudaFunction,)*
        }

        impl Kernels {
            pub(super) fn compile(device: &Arc<CudaDevice>) -> Result<Self, CudaError> {
                // For the oldest cards that NVRTC knows; the driver makes of it what the gpu at hand runs.
                let ptx = compile_ptx(SOURCE).map_err(|error| match error {
                    CompileError::CompileError { log, .. } => CudaError(format!("NVRTC: {}", log.to_string_lossy())),
                    CompileError::CreationError(error) => said_by_nvrtc(error),
                    CompileError::GetLogError(error) => said_by_nvrtc(error),
                    CompileError::GetPtxError(error) => said_by_nvrtc(error),
                    CompileError::DestroyError(error) => said_by_nvrtc(error),
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

/// By its number: cudarc's names end with those of CUDA 11.8, and to print another would be undefined.
fn said_by_nvrtc(error: NvrtcError) -> CudaError {
    CudaError(format!("NVRTC said {}, see nvrtcResult", error.0 as u32))
}

/// The name that the gpu knows them by.
const MODULE: &str = "attention_tokens";

kernels!(add add_bias causal_softmax embed layer_norm list_heads multiply_rows top_tokens);

/// A block for each row.
pub(super) fn a_block_each(rows: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (rows as u32, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 }
}

/// A block for each so many columns of each row as it has threads.
pub(super) fn a_thread_each_column(rows: usize, columns: usize) -> LaunchConfig {
    a_block_each(rows * columns.div_ceil(BLOCK as usize))
}

/// A thread for each number, or for several.
pub(super) fn a_thread_each(n: usize) -> LaunchConfig {
    a_block_each(n.div_ceil(BLOCK as usize).clamp(1, MOST_BLOCKS))
}

/// What `add_bias` does besides, in its numbers.
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
