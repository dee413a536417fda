//! The activations of a transformer block, by TransformerLens' names.

/// An activation of a transformer block, named as in TransformerLens.
///
/// | activation | shape | what |
/// |---|---|---|
/// | `ResidPre` | `[pos, d_model]` | the residual stream before the block |
/// | `Q`, `K`, `V` | `[pos, n_heads, d_head]` | queries, keys, values; biases in, before the scale 1/√d_head |
/// | `AttnScores` | `[n_heads, query_pos, key_pos]` | `q kᵀ / √d_head`, before the softmax; −∞ where key > query; computed when first asked for |
/// | `Pattern` | `[n_heads, query_pos, key_pos]` | after the softmax: rows sum to 1 |
/// | `Z` | `[pos, n_heads, d_head]` | pattern times values |
/// | `AttnOut` | `[pos, d_model]` | what attention adds to the residual stream |
/// | `ResidMid` | `[pos, d_model]` | the residual stream between attention and MLP |
/// | `MlpOut` | `[pos, d_model]` | what the MLP adds |
/// | `ResidPost` | `[pos, d_model]` | the residual stream after the block |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the table above
pub enum Activation {
    ResidPre,
    Q,
    K,
    V,
    AttnScores,
    Pattern,
    Z,
    AttnOut,
    ResidMid,
    MlpOut,
    ResidPost,
}

impl Activation {
    /// Every activation, in the order in which a block computes them.
    pub const ALL: [Activation; 11] = [
        Activation::ResidPre,
        Activation::Q,
        Activation::K,
        Activation::V,
        Activation::AttnScores,
        Activation::Pattern,
        Activation::Z,
        Activation::AttnOut,
        Activation::ResidMid,
        Activation::MlpOut,
        Activation::ResidPost,
    ];

    /// TransformerLens' name: `"resid_pre"`, `"q"`, `"attn_scores"`, …
    pub fn name(self) -> &'static str {
        match self {
            Activation::ResidPre => "resid_pre",
            Activation::Q => "q",
            Activation::K => "k",
            Activation::V => "v",
            Activation::AttnScores => "attn_scores",
            Activation::Pattern => "pattern",
            Activation::Z => "z",
            Activation::AttnOut => "attn_out",
            Activation::ResidMid => "resid_mid",
            Activation::MlpOut => "mlp_out",
            Activation::ResidPost => "resid_post",
        }
    }

    /// Whether it has a vector for each head: shape `[pos, n_heads, d_head]`.
    pub(super) fn is_per_head(self) -> bool {
        matches!(self, Activation::Q | Activation::K | Activation::V | Activation::Z)
    }
}
