//! Losses: how well a model predicts the tokens of a prompt.

use ndarray::{Array1, Array2, ArrayView1};

use crate::error::{Result, check_count};
use crate::model::{Gpt2, Prompts, RunOptions};

/// The logarithm of each token's probability, computed in `f64`. Shape: `logits [pos, d_vocab]` → the same.
pub fn log_probs(logits: &Array2<f32>) -> Array2<f32> {
    let mut logits = logits.clone();
    for mut row in logits.rows_mut() {
        let log_sum = log_sum_exp(row.view());
        row.mapv_inplace(|logit| (f64::from(logit) - log_sum) as f32);
    }
    logits
}

/// `ln Σ exp(x)`, computed in `f64`. Shape: `[n]`.
pub(crate) fn log_sum_exp(x: ArrayView1<f32>) -> f64 {
    let largest = f64::from(x.fold(f32::NEG_INFINITY, |largest, &x| largest.max(x)));
    largest + x.iter().map(|&x| (f64::from(x) - largest).exp()).sum::<f64>().ln()
}

/// The negative log-probability of the next token, computed in `f64`. Shape: `logits [d_vocab]`.
pub(crate) fn token_loss(logits: ArrayView1<f32>, next: u32) -> f32 {
    (log_sum_exp(logits) - f64::from(logits[next as usize])) as f32
}

impl Gpt2 {
    /// The loss of each prompt, in nats: the mean over its tokens of the negative log-probability that the model gives
    /// the next one. `model(prompt, return_type="loss")` in TransformerLens, which averages over a batch too.
    ///
    /// # Errors
    /// As for [`loss_per_token`](Self::loss_per_token).
    pub fn loss(&self, prompts: impl Into<Prompts>) -> Result<Vec<f32>> {
        let mean = |losses: &Array1<f32>| {
            (losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64) as f32
        };
        Ok(self.losses(prompts.into())?.iter().map(mean).collect())
    }

    /// The loss at each position of each prompt but its last, in nats: the negative log-probability of the next token.
    /// Shape: → `[prompt] [pos − 1]`.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), and [`Error::Count`](crate::Error::Count) for a prompt of one token.
    pub fn loss_per_token(&self, prompts: impl Into<Prompts>) -> Result<Vec<Array1<f32>>> {
        self.losses(prompts.into())
    }

    /// [`loss_per_token`](Self::loss_per_token) without the generic parameter. Shape: → `[prompt] [pos − 1]`.
    fn losses(&self, prompts: Prompts) -> Result<Vec<Array1<f32>>> {
        let (logits, cache) = self.run_with_cache_options(prompts, RunOptions::default().activations([]))?;
        let logits = logits.expect("these options compute logits");
        let losses = |(logits, tokens): (&Array2<f32>, &Vec<u32>)| {
            check_count("a loss", "tokens of a prompt", tokens.len(), 2, None)?;
            let loss = |(row, &next): (ArrayView1<f32>, &u32)| token_loss(row, next);
            Ok(logits.rows().into_iter().zip(&tokens[1..]).map(loss).collect())
        };
        logits.iter().zip(cache.tokens()).map(losses).collect()
    }
}
