//! Weight matrices in the layout that products read fastest.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Dim, Ix2};
use rayon::prelude::*;

use super::{gemm, split};
use crate::memory::{self, HostArray};

/// Columns of a panel: a few vector registers wide, and a panel of GPT-2 small's `d_model` rows fits the second-level
/// cache.
pub(super) const WIDTH: usize = 64;
/// Rows of a product that one task computes; what is read again for every panel then stays in the cache.
const ROWS: usize = 256;

/// A matrix `[inner, columns]` cut into panels of [`WIDTH`] columns, each contiguous and row by row, the last one
/// narrower. A product then reads its weights front to back, and needs no copy of them in another order.
///
/// Every panel times every block of rows is one task on one thread, and the blocks do not depend on the number of
/// threads: neither do the results.
pub(crate) struct PackedMatrix {
    inner: usize,
    columns: usize,
    values: Vec<f32>,
}

impl PackedMatrix {
    pub(super) fn new(w: ArrayView2<f32>) -> Self {
        let (inner, columns) = w.dim();
        let mut values = memory::zeros(inner * columns);
        let panels = values.chunks_mut(inner.max(1) * WIDTH).map(|values| {
            let shape = (inner, values.len() / inner);
            ArrayViewMut2::from_shape(shape, values).expect("a panel is contiguous")
        });
        let strips: Vec<_> = panels.zip(w.axis_chunks_iter(Axis(1), WIDTH)).collect();
        strips.into_par_iter().for_each(|(mut panel, strip)| panel.assign(&strip));
        Self { inner, columns, values }
    }

    pub(super) fn dim(&self) -> (usize, usize) {
        (self.inner, self.columns)
    }

    /// The panels, which begin at columns 0, [`WIDTH`], 2 [`WIDTH`], … Shape of each: `[inner, up to WIDTH]`.
    pub(super) fn iter(&self) -> impl Iterator<Item = ArrayView2<'_, f32>> {
        self.values.chunks(self.inner.max(1) * WIDTH).map(|values| {
            let shape = (self.inner, values.len() / self.inner);
            ArrayView2::from_shape(shape, values).expect("a panel is contiguous")
        })
    }

    /// The matrix in its usual layout.
    pub(super) fn to_array(&self) -> Array2<f32> {
        let mut w = Array2::zeros(self.dim());
        for (panel, mut to) in self.iter().zip(w.axis_chunks_iter_mut(Axis(1), WIDTH)) {
            to.assign(&panel);
        }
        w
    }

    /// `x` times the matrix; `finish` then gets each piece of a row of the result, with the column that it begins at.
    /// Shape: `[rows, inner]` → `[rows, columns]`.
    pub(super) fn product(&self, x: ArrayView2<f32>, finish: impl Fn(usize, &mut [f32]) + Sync) -> HostArray<Ix2> {
        let mut y = HostArray::uninit(Dim((x.nrows(), self.columns)));
        let panels: Vec<ArrayView2<f32>> = self.iter().collect();
        let mut tasks = Vec::new();
        for (x, y) in x.axis_chunks_iter(Axis(0), ROWS).zip(y.axis_chunks_iter_mut(Axis(0), ROWS)) {
            let strips = split(y, Axis(1), panels.iter().map(|panel| panel.ncols()));
            tasks.extend(strips.into_iter().zip(&panels).enumerate().map(|(index, (y, panel))| (index, x, panel, y)));
        }
        tasks.into_par_iter().for_each(|(index, x, panel, mut y)| {
            gemm::product(1.0, x, *panel, y.view_mut());
            for mut row in y.rows_mut() {
                finish(index * WIDTH, row.as_slice_mut().expect("a piece of a row is contiguous"));
            }
        });
        y
    }
}
