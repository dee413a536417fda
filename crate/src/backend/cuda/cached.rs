//! Cached activations, which stay on the GPU until they are first read, within the caches' share of its memory.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Dimension, Ix2, Ix3};

use super::DeviceMatrix;
use super::buffer::DeviceBuffer;
use super::device::CudaGpu;
use super::error::CudaError;
use crate::backend::{Heads, fused};
use crate::memory::{HostArray, LazyArray};

/// The values of a row-major array in GPU memory, from an offset on.
pub(super) struct DeviceSlice<'a> {
    pub(super) buffer: &'a DeviceBuffer,
    /// Index of the first value.
    pub(super) offset: usize,
}

impl DeviceSlice<'_> {
    /// Copies the values to the host. Shape: → `shape`.
    pub(super) fn download<D: Dimension>(&self, shape: D) -> Result<HostArray<D>, CudaError> {
        let mut host = HostArray::from_pool(shape);
        self.buffer.download(self.offset, host.as_slice_mut().expect("a new array is contiguous"))?;
        Ok(host)
    }

    /// Postpones the download until the array is read, or downloads at once if caches hold their share of the memory.
    /// Shape: → `shape`.
    pub(super) fn to_lazy<D: Dimension + Send + Sync + 'static>(
        &self,
        gpu: &Arc<CudaGpu>,
        shape: D,
    ) -> Result<LazyArray<D>, CudaError> {
        let Some(buffer) = self.buffer.for_cache() else { return Ok(self.download(shape)?.into()) };
        let (gpu, offset) = (gpu.clone(), self.offset);
        Ok(LazyArray::new(move || {
            DeviceSlice { buffer: &buffer, offset }.download(shape.clone()).map_err(gpu.failed("a download"))
        }))
    }
}

/// A range of rows of a matrix. Shape: `[rows, columns]` → `[n, columns]`.
pub(super) fn lazy_rows(gpu: &Arc<CudaGpu>, x: &DeviceMatrix, rows: Range<usize>) -> Result<LazyArray<Ix2>, CudaError> {
    let (slice, shape) = x.rows(rows);
    slice.to_lazy(gpu, shape)
}

/// See [`Backend::attn_scores`](crate::backend::Backend::attn_scores). Caches the small queries and keys instead of the
/// scores, which are as large as the pattern and rarely read; the host computes the scores when they are.
/// Shape: each `[rows, n_heads d_head]` → `[n_heads, query_pos, key_pos]`.
pub(super) fn lazy_attn_scores(
    gpu: &Arc<CudaGpu>,
    [q, k]: [&DeviceMatrix; 2],
    heads: Heads,
    rows: Range<usize>,
) -> Result<LazyArray<Ix3>, CudaError> {
    let (q, k) = (lazy_rows(gpu, q, rows.clone())?, lazy_rows(gpu, k, rows)?);
    Ok(LazyArray::new(move || {
        let (q, k) = (q.compute()?, k.compute()?);
        Ok(fused::attn_scores(q.view(), k.view(), heads, 0..q.nrows()))
    }))
}
