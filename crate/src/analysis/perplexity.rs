//! The perplexity of a text of any length, by windows that overlap.

use std::fmt;

use ndarray::{Array1, Ix2, s};

use super::loss::token_loss;
use super::unembedding::map_logits;
use crate::error::{Result, check_count};
use crate::evcxr;
use crate::model::{Activation, Gpt2, Prompts, RunOptions};

/// Options of [`Gpt2::perplexity`], with the names of Hugging Face's guide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerplexityOptions {
    max_length: Option<usize>,
    stride: Option<usize>,
}

impl PerplexityOptions {
    /// Tokens of a window: at least 2, at most the model's context. Default: the context.
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.max_length = Some(tokens);
        self
    }

    /// Tokens between the beginnings of two windows, and so the number of tokens that each window after the first one
    /// scores: at least 1, at most `max_length`. Every token that these score has at least `max_length - stride` tokens
    /// before it, so a smaller stride gives more context, and takes longer. Default: half of `max_length`.
    pub fn stride(mut self, tokens: usize) -> Self {
        self.stride = Some(tokens);
        self
    }
}

/// How well a model predicts a text. A notebook shows the numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Perplexity {
    /// The exponential of `loss`.
    pub perplexity: f64,
    /// The mean over the scored tokens of the negative log-probability, in nats.
    pub loss: f64,
    /// The number of tokens that were scored: all but the first, and with a stride of a whole window all but the first of
    /// each window.
    pub n_scored: usize,
    /// The number of windows.
    pub n_windows: usize,
    /// The negative log-probability of each scored token, in nats. Shape: `[n_scored]`.
    pub loss_per_token: Array1<f32>,
}

impl Perplexity {
    /// Shows the numbers in an evcxr notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        evcxr::show(&[("text/plain", &self.to_string())]);
    }
}

impl fmt::Display for Perplexity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { perplexity, loss, n_scored, n_windows, .. } = self;
        write!(
            f,
            "perplexity {perplexity:.2} ({loss:.4} nats a token, {n_scored} tokens scored in {n_windows} windows)"
        )
    }
}

impl Gpt2 {
    /// The perplexity of each text, which may be longer than the model's context.
    ///
    /// The text is run in windows of `max_length` tokens that begin `stride` tokens after each other, as in Hugging Face's
    /// guide to the perplexity of models of fixed length. A window scores the tokens that no earlier one has, so each
    /// token but the first is scored once, and the mean is over all of them. A text has the beginning-of-sequence token in
    /// front; later windows begin in the middle of the text, without it.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let text = "Monday, Tuesday, Wednesday, Thursday, Friday. ".repeat(40); // more than the context of 256 tokens
    /// let perplexity = model.perplexity(text, Default::default())?.remove(0);
    /// assert_eq!((perplexity.n_scored, perplexity.n_windows), (401, 3));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) for a window, a stride or a text that is too short or too long, and those of
    /// [`forward`](Self::forward) but for long prompts.
    pub fn perplexity(&self, texts: impl Into<Prompts>, options: PerplexityOptions) -> Result<Vec<Perplexity>> {
        self.perplexities(texts.into(), &options)
    }

    /// [`perplexity`](Self::perplexity) without the generic parameter.
    fn perplexities(&self, texts: Prompts, options: &PerplexityOptions) -> Result<Vec<Perplexity>> {
        const FUNCTION: &str = "perplexity";
        let n_ctx = self.config().n_ctx;
        let max_length = options.max_length.unwrap_or(n_ctx);
        check_count(FUNCTION, "max_length", max_length, 2, Some(n_ctx))?;
        let stride = options.stride.unwrap_or(max_length / 2);
        check_count(FUNCTION, "stride", stride, 1, Some(max_length))?;
        let texts = self.tokens_of(texts)?;
        for tokens in &texts {
            check_count(FUNCTION, "tokens of a text", tokens.len(), 2, None)?;
        }
        texts.iter().map(|tokens| self.perplexity_of(tokens, max_length, stride)).collect()
    }

    /// Shape: `[pos]`, at least 2.
    fn perplexity_of(&self, tokens: &[u32], max_length: usize, stride: usize) -> Result<Perplexity> {
        let mut losses = Vec::with_capacity(tokens.len() - 1);
        let (mut n_windows, mut scored_until) = (0, 0);
        for begin in (0..).step_by(stride) {
            let end = (begin + max_length).min(tokens.len());
            let first = scored_until.max(begin + 1);
            if first < end {
                losses.extend(self.window_losses(&tokens[begin..end], first - begin)?);
                n_windows += 1;
            }
            scored_until = end;
            if end == tokens.len() {
                break;
            }
        }
        let loss = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
        let n_scored = losses.len();
        Ok(Perplexity { perplexity: loss.exp(), loss, n_scored, n_windows, loss_per_token: losses.into() })
    }

    /// The losses of the tokens of a window from `first` on. Shape: `[pos]` → `[pos − first]`.
    fn window_losses(&self, tokens: &[u32], first: usize) -> Result<Vec<f32>> {
        let last_layer = self.config().n_layers - 1;
        let options = RunOptions::default().activations([Activation::ResidPost]).layers([last_layer]).no_logits();
        let (_, cache) = self.run_with_cache_options(tokens.to_vec(), options)?;
        let resid = cache.view(Activation::ResidPost, last_layer)?.into_dimensionality::<Ix2>();
        let resid = resid.expect("a row of the residual stream for each token");
        map_logits(self, resid.slice(s![first - 1..tokens.len() - 1, ..]), |row, logits| {
            token_loss(logits, tokens[first + row])
        })
    }
}
