//! The part of an activation that an intervention changes.

use super::hook_point::HookPoint;
use crate::config::Gpt2Config;
use crate::error::{Error, Result, check_index, check_position};
use crate::model::Activation;

/// The heads, positions, keys, neurons and prompts that an intervention changes; all of them for `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) prompts: Option<Vec<usize>>,
    pub(super) heads: Option<Vec<usize>>,
    /// Positions, which are query positions in scores and patterns. Negative ones count from the prompt's end.
    pub(super) positions: Option<Vec<isize>>,
    pub(super) keys: Option<Vec<isize>>,
    pub(super) neurons: Option<Vec<usize>>,
    /// Pairs of a query and a key, a further restriction.
    pub(super) cells: Option<Vec<(isize, isize)>>,
}

/// The indices along the three axes of an activation, as [`Selection::indices`] lists them.
pub(super) type Indices = [Vec<usize>; 3];

impl Selection {
    /// Checks that the activation has the axes that are selected, and the model the heads and neurons.
    pub(super) fn check(&self, point: HookPoint, config: &Gpt2Config) -> Result<()> {
        let activation = point.activation;
        let (cells, of_heads) = (activation.is_of_cells(), has_heads(activation));
        let of_neurons = matches!(activation, Activation::MlpPre | Activation::MlpPost);
        for (option, given, has_axis) in [
            ("head", self.heads.is_some(), of_heads),
            ("key", self.keys.is_some(), cells),
            ("cells", self.cells.is_some(), cells),
            ("neuron", self.neurons.is_some(), of_neurons),
        ] {
            if given && !has_axis {
                return Err(Error::Setting {
                    function: "Intervention",
                    option,
                    expected: format!("an activation with such an axis: {}", with_axis(option)),
                    found: activation.name().into(),
                });
            }
        }
        for (option, len) in [
            ("prompt", self.prompts.as_ref().map(Vec::len)),
            ("head", self.heads.as_ref().map(Vec::len)),
            ("pos", self.positions.as_ref().map(Vec::len)),
            ("key", self.keys.as_ref().map(Vec::len)),
            ("neuron", self.neurons.as_ref().map(Vec::len)),
            ("cells", self.cells.as_ref().map(Vec::len)),
        ] {
            if len == Some(0) {
                let (expected, found) = ("at least one; leave the option out for all".into(), "none".into());
                return Err(Error::Setting { function: "Intervention", option, expected, found });
            }
        }
        for &head in self.heads.iter().flatten() {
            check_index("head", head, "the model", config.n_heads)?;
        }
        for &neuron in self.neurons.iter().flatten() {
            check_index("neuron", neuron, "the MLP", config.d_mlp)?;
        }
        for (option, selected) in [("head", &self.heads), ("neuron", &self.neurons), ("prompt", &self.prompts)] {
            check_once(option, selected.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    /// The prompts of a batch of `n` that are changed.
    pub(super) fn prompts(&self, n: usize) -> Result<Vec<usize>> {
        let Some(prompts) = &self.prompts else { return Ok((0..n).collect()) };
        prompts.iter().map(|&prompt| check_index("prompt", prompt, "the batch", n)).collect()
    }

    /// The indices along the axes of the activation, for a prompt of `pos` tokens: `[pos, 1, d_model]`,
    /// `[pos, n_heads, d_head]` or `[n_heads, query_pos, key_pos]`.
    pub(super) fn indices(
        &self,
        activation: Activation,
        config: &Gpt2Config,
        prompt: usize,
        pos: usize,
    ) -> Result<Indices> {
        let positions = |option: &'static str, selected: &Option<Vec<isize>>| -> Result<Vec<usize>> {
            let Some(selected) = selected else { return Ok((0..pos).collect()) };
            let selected = selected.iter().map(|&position| check_position(position, prompt, pos));
            let selected = selected.collect::<Result<Vec<_>>>()?;
            check_once(option, &selected)?;
            Ok(selected)
        };
        let heads = self.heads.clone().unwrap_or_else(|| (0..config.n_heads).collect());
        let queries = positions("pos", &self.positions)?;
        if activation.is_of_cells() {
            return Ok([heads, queries, positions("key", &self.keys)?]);
        }
        let columns = match activation {
            Activation::Q | Activation::K | Activation::V | Activation::Z => config.d_head,
            Activation::MlpPre | Activation::MlpPost => config.d_mlp,
            _ => config.d_model,
        };
        let columns = self.neurons.clone().unwrap_or_else(|| (0..columns).collect());
        Ok(if has_heads(activation) { [queries, heads, columns] } else { [queries, vec![0], columns] })
    }

    /// The pairs of a query and a key that remain, sorted, if there is a list of them.
    pub(super) fn cells(&self, prompt: usize, pos: usize) -> Result<Option<Vec<(usize, usize)>>> {
        let Some(cells) = &self.cells else { return Ok(None) };
        let index = |position| check_position(position, prompt, pos);
        let mut cells: Vec<(usize, usize)> =
            cells.iter().map(|&(query, key)| Ok((index(query)?, index(key)?))).collect::<Result<_>>()?;
        if let Some(&(query, key)) = cells.iter().find(|(query, key)| key > query) {
            return Err(Error::Setting {
                function: "Intervention",
                option: "cells",
                expected: "keys up to the query, as the others are masked".into(),
                found: format!("query {query}, key {key}"),
            });
        }
        cells.sort_unstable();
        Ok(Some(cells))
    }
}

/// [`Error::Setting`] for an index that is selected twice, which a change would reach twice. Two positions may be the same
/// one, from the start and from the end.
fn check_once(option: &'static str, selected: &[usize]) -> Result<()> {
    let mut sorted = selected.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::Setting {
            function: "Intervention",
            option,
            expected: "each once".into(),
            found: format!("{} twice", pair[0]),
        }),
    }
}

/// Whether the activation has an axis of heads.
pub(super) fn has_heads(activation: Activation) -> bool {
    use Activation::{AttnScores, K, Pattern, Q, Result, V, Z};
    matches!(activation, Q | K | V | Z | Result | AttnScores | Pattern)
}

/// The activations that have the axis of an option, for a message.
fn with_axis(option: &str) -> &'static str {
    match option {
        "head" => "q, k, v, z, result, attn_scores, pattern",
        "neuron" => "mlp_pre, mlp_post",
        _ => "attn_scores, pattern",
    }
}
