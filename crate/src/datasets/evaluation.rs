//! What a model predicts after each prompt of a data set.

use ndarray::ArrayView1;

use crate::error::Result;
use crate::model::Gpt2;

/// Prompts that are run together.
const PROMPTS_AT_A_TIME: usize = 32;

/// Calls a function with the index of each prompt and the logits after its last token.
/// Shape: `tokens [prompt][pos]`; logits `[d_vocab]`.
pub(super) fn for_each_last_logits(
    model: &Gpt2,
    tokens: Vec<Vec<u32>>,
    mut each: impl FnMut(usize, ArrayView1<f32>),
) -> Result<()> {
    let tokens = model.checked_prompts(tokens.into())?;
    for (batch, prompts) in tokens.chunks(PROMPTS_AT_A_TIME).enumerate() {
        let logits = model.logits_at(prompts.to_vec(), &[-1])?; // [prompt] [1, d_vocab]
        (batch * PROMPTS_AT_A_TIME..).zip(&logits).for_each(|(prompt, logits)| each(prompt, logits.row(0)));
    }
    Ok(())
}

/// The probabilities of some tokens. Shape: `logits [d_vocab]` → `[n]`.
pub(super) fn probabilities(logits: ArrayView1<f32>, tokens: &[u32]) -> Vec<f64> {
    let largest = f64::from(logits.fold(f32::NEG_INFINITY, |largest, &x| largest.max(x)));
    let weight = |x: f32| (f64::from(x) - largest).exp();
    let total: f64 = logits.iter().map(|&x| weight(x)).sum();
    tokens.iter().map(|&token| weight(logits[token as usize]) / total).collect()
}

/// The mean, 0 of nothing.
pub(super) fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len().max(1) as f64
}
