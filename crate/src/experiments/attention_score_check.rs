//! Check that the sum of `q ⊙ k` is the attention score: the identity that relates attention tokens to attention.

use ndarray::{Axis, Ix3};

use crate::error::Result;
use crate::model::{Activation, ActivationCache};

/// How closely `Σ (q ⊙ k) / √d_head` reproduces the attention scores of a cache.
///
/// ```text
/// Σ_d (q_i ⊙ k_j)[d] / √d_head = attn_scores[i, j]      in every basis of the head
/// ```
///
/// The model uses only this sum of a cell's products. The products themselves depend on the basis;
/// [`TokenAgreement`](super::TokenAgreement) measures how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionScoreCheck {
    /// The largest absolute difference between the sum and the score, over cells with key ≤ query of all heads and
    /// prompts.
    pub largest_difference: f32,
    /// The largest absolute score, as the scale of the difference.
    pub largest_score: f32,
}

impl AttentionScoreCheck {
    /// Checks every layer and prompt of a cache, which must hold `Q`, `K` and `AttnScores`.
    ///
    /// # Errors
    /// [`Error::NotCached`](crate::Error::NotCached) if an activation is not in the cache.
    pub fn new(cache: &ActivationCache) -> Result<Self> {
        let mut check = Self { largest_difference: 0.0, largest_score: 0.0 };
        for (prompt, layer) in
            (0..cache.n_prompts()).flat_map(|prompt| (0..cache.n_layers()).map(move |layer| (prompt, layer)))
        {
            let view = |activation| -> Result<_> {
                let view = cache.view_of_prompt(prompt, activation, layer)?;
                Ok(view.into_dimensionality::<Ix3>().expect("q, k and attn_scores have three axes"))
            };
            let (q, k) = (view(Activation::Q)?, view(Activation::K)?); // [pos, n_heads, d_head]
            let scores = view(Activation::AttnScores)?; // [n_heads, query_pos, key_pos]
            let scale = cache.score_scale(layer);
            for ((head, query, key), &score) in scores.indexed_iter().filter(|((_, query, key), _)| key <= query) {
                let (q, k) = (q.index_axis(Axis(0), query), k.index_axis(Axis(0), key)); // [n_heads, d_head]
                let product: f32 = q.row(head).iter().zip(k.row(head)).map(|(q, k)| q * k).sum();
                check.largest_difference = check.largest_difference.max((product * scale - score).abs());
                check.largest_score = check.largest_score.max(score.abs());
            }
        }
        Ok(check)
    }
}
