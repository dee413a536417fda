//! The one call into the crate `gemm`, behind a safe function.

use ndarray::{ArrayView2, ArrayViewMut2};

/// Tells `gemm` not to pack the left factor of a product on one thread: [packed weights](super::packed) are contiguous
/// already, so another copy would only cost time. The setting is global to the process; results do not depend on it.
pub(super) fn disable_lhs_packing() {
    gemm::set_lhs_packing_threshold_single_thread(usize::MAX); // gemm clamps it to its maximum
}

/// `y = scale · x w` on the calling thread, for any strides.
/// Shape: `x [rows, inner]`, `w [inner, columns]`, `y [rows, columns]`.
#[allow(unsafe_code)]
pub(super) fn matmul(scale: f32, x: ArrayView2<f32>, w: ArrayView2<f32>, mut y: ArrayViewMut2<f32>) {
    let ((rows, inner), columns) = (x.dim(), w.ncols());
    assert_eq!(w.nrows(), inner, "the factors' inner sizes");
    assert_eq!(y.dim(), (rows, columns), "the product's shape");
    if inner == 0 {
        y.fill(0.0);
        return;
    }
    let (x_strides, w_strides) = ([x.strides()[0], x.strides()[1]], [w.strides()[0], w.strides()[1]]);
    let y_strides = [y.strides()[0], y.strides()[1]];
    // gemm reads SIMD vectors along the first axis of its left factor, so it computes yᵀ = wᵀ xᵀ: the weights are the
    // left factor, and their rows are contiguous.
    //
    // SAFETY: pointers and strides are those of views whose shapes were just checked against each other, so every
    // index below these sizes is inside its view. `y` is borrowed mutably, so it overlaps neither factor, and
    // `read_dst = false` keeps gemm from reading it.
    unsafe {
        gemm::gemm(
            columns,
            rows,
            inner,
            y.as_mut_ptr(),
            y_strides[0],
            y_strides[1],
            false,
            w.as_ptr(),
            w_strides[0],
            w_strides[1],
            x.as_ptr(),
            x_strides[0],
            x_strides[1],
            0.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
