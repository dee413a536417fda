//! The logits of many rows of the residual stream, without all of them in memory.

use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use crate::error::Result;
use crate::model::Gpt2;

/// Rows that are unembedded together; it bounds the memory of their logits to 50 MB for GPT-2's vocabulary.
const ROWS_AT_A_TIME: usize = 256;

/// What `f` finds in the logits of each row, after the final layer norm and the unembedding. It takes the row's index and
/// its logits. Shape: `rows [row, d_model]`, `logits [d_vocab]` → `[row]`.
pub(super) fn map_logits<T: Send>(
    model: &Gpt2,
    rows: ArrayView2<f32>,
    f: impl Fn(usize, ArrayView1<f32>) -> T + Sync,
) -> Result<Vec<T>> {
    let mut found = Vec::with_capacity(rows.nrows());
    for rows in rows.axis_chunks_iter(Axis(0), ROWS_AT_A_TIME) {
        let (first, logits) = (found.len(), model.on_device().unembed(rows.to_owned())?); // [rows, d_vocab]
        found.par_extend((0..logits.nrows()).into_par_iter().map(|row| f(first + row, logits.row(row))));
    }
    Ok(found)
}

/// The number of tokens with a larger logit. Shape: `logits [d_vocab]`.
pub(super) fn rank(logits: ArrayView1<f32>, token: u32) -> usize {
    let logit = logits[token as usize];
    logits.iter().filter(|&&other| other > logit).count()
}
