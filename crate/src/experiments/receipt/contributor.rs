//! The parts of the model that write a logit difference.

use std::fmt;

use ndarray::Array1;

use crate::error::{Error, Result, check_index};
use crate::model::{Activation, Gpt2, Intervention};

/// A part of the model that writes to the residual stream at one position, or to the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contributor {
    /// The embedding of the token at the position.
    Embed,
    /// The embedding of the position.
    PosEmbed,
    /// What a head moves from one key: attention times value, through `W_O`.
    Cell {
        /// The layer, from 0.
        layer: usize,
        /// The head of the layer, from 0.
        head: usize,
        /// The position of the key.
        key: usize,
    },
    /// A whole head: the sum of its cells. A receipt has no line for it, but it can be struck out.
    Head {
        /// The layer, from 0.
        layer: usize,
        /// The head of the layer, from 0.
        head: usize,
    },
    /// The bias `b_O` of a layer's attention. After weight processing it includes the heads' value biases.
    AttnBias {
        /// The layer, from 0.
        layer: usize,
    },
    /// The MLP of a layer, with its bias.
    Mlp {
        /// The layer, from 0.
        layer: usize,
    },
    /// What the interventions of a hooked model add in a layer: the part of the change of the residual stream that neither
    /// cells nor the MLP account for.
    Interventions {
        /// The layer, from 0.
        layer: usize,
    },
    /// The bias of the final layer norm, of a model that was loaded without folding it into `b_U`.
    FinalLayerNormBias,
    /// The bias `b_U` of the unembedding.
    UnembedBias,
}

impl Contributor {
    /// The name of the kind, as in CSV files: `cell`, `mlp`, `embed`.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::PosEmbed => "pos_embed",
            Self::Cell { .. } => "cell",
            Self::Head { .. } => "head",
            Self::AttnBias { .. } => "b_O",
            Self::Mlp { .. } => "mlp",
            Self::Interventions { .. } => "interventions",
            Self::FinalLayerNormBias => "ln_final_b",
            Self::UnembedBias => "b_U",
        }
    }

    /// Layer, head and key, of those that it has.
    pub(super) fn place(self) -> [Option<usize>; 3] {
        match self {
            Self::Embed | Self::PosEmbed | Self::FinalLayerNormBias | Self::UnembedBias => [None; 3],
            Self::Cell { layer, head, key } => [Some(layer), Some(head), Some(key)],
            Self::Head { layer, head } => [Some(layer), Some(head), None],
            Self::AttnBias { layer } | Self::Mlp { layer } | Self::Interventions { layer } => [Some(layer), None, None],
        }
    }

    /// Checks that the model has the part, and that the key is not after the position.
    pub(super) fn check(self, model: &Gpt2, position: usize) -> Result<()> {
        let [layer, head, key] = self.place();
        if let Some(layer) = layer {
            check_index("layer", layer, "the model", model.config().n_layers)?;
        }
        if let Some(head) = head {
            check_index("head", head, "each layer", model.config().n_heads)?;
        }
        if let Some(key) = key {
            check_index("key", key, "the row of the position", position + 1)?;
        }
        Ok(())
    }

    /// The change of a run that leaves the part out at a position; `None` for a part that nothing reads but the logits.
    /// Shape: `embeddings` of the token and of the position, each `[d_model]`.
    ///
    /// # Errors
    /// [`Error::Setting`] for [`Interventions`](Self::Interventions), [`Error::Device`].
    pub(super) fn without(
        self,
        model: &Gpt2,
        position: usize,
        embeddings: &[Array1<f32>; 2],
    ) -> Result<Option<Intervention>> {
        let at = position as isize;
        let remove = |activation: Activation, layer: usize, vector: Array1<f32>| {
            Intervention::add(activation.at(layer), -vector).pos(at)
        };
        Ok(Some(match self {
            Self::Embed => remove(Activation::ResidPre, 0, embeddings[0].clone()),
            Self::PosEmbed => remove(Activation::ResidPre, 0, embeddings[1].clone()),
            Self::Cell { layer, head, key } => {
                Intervention::zero(Activation::Pattern.at(layer)).head(head).pos(at).key(key as isize)
            }
            Self::Head { layer, head } => Intervention::zero(Activation::Z.at(layer)).head(head).pos(at),
            Self::AttnBias { layer } => remove(Activation::AttnOut, layer, model.on_device().b_o(layer)?),
            Self::Mlp { layer } => Intervention::zero(Activation::MlpOut.at(layer)).pos(at),
            Self::Interventions { .. } => {
                return Err(Error::Setting {
                    function: "Receipt::strike",
                    option: "contributors",
                    expected: "parts of the model; for its interventions, take the receipt of model.without_hooks()"
                        .into(),
                    found: self.to_string(),
                });
            }
            Self::FinalLayerNormBias | Self::UnembedBias => return Ok(None),
        }))
    }
}

impl fmt::Display for Contributor {
    /// `head 3.5, key 2`, `MLP 2`, `embedding`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => f.write_str("token embedding"),
            Self::PosEmbed => f.write_str("position embedding"),
            Self::Cell { layer, head, key } => write!(f, "head {layer}.{head}, key {key}"),
            Self::Head { layer, head } => write!(f, "head {layer}.{head}"),
            Self::AttnBias { layer } => write!(f, "b_O {layer}"),
            Self::Mlp { layer } => write!(f, "MLP {layer}"),
            Self::Interventions { layer } => write!(f, "interventions in layer {layer}"),
            Self::FinalLayerNormBias => f.write_str("bias of the final layer norm"),
            Self::UnembedBias => f.write_str("b_U"),
        }
    }
}
