//! The hook points of a forward pass: each activation passes through here as it is computed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArcArray, ArcArray2, Ix3, IxDyn};

use super::activation::Activation;
use super::activation_cache::ActivationCache;
use super::cached_activation::CachedActivation;
use super::key_value_cache::KeyValueCache;
use super::on_device::OnDevice;
use super::run_options::RunPlan;
use super::variants::VariantInput;
use crate::backend::{AttentionOutput, Backend, Heads};
use crate::error::Result;
use crate::memory::LazyArray;

/// Edits the activations that interventions change, then caches those that the options of a run select, an array for
/// each prompt.
///
/// [`hook`](Self::hook) takes an activation, edits it as the plan says, and returns the one that the forward pass
/// continues with. The cache holds the edited activations.
pub(super) struct Recorder<'a, B: Backend> {
    pub(super) model: &'a Arc<OnDevice<B>>,
    pub(super) plan: &'a RunPlan,
    /// The rows of each prompt.
    pub(super) prompts: Vec<Range<usize>>,
    /// The layer that is being computed.
    pub(super) layer: usize,
    /// The activations of the layer that others are computed from, one for each prompt.
    sources: BTreeMap<Activation, Vec<Arc<CachedActivation>>>,
    pub(super) cache: ActivationCache,
    /// The keys and values of the positions before those of this run, if it continues an earlier one.
    pub(super) past: Option<&'a mut KeyValueCache>,
    /// The layer after whose attention only the last row of each prompt is computed.
    narrowed_layer: Option<usize>,
}

impl<'a, B: Backend> Recorder<'a, B> {
    pub(super) fn new(model: &'a Arc<OnDevice<B>>, plan: &'a RunPlan, cache: ActivationCache) -> Self {
        Self {
            model,
            plan,
            prompts: rows_of(cache.tokens()),
            layer: 0,
            sources: BTreeMap::new(),
            cache,
            past: None,
            narrowed_layer: None,
        }
    }

    /// The same recorder, for a run that continues an earlier one.
    pub(super) fn with_past(self, past: &'a mut KeyValueCache) -> Self {
        Self { past: Some(past), ..self }
    }

    /// The same recorder, for a run of which only the residual stream at the last row of each prompt is read: the last layer
    /// leaves out the other rows after its attention, unless interventions change something there.
    pub(super) fn narrowed_in_last_layer(self, n_layers: usize) -> Self {
        use Activation::{AttnOut, MlpOut, MlpPost, MlpPre, ResidMid, ResidPost, Result};
        let last = n_layers.saturating_sub(1);
        let edited = [Result, AttnOut, ResidMid, MlpPre, MlpPost, MlpOut, ResidPost];
        let edited = edited.iter().any(|&activation| !self.plan.edits.at(activation, last).is_empty())
            || [ResidMid, ResidPost].iter().any(|&reads| !self.plan.edits.layer_norm(reads, last).is_empty());
        Self { narrowed_layer: (!edited).then_some(last), ..self }
    }

    /// The last row of each prompt, if only these are computed after the attention of the current layer. From then on they
    /// are the rows of the prompts.
    pub(super) fn narrow(&mut self) -> Option<Vec<usize>> {
        if self.narrowed_layer != Some(self.layer) {
            return None;
        }
        let rows = VariantInput::last_rows(&self.prompts);
        self.prompts = (0..rows.len()).map(|row| row..row + 1).collect();
        Some(rows)
    }

    /// The same recorder, for the activations of a layer.
    pub(super) fn in_layer(&mut self, layer: usize) -> &mut Self {
        self.layer = layer;
        self.sources.clear();
        self
    }

    /// The rows of each prompt.
    pub(super) fn prompts(&self) -> &[Range<usize>] {
        &self.prompts
    }

    pub(super) fn into_cache(self) -> ActivationCache {
        self.cache
    }

    /// The hook of every activation that has a row for each token. Returns it as interventions leave it.
    /// Shape: `[rows, d_model]`, cached as `[pos, d_model]`, or `[rows, n_heads d_head]`, cached as
    /// `[pos, n_heads, d_head]` → the same.
    pub(super) fn hook(&mut self, activation: Activation, x: B::Tensor) -> Result<B::Tensor> {
        let x = if self.edits(activation) { self.edit(activation, x)? } else { x };
        let (caches, is_source) =
            (self.plan.caches(activation, self.layer), self.plan.derives_from(activation, self.layer));
        if caches || is_source {
            let n_heads = activation.is_per_head().then_some(self.cache.sizes().n_heads);
            let lazy = self.model.backend.lazy_rows(&x, &self.prompts)?.into_iter();
            let by_prompt: Vec<_> = lazy
                .map(|rows| Arc::new(CachedActivation::new(rows.map(move |rows| by_head(rows, n_heads)))))
                .collect();
            if caches {
                for (prompt, values) in by_prompt.iter().enumerate() {
                    self.cache.insert(prompt, activation, self.layer, values.clone());
                }
            }
            if is_source {
                self.sources.insert(activation, by_prompt);
            }
        }
        Ok(x)
    }

    /// The hook of an activation that is computed when it is first read, from one that passed through
    /// [`hook`](Self::hook) before.
    pub(super) fn hook_derived(&mut self, activation: Activation) {
        if self.plan.caches(activation, self.layer) {
            let source = activation.computed_from().and_then(|source| self.sources.get(&source));
            for (prompt, source) in source.cloned().into_iter().flatten().enumerate() {
                self.insert(prompt, activation, self.model.derived(activation, self.layer, &source));
            }
        }
    }

    /// The hook of the attention scores, which follow from `q` and `k` and may be computed when they are first read.
    /// Shape: `q`, `k` each `[rows, n_heads d_head]`, cached as `[n_heads, query_pos, key_pos]`.
    pub(super) fn hook_attn_scores(&mut self, q: &B::Tensor, k: &B::Tensor, heads: Heads) -> Result<()> {
        if self.plan.caches(Activation::AttnScores, self.layer) {
            for (prompt, rows) in self.prompts.clone().into_iter().enumerate() {
                let scores = self.model.backend.attn_scores(q, k, heads, rows)?;
                self.insert(prompt, Activation::AttnScores, scores.map(ArcArray::into_dyn));
            }
        }
        Ok(())
    }

    /// Attention of the rows of this run, over their prompts' earlier positions too if it continues an earlier run. Such
    /// a run has no patterns. Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `z` the same.
    pub(super) fn attention(&mut self, qkv: [&B::Tensor; 3], heads: Heads) -> Result<AttentionOutput<B::Tensor>> {
        let edits = self.edits(Activation::AttnScores) || self.edits(Activation::Pattern);
        let keep_pattern = self.plan.caches(Activation::Pattern, self.layer);
        if edits && let Some(edits) = self.cell_edits() {
            return self.edited_attention(qkv, heads, keep_pattern, edits);
        }
        let output = match &mut self.past {
            None => self.model.backend.attention(qkv, heads, &self.prompts, keep_pattern)?,
            Some(past) => {
                let past = past.in_layer(self.layer);
                let z = self.model.backend.attention_with_past(qkv, heads, &self.prompts, past)?;
                AttentionOutput { z, pattern: Vec::new() }
            }
        };
        if edits { self.edit_attention(output, qkv, heads) } else { Ok(output) }
    }

    /// The hook of the patterns. Shape: each `[n_heads, query_pos, key_pos]`, one for each prompt, or none.
    pub(super) fn hook_pattern(&mut self, pattern: Vec<LazyArray<Ix3>>) {
        for (prompt, pattern) in pattern.into_iter().enumerate() {
            self.insert(prompt, Activation::Pattern, pattern.map(ArcArray::into_dyn));
        }
    }

    /// Adds an activation of the current layer to the cache. Shape: as [`Activation`] lists.
    pub(super) fn insert(&mut self, prompt: usize, activation: Activation, values: LazyArray<IxDyn>) {
        self.cache.insert(prompt, activation, self.layer, Arc::new(CachedActivation::new(values)));
    }
}

/// Splits the columns by head, if a number of heads is given.
/// Shape: `[pos, n_heads d_head]` → `[pos, n_heads, d_head]`, or `[pos, d_model]` → the same.
fn by_head(rows: ArcArray2<f32>, n_heads: Option<usize>) -> ArcArray<f32, IxDyn> {
    let Some(n_heads) = n_heads else { return rows.into_dyn() };
    let shape = (rows.nrows(), n_heads, rows.ncols() / n_heads);
    rows.into_shape_with_order(shape).expect("n_heads d_head columns").into_dyn()
}

/// The rows of each prompt in a batch whose prompts follow each other. Shape: `[prompt] [pos]` → `[prompt]`.
fn rows_of(prompts: &[Vec<u32>]) -> Vec<Range<usize>> {
    let ends = prompts.iter().scan(0, |end, prompt| {
        *end += prompt.len();
        Some(*end)
    });
    ends.zip(prompts).map(|(end, prompt)| end - prompt.len()..end).collect()
}
