//! Random tokens, twice: nothing but the first half predicts the second, which is what induction heads do.

use rand::Rng;

use crate::config::Gpt2Config;
use crate::error::{Result, check_count, check_setting};
use crate::random::seeded_rng;

const FUNCTION: &str = "RepeatedTokens";

/// Prompts of random tokens that are repeated, after the beginning-of-sequence token.
///
/// ```
/// use attention_tokens::datasets::RepeatedTokens;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let repeated = RepeatedTokens::new(model.config(), 4, 10, 0)?; // 4 prompts of 10 tokens and the same 10
/// assert_eq!((repeated.tokens.len(), repeated.tokens[0].len()), (4, 21));
/// assert_eq!(repeated.tokens[0][1..11], repeated.tokens[0][11..]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepeatedTokens {
    /// Shape: `[prompt][1 + 2 seq_len]`.
    pub tokens: Vec<Vec<u32>>,
    /// The number of random tokens. A key `seq_len - 1` positions before a query is what an induction head looks at: the
    /// token after the earlier occurrence.
    pub seq_len: usize,
}

impl RepeatedTokens {
    /// Draws `batch` prompts. Each token is drawn uniformly from the vocabulary without the beginning- and
    /// end-of-sequence tokens.
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) if there is no prompt, no token, or if a prompt is longer than the context;
    /// [`Error::Setting`](crate::Error::Setting) for a vocabulary without other tokens.
    pub fn new(config: &Gpt2Config, batch: usize, seq_len: usize, seed: u64) -> Result<Self> {
        check_count(FUNCTION, "batch", batch, 1, None)?;
        check_count(FUNCTION, "seq_len", seq_len, 1, Some((config.n_ctx.saturating_sub(1)) / 2))?;
        let special = |token: &u32| *token == config.bos_token_id || config.eos_token_ids.contains(token);
        let others: Vec<u32> = (0..config.d_vocab as u32).filter(|token| !special(token)).collect();
        check_setting(FUNCTION, "config", !others.is_empty(), "a vocabulary with ordinary tokens", "none")?;
        let mut rng = seeded_rng(seed);
        let prompt = |_| {
            let half: Vec<u32> = (0..seq_len).map(|_| others[rng.random_range(0..others.len())]).collect();
            [&[config.bos_token_id], &half[..], &half[..]].concat()
        };
        Ok(Self { tokens: (0..batch).map(prompt).collect(), seq_len })
    }
}
