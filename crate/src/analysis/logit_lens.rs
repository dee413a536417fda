//! The logit lens: what the model would predict if its remaining layers were skipped.

use ndarray::{Array2, Array3, Axis};

use super::loss::log_sum_exp;
use crate::decode::TopTokensBuilder;
use crate::error::Result;
use crate::model::{ActivationCache, Gpt2};

/// The predictions of the residual stream before, inside and after each layer. See [`ActivationCache::logit_lens`].
#[derive(Clone, Debug, PartialEq)]
pub struct LogitLens {
    /// The place in the model of each row: `"0_pre"`, `"0_mid"`, …, `"final_post"`.
    pub labels: Vec<String>,
    /// The most likely token. Shape: `[component, pos]`.
    pub tokens: Array2<u32>,
    /// The logit of each answer. Shape: `[component, pos, answer]`.
    pub logits: Array3<f32>,
    /// The probability of each answer. Shape: `[component, pos, answer]`.
    pub probabilities: Array3<f32>,
    /// The number of tokens with a larger logit than the answer: 0 for the most likely one.
    /// Shape: `[component, pos, answer]`.
    pub ranks: Array3<usize>,
}

/// Rows that are unembedded together; it bounds the memory of their logits to 50 MB for GPT-2's vocabulary.
const ROWS_AT_A_TIME: usize = 256;

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
            tokens: Array2::zeros((components, pos)),
            logits: Array3::zeros(shape),
            probabilities: Array3::zeros(shape),
            ranks: Array3::zeros(shape),
        };
        let no_bias = vec![0.0; model.config().d_vocab]; // the logits include it
        let mut best = TopTokensBuilder::new(n, 1, no_bias.len());
        let rows = stack.values.into_shape_with_order((n, d_model)).expect("the stack has this many rows");
        for (chunk, rows) in rows.axis_chunks_iter(Axis(0), ROWS_AT_A_TIME).enumerate() {
            let logits = model.on_device().unembed(rows.to_owned())?; // [rows, d_vocab]
            for (index, logits) in (chunk * ROWS_AT_A_TIME..).zip(logits.rows()) {
                let (component, pos) = (index / pos, index % pos);
                best.push(index, 0, logits.to_slice().expect("a row is contiguous"), &no_bias);
                let log_sum = log_sum_exp(logits);
                for (answer, &token) in answers.iter().enumerate() {
                    let logit = logits[token as usize];
                    lens.logits[[component, pos, answer]] = logit;
                    lens.probabilities[[component, pos, answer]] = (f64::from(logit) - log_sum).exp() as f32;
                    lens.ranks[[component, pos, answer]] = logits.iter().filter(|&&other| other > logit).count();
                }
            }
        }
        let tokens = best.finish().tokens.into_shape_with_order((components, pos));
        lens.tokens = tokens.expect("a token for each vector");
        Ok(lens)
    }
}
