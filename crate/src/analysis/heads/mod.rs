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
pub use repeated_tokens::RepeatedTokenScores;

use ndarray::{Array2, ArrayView2};

use crate::error::Result;
use crate::model::{Activation, ActivationCache, Gpt2, Prompts, RunOptions};

/// Calls `f` with a run of each prompt, which has the attention patterns. Prompts run one at a time, so that only the
/// patterns of one are in memory.
fn for_each_run(model: &Gpt2, prompts: Vec<Vec<u32>>, mut f: impl FnMut(&ActivationCache) -> Result<()>) -> Result<()> {
    for tokens in prompts {
        let options = RunOptions::default().activations([Activation::Pattern]).no_logits();
        f(&model.run_with_cache_options(Prompts::from(tokens), options)?.1)?;
    }
    Ok(())
}

/// The number that `score` gives each head's attention pattern, in a run of one prompt. `score` gets the layer, the
/// head and the pattern. Shape: `pattern [query_pos, key_pos]` → `[n_layers, n_heads]`.
fn scores_of_patterns(
    cache: &ActivationCache,
    score: impl Fn(usize, usize, ArrayView2<f32>) -> f32,
) -> Result<Array2<f32>> {
    let mut scores = Vec::new();
    for layer in 0..cache.n_layers() {
        let patterns = cache.cube(Activation::Pattern, layer)?; // [n_heads, query_pos, key_pos]
        scores.extend(patterns.outer_iter().enumerate().map(|(head, pattern)| score(layer, head, pattern)));
    }
    let shape = (cache.n_layers(), scores.len() / cache.n_layers());
    Ok(Array2::from_shape_vec(shape, scores).expect("a score for each head"))
}
