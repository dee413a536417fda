//! The sizes of a model that must fit those of a cache.

use crate::config::Gpt2Config;
use crate::error::{Error, Result};

/// The sizes of a model, and the factors of its attention scores.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sizes {
    pub(super) n_heads: usize,
    pub(super) d_model: usize,
    pub(super) d_mlp: usize,
    pub(super) d_vocab: usize,
    pub(super) n_ctx: usize,
    /// The number that each layer's products of queries and keys are multiplied with. Shape: `[n_layers]`.
    pub(super) score_scales: Vec<f32>,
}

impl Sizes {
    pub(super) fn of(config: &Gpt2Config) -> Self {
        let &Gpt2Config { n_layers, n_heads, d_model, d_mlp, d_vocab, n_ctx, .. } = config;
        let score_scales = (0..n_layers).map(|layer| config.score_scale(layer)).collect();
        Self { n_heads, d_model, d_mlp, d_vocab, n_ctx, score_scales }
    }

    /// [`Error::Shape`] unless `model` has the same sizes. `function` reads a cache of a model of these sizes.
    pub(super) fn check(&self, model: &Self, function: &'static str) -> Result<()> {
        if self.axes() == model.axes() {
            return Ok(());
        }
        Err(Error::Shape {
            what: function.into(),
            axes: "a cache of a model with [n_layers, n_heads, d_model, d_mlp, d_vocab, n_ctx]",
            expected: model.axes(),
            found: self.axes(),
            hint: "the cache and the model do not fit: give the model whose run filled the cache",
        })
    }

    fn axes(&self) -> Vec<usize> {
        vec![self.score_scales.len(), self.n_heads, self.d_model, self.d_mlp, self.d_vocab, self.n_ctx]
    }
}
