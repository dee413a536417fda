//! Options of a run: which activations to cache, and how far to run.

use super::activation::Activation;
use crate::error::{Result, check_count, check_index};

/// Options of [`Gpt2::run_with_cache_options`](crate::Gpt2::run_with_cache_options): which activations to cache, and
/// how far to run. By default a run caches every activation of every layer, and computes the logits.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    activations: Option<Vec<Activation>>,
    layers: Option<Vec<usize>>,
    stop_at_layer: Option<usize>,
    no_logits: bool,
}

impl RunOptions {
    /// The activations that [`head_data`](crate::head_data) reads (queries, keys, values and patterns of every layer),
    /// without logits.
    pub fn for_head_data() -> Self {
        use Activation::{K, Pattern, Q, V};
        Self::default().activations([Q, K, V, Pattern]).no_logits()
    }

    /// Cache only these activations.
    pub fn activations(mut self, activations: impl IntoIterator<Item = Activation>) -> Self {
        self.activations = Some(activations.into_iter().collect());
        self
    }

    /// Cache activations of these layers only.
    pub fn layers(mut self, layers: impl IntoIterator<Item = usize>) -> Self {
        self.layers = Some(layers.into_iter().collect());
        self
    }

    /// Run only the layers below this one, without logits; at most `n_layers`.
    pub fn stop_at_layer(mut self, layer: usize) -> Self {
        self.stop_at_layer = Some(layer);
        self
    }

    /// Compute no logits: TransformerLens' `return_type=None`.
    pub fn no_logits(mut self) -> Self {
        self.no_logits = true;
        self
    }

    /// Fills in the defaults, and checks the layers against those of the model.
    pub(super) fn plan(&self, n_layers: usize) -> Result<RunPlan> {
        let layers = self.layers.clone().unwrap_or_else(|| (0..n_layers).collect());
        for &layer in &layers {
            check_index("layer", layer, "the model", n_layers)?;
        }
        if let Some(layer) = self.stop_at_layer {
            check_count("RunOptions", "stop_at_layer", layer, 0, Some(n_layers))?;
        }
        Ok(RunPlan {
            activations: self.activations.clone().unwrap_or_else(|| Activation::ALL.to_vec()),
            layers,
            stop_at_layer: self.stop_at_layer.unwrap_or(n_layers),
            logits: !self.no_logits && self.stop_at_layer.is_none(),
        })
    }
}

/// [`RunOptions`] without defaults, checked against a model.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    activations: Vec<Activation>,
    layers: Vec<usize>,
    /// Only the blocks below this one run.
    stop_at_layer: usize,
    pub(super) logits: bool,
}

impl RunPlan {
    pub(super) fn caches(&self, activation: Activation, layer: usize) -> bool {
        self.activations.contains(&activation) && self.layers.contains(&layer)
    }

    /// The number of blocks that have to run.
    pub(super) fn n_blocks(&self) -> usize {
        let needed =
            if self.logits { self.stop_at_layer } else { self.layers.iter().max().map_or(0, |&last| last + 1) };
        needed.min(self.stop_at_layer)
    }
}
