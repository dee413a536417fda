//! The logits of many rows of the residual stream, without all of them in memory.

use ndarray::{ArrayView1, ArrayView2, Axis};

use crate::error::Result;
use crate::model::Gpt2;

/// Rows that are unembedded together; it bounds the memory of their logits to 50 MB for GPT-2's vocabulary.
const ROWS_AT_A_TIME: usize = 256;

/// Calls `f` with the index and the logits of each row, after the final layer norm and the unembedding.
/// Shape: `rows [row, d_model]`, `logits [d_vocab]`, contiguous.
pub(super) fn for_each_logits(
    model: &Gpt2,
    rows: ArrayView2<f32>,
    mut f: impl FnMut(usize, ArrayView1<f32>),
) -> Result<()> {
    for (chunk, rows) in rows.axis_chunks_iter(Axis(0), ROWS_AT_A_TIME).enumerate() {
        let logits = model.on_device().unembed(rows.to_owned())?; // [rows, d_vocab]
        (chunk * ROWS_AT_A_TIME..).zip(logits.rows()).for_each(|(row, logits)| f(row, logits));
    }
    Ok(())
}

/// The number of tokens with a larger logit. Shape: `logits [d_vocab]`.
pub(super) fn rank(logits: ArrayView1<f32>, token: u32) -> usize {
    let logit = logits[token as usize];
    logits.iter().filter(|&&other| other > logit).count()
}
