//! Edits of matrices in GPU memory: only the list of changes is copied to the GPU.

use std::sync::Arc;

use cudarc::driver::LaunchAsync;

use super::DeviceMatrix;
use super::buffer::DeviceBuffer;
use super::device::CudaGpu;
use super::error::CudaError;
use super::kernels::block_per_row;
use crate::backend::RowEdits;
use crate::backend::edits::RowChange;

/// Words of a change: how, the index of its first column, the number of columns, the index of its first value, and the
/// step from a value to the next.
const CHANGE_WORDS: usize = 5;

/// Changes a matrix. Shape: `x [rows, columns]`.
pub(super) fn edit(gpu: &Arc<CudaGpu>, x: DeviceMatrix, edits: &RowEdits) -> Result<DeviceMatrix, CudaError> {
    let x = x.unshared(gpu)?;
    edit_rows(gpu, &x.buffer, &[(0, edits)], x.columns, 0)?;
    Ok(x)
}

/// Changes scores or patterns where key ≤ query, for prompts of `pos` tokens. `edits` has those of each prompt, whose rows
/// count over heads and queries. Shape: `cells [prompts, n_heads, pos, pos]`.
pub(super) fn edit_cells<'a>(
    gpu: &Arc<CudaGpu>,
    cells: &DeviceBuffer,
    edits: impl Iterator<Item = &'a RowEdits>,
    [n_heads, pos]: [usize; 2],
) -> Result<(), CudaError> {
    let edits: Vec<(usize, &RowEdits)> =
        edits.enumerate().map(|(prompt, edits)| (prompt * n_heads * pos, edits)).collect();
    edit_rows(gpu, cells, &edits, pos, pos)
}

/// Changes rows of `columns` numbers, of which those after the `index % pos`-th stay where `pos` is not 0. The rows of each
/// list count from a row of the matrix.
#[allow(unsafe_code)]
fn edit_rows(
    gpu: &Arc<CudaGpu>,
    x: &DeviceBuffer,
    edits: &[(usize, &RowEdits)],
    columns: usize,
    pos: usize,
) -> Result<(), CudaError> {
    let n_rows = edits.iter().map(|(_, edits)| edits.rows.len()).sum();
    if n_rows == 0 {
        return Ok(());
    }
    let words = DeviceBuffer::upload(gpu, &words(edits, n_rows)?)?;
    let parameters = (x, &words, columns as u32, pos as u32);
    // SAFETY: the parameters are those of the kernel, which has a block for each changed row. The plan of a run checked the
    // rows against its prompts; the kernel leaves out columns beyond a row's end.
    Ok(unsafe { gpu.kernels.edit_rows.clone().launch(block_per_row(n_rows), parameters) }?)
}

/// The changes as the kernel reads them: the changed rows, the index of each row's first change, one more for the end,
/// then the changes, the columns and the values. Shape: → `[words]`.
fn words(edits: &[(usize, &RowEdits)], n_rows: usize) -> Result<Vec<u32>, CudaError> {
    let changes_of = |edits: &RowEdits| edits.rows.values().map(Vec::len).sum::<usize>();
    let n_changes: usize = edits.iter().map(|(_, edits)| changes_of(edits)).sum();
    let n_columns: usize = edits.iter().map(|(_, edits)| edits.columns.len()).sum();
    let n_values: usize = edits.iter().map(|(_, edits)| edits.values.len()).sum();
    let columns_at = 2 * n_rows + 1 + CHANGE_WORDS * n_changes;
    let (mut first_column, mut first_value) = (columns_at, columns_at + n_columns);
    let n_words = first_value + n_values;
    if u32::try_from(n_words).is_err() {
        return Err(CudaError(format!("an intervention of {n_values} numbers: change fewer in one run")));
    }
    let (mut rows, mut starts, mut changes) = (Vec::new(), vec![0], Vec::with_capacity(CHANGE_WORDS * n_changes));
    let (mut columns, mut values) = (Vec::with_capacity(n_columns), Vec::with_capacity(n_values));
    for (first_row, edits) in edits {
        for (row, of_row) in &edits.rows {
            rows.push((first_row + row) as u32);
            for RowChange { change, columns, first_value: value, value_step } in of_row {
                let of_change =
                    [first_column + columns.start, columns.len(), first_value + value, *value_step].map(|x| x as u32);
                changes.push(*change as u32);
                changes.extend(of_change);
            }
            starts.push((changes.len() / CHANGE_WORDS) as u32);
        }
        columns.extend(edits.columns.iter().map(|&column| column as u32));
        values.extend(edits.values.iter().map(|value| value.to_bits()));
        first_column += edits.columns.len();
        first_value += edits.values.len();
    }
    Ok([rows, starts, changes, columns, values].concat())
}
