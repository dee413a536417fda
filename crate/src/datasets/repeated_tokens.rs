//! Random tokens, twice: nothing but the first half predicts the second, which is what induction heads do.

use rand::Rng;

use crate::config::Gpt2Config;
use crate::error::{Result, check_count};
use crate::random::seeded_rng;

/// Prompts of random tokens that come twice: the beginning-of-sequence token, `len` random tokens, and the same again.
/// Nothing but the first half helps a model to predict the second one.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let prompts = RepeatedTokens { batch: 4, len: 10, ..RepeatedTokens::default() }.prompts(model.config())?;
/// assert_eq!((prompts.len(), prompts[0].len()), (4, 21));
/// assert_eq!(prompts[0][1..11], prompts[0][11..]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepeatedTokens {
    /// Number of random tokens before they are repeated; at least 2.
    pub len: usize,
    /// Number of prompts.
    pub batch: usize,
    /// The seed of the random tokens.
    pub seed: u64,
    /// The tokens to draw from; `None` for the whole vocabulary without the beginning-of-sequence token. A model that was
    /// not trained on most of its vocabulary, such as the demo model, needs tokens that it knows.
    pub tokens: Option<Vec<u32>>,
}

impl Default for RepeatedTokens {
    /// Ten prompts of 50 tokens twice, from the whole vocabulary.
    fn default() -> Self {
        Self { len: 50, batch: 10, seed: 0, tokens: None }
    }
}

impl RepeatedTokens {
    /// The prompts, whose tokens are drawn uniformly and independently. Shape: → `[batch][1 + 2 len]`, or
    /// `[batch][2 len]` for a model without a beginning-of-sequence token.
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) if `batch` is 0, if `len` is less than 2 or a prompt longer than the
    /// model's context, or if there are less than two tokens to draw from;
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a token that the vocabulary does not have.
    pub fn prompts(&self, config: &Gpt2Config) -> Result<Vec<Vec<u32>>> {
        check_count("RepeatedTokens", "batch", self.batch, 1, None)?;
        check_count("RepeatedTokens", "len", self.len, 2, Some(config.n_ctx.saturating_sub(1) / 2))?;
        let bos = config.bos_token_id;
        let all = || (0..config.d_vocab as u32).filter(|&token| Some(token) != bos).collect();
        let tokens: Vec<u32> = self.tokens.clone().unwrap_or_else(all);
        check_count("RepeatedTokens", "tokens to draw from", tokens.len(), 2, None)?;
        config.check_tokens(&tokens)?;
        let mut rng = seeded_rng(self.seed);
        let mut prompt = || {
            let half: Vec<u32> = (0..self.len).map(|_| tokens[rng.random_range(0..tokens.len())]).collect();
            bos.into_iter().chain(half.iter().copied()).chain(half.iter().copied()).collect()
        };
        Ok((0..self.batch).map(|_| prompt()).collect())
    }
}
