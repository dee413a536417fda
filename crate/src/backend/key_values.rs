//! The keys and values of earlier positions.

use ndarray::{Array2, ArrayView2, aview1};

/// The keys and values of one layer at the positions of one prompt that were already computed, in the host's memory.
pub(crate) struct KeyValues {
    /// `n_heads d_head`.
    columns: usize,
    /// Row by row. Shape: `[pos, n_heads d_head]`.
    k: Vec<f32>,
    /// Row by row. Shape: `[pos, n_heads d_head]`.
    v: Vec<f32>,
}

impl KeyValues {
    /// Of no position yet. `columns` is `n_heads d_head`.
    pub(crate) fn new(columns: usize) -> Self {
        Self { columns, k: Vec::new(), v: Vec::new() }
    }

    /// The number of positions.
    pub(crate) fn len(&self) -> usize {
        self.k.len() / self.columns
    }

    /// Forgets every position.
    pub(crate) fn clear(&mut self) {
        self.k.clear();
        self.v.clear();
    }

    /// Adds positions. Shape: both `[pos, n_heads d_head]`.
    pub(crate) fn push(&mut self, k: ArrayView2<f32>, v: ArrayView2<f32>) {
        self.k.extend(k);
        self.v.extend(v);
    }

    /// The keys. Shape: → `[pos, n_heads d_head]`.
    pub(crate) fn k(&self) -> ArrayView2<'_, f32> {
        by_row(&self.k, self.columns)
    }

    /// The values. Shape: → `[pos, n_heads d_head]`.
    pub(crate) fn v(&self) -> ArrayView2<'_, f32> {
        by_row(&self.v, self.columns)
    }
}

/// Shape: `[rows · columns]` → `[rows, columns]`.
fn by_row(x: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    aview1(x).into_shape_with_order((x.len() / columns, columns)).expect("whole rows")
}

/// All rows of all prompts as one matrix. Shape: each `[pos, columns]` → `[rows, columns]`.
pub(super) fn concatenate<'a>(columns: usize, prompts: impl Iterator<Item = ArrayView2<'a, f32>>) -> Array2<f32> {
    let values: Vec<f32> = prompts.flatten().copied().collect();
    Array2::from_shape_vec((values.len() / columns, columns), values).expect("whole rows")
}
