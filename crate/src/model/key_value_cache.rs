//! The key-value cache: the keys and values of every layer at the positions of each prompt that were already computed.
//!
//! A run that continues an earlier one computes its new positions only. It is what generation needs: the keys and
//! values of a position do not depend on later ones.

use crate::backend::KeyValues;
use crate::config::Gpt2Config;

/// `past_kv_cache` of TransformerLens, for a batch of prompts of any lengths.
pub(crate) struct KeyValueCache {
    /// Shape: `[layer][prompt]`.
    layers: Vec<Vec<KeyValues>>,
}

impl KeyValueCache {
    /// Of no position yet.
    pub(crate) fn new(config: &Gpt2Config, n_prompts: usize) -> Self {
        let layer = || (0..n_prompts).map(|_| KeyValues::new(config.n_heads * config.d_head)).collect();
        Self { layers: (0..config.n_layers).map(|_| layer()).collect() }
    }

    /// The number of positions of a prompt.
    pub(crate) fn len(&self, prompt: usize) -> usize {
        self.layers.first().map_or(0, |prompts| prompts[prompt].len())
    }

    /// Forgets the positions of a prompt.
    pub(crate) fn clear(&mut self, prompt: usize) {
        self.layers.iter_mut().for_each(|prompts| prompts[prompt].clear());
    }

    /// Takes a prompt out of the batch. Later prompts move up.
    pub(crate) fn remove(&mut self, prompt: usize) {
        self.layers.iter_mut().for_each(|prompts| drop(prompts.remove(prompt)));
    }

    /// The keys and values of a layer, for each prompt.
    pub(super) fn in_layer(&mut self, layer: usize) -> &mut [KeyValues] {
        &mut self.layers[layer]
    }
}
