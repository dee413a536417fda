//! Weight matrices packed for fast products.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Dim, Ix2};
use rayon::prelude::*;

use super::{gemm, split};
use crate::memory::{self, HostArray};

/// Columns of a panel: a few SIMD registers wide, and a panel of GPT-2 small's `d_model` rows fits the L2 cache.
pub(super) const PANEL_WIDTH: usize = 64;
/// Rows of `x` per task: the block is read again for every panel, and stays in the cache meanwhile.
const ROWS_PER_TASK: usize = 256;

/// A matrix `[inner, columns]` packed into panels of [`PANEL_WIDTH`] columns (the last may be narrower), each
/// contiguous and in row-major order. A product reads its weights front to back, and needs no other copy of them.
///
/// One task multiplies one panel and one block of rows, on one thread. The blocks do not depend on the number of
/// threads, so neither do the results.
pub(crate) struct PackedMatrix {
    inner: usize,
    columns: usize,
    values: Vec<f32>,
}

impl PackedMatrix {
    /// Packs a matrix. Shape: `w [inner, columns]`.
    pub(super) fn new(w: ArrayView2<f32>) -> Self {
        let (inner, columns) = w.dim();
        let mut values = memory::zeros(inner * columns);
        let panels = values.chunks_mut(inner.max(1) * PANEL_WIDTH).map(|values| {
            let shape = (inner, values.len() / inner);
            ArrayViewMut2::from_shape(shape, values).expect("a panel is contiguous")
        });
        let copies: Vec<_> = panels.zip(w.axis_chunks_iter(Axis(1), PANEL_WIDTH)).collect();
        copies.into_par_iter().for_each(|(mut panel, columns)| panel.assign(&columns));
        Self { inner, columns, values }
    }

    /// `(inner, columns)`.
    pub(super) fn dim(&self) -> (usize, usize) {
        (self.inner, self.columns)
    }

    /// The panels. Panel `i` begins at column `i · PANEL_WIDTH`. Shape: each `[inner, up to PANEL_WIDTH]`.
    pub(super) fn panels(&self) -> impl Iterator<Item = ArrayView2<'_, f32>> {
        self.values.chunks(self.inner.max(1) * PANEL_WIDTH).map(|values| {
            let shape = (self.inner, values.len() / self.inner);
            ArrayView2::from_shape(shape, values).expect("a panel is contiguous")
        })
    }

    /// The matrix in row-major order. Shape: → `[inner, columns]`.
    pub(super) fn to_array(&self) -> Array2<f32> {
        let mut w = Array2::zeros(self.dim());
        for (panel, mut columns) in self.panels().zip(w.axis_chunks_iter_mut(Axis(1), PANEL_WIDTH)) {
            columns.assign(&panel);
        }
        w
    }

    /// `x W`. `epilogue(column, values)` then updates each piece of a row in place; `column` is where the piece begins.
    /// Shape: `[rows, inner]` → `[rows, columns]`.
    pub(super) fn matmul(&self, x: ArrayView2<f32>, epilogue: impl Fn(usize, &mut [f32]) + Sync) -> HostArray<Ix2> {
        let mut y = HostArray::from_pool(Dim((x.nrows(), self.columns)));
        let panels: Vec<ArrayView2<f32>> = self.panels().collect();
        let mut tasks = Vec::new();
        for (x, y) in x.axis_chunks_iter(Axis(0), ROWS_PER_TASK).zip(y.axis_chunks_iter_mut(Axis(0), ROWS_PER_TASK)) {
            let by_panel = split(y, Axis(1), panels.iter().map(|panel| panel.ncols()));
            tasks.extend(by_panel.into_iter().zip(&panels).enumerate().map(|(index, (y, panel))| (index, x, panel, y)));
        }
        tasks.into_par_iter().for_each(|(index, x, panel, mut y)| {
            gemm::matmul(1.0, x, *panel, y.view_mut()); // [rows, inner] × [inner, width]
            for mut row in y.rows_mut() {
                epilogue(index * PANEL_WIDTH, row.as_slice_mut().expect("a piece of a row is contiguous"));
            }
        });
        y
    }
}
