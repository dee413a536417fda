//! Edits of a matrix in place, and attention whose scores and patterns are edited.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut1, ArrayViewMut2, s};

use super::{AttentionOutput, Backend, Heads};
use crate::error::Result;
use crate::memory::HostArray;

/// An edit of a matrix in place, as [`Backend::edit`] takes it. Shape: `[rows, columns]`.
pub(crate) struct Edit<'a> {
    /// Changes the matrix on the host.
    pub(super) on_host: &'a mut dyn FnMut(ArrayViewMut2<f32>) -> Result<()>,
    /// The same changes row by row, from the number of columns.
    by_row: &'a dyn Fn(usize) -> Option<RowEdits>,
}

impl<'a> Edit<'a> {
    /// An edit that only the host can make.
    pub(crate) fn on_host(on_host: &'a mut dyn FnMut(ArrayViewMut2<f32>) -> Result<()>) -> Self {
        Self { on_host, by_row: &|_| None }
    }

    /// The same edit, for a device to make. `by_row` gets the number of columns, and returns `None` where only the host
    /// can make the edit.
    pub(crate) fn or_by_row(self, by_row: &'a dyn Fn(usize) -> Option<RowEdits>) -> Self {
        Self { by_row, ..self }
    }

    /// The changes row by row; `None` if only the host can make the edit.
    pub(super) fn by_row(&self, columns: usize) -> Option<RowEdits> {
        (self.by_row)(columns)
    }
}

/// How a number changes. The numbers of the variants are those in `kernels.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Change {
    Set = 0,
    Add = 1,
    /// A number that is not finite stays, because −∞ · 0 is no number.
    Scale = 2,
}

impl Change {
    fn of(self, x: f32, value: f32) -> f32 {
        match self {
            Self::Set => value,
            Self::Add => x + value,
            Self::Scale if x.is_finite() => x * value,
            Self::Scale => x,
        }
    }
}

/// A change of some columns of one row.
#[derive(Clone, Debug)]
pub(super) struct RowChange {
    pub(super) change: Change,
    /// The indices of its columns in [`RowEdits::columns`].
    pub(super) columns: Range<usize>,
    /// The index of its first value in [`RowEdits::values`].
    pub(super) first_value: usize,
    /// From a column's value to that of the next: 1, or 0 if all columns have one value.
    pub(super) value_step: usize,
}

/// Changes of the rows of a matrix: those of a row apply in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowEdits {
    pub(super) rows: BTreeMap<usize, Vec<RowChange>>,
    pub(super) columns: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl RowEdits {
    /// Adds a change where rows and columns cross. `None`, and no change, if a column is listed twice: a device changes the
    /// columns of a row at once. Shape: `values [rows or 1, columns or 1]`.
    pub(crate) fn push(
        &mut self,
        rows: impl IntoIterator<Item = usize>,
        columns: &[usize],
        change: Change,
        values: ArrayView2<f32>,
    ) -> Option<()> {
        let mut seen = HashSet::new();
        if !columns.iter().all(|column| seen.insert(column)) {
            return None;
        }
        let (first_column, first_value) = (self.columns.len(), self.values.len());
        self.columns.extend(columns);
        self.values.extend(values);
        let columns = first_column..self.columns.len();
        let row_step = if values.nrows() == 1 { 0 } else { values.ncols() };
        for (index, row) in rows.into_iter().enumerate() {
            self.rows.entry(row).or_default().push(RowChange {
                change,
                columns: columns.clone(),
                first_value: first_value + index * row_step,
                value_step: usize::from(values.ncols() > 1),
            });
        }
        Some(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Changes a row, or its first columns, and returns whether there is a change of it. Shape: `x [up to columns]`.
    pub(crate) fn apply(&self, row: usize, x: &mut [f32]) -> bool {
        let changes = self.rows.get(&row);
        for RowChange { change, columns, first_value, value_step } in changes.into_iter().flatten() {
            for (index, &column) in self.columns[columns.clone()].iter().enumerate() {
                if let Some(x) = x.get_mut(column) {
                    *x = change.of(*x, self.values[first_value + index * value_step]);
                }
            }
        }
        changes.is_some()
    }

    /// Changes every cell with key ≤ query. Rows count over heads and queries. Shape: `[n_heads, query_pos, key_pos]`.
    pub(crate) fn apply_to_cells(&self, cells: &mut Array3<f32>) {
        let pos = cells.dim().1;
        for &row in self.rows.keys() {
            let visible = s![row / pos, row % pos, ..=row % pos];
            self.apply(row, cells.slice_mut(visible).into_slice().expect("a row is contiguous"));
        }
    }
}

/// Edits of one prompt's attention. Rows count over heads and queries, columns are keys; cells with key > query stay
/// masked.
#[derive(Clone, Debug, Default)]
pub(crate) struct CellEdits {
    pub(crate) scores: RowEdits,
    pub(crate) pattern: RowEdits,
}

/// [`Backend::edit`] on the host. Row by row where that is possible, as devices do it, so that tests without a GPU compare
/// the two descriptions of an edit.
pub(super) fn edit_on_host<B: Backend>(backend: &B, x: B::Tensor, edit: Edit) -> Result<B::Tensor> {
    let mut x = backend.download(&x)?.into_owned();
    match edit.by_row(x.ncols()) {
        Some(edits) => {
            for &row in edits.rows.keys() {
                edits.apply(row, x.row_mut(row).into_slice().expect("a row is contiguous"));
            }
        }
        None => (edit.on_host)(x.view_mut())?,
    }
    backend.upload(x)
}

/// [`Backend::edited_attention`] on the host.
pub(super) fn attention_on_host<B: Backend>(
    backend: &B,
    [q, k, v]: [&B::Tensor; 3],
    heads: Heads,
    prompts: &[Range<usize>],
    keep_pattern: bool,
    edits: &[CellEdits],
) -> Result<AttentionOutput<B::Tensor>> {
    let v = backend.download(v)?;
    let d_head = v.ncols() / heads.n_heads;
    let (mut z, mut pattern) = (Array2::zeros(v.dim()), Vec::new());
    for (rows, edits) in prompts.iter().zip(edits) {
        let mut cells = backend.attn_scores(q, k, heads, rows.clone())?.compute()?.into_owned();
        edits.scores.apply_to_cells(&mut cells);
        cells.rows_mut().into_iter().for_each(softmax);
        edits.pattern.apply_to_cells(&mut cells);
        for (head, pattern) in cells.outer_iter().enumerate() {
            let of_head = s![rows.clone(), head * d_head..(head + 1) * d_head];
            z.slice_mut(of_head).assign(&pattern.dot(&v.slice(of_head))); // [pos, d_head]
        }
        if keep_pattern {
            pattern.push(HostArray::from(cells).into());
        }
    }
    Ok(AttentionOutput { z: backend.upload(z)?, pattern })
}

/// The softmax of a row of scores, in place; zeros if every score is −∞. Shape: `[key_pos]`.
pub(crate) fn softmax(mut row: ArrayViewMut1<f32>) {
    let largest = row.fold(f32::NEG_INFINITY, |largest, &x| largest.max(x));
    if largest == f32::NEG_INFINITY {
        row.fill(0.0);
        return;
    }
    row.mapv_inplace(|x| (x - largest).exp());
    let sum = row.sum();
    row.mapv_inplace(|x| x / sum);
}
