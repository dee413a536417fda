//! Products of matrices, by cuBLAS.

use cudarc::cublas::sys::cublasOperation_t;
use cudarc::driver::sys::CUdeviceptr;

use super::device::CudaGpu;
use super::error::CudaError;
use super::memory::Memory;

impl CudaGpu {
    /// `c = factor a b`, a product for each of `count`. cuBLAS reads matrices column by column: to it, ours are transposed,
    /// so it is asked for `cᵀ = bᵀ aᵀ`.
    ///
    /// In single precision: nothing here asks for TF32. (The driver's `NVIDIA_TF32_OVERRIDE=1` does, for every program.)
    #[allow(unsafe_code)]
    pub(super) fn products(
        &self,
        factor: f32,
        a: Operand,
        b: Operand,
        c: Operand,
        shape: Shape,
    ) -> Result<(), CudaError> {
        let Shape { rows, inner, columns, count } = shape;
        let reach = |operand: &Operand, [rows, columns]: [usize; 2]| {
            let [rows, columns] = if operand.transposed { [columns, rows] } else { [rows, columns] };
            operand.first + (count - 1) * operand.next + (rows - 1) * operand.row + columns
        };
        for (operand, shape) in [(&a, [rows, inner]), (&b, [inner, columns]), (&c, [rows, columns])] {
            assert!(reach(operand, shape) * size_of::<f32>() <= operand.memory.bytes, "a product beyond its memory");
        }
        let Call { opa, opb, m, n, k, lda, ldb, ldc, batch } = Call::new([&a, &b, &c], shape)?;
        let blas = self.blas()?;
        let (handle, beta) = (*blas.handle(), 0.0);
        let (pa, pb, pc) =
            (b.address::<f32>() as *const f32, a.address::<f32>() as *const f32, c.address::<f32>() as *mut f32);
        // SAFETY: the three operands lie inside their memory, as was just checked; the memory is of this gpu, and is freed in
        // the order of the gpu's work, behind this product.
        unsafe {
            if count == 1 {
                cudarc::cublas::result::sgemm(handle, opa, opb, m, n, k, &factor, pa, lda, pb, ldb, &beta, pc, ldc)?;
            } else {
                let (sa, sb, sc) = (b.next as i64, a.next as i64, c.next as i64);
                cudarc::cublas::result::sgemm_strided_batched(
                    handle, opa, opb, m, n, k, &factor, pa, lda, sa, pb, ldb, sb, &beta, pc, ldc, sc, batch,
                )?;
            }
        }
        Ok(())
    }

    /// [`products`](Self::products) of matrices that lie anywhere on the gpu: an operand's memory has their addresses, and
    /// `first` is the place of the first of them there.
    ///
    /// # Safety
    /// At every address lies a matrix of the shape in memory of this gpu, once the work that was asked for before is done.
    #[allow(unsafe_code)]
    pub(super) unsafe fn products_of_listed(
        &self,
        factor: f32,
        a: Operand,
        b: Operand,
        c: Operand,
        shape: Shape,
    ) -> Result<(), CudaError> {
        for operand in [&a, &b, &c] {
            assert!(
                (operand.first + shape.count) * size_of::<u64>() <= operand.memory.bytes,
                "more matrices than listed"
            );
        }
        let Call { opa, opb, m, n, k, lda, ldb, ldc, batch } = Call::new([&a, &b, &c], shape)?;
        let blas = self.blas()?;
        let (handle, beta) = (*blas.handle(), 0.0);
        let (pa, pb, pc) =
            (b.address::<u64>() as *const _, a.address::<u64>() as *const _, c.address::<u64>() as *const _);
        // SAFETY: the lists are as long as was just checked, and the caller says what is at the addresses.
        unsafe {
            cudarc::cublas::sys::cublasSgemmBatched(
                handle, opa, opb, m, n, k, &factor, pa, lda, pb, ldb, &beta, pc, ldc, batch,
            )
        }
        .result()?;
        Ok(())
    }
}

/// What is asked of cuBLAS, in its own numbers.
struct Call {
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

impl Call {
    /// Of `a`, `b` and `c`, as ours.
    fn new([a, b, c]: [&Operand; 3], Shape { rows, inner, columns, count }: Shape) -> Result<Self, CudaError> {
        let int =
            |x: usize| i32::try_from(x).map_err(|_| CudaError(format!("a product of size {x}: cuBLAS takes 2³¹ - 1")));
        let (m, n, k) = (int(columns)?, int(rows)?, int(inner)?);
        let (lda, ldb, ldc, batch) = (int(b.row)?, int(a.row)?, int(c.row)?, int(count)?);
        Ok(Self { opa: b.operation(), opb: a.operation(), m, n, k, lda, ldb, ldc, batch })
    }
}

/// The sizes of `count` products `[rows, inner] [inner, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) count: usize,
}

/// Where the numbers of a matrix lie, or of several; distances are counted in numbers.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) memory: &'a Memory,
    pub(super) first: usize,
    /// From a row to the next.
    pub(super) row: usize,
    /// From a matrix to the next.
    pub(super) next: usize,
    /// Whether it is the transposed matrix that lies there.
    pub(super) transposed: bool,
}

impl Operand<'_> {
    /// Of the first of the numbers, which are `T`.
    fn address<T>(&self) -> CUdeviceptr {
        self.memory.pointer + (self.first * size_of::<T>()) as u64
    }

    fn operation(&self) -> cublasOperation_t {
        match self.transposed {
            false => cublasOperation_t::CUBLAS_OP_N,
            true => cublasOperation_t::CUBLAS_OP_T,
        }
    }
}
