//! The logit lens: what the model would predict if its remaining layers were skipped.

use ndarray::{Array2, Array3, ArrayView1};

use super::loss::log_sum_exp;
use super::unembedding::{map_logits, rank};
use crate::error::Result;
use crate::model::{ActivationCache, Gpt2};

/// The predictions of the residual stream before, inside and after each layer. See [`ActivationCache::logit_lens`].
#[derive(Clone, Debug, PartialEq)]
pub struct LogitLens {
    /// The place in the model of each row: `"0_pre"`, `"0_mid"`, …, `"final_post"`.
    pub labels: Vec<String>,
    /// The tokens of the prompt. Shape: `[pos]`.
    pub input: Vec<u32>,
    /// The answers. Shape: `[answer]`.
    pub answers: Vec<u32>,
    /// The most likely token. Shape: `[component, pos]`.
    pub tokens: Array2<u32>,
    /// The probability of the most likely token. Shape: `[component, pos]`.
    pub top_probabilities: Array2<f32>,
    /// The logit of each answer. Shape: `[component, pos, answer]`.
    pub logits: Array3<f32>,
    /// The probability of each answer. Shape: `[component, pos, answer]`.
    pub probabilities: Array3<f32>,
    /// The number of tokens with a larger logit than the answer: 0 for the most likely one.
    /// Shape: `[component, pos, answer]`.
    pub ranks: Array3<usize>,
}

impl ActivationCache {
    /// The logit lens (nostalgebraist, 2020) over [`accumulated_resid`](Self::accumulated_resid): each vector goes
    /// through the final layer norm, with a scale of its own, and the unembedding with its bias.
    /// Shape: `answers [answer]` → as [`LogitLens`] lists.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("When Mary and John went to the store, John gave a drink to")?;
    /// let lens = cache.logit_lens(&model, &[model.to_single_token(" Mary")?])?;
    /// let last_pos = cache.tokens()[0].len() - 1;
    /// assert_eq!(lens.labels[8], "final_post");
    /// assert_eq!(lens.ranks[[8, last_pos, 0]], 0); // " Mary" is the most likely next token
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for an answer that the vocabulary does not have, and those of
    /// [`get`](Self::get).
    pub fn logit_lens(&self, model: &Gpt2, answers: &[u32]) -> Result<LogitLens> {
        self.check_model(model, "logit_lens")?;
        model.check_tokens(answers)?;
        let stack = self.accumulated_resid(None, true)?;
        let (components, pos, d_model) = stack.values.dim();
        let (shape, n) = ((components, pos, answers.len()), components * pos);
        let mut lens = LogitLens {
            labels: stack.labels,
            input: self.one_prompt()?.to_vec(),
            answers: answers.to_vec(),
            tokens: Array2::zeros((components, pos)),
            top_probabilities: Array2::zeros((components, pos)),
            logits: Array3::zeros(shape),
            probabilities: Array3::zeros(shape),
            ranks: Array3::zeros(shape),
        };
        let rows = stack.values.into_shape_with_order((n, d_model)).expect("the stack has this many rows");
        let predictions = map_logits(model, rows.view(), |_, logits| Prediction::new(logits, answers))?;
        for (index, prediction) in predictions.into_iter().enumerate() {
            let at = (index / pos, index % pos);
            lens.tokens[at] = prediction.token;
            lens.top_probabilities[at] = prediction.probability;
            for (answer, (logit, probability, rank)) in prediction.answers.into_iter().enumerate() {
                let at = (at.0, at.1, answer);
                (lens.logits[at], lens.probabilities[at], lens.ranks[at]) = (logit, probability, rank);
            }
        }
        Ok(lens)
    }
}

/// The prediction of one row of the residual stream.
struct Prediction {
    /// The most likely token, the lowest id on a tie, and its probability.
    token: u32,
    probability: f32,
    /// Logit, probability and rank of each answer.
    answers: Vec<(f32, f32, usize)>,
}

impl Prediction {
    /// Shape: `logits [d_vocab]`.
    fn new(logits: ArrayView1<f32>, answers: &[u32]) -> Self {
        let log_sum = log_sum_exp(logits);
        let probability = |logit: f32| (f64::from(logit) - log_sum).exp() as f32;
        let mut best = (0, f32::NEG_INFINITY);
        for (token, &logit) in logits.iter().enumerate() {
            if logit > best.1 {
                best = (token, logit);
            }
        }
        let answer = |&token: &u32| {
            let logit = logits[token as usize];
            (logit, probability(logit), rank(logits, token))
        };
        Self { token: best.0 as u32, probability: probability(best.1), answers: answers.iter().map(answer).collect() }
    }
}
