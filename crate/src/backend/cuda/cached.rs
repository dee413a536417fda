//! What a cache keeps: it stays on the gpu until somebody looks at it, as much as there is room for.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Dimension, Ix2, Ix3};

use super::DeviceMatrix;
use super::device::CudaGpu;
use super::error::CudaError;
use super::memory::Memory;
use crate::backend::fused;
use crate::memory::{HostArray, LazyArray};

/// Numbers on a gpu that lie as an array does.
pub(super) struct DeviceSlice<'a> {
    pub(super) memory: &'a Memory,
    /// How many numbers lie before the first of them.
    pub(super) first: usize,
}

impl DeviceSlice<'_> {
    /// Copies them to the host.
    pub(super) fn download<D: Dimension>(&self, shape: D) -> Result<HostArray<D>, CudaError> {
        let mut host = HostArray::from_pool(shape);
        self.memory.download(self.first, host.as_slice_mut().expect("a new array is contiguous"))?;
        Ok(host)
    }

    /// Leaves them on the gpu, or copies them at once if caches have all that they may.
    pub(super) fn keep<D: Dimension + Send + 'static>(
        &self,
        gpu: &Arc<CudaGpu>,
        shape: D,
    ) -> Result<LazyArray<D>, CudaError> {
        let Some(memory) = self.memory.for_cache() else { return Ok(self.download(shape)?.into()) };
        let (gpu, first) = (gpu.clone(), self.first);
        Ok(LazyArray::new(move || {
            DeviceSlice { memory: &memory, first }.download(shape.clone()).map_err(gpu.failed("a download"))
        }))
    }
}

/// Some rows of a matrix.
pub(super) fn rows(gpu: &Arc<CudaGpu>, x: &DeviceMatrix, rows: Range<usize>) -> Result<LazyArray<Ix2>, CudaError> {
    let (slice, shape) = x.rows(rows);
    slice.keep(gpu, shape)
}

/// They are as large as the pattern, and few look at them: the few queries and keys are kept, and give them when asked.
pub(super) fn attn_scores(
    gpu: &Arc<CudaGpu>,
    [q, k]: [&DeviceMatrix; 2],
    n_heads: usize,
    of: Range<usize>,
) -> Result<LazyArray<Ix3>, CudaError> {
    let (q, k) = (rows(gpu, q, of.clone())?, rows(gpu, k, of)?);
    Ok(LazyArray::new(move || {
        let (q, k) = (q.compute()?, k.compute()?);
        Ok(fused::attn_scores(q.view(), k.view(), n_heads, 0..q.nrows()))
    }))
}
