//! Prompts to count words over: varied English sentences, and generated ones that hold something still.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Gpt2Config;

/// A hundred English sentences of many kinds that come with the crate: statements, questions, lists, dialogue, instructions, code.
pub fn varied_prompts() -> Vec<String> {
    include_str!("../../data/prompts.txt").lines().map(str::to_owned).collect()
}

/// One token, `len` times, behind the beginning-of-sequence token: what does a head say when nothing changes but the position?
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
    behind_bos(config, std::iter::repeat_n(token, len))
}

/// `len` tokens drawn at random from the vocabulary, behind the beginning-of-sequence token; the same seed gives the same tokens.
pub fn random_tokens(config: &Gpt2Config, len: usize, seed: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let d_vocab = config.d_vocab as u32;
    behind_bos(config, std::iter::repeat_with(|| random.random_range(0..d_vocab)).take(len))
}

/// Three tokens in turn, `len` in all, behind the beginning-of-sequence token.
pub fn three_token_cycle(config: &Gpt2Config, tokens: [u32; 3], len: usize) -> Vec<u32> {
    behind_bos(config, tokens.into_iter().cycle().take(len))
}

fn behind_bos(config: &Gpt2Config, tokens: impl Iterator<Item = u32>) -> Vec<u32> {
    std::iter::once(config.bos_token_id).chain(tokens).collect()
}
