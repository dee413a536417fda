//! What a cache holds, in words: for messages and for `Debug`.

use std::collections::BTreeSet;
use std::fmt;

use super::activation::Activation;
use super::activation_cache::ActivationCache;

impl ActivationCache {
    /// The activations and layers in the cache, in words, for messages.
    pub(super) fn contents(&self) -> String {
        let (activations, layers) = self.held_by_name();
        if activations.is_empty() {
            return "nothing".into();
        }
        let names: Vec<&str> = activations.into_iter().map(Activation::name).collect();
        format!("{} of {}", names.join(", "), in_words("layer", layers.into_iter()))
    }

    /// The activations that the cache holds of some layer, and the layers.
    fn held_by_name(&self) -> (BTreeSet<Activation>, BTreeSet<usize>) {
        let held = self.held();
        (held.iter().map(|&(_, activation)| activation).collect(), held.iter().map(|&(layer, _)| layer).collect())
    }

    /// The shape of an activation, where `pos` is the number of positions of the only prompt; the names of the axes
    /// that depend on the prompt where there are several.
    fn shape_in_words(&self, activation: Activation) -> String {
        let sizes = self.sizes();
        let pos = |axis: &str| match self.tokens() {
            [tokens] => tokens.len().to_string(),
            _ => axis.to_owned(),
        };
        let axes = activation.axes().iter().map(|&axis| match axis {
            "n_heads" => sizes.n_heads.to_string(),
            "d_head" => (sizes.d_model / sizes.n_heads).to_string(),
            "d_model" => sizes.d_model.to_string(),
            "d_mlp" => sizes.d_mlp.to_string(),
            axis => pos(axis),
        });
        format!("[{}]", axes.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for ActivationCache {
    /// Names and shapes, without the numbers: a cache can hold gigabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.tokens().iter().map(|tokens| tokens.len());
        let prompts = match self.n_prompts() {
            1 => "1 prompt".to_owned(),
            n => format!("{n} prompts"),
        };
        write!(f, "ActivationCache of {prompts}: {}", in_words("length", lengths))?;
        let (activations, layers) = self.held_by_name();
        if activations.is_empty() {
            f.write_str("; holds nothing")?;
        } else {
            write!(f, "; {} of {}", in_words("layer", layers.into_iter()), self.n_layers())?;
        }
        for activation in activations {
            let (name, shape, axes) =
                (activation.name(), self.shape_in_words(activation), activation.axes().join(", "));
            write!(f, "\n  {name:<12} {shape:<16} [{axes}]")?;
        }
        for intervention in self.interventions() {
            write!(f, "\n  changed by: {intervention}")?;
        }
        Ok(())
    }
}

/// Numbers in words: `layer 3`, `layers 0 to 11`, `layers 0, 2, 5`; more than eight that are not in a row are cut.
fn in_words(what: &str, numbers: impl Iterator<Item = usize>) -> String {
    let numbers: Vec<usize> = numbers.collect();
    let in_a_row = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    match &numbers[..] {
        [] => format!("no {what}s"),
        [only] => format!("{what} {only}"),
        [first, .., last] if in_a_row && numbers.len() > 2 => format!("{what}s {first} to {last}"),
        numbers => {
            let listed: Vec<String> = numbers.iter().take(8).map(ToString::to_string).collect();
            let more = if numbers.len() > 8 { ", …" } else { "" };
            format!("{what}s {}{more}", listed.join(", "))
        }
    }
}
