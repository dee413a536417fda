//! Matrix products by cuBLAS, single and batched.

use cudarc::cublas::sys::cublasOperation_t;
use cudarc::driver::sys::CUdeviceptr;

use super::buffer::DeviceBuffer;
use super::device::CudaGpu;
use super::error::CudaError;

impl CudaGpu {
    /// `c = alpha a b`, for each of `shape.count` products.
    /// Shape: `a [count, rows, inner]`, `b [count, inner, columns]` → `c [count, rows, columns]`.
    ///
    /// In single precision: nothing here enables TF32. (`NVIDIA_TF32_OVERRIDE=1` does, in NVIDIA's libraries and for
    /// every program.)
    ///
    /// # Panics
    /// If an operand reaches beyond its buffer.
    #[allow(unsafe_code)]
    pub(super) fn gemm(
        &self,
        alpha: f32,
        a: Operand,
        b: Operand,
        c: Operand,
        shape: GemmShape,
    ) -> Result<(), CudaError> {
        let GemmShape { rows, inner, columns, count } = shape;
        let end = |operand: &Operand, [rows, columns]: [usize; 2]| {
            let [rows, columns] = if operand.transposed { [columns, rows] } else { [rows, columns] };
            operand.offset + (count - 1) * operand.matrix_stride + (rows - 1) * operand.row_stride + columns
        };
        for (operand, shape) in [(&a, [rows, inner]), (&b, [inner, columns]), (&c, [rows, columns])] {
            assert!(end(operand, shape) * size_of::<f32>() <= operand.buffer.bytes, "an operand is inside its buffer");
        }
        let ColumnMajor { opa, opb, m, n, k, lda, ldb, ldc, batch } = ColumnMajor::new([&a, &b, &c], shape)?;
        let blas = self.blas()?;
        let (handle, beta) = (*blas.handle(), 0.0);
        let (pa, pb, pc) =
            (b.address::<f32>() as *const f32, a.address::<f32>() as *const f32, c.address::<f32>() as *mut f32);
        // SAFETY: the operands are inside their buffers, as was just checked. The memory belongs to this GPU, and is
        // freed in stream order, after this product.
        unsafe {
            if count == 1 {
                cudarc::cublas::result::sgemm(handle, opa, opb, m, n, k, &alpha, pa, lda, pb, ldb, &beta, pc, ldc)?;
            } else {
                let (sa, sb, sc) = (b.matrix_stride as i64, a.matrix_stride as i64, c.matrix_stride as i64);
                cudarc::cublas::result::sgemm_strided_batched(
                    handle, opa, opb, m, n, k, &alpha, pa, lda, sa, pb, ldb, sb, &beta, pc, ldc, sc, batch,
                )?;
            }
        }
        Ok(())
    }

    /// [`gemm`](Self::gemm) of matrices at any addresses. An operand's buffer contains the addresses, `u64` each, and
    /// its offset is the index of the first one.
    /// Shape: each `[count]` addresses, of `a [rows, inner]`, `b [inner, columns]` and `c [rows, columns]`.
    ///
    /// # Safety
    /// By the time the product runs, every address must be that of a matrix of this shape in memory of this GPU.
    ///
    /// # Panics
    /// If a buffer contains fewer than `shape.count` addresses from the offset on.
    #[allow(unsafe_code)]
    pub(super) unsafe fn gemm_batched(
        &self,
        alpha: f32,
        a: Operand,
        b: Operand,
        c: Operand,
        shape: GemmShape,
    ) -> Result<(), CudaError> {
        for operand in [&a, &b, &c] {
            let end = operand.offset + shape.count;
            assert!(end * size_of::<u64>() <= operand.buffer.bytes, "the addresses are inside their buffer");
        }
        let ColumnMajor { opa, opb, m, n, k, lda, ldb, ldc, batch } = ColumnMajor::new([&a, &b, &c], shape)?;
        let blas = self.blas()?;
        let (handle, beta) = (*blas.handle(), 0.0);
        let (pa, pb, pc) =
            (b.address::<u64>() as *const _, a.address::<u64>() as *const _, c.address::<u64>() as *const _);
        // SAFETY: the buffers contain `count` addresses, as was just checked. The caller vouches for the matrices.
        unsafe {
            cudarc::cublas::sys::cublasSgemmBatched(
                handle, opa, opb, m, n, k, &alpha, pa, lda, pb, ldb, &beta, pc, ldc, batch,
            )
        }
        .result()?;
        Ok(())
    }
}

/// The arguments of a call of cuBLAS, under cuBLAS' names. cuBLAS reads matrices column by column, so a row-major
/// matrix is its transpose to cuBLAS, and `c = a b` is computed as `cᵀ = bᵀ aᵀ`.
struct ColumnMajor {
    opa: cublasOperation_t,
    opb: cublasOperation_t,
    m: i32,
    n: i32,
    k: i32,
    lda: i32,
    ldb: i32,
    ldc: i32,
    batch: i32,
}

impl ColumnMajor {
    /// Takes the operands of our product, and exchanges `a` and `b`.
    fn new([a, b, c]: [&Operand; 3], shape: GemmShape) -> Result<Self, CudaError> {
        let GemmShape { rows, inner, columns, count } = shape;
        let int = |x: usize| {
            i32::try_from(x).map_err(|_| CudaError(format!("a matrix product of size {x}: cuBLAS allows 2³¹ - 1")))
        };
        let (m, n, k) = (int(columns)?, int(rows)?, int(inner)?);
        let (lda, ldb, ldc, batch) = (int(b.row_stride)?, int(a.row_stride)?, int(c.row_stride)?, int(count)?);
        Ok(Self { opa: b.operation(), opb: a.operation(), m, n, k, lda, ldb, ldc, batch })
    }
}

/// The sizes of `count` products `[rows, inner] [inner, columns]`.
#[derive(Clone, Copy)]
pub(super) struct GemmShape {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) count: usize,
}

/// A matrix, or a batch of them, in GPU memory. Offsets and strides are counted in elements.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) buffer: &'a DeviceBuffer,
    pub(super) offset: usize,
    /// From a row to the next.
    pub(super) row_stride: usize,
    /// From a matrix of the batch to the next; 0 uses one matrix in every product.
    pub(super) matrix_stride: usize,
    /// Whether the memory contains the transpose of the operand.
    pub(super) transposed: bool,
}

impl Operand<'_> {
    /// The address of the first element, where elements are `T`.
    fn address<T>(&self) -> CUdeviceptr {
        self.buffer.pointer + (self.offset * size_of::<T>()) as u64
    }

    fn operation(&self) -> cublasOperation_t {
        if self.transposed { cublasOperation_t::CUBLAS_OP_T } else { cublasOperation_t::CUBLAS_OP_N }
    }
}
