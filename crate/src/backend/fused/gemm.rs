//! Float products, by the crate `rten-gemm`.
//!
//! `rten-gemm` splits a product among threads if it has more than 64 rows or more than 128 columns. The products here
//! are smaller, or their callers expect it. It never splits the sum of a value, so results do not depend on threads.

use std::mem::MaybeUninit;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, GemmUninitOptions, PackedBMatrix};
use rten_tensor::{Matrix, NdTensorView};

/// The most rows of a product that one thread computes.
pub(super) const ROWS_PER_TASK: usize = 64;
/// The most columns of a product that one thread computes.
pub(super) const COLUMNS_PER_TASK: usize = 128;

/// Matrix products of floats. Making one costs nothing: it only picks the kernel for this processor.
type FloatGemm = GemmExecutor<f32>;

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

/// `y = epilogue(scale · x w)` on the calling thread, for at most [`COLUMNS_PER_TASK`] columns. `epilogue` updates each
/// row in place. The rows of `y` may be pieces of longer ones.
/// Shape: `x [rows, inner]`, `w [inner, columns]`, `y [rows, columns]`.
pub(super) fn matmul(
    scale: f32,
    x: Matrix,
    w: &PackedBMatrix<f32>,
    mut y: ArrayViewMut2<f32>,
    epilogue: impl Fn(&mut [f32]),
) {
    let columns = w.cols();
    for (index, mut y) in y.axis_chunks_iter_mut(Axis(0), ROWS_PER_TASK).enumerate() {
        let first = index * ROWS_PER_TASK;
        let x = GemmInputA::Unpacked(x.slice((first..first + y.nrows(), ..)));
        // rten-gemm writes contiguous products only.
        let mut product = [MaybeUninit::uninit(); ROWS_PER_TASK * COLUMNS_PER_TASK];
        let product = &mut product[..y.nrows() * columns];
        let options = GemmUninitOptions { alpha: scale, bias: None, a_quant: None, b_quant: None };
        let product = FloatGemm::new().gemm_uninit(product, x, GemmInputB::Packed(w), options);
        let product = product.expect("the shapes fit each other");
        for (mut y, product) in y.rows_mut().into_iter().zip(product.chunks_exact_mut(columns)) {
            epilogue(product);
            y.as_slice_mut().expect("a piece of a row is contiguous").copy_from_slice(product);
        }
    }
}

/// `y = x w`, or `y += x w` if `add` is set. Shape: `x [rows, inner]`, `w [inner, columns]`, `y [rows · columns]`.
pub(super) fn matmul_into(x: Matrix, w: GemmInputB<f32>, y: &mut [f32], add: bool) {
    let options = GemmOptions { beta: f32::from(u8::from(add)), ..GemmOptions::default() };
    FloatGemm::new().gemm(y, GemmInputA::Unpacked(x), w, options).expect("the shapes fit each other");
}
