//! Heads: which of them do what, by their attention patterns and by what they copy.

mod attends_to;
mod detector;
mod head_scores;
mod name_movers;
mod repeated_tokens;

pub use attends_to::{AttendsTo, HeadNames, NameHeadsOptions};
pub use detector::{DetectOptions, DetectionPattern, ErrorMeasure};
pub use head_scores::{HeadScore, HeadScores};
pub use name_movers::NameMoverScores;
pub use repeated_tokens::{RepeatedTokenScores, RepeatedTokens};

use ndarray::ArrayView3;

use crate::error::Result;
use crate::model::{Activation, ActivationCache, Gpt2, Prompts, RunOptions};

/// Calls `f` with the attention patterns of each layer of each prompt, and the tokens of the prompt. Prompts run one at
/// a time, so that only the patterns of one are in memory. Shape: `pattern [n_heads, query_pos, key_pos]`.
fn for_each_pattern(
    model: &Gpt2,
    prompts: Vec<Vec<u32>>,
    mut f: impl FnMut(&[u32], usize, ArrayView3<f32>) -> Result<()>,
) -> Result<()> {
    for tokens in prompts {
        let options = RunOptions::default().activations([Activation::Pattern]).no_logits();
        let (_, cache) = model.run_with_cache_options(Prompts::from(tokens.clone()), options)?;
        patterns_of(&cache, |layer, pattern| f(&tokens, layer, pattern))?;
    }
    Ok(())
}

/// Calls `f` with the attention patterns of each layer of one prompt. Shape: `pattern [n_heads, query_pos, key_pos]`.
fn patterns_of(cache: &ActivationCache, mut f: impl FnMut(usize, ArrayView3<f32>) -> Result<()>) -> Result<()> {
    (0..cache.n_layers()).try_for_each(|layer| f(layer, cache.cube(Activation::Pattern, layer)?))
}
