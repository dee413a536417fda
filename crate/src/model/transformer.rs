//! GPT-2, top down: layer norm, attention, MLP, block, transformer.
//!
//! A run from tokens to logits is in [`super::on_device`], uploading the weights in [`super::device_weights`]. Each
//! `forward` has the shapes of nanoGPT's `model.py`, except that the prompts of a batch follow each other row by row,
//! without padding: `[rows, …]` stands for `[batch, pos, …]`.
//!
//! Every activation passes through the [`Recorder`] on the line that computes it, under TransformerLens' name.

use std::ops::Range;

use super::activation::Activation::{
    self, AttnOut, K, MlpOut, MlpPost, MlpPre, Q, ResidMid, ResidPost, ResidPre, V, Z,
};
use super::on_device::take_rows;
use super::recorder::Recorder;
use crate::backend::{Backend, Heads};
use crate::config::ActFn;
use crate::error::Result;
use crate::weights::LayerNormWeights;

/// `(x − mean) / √(variance + eps) ⊙ w + b`; without `w` and `b` if they are folded into the next weights.
pub(super) struct LayerNorm<B: Backend> {
    pub(super) on_device: B::LayerNorm,
    /// A copy on the host, to export.
    pub(super) weights: Option<LayerNormWeights>,
}

impl<B: Backend> LayerNorm<B> {
    /// Shape: `[rows, d_model]` → the same.
    pub(super) fn forward(&self, backend: &B, x: &B::Tensor) -> Result<B::Tensor> {
        backend.layer_norm(&self.on_device, x)
    }
}

/// Causal multi-head attention.
pub(super) struct Attention<B: Backend> {
    pub(super) heads: Heads,
    /// `W_Q`, `W_K`, `W_V`, heads side by side. Shape: each `[d_model, n_heads d_head]`.
    pub(super) w_qkv: [B::Linear; 3],
    /// `W_O`, heads below each other. Shape: `[n_heads d_head, d_model]`.
    pub(super) w_o: B::Linear,
}

impl<B: Backend> Attention<B> {
    /// `z`, the heads side by side. Shape: `[rows, d_model]` → `[rows, n_heads d_head]`.
    fn z(&self, backend: &B, x: &B::Tensor, recorder: &mut Recorder<B>) -> Result<B::Tensor> {
        let [q, k, v] = backend.linear_qkv(&self.w_qkv, x)?; // [rows, n_heads d_head]
        let (q, k, v) = (recorder.hook(Q, q)?, recorder.hook(K, k)?, recorder.hook(V, v)?);
        recorder.hook_attn_scores(&q, &k, self.heads)?;
        let output = recorder.attention([&q, &k, &v], self.heads)?;
        recorder.hook_pattern(output.pattern);
        recorder.hook(Z, output.z)
    }

    /// Shape: `z [rows, n_heads d_head]` → `[rows, d_model]`.
    fn output(&self, backend: &B, z: &B::Tensor, recorder: &mut Recorder<B>) -> Result<B::Tensor> {
        recorder.hook_derived(Activation::Result);
        let attn_out = backend.linear(&self.w_o, z)?;
        if recorder.edits(Activation::Result) { recorder.edit_results(self, z, attn_out) } else { Ok(attn_out) }
    }
}

/// Two linear layers with an activation function between them.
pub(super) struct Mlp<B: Backend> {
    pub(super) act_fn: ActFn,
    /// Shape: `[d_model, d_mlp]`.
    pub(super) w_in: B::Linear,
    /// Shape: `[d_mlp, d_model]`.
    pub(super) w_out: B::Linear,
}

impl<B: Backend> Mlp<B> {
    /// Shape: `[rows, d_model]` → the same.
    fn forward(&self, backend: &B, x: &B::Tensor, recorder: &mut Recorder<B>) -> Result<B::Tensor> {
        // With a held scale, neurons do not follow from the residual stream alone.
        if recorder.edits(MlpPre) || recorder.edits(MlpPost) || recorder.freezes(ResidMid) {
            let pre = recorder.hook(MlpPre, self.pre(backend, x)?)?;
            let post = recorder.hook(MlpPost, backend.activate(self.act_fn, pre)?)?;
            return backend.linear(&self.w_out, &post);
        }
        recorder.hook_derived(MlpPre);
        let post = self.post(backend, x)?;
        recorder.hook_derived(MlpPost);
        backend.linear(&self.w_out, &post)
    }

    /// The neurons before the activation function. A run without edits of neurons computes `post` in one step. Shape: `[rows, d_model]` →
    /// `[rows, d_mlp]`.
    pub(super) fn pre(&self, backend: &B, x: &B::Tensor) -> Result<B::Tensor> {
        backend.linear(&self.w_in, x)
    }

    /// The neurons after the activation function. Shape: `[rows, d_model]` → `[rows, d_mlp]`.
    pub(super) fn post(&self, backend: &B, x: &B::Tensor) -> Result<B::Tensor> {
        backend.linear_act(&self.w_in, self.act_fn, x)
    }
}

/// A transformer block: attention and MLP, each of which reads a normalized residual stream and adds to it.
pub(super) struct Block<B: Backend> {
    pub(super) ln1: LayerNorm<B>,
    pub(super) attn: Attention<B>,
    pub(super) ln2: LayerNorm<B>,
    pub(super) mlp: Mlp<B>,
}

impl<B: Backend> Block<B> {
    /// The residual stream before the block → after it. Shape: `[rows, d_model]` → the same.
    fn forward(&self, backend: &B, resid_pre: B::Tensor, recorder: &mut Recorder<B>) -> Result<B::Tensor> {
        let mut resid_pre = recorder.hook(ResidPre, resid_pre)?;
        let mut z = self.attn.z(backend, &recorder.layer_norm(&self.ln1, ResidPre, &resid_pre)?, recorder)?;
        if let Some(rows) = recorder.narrow() {
            (resid_pre, z) = (take_rows(backend, &resid_pre, &rows)?, take_rows(backend, &z, &rows)?);
        }
        let attn_out = self.attn.output(backend, &z, recorder)?;
        let attn_out = recorder.hook(AttnOut, attn_out)?;
        let resid_mid = recorder.hook(ResidMid, backend.add(&resid_pre, &attn_out)?)?;
        let mlp_out = self.mlp.forward(backend, &recorder.layer_norm(&self.ln2, ResidMid, &resid_mid)?, recorder)?;
        let mlp_out = recorder.hook(MlpOut, mlp_out)?;
        recorder.hook(ResidPost, backend.add(&resid_mid, &mlp_out)?)
    }
}

/// GPT-2 with its weights on the device of `B`.
pub(super) struct Transformer<B: Backend> {
    pub(super) embedding: B::Embedding,
    pub(super) blocks: Vec<Block<B>>,
    pub(super) ln_final: LayerNorm<B>,
    pub(super) unembed: B::Unembed,
}

impl<B: Backend> Transformer<B> {
    /// Runs blocks: the residual stream before the first of them → after the last.
    /// Shape: `[rows, d_model]` → the same.
    pub(super) fn forward(
        &self,
        backend: &B,
        mut resid: B::Tensor,
        blocks: Range<usize>,
        recorder: &mut Recorder<B>,
    ) -> Result<B::Tensor> {
        for layer in blocks {
            resid = self.blocks[layer].forward(backend, resid, recorder.in_layer(layer))?;
        }
        Ok(resid)
    }
}
