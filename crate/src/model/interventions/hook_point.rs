//! Hook points: an activation of a layer.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::model::Activation;

/// An activation of a layer, where an [`Intervention`](crate::Intervention) changes a run.
///
/// [`Activation::at`] makes one, and so does TransformerLens' name of it.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let point: HookPoint = "blocks.5.attn.hook_z".parse()?;
/// assert_eq!(point, Activation::Z.at(5));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookPoint {
    /// The activation.
    pub activation: Activation,
    /// The layer, from 0.
    pub layer: usize,
}

impl From<(Activation, usize)> for HookPoint {
    fn from((activation, layer): (Activation, usize)) -> Self {
        Self { activation, layer }
    }
}

impl fmt::Display for HookPoint {
    /// TransformerLens' name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.activation.hook_name(self.layer))
    }
}

impl FromStr for HookPoint {
    type Err = Error;

    /// Parses TransformerLens' name: `"blocks.5.hook_resid_pre"`, `"blocks.5.attn.hook_z"`, `"blocks.5.mlp.hook_post"`.
    ///
    /// # Errors
    /// [`Error::Setting`] for a name that no [`Activation`] has.
    fn from_str(name: &str) -> Result<Self, Error> {
        let layer = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()).filter(|digits| {
            // `usize` also parses a sign and leading zeros, with which it would not be the same name.
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        let point = layer.and_then(|layer| layer.parse().ok()).and_then(|layer| {
            let activation = Activation::ALL.into_iter().find(|activation| activation.hook_name(layer) == name)?;
            Some(Self { activation, layer })
        });
        point.ok_or_else(|| Error::Setting {
            function: "HookPoint",
            option: "name",
            expected: Activation::ALL.map(|activation| activation.hook_name(0).replace(".0.", ".LAYER.")).join(", "),
            found: format!("{name:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_parsed_back() {
        for layer in [0, 7, 11, 47] {
            for activation in Activation::ALL {
                assert_eq!(activation.hook_name(layer).parse::<HookPoint>().unwrap(), activation.at(layer));
            }
        }
    }

    #[test]
    fn other_names_are_errors() {
        let names =
            ["", "blocks", "blocks.", "blocks.5", "blocks.+5.attn.hook_z", "blocks.05.attn.hook_z", "hook_embed"];
        for name in
            names.into_iter().chain(["blocks.5.hook_z", "blocks.5.attn.hook_z ", "blocks.99999999999999999999.hook_q"])
        {
            let message = name.parse::<HookPoint>().unwrap_err().to_string();
            assert!(
                message.contains("blocks.LAYER.attn.hook_z") && message.ends_with(&format!("{name:?}")),
                "{message}"
            );
        }
    }
}
