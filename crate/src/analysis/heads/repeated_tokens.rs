//! Scores on random tokens that come twice: previous-token, duplicate-token and induction heads.

use ndarray::Array2;

use super::head_scores::HeadScores;
use super::{for_each_run, scores_of_patterns};
use crate::datasets::RepeatedTokens;
use crate::error::{Result, check_count};
use crate::model::{ActivationCache, Gpt2};

/// Scores of every head on repeated random tokens: the mean attention along a diagonal of the pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct RepeatedTokenScores {
    /// Attention to the token before: the diagonal at −1.
    pub previous_token: HeadScores,
    /// Attention to the earlier occurrence of the same token: the diagonal at −len.
    pub duplicate_token: HeadScores,
    /// Attention to the token after the earlier occurrence, which comes next: the diagonal at −(len − 1).
    pub induction: HeadScores,
}

/// The names of the three scores, in the order of [`offsets`].
const NAMES: [&str; 3] = ["previous-token score", "duplicate-token score", "induction score"];

/// How far each of the three diagonals is below the main one.
fn offsets(len: usize) -> [usize; 3] {
    [1, len, len - 1]
}

impl RepeatedTokenScores {
    /// `pos` is the number of tokens of a prompt. Shape: `means` each `[n_layers, n_heads]`.
    fn new(pos: usize, len: usize, means: [Array2<f32>; 3]) -> Self {
        let mut scores = means.into_iter().zip(NAMES).zip(offsets(len)).map(|((values, name), offset)| {
            let chance = Some(chance(pos, offset));
            HeadScores { name: name.into(), values, chance }
        });
        let mut next = || scores.next().expect("three scores");
        Self { previous_token: next(), duplicate_token: next(), induction: next() }
    }
}

impl Gpt2 {
    /// The previous-token, duplicate-token and induction score of every head on repeated random tokens, as means over
    /// the prompts. Shape: → each `[n_layers, n_heads]`.
    ///
    /// As in TransformerLens' demos, a score is the mean of a whole diagonal of the pattern. That of duplicates begins
    /// one query before the repetition, that of induction two, so a perfect head scores `len / (len + 1)` and
    /// `len / (len + 2)` if it attends elsewhere there. Chance is the score of a head that attends to all positions
    /// alike.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let scores = model.repeated_token_scores(RepeatedTokens { len: 30, batch: 2, ..RepeatedTokens::default() })?;
    /// assert_eq!(scores.induction.values.dim(), (4, 8));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`RepeatedTokens::prompts`], and [`Error::Device`](crate::Error::Device).
    pub fn repeated_token_scores(&self, tokens: RepeatedTokens) -> Result<RepeatedTokenScores> {
        let prompts = tokens.prompts(self.config())?;
        let (n_prompts, pos) = (prompts.len() as f32, prompts[0].len());
        let zeros = || Array2::<f32>::zeros((self.config().n_layers, self.config().n_heads));
        let mut means = [zeros(), zeros(), zeros()];
        for_each_run(self, prompts, |cache| {
            for (means, offset) in means.iter_mut().zip(offsets(tokens.len)) {
                *means += &(diagonal_means(cache, offset)? / n_prompts);
            }
            Ok(())
        })?;
        Ok(RepeatedTokenScores::new(pos, tokens.len, means))
    }
}

impl ActivationCache {
    /// The mean attention of every head along a diagonal of its pattern, to the position `offset` before the query: a
    /// previous-token score for 1, and on tokens that repeat after `n` a duplicate-token score for `n`, an induction
    /// score for `n − 1`. For a run of one prompt. Shape: → `[n_layers, n_heads]`.
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) if the prompt has no such diagonal, and those of [`get`](Self::get).
    pub fn diagonal_scores(&self, offset: usize) -> Result<HeadScores> {
        let pos = self.one_prompt()?.len();
        check_count("diagonal_scores", "offset", offset, 0, Some(pos.saturating_sub(1)))?;
        let name = format!("mean attention at −{offset}");
        Ok(HeadScores { name, values: diagonal_means(self, offset)?, chance: Some(chance(pos, offset)) })
    }
}

/// The mean of the diagonal of each head's pattern that is `offset` below the main one, in a run of one prompt.
/// Shape: → `[n_layers, n_heads]`.
fn diagonal_means(cache: &ActivationCache, offset: usize) -> Result<Array2<f32>> {
    scores_of_patterns(cache, |_, _, pattern| {
        let pos = pattern.nrows();
        let sum: f64 = (offset..pos).map(|query| f64::from(pattern[[query, query - offset]])).sum();
        (sum / (pos - offset) as f64) as f32
    })
}

/// [`diagonal_means`] of a head that attends to all positions alike.
fn chance(pos: usize, offset: usize) -> f32 {
    let sum: f64 = (offset..pos).map(|query| 1.0 / (query + 1) as f64).sum();
    (sum / (pos - offset) as f64) as f32
}
