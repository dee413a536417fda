//! Runs of a part of the model: from a given residual stream, and with the logits of some positions only.

use ndarray::{Array2, Ix2};

use super::activation::Activation;
use super::gpt2::Gpt2;
use super::prompts::Prompts;
use super::run_options::RunOptions;
use crate::error::{Result, check_count};

impl Gpt2 {
    /// The logits at chosen positions of each prompt, in the given order; the others are not computed. Negative positions
    /// count from the prompt's end. Shape: → `[prompt] [position, d_vocab]`.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let last = model.logits_at(["Monday, Tuesday,", "one"], &[-1])?;
    /// assert_eq!((last.len(), last[0].nrows()), (2, 1));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), [`Error::Position`](crate::Error::Position) for a position that a prompt does
    /// not have, [`Error::Count`](crate::Error::Count) for none.
    pub fn logits_at(&self, prompts: impl Into<Prompts>, positions: &[isize]) -> Result<Vec<Array2<f32>>> {
        self.run_to_logits(prompts.into(), RunOptions::default().logits_at(positions))
    }

    /// The logits that follow from a residual stream before a layer: `model(resid, start_at_layer=layer)` in
    /// TransformerLens. Before layer 0 it is the sum of the embeddings of tokens and positions.
    /// Shape: `[prompt] [pos, d_model]` → `[prompt] [pos, d_vocab]`.
    ///
    /// To have a cache too, give [`RunOptions::start_at_layer`] to
    /// [`run_with_cache_options`](Self::run_with_cache_options).
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (logits, cache) = model.run_with_cache("Monday, Tuesday,")?;
    /// let resid = cache.accumulated_resid(Some(2), false)?.component("2_pre").unwrap(); // [pos, d_model]
    /// let again = model.forward_from(&[resid], 2)?;
    /// assert!((&again[0] - &logits[0]).iter().all(|difference| difference.abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for another number of columns than `d_model`,
    /// [`Error::Count`](crate::Error::Count) for a layer above `n_layers` or no prompt,
    /// [`Error::Prompt`](crate::Error::Prompt) for more rows than `n_ctx`, or none,
    /// [`Error::Device`](crate::Error::Device).
    pub fn forward_from(&self, resid: &[Array2<f32>], start_at_layer: usize) -> Result<Vec<Array2<f32>>> {
        let options = RunOptions::default().start_at_layer(start_at_layer, resid);
        self.run_to_logits(placeholders(resid), options)
    }

    /// The residual stream before layer `stop_at_layer` that follows from one before layer `start_at_layer`:
    /// `model(resid, start_at_layer=…, stop_at_layer=…)` in TransformerLens; `n_layers` for that after the last layer.
    /// Shape: `[prompt] [pos, d_model]` → the same.
    ///
    /// # Errors
    /// As for [`forward_from`](Self::forward_from), and [`Error::Count`](crate::Error::Count) if `stop_at_layer` is
    /// below `start_at_layer`.
    pub fn resid_from(
        &self,
        resid: &[Array2<f32>],
        start_at_layer: usize,
        stop_at_layer: usize,
    ) -> Result<Vec<Array2<f32>>> {
        check_count("resid_from", "stop_at_layer", stop_at_layer, start_at_layer, Some(self.config().n_layers))?;
        let last = stop_at_layer.saturating_sub(1);
        let options = RunOptions::default().activations([Activation::ResidPost]).layers([last]);
        let options = options.start_at_layer(start_at_layer, resid).stop_at_layer(stop_at_layer);
        let (_, cache) = self.run_with_cache_options(placeholders(resid), options)?;
        if start_at_layer == stop_at_layer {
            return Ok(resid.to_vec());
        }
        let resid_post = |prompt| {
            let resid = cache.prompt(prompt)?.get(Activation::ResidPost, last)?;
            Ok(resid.into_dimensionality::<Ix2>().expect("a row for each token"))
        };
        (0..cache.n_prompts()).map(resid_post).collect()
    }

    /// The logits of a run that caches nothing. Shape: → `[prompt] [position, d_vocab]`.
    fn run_to_logits(&self, prompts: Prompts, options: RunOptions) -> Result<Vec<Array2<f32>>> {
        let (logits, _) = self.run_with_cache_options(prompts, options.activations([]))?;
        Ok(logits.expect("these options compute logits"))
    }
}

/// Token ids in the place of those of a residual stream, which are unknown. Shape: `[prompt] [pos, d_model]` → `[prompt][pos]`.
fn placeholders(resid: &[Array2<f32>]) -> Prompts {
    resid.iter().map(|resid| vec![0; resid.nrows()]).collect::<Vec<Vec<u32>>>().into()
}
