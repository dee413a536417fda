//! Weights by TransformerLens' names.

use attention_tokens::{BlockWeights, Weights};
use ndarray::{Array, ArrayD, Axis, Dimension, stack};

/// A weight by TransformerLens' name. Shape: as in [`Weights`], for per-layer weights with `n_layers` in front.
pub(super) fn named_weight(weights: &Weights, name: &str) -> Option<ArrayD<f32>> {
    fn layers<D: Dimension>(
        weights: &Weights,
        weight: impl Fn(&BlockWeights) -> &Array<f32, D>,
    ) -> Option<ArrayD<f32>> {
        let views: Vec<_> = weights.blocks.iter().map(|block| weight(block).view().into_dyn()).collect();
        stack(Axis(0), &views).ok()
    }
    match name {
        "W_E" => Some(weights.w_e.clone().into_dyn()),
        "W_pos" => Some(weights.w_pos.clone().into_dyn()),
        "W_U" => Some(weights.w_u.clone().into_dyn()),
        "b_U" => Some(weights.b_u.clone().into_dyn()),
        "W_Q" => layers(weights, |block| &block.w_q),
        "b_Q" => layers(weights, |block| &block.b_q),
        "W_K" => layers(weights, |block| &block.w_k),
        "b_K" => layers(weights, |block| &block.b_k),
        "W_V" => layers(weights, |block| &block.w_v),
        "b_V" => layers(weights, |block| &block.b_v),
        "W_O" => layers(weights, |block| &block.w_o),
        "b_O" => layers(weights, |block| &block.b_o),
        "W_in" => layers(weights, |block| &block.w_in),
        "b_in" => layers(weights, |block| &block.b_in),
        "W_out" => layers(weights, |block| &block.w_out),
        "b_out" => layers(weights, |block| &block.b_out),
        _ => None,
    }
}
