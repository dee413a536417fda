//! The one call into `gemm`, behind a safe function.

use ndarray::{ArrayView2, ArrayViewMut2};

/// Panels are contiguous, so packing them again would only cost time: `gemm` is told not to copy the left factor of a
/// product on one thread. (Its setting holds for the whole process; results do not depend on it.)
pub(super) fn take_panels_as_they_are() {
    gemm::set_lhs_packing_threshold_single_thread(usize::MAX); // clamped to the most that it takes
}

/// `y = scale · x w` on the calling thread, whatever the strides are.
/// Shape: `x [rows, inner]`, `w [inner, columns]`, `y [rows, columns]`.
#[allow(unsafe_code)]
pub(super) fn product(scale: f32, x: ArrayView2<f32>, w: ArrayView2<f32>, mut y: ArrayViewMut2<f32>) {
    let ((rows, inner), columns) = (x.dim(), w.ncols());
    assert_eq!(w.nrows(), inner, "the factors' inner sizes");
    assert_eq!(y.dim(), (rows, columns), "the product's shape");
    if inner == 0 {
        y.fill(0.0);
        return;
    }
    let (x_strides, w_strides) = ([x.strides()[0], x.strides()[1]], [w.strides()[0], w.strides()[1]]);
    let y_strides = [y.strides()[0], y.strides()[1]];
    // gemm reads its left factor in vectors along its first axis, so it is given yᵀ = wᵀ xᵀ: the weights are the left
    // factor, and their rows are contiguous.
    //
    // SAFETY: pointers and strides are those of views whose shapes were just checked against each other, so every
    // index below these sizes lies inside its view. `y` is borrowed mutably, so it overlaps neither factor, and
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
