//! Copies weights from the host to a device, and back.

use ndarray::{Array1, Array2, Array3};
use rayon::prelude::*;

use super::transformer::{Attention, Block, LayerNorm, Mlp, Transformer};
use crate::backend::{Backend, Heads};
use crate::config::Gpt2Config;
use crate::error::Result;
use crate::weights::{BlockWeights, LayerNormWeights, ProcessedWeights, UnembedWeights, Weights};

/// Why reshaping the heads' weights cannot fail: [`Gpt2Config`] has checked it.
const HEADS: &str = "d_model = n_heads d_head";

impl<B: Backend> Transformer<B> {
    /// Uploads the weights piece by piece, so that the host never holds all of them.
    pub(super) fn upload(backend: &B, config: &Gpt2Config, weights: &ProcessedWeights) -> Result<Self> {
        let UnembedWeights { ln_final, w_u, b_u } = weights.unembed()?;
        let unembed = backend.upload_unembed(w_u, b_u)?;
        let (w_e, w_pos) = weights.embeddings()?;
        let embedding = backend.upload_embedding(w_e, w_pos)?;
        let block = |layer| Block::upload(backend, config, layer, weights.block(layer)?);
        Ok(Self {
            embedding,
            blocks: (0..config.n_layers).into_par_iter().map(block).collect::<Result<_>>()?,
            ln_final: LayerNorm::upload(backend, ln_final, config.eps)?,
            unembed,
        })
    }

    /// Copies all weights to the host.
    pub(super) fn weights(&self, backend: &B) -> Result<Weights> {
        let (w_e, w_pos) = backend.embedding_weights(&self.embedding)?;
        let (w_u, b_u) = backend.unembed_weights(&self.unembed)?;
        let blocks = self.blocks.iter().map(|block| block.weights(backend)).collect::<Result<_>>()?;
        Ok(Weights { w_e, w_pos, blocks, ln_final: self.ln_final.weights.clone(), w_u, b_u })
    }
}

impl<B: Backend> LayerNorm<B> {
    fn upload(backend: &B, weights: Option<LayerNormWeights>, eps: f64) -> Result<Self> {
        Ok(Self { on_device: backend.upload_layer_norm(weights.as_ref(), eps)?, weights })
    }
}

impl<B: Backend> Block<B> {
    fn upload(backend: &B, config: &Gpt2Config, layer: usize, weights: BlockWeights) -> Result<Self> {
        let d_model = config.d_model;
        // Heads side by side: [n_heads, d_model, d_head] → [d_model, n_heads d_head]
        let input = |w: Array3<f32>, b: Array2<f32>| {
            let w = w.permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
            (w.into_shape_with_order((d_model, d_model)).expect(HEADS), b.into_iter().collect())
        };
        // Heads below each other: [n_heads, d_head, d_model] → [n_heads d_head, d_model]
        let w_o = weights.w_o.into_shape_with_order((d_model, d_model)).expect(HEADS);
        Ok(Self {
            ln1: LayerNorm::upload(backend, weights.ln1, config.eps)?,
            attn: Attention {
                heads: Heads { n_heads: config.n_heads, score_scale: config.score_scale(layer) },
                w_qkv: backend.upload_linear_qkv([
                    input(weights.w_q, weights.b_q),
                    input(weights.w_k, weights.b_k),
                    input(weights.w_v, weights.b_v),
                ])?,
                w_o: backend.upload_linear(w_o, weights.b_o)?,
            },
            ln2: LayerNorm::upload(backend, weights.ln2, config.eps)?,
            mlp: Mlp {
                act_fn: config.act_fn,
                w_in: backend.upload_linear(weights.w_in, weights.b_in)?,
                w_out: backend.upload_linear(weights.w_out, weights.b_out)?,
            },
        })
    }

    /// Copies the block's weights to the host.
    pub(super) fn weights(&self, backend: &B) -> Result<BlockWeights> {
        let [q, k, v] = self.attn.w_qkv.each_ref().map(|linear| self.attn.input_weights(backend, linear));
        let ((w_q, b_q), (w_k, b_k), (w_v, b_v)) = (q?, k?, v?);
        let (w_o, b_o) = self.attn.output_weights(backend)?;
        let (w_in, b_in) = backend.linear_weights(&self.mlp.w_in)?;
        let (w_out, b_out) = backend.linear_weights(&self.mlp.w_out)?;
        let (ln1, ln2) = (self.ln1.weights.clone(), self.ln2.weights.clone());
        Ok(BlockWeights { ln1, w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o, ln2, w_in, b_in, w_out, b_out })
    }
}

impl<B: Backend> Attention<B> {
    /// `W_Q`, `W_K` or `W_V` and its bias. Shape: → `[n_heads, d_model, d_head]`, `[n_heads, d_head]`.
    pub(super) fn input_weights(&self, backend: &B, linear: &B::Linear) -> Result<(Array3<f32>, Array2<f32>)> {
        let (w, b) = backend.linear_weights(linear)?;
        let (d_model, n_heads) = (w.nrows(), self.heads.n_heads);
        let w = w.into_shape_with_order((d_model, n_heads, d_model / n_heads)).expect(HEADS);
        let b = b.into_shape_with_order((n_heads, d_model / n_heads)).expect(HEADS);
        Ok((w.permuted_axes([1, 0, 2]).as_standard_layout().into_owned(), b))
    }

    /// `W_O` and `b_O`. Shape: → `[n_heads, d_head, d_model]`, `[d_model]`.
    pub(super) fn output_weights(&self, backend: &B) -> Result<(Array3<f32>, Array1<f32>)> {
        let (w, b) = backend.linear_weights(&self.w_o)?;
        let (n_heads, d_model) = (self.heads.n_heads, w.ncols());
        Ok((w.into_shape_with_order((n_heads, d_model / n_heads, d_model)).expect(HEADS), b))
    }
}
