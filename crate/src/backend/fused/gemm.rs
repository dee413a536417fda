//! Float products, by the crate `rten-gemm`.
//!
//! `rten-gemm` splits a product among threads if it has more than 64 rows or more than 128 columns. The products here
//! are smaller, or their callers expect it. It never splits the sum of a value, so results do not depend on threads.

use std::mem::MaybeUninit;

use ndarray::ArrayView2;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, GemmUninitOptions, PackedBMatrix};
use rten_tensor::{Matrix, MatrixLayout, NdTensorView};

/// The most rows of a product that one thread computes.
pub(super) const ROWS_PER_TASK: usize = 64;
/// The most columns of a product that one thread computes.
pub(super) const COLUMNS_PER_TASK: usize = 128;

/// Matrix products of floats. Making one costs nothing: it only picks the kernel for this processor.
type FloatGemm = GemmExecutor<f32>;

/// Memory for the product of one task, not initialized.
pub(super) type Product = [MaybeUninit<f32>; ROWS_PER_TASK * COLUMNS_PER_TASK];

/// New memory for the product of one task.
pub(super) const fn new_product() -> Product {
    [MaybeUninit::uninit(); ROWS_PER_TASK * COLUMNS_PER_TASK]
}

/// The same matrix for `rten-gemm`; it must be contiguous, row by row or column by column.
/// Shape: `[rows, columns]` → the same.
pub(super) fn tensor(x: ArrayView2<'_, f32>) -> Matrix<'_> {
    let (shape, by_row) = ([x.nrows(), x.ncols()], x.is_standard_layout());
    let values = if by_row { x.to_slice() } else { x.reversed_axes().to_slice() }.expect("the matrix is contiguous");
    if by_row {
        NdTensorView::from_data(shape, values)
    } else {
        NdTensorView::from_data([shape[1], shape[0]], values).transposed()
    }
}

/// Packs a right factor as the kernel reads it. Shape: `w [inner, columns]`, not empty.
pub(super) fn pack(w: Matrix) -> PackedBMatrix<f32> {
    FloatGemm::new().prepack_b(w)
}

/// `scale · x w`, written into the beginning of `product`.
/// Shape: `x [rows, inner]`, `w [inner, columns]` → `[rows · columns]`, row by row.
pub(super) fn matmul<'a>(
    scale: f32,
    x: Matrix,
    w: GemmInputB<f32>,
    product: &'a mut [MaybeUninit<f32>],
) -> &'a mut [f32] {
    let options = GemmUninitOptions { alpha: scale, bias: None, a_quant: None, b_quant: None };
    let product = &mut product[..x.rows() * w.cols()];
    FloatGemm::new().gemm_uninit(product, GemmInputA::Unpacked(x), w, options).expect("the shapes fit each other")
}

/// `y = x w`, or `y += x w` if `add` is set. Shape: `x [rows, inner]`, `w [inner, columns]`, `y [rows · columns]`.
pub(super) fn matmul_into(x: Matrix, w: GemmInputB<f32>, y: &mut [f32], add: bool) {
    let options = GemmOptions { beta: f32::from(u8::from(add)), ..GemmOptions::default() };
    FloatGemm::new().gemm(y, GemmInputA::Unpacked(x), w, options).expect("the shapes fit each other");
}
