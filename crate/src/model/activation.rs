//! The activations of a transformer block, by TransformerLens' names.

use super::interventions::HookPoint;

/// An activation of a transformer block, named as in TransformerLens.
///
/// | activation | shape | shows |
/// |---|---|---|
/// | `Pattern` | `[n_heads, query_pos, key_pos]` | where each head attends: rows sum to 1, and are 0 where key > query |
/// | `AttnScores` | `[n_heads, query_pos, key_pos]` | the same before the softmax, `q kᵀ / √d_head`: differences in logits, −∞ where key > query |
/// | `Q`, `K` | `[pos, n_heads, d_head]` | why a head attends there: a query and a key match along the QK circuit's directions |
/// | `V` | `[pos, n_heads, d_head]` | the content that a position offers to those that attend to it |
/// | `Z` | `[pos, n_heads, d_head]` | the content that a head has gathered, `pattern v`, before `W_O` writes it: the place to ablate or patch a head |
/// | `Result` | `[pos, n_heads, d_model]` | what each head writes to the residual stream, `z W_O`; all heads together with `b_O` are `AttnOut` |
/// | `AttnOut` | `[pos, d_model]` | the sum of all heads' outputs, with `b_O`: what attention adds to the residual stream |
/// | `MlpPre` | `[pos, d_mlp]` | the neurons of the MLP before the activation function |
/// | `MlpPost` | `[pos, d_mlp]` | the neurons after it: how strongly each writes its row of `W_out` |
/// | `MlpOut` | `[pos, d_model]` | what the MLP adds |
/// | `ResidPre` | `[pos, d_model]` | the residual stream before the block: what the model knows so far (a logit lens reads it) |
/// | `ResidMid` | `[pos, d_model]` | the residual stream between attention and MLP |
/// | `ResidPost` | `[pos, d_model]` | the residual stream after the block, which is the next block's `ResidPre` |
///
/// `Q`, `K` and `V` include their biases, but not the scale 1/√d_head. A run stores neither `AttnScores`, nor `Result`,
/// nor `MlpPre`, nor `MlpPost`: they are computed from `Q` and `K`, from `Z`, and from `ResidMid`, when they are first
/// read. The place of each in a block:
///
/// ```text
/// ResidPre ─┬────────────────────────────────────────────────────────────────────► + ─ ResidMid ─┬───────────────► + ─ ResidPost
///           │                                                                      │             │                 │
///           └─ ln1 ─┬─ W_Q ─ Q ─┐                                                  │             └─ ln2 ─ MLP ─ MlpOut
///                   ├─ W_K ─ K ─┴─ AttnScores ─ softmax ─ Pattern ─┐               │
///                   └─ W_V ─ V ────────────────────────────────────┴─ Z ─ W_O ─ AttnOut
///
/// MLP: W_in ─ MlpPre ─ act_fn ─ MlpPost ─ W_out        AttnOut: the sum of Result over the heads, and b_O
/// ```
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
    Result,
    AttnOut,
    ResidMid,
    MlpPre,
    MlpPost,
    MlpOut,
    ResidPost,
}

impl Activation {
    /// Every activation, in the order in which a block computes them.
    pub const ALL: [Activation; 14] = [
        Activation::ResidPre,
        Activation::Q,
        Activation::K,
        Activation::V,
        Activation::AttnScores,
        Activation::Pattern,
        Activation::Z,
        Activation::Result,
        Activation::AttnOut,
        Activation::ResidMid,
        Activation::MlpPre,
        Activation::MlpPost,
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
            Activation::Result => "result",
            Activation::AttnOut => "attn_out",
            Activation::ResidMid => "resid_mid",
            Activation::MlpPre => "mlp_pre",
            Activation::MlpPost => "mlp_post",
            Activation::MlpOut => "mlp_out",
            Activation::ResidPost => "resid_post",
        }
    }

    /// TransformerLens' name of the hook in a layer: `"blocks.0.attn.hook_q"`, `"blocks.0.mlp.hook_post"`, ….
    pub fn hook_name(self, layer: usize) -> String {
        let name = match self {
            Activation::Q
            | Activation::K
            | Activation::V
            | Activation::Z
            | Activation::AttnScores
            | Activation::Pattern
            | Activation::Result => format!("attn.hook_{}", self.name()),
            Activation::MlpPre => "mlp.hook_pre".into(),
            Activation::MlpPost => "mlp.hook_post".into(),
            _ => format!("hook_{}", self.name()),
        };
        format!("blocks.{layer}.{name}")
    }

    /// The point of a layer where an [`Intervention`](crate::Intervention) changes this activation.
    pub fn at(self, layer: usize) -> HookPoint {
        HookPoint { activation: self, layer }
    }

    /// The axes of its array, as the table above lists them.
    pub(super) fn axes(self) -> &'static [&'static str] {
        match self {
            Activation::Pattern | Activation::AttnScores => &["n_heads", "query_pos", "key_pos"],
            Activation::Q | Activation::K | Activation::V | Activation::Z => &["pos", "n_heads", "d_head"],
            Activation::Result => &["pos", "n_heads", "d_model"],
            Activation::MlpPre | Activation::MlpPost => &["pos", "d_mlp"],
            _ => &["pos", "d_model"],
        }
    }

    /// Whether the activation has a number for each pair of a query and a key: shape `[n_heads, query_pos, key_pos]`.
    pub(crate) fn is_of_cells(self) -> bool {
        matches!(self, Activation::AttnScores | Activation::Pattern)
    }

    /// Whether the activation has a vector for each head: shape `[pos, n_heads, d_head]`.
    pub(super) fn is_per_head(self) -> bool {
        matches!(self, Activation::Q | Activation::K | Activation::V | Activation::Z)
    }

    /// The activation that this one is computed from when it is first read, for those that a run does not store.
    pub(super) fn computed_from(self) -> Option<Activation> {
        match self {
            Activation::Result => Some(Activation::Z),
            Activation::MlpPre | Activation::MlpPost => Some(Activation::ResidMid),
            _ => None,
        }
    }
}
