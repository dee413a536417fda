//! Planned edits as changes row by row, which a device can apply.

use ndarray::{Array2, ArrayD, ArrayViewD, Axis, CowArray, IxDyn};

use super::plan::{How, PlannedEdit};
use crate::backend::{Change, RowEdits};

impl PlannedEdit {
    /// Adds the edit of an activation with a row for each token, of a prompt that begins at `first_row` of the batch. `None`
    /// if only the host can make it.
    pub(in crate::model) fn push_rows(
        &self,
        first_row: usize,
        columns_per_head: usize,
        edits: &mut RowEdits,
    ) -> Option<()> {
        let [positions, heads, columns] = &self.indices;
        let (change, values) = self.change()?;
        let column = |(head, column): (&usize, &usize)| head * columns_per_head + column;
        let columns: Vec<usize> =
            heads.iter().flat_map(|head| columns.iter().map(move |column| (head, column))).map(column).collect();
        let rows = positions.iter().map(|position| first_row + position);
        edits.push(rows, &columns, change, self.matrix(values.view(), 1).view())
    }

    /// Adds the edit of the scores or the pattern of a prompt of `pos` tokens, whose rows count over heads and queries.
    /// `None` if only the host can make it.
    pub(in crate::model) fn push_cells(&self, pos: usize, edits: &mut RowEdits) -> Option<()> {
        let [heads, queries, keys] = &self.indices;
        let (change, values) = self.change()?;
        let Some(cells) = &self.cells else {
            let rows = heads.iter().flat_map(|head| queries.iter().map(move |query| head * pos + query));
            return edits.push(rows, keys, change, self.matrix(values.view(), 2).view());
        };
        let shape = IxDyn(&self.indices.each_ref().map(Vec::len));
        let cube = values.broadcast(shape).expect("the plan checked the shape");
        for (index, &query) in queries.iter().enumerate() {
            let selected: Vec<usize> =
                (0..keys.len()).filter(|&key| cells.binary_search(&(query, keys[key])).is_ok()).collect();
            let values = if values.len() == 1 {
                self.matrix(values.view(), 2)
            } else {
                let of_query = cube.index_axis(Axis(1), index).select(Axis(1), &selected);
                of_query.into_dimensionality().expect("heads and keys")
            }; // [heads, selected], or one value
            let keys: Vec<usize> = selected.iter().map(|&key| keys[key]).collect();
            if !keys.is_empty() {
                edits.push(heads.iter().map(|head| head * pos + query), &keys, change, values.view())?;
            }
        }
        Some(())
    }

    /// The change with its values, which broadcast to `indices`.
    fn change(&self) -> Option<(Change, CowArray<'_, f32, IxDyn>)> {
        Some(match &self.how {
            How::Scale(factor) => (Change::Scale, ArrayD::from_elem(IxDyn(&[]), *factor).into()),
            How::Set(values) => (Change::Set, values.view().into()),
            How::Add(values) => (Change::Add, values.view().into()),
            How::Hook(..) | How::LayerNormScale(_) => return None,
        })
    }

    /// Values as a matrix whose rows are the first `row_axes` of the three axes: one row if they are the same in all rows,
    /// one number if they are all the same. Shape: → `[rows or 1, columns or 1]`.
    fn matrix(&self, values: ArrayViewD<f32>, row_axes: usize) -> Array2<f32> {
        if values.len() == 1 {
            return Array2::from_elem((1, 1), *values.first().expect("one value"));
        }
        let mut shape = self.indices.each_ref().map(Vec::len);
        let of_rows = (values.ndim() + row_axes).saturating_sub(3); // the axes of the values that are axes of rows
        if values.shape()[..of_rows].iter().all(|&n| n == 1) {
            shape[..row_axes].fill(1);
        }
        let (rows, columns): (usize, usize) = (shape[..row_axes].iter().product(), shape[row_axes..].iter().product());
        let whole = values.broadcast(IxDyn(&shape)).expect("the plan checked the shape");
        whole.to_shape((rows, columns)).expect("as many numbers").into_owned()
    }
}
