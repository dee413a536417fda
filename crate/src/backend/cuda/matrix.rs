//! A matrix in GPU memory: upload, download, matrix products, and the operands that cuBLAS takes.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayView2, Dim, Ix2};

use super::buffer::DeviceBuffer;
use super::cached::DeviceSlice;
use super::device::CudaGpu;
use super::error::CudaError;
use super::gemm::{GemmShape, Operand};
use crate::memory::HostArray;

/// A row-major matrix in GPU memory.
pub(crate) struct DeviceMatrix {
    pub(super) buffer: DeviceBuffer,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl DeviceMatrix {
    /// Memory for a matrix, to be written before it is read. Shape: → `[rows, columns]`.
    pub(super) fn uninit(gpu: &Arc<CudaGpu>, rows: usize, columns: usize) -> Result<Self, CudaError> {
        Ok(Self { buffer: DeviceBuffer::uninit::<f32>(gpu, rows * columns)?, rows, columns })
    }

    /// Copies a matrix to the GPU. Shape: `[rows, columns]` → the same.
    pub(super) fn upload(gpu: &Arc<CudaGpu>, x: ArrayView2<f32>) -> Result<Self, CudaError> {
        let x = x.as_standard_layout();
        let values = x.as_slice().expect("the layout is standard");
        Ok(Self { buffer: DeviceBuffer::upload(gpu, values)?, rows: x.nrows(), columns: x.ncols() })
    }

    /// Copies the matrix to the host. Shape: `[rows, columns]` → the same.
    pub(super) fn download(&self) -> Result<HostArray<Ix2>, CudaError> {
        let (slice, shape) = self.rows(0..self.rows);
        slice.download(shape)
    }

    /// The matrix, to be changed in place: a copy if a cache may read its memory later.
    pub(super) fn unshared(self, gpu: &Arc<CudaGpu>) -> Result<Self, CudaError> {
        let buffer = if self.buffer.in_cache() { self.buffer.copy(gpu)? } else { self.buffer };
        Ok(Self { buffer, ..self })
    }

    /// A range of rows, and its shape. Shape: `[rows, columns]` → `[n, columns]`.
    pub(super) fn rows(&self, rows: Range<usize>) -> (DeviceSlice<'_>, Ix2) {
        let offset = rows.start * self.columns;
        (DeviceSlice { buffer: &self.buffer, offset }, Dim((rows.len(), self.columns)))
    }

    /// The matrix as an operand of cuBLAS, the same one for each product of a batch.
    pub(super) fn operand(&self) -> Operand<'_> {
        Operand { buffer: &self.buffer, offset: 0, row_stride: self.columns, matrix_stride: 0, transposed: false }
    }

    /// The rows from `first_row` on as a batch of one matrix per head.
    /// Shape: `[rows, n_heads d_head]` → `[n_heads, pos, d_head]`.
    pub(super) fn heads(&self, first_row: usize, n_heads: usize) -> Operand<'_> {
        let (offset, matrix_stride) = (first_row * self.columns, self.columns / n_heads);
        Operand { offset, matrix_stride, ..self.operand() }
    }

    /// `self other`. Shape: `[rows, inner]`, `[inner, columns]` → `[rows, columns]`.
    pub(super) fn matmul(&self, gpu: &Arc<CudaGpu>, other: &Self) -> Result<Self, CudaError> {
        let y = Self::uninit(gpu, self.rows, other.columns)?;
        self.matmul_rows_into(gpu, 0..self.rows, other, &y)?;
        Ok(y)
    }

    /// Multiplies a range of rows with `other`, and writes the first rows of `y`.
    /// Shape: `[n, inner]` of `[rows, inner]`, `[inner, columns]` → `[n, columns]`.
    pub(super) fn matmul_rows_into(
        &self,
        gpu: &Arc<CudaGpu>,
        rows: Range<usize>,
        other: &Self,
        y: &Self,
    ) -> Result<(), CudaError> {
        let shape = GemmShape { rows: rows.len(), inner: self.columns, columns: other.columns, count: 1 };
        let x = Operand { offset: rows.start * self.columns, ..self.operand() };
        gpu.gemm(1.0, x, other.operand(), y.operand(), shape)
    }
}
