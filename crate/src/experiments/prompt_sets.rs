//! Prompts for the experiments: varied English sentences, and control prompts that repeat, cycle or draw tokens at
//! random.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;

use crate::config::Gpt2Config;
use crate::random::seeded_rng;

/// One hundred English sentences that come with the crate: statements, questions, lists, dialogue, instructions, code.
pub fn varied_prompts() -> Vec<String> {
    include_str!("../../data/prompts.txt").lines().map(str::to_owned).collect()
}

/// One token, `len` times, after the beginning-of-sequence token (if the model has one): a head can tell apart nothing
/// but positions.
///
/// Shape: → `[1 + len]`.
///
/// ```
/// use attention_tokens::experiments::{one_token_repeated, three_token_cycle};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// assert_eq!(one_token_repeated(model.config(), 262, 3), [50256, 262, 262, 262]);
/// assert_eq!(three_token_cycle(model.config(), [1, 2, 3], 4), [50256, 1, 2, 3, 1]);
/// # Ok::<(), Error>(())
/// ```
pub fn one_token_repeated(config: &Gpt2Config, token: u32, len: usize) -> Vec<u32> {
    prepend_bos(config, std::iter::repeat_n(token, len))
}

/// `len` tokens drawn uniformly from the vocabulary, after the beginning-of-sequence token (if the model has one). The
/// same seed gives the same tokens.
///
/// Shape: → `[1 + len]`.
pub fn random_tokens(config: &Gpt2Config, len: usize, seed: u64) -> Vec<u32> {
    let mut rng = seeded_rng(seed);
    let d_vocab = config.d_vocab as u32;
    prepend_bos(config, std::iter::repeat_with(|| rng.random_range(0..d_vocab)).take(len))
}

/// A prompt with each token replaced by one drawn from the vocabulary: equal tokens by equal ones, different tokens by
/// different ones. So length and repetitions stay, and the text does not. The beginning-of-sequence token stays too.
///
/// Shape: `[pos]` → `[pos]`.
///
/// ```
/// use attention_tokens::experiments::random_tokens_like;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let noise = random_tokens_like(model.config(), &[50256, 1, 2, 1], 1);
/// assert!(noise[0] == 50256 && noise[1] == noise[3] && noise[1] != noise[2]);
/// # Ok::<(), Error>(())
/// ```
pub fn random_tokens_like(config: &Gpt2Config, prompt: &[u32], seed: u64) -> Vec<u32> {
    let mut rng = seeded_rng(seed);
    let mut drawn = BTreeMap::new();
    let mut used: BTreeSet<u32> = config.bos_token_id.into_iter().collect();
    let mut replacement = |token: u32| {
        if config.bos_token_id == Some(token) {
            return token;
        }
        *drawn.entry(token).or_insert_with(|| {
            // A vocabulary smaller than the prompt's own tokens has no token left.
            let is_exhausted = used.len() >= config.d_vocab;
            loop {
                let new = rng.random_range(0..config.d_vocab as u32);
                if used.insert(new) || is_exhausted {
                    return new;
                }
            }
        })
    };
    prompt.iter().map(|&token| replacement(token)).collect()
}

/// Three tokens in turn, `len` in all, after the beginning-of-sequence token (if the model has one).
///
/// Shape: `[3]` → `[1 + len]`.
pub fn three_token_cycle(config: &Gpt2Config, tokens: [u32; 3], len: usize) -> Vec<u32> {
    prepend_bos(config, tokens.into_iter().cycle().take(len))
}

/// Shape: `[len]` → `[1 + len]`, or `[len]` for a model without a beginning-of-sequence token.
fn prepend_bos(config: &Gpt2Config, tokens: impl Iterator<Item = u32>) -> Vec<u32> {
    config.bos_token_id.into_iter().chain(tokens).collect()
}
