//! Many runs of the same prompts, each with interventions of its own, as batches that compute only what can change.
//!
//! A variant differs from the run without it from its first layer and its first position on. Everything before is taken
//! from one run: the residual stream before that layer, and the keys and values of the positions before that one.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, Ix2, concatenate, s};

use super::activation::Activation;
use super::activation_cache::ActivationCache;
use super::gpt2::Gpt2;
use super::interventions::{Intervention, PlannedEdits, Target};
use super::key_value_cache::KeyValueCache;
use super::prompts::Prompts;
use super::run_options::{RunOptions, RunPlan};
use crate::error::Result;

/// The run that variants differ from, with what they take from it.
pub(crate) struct BaseRun {
    /// `K`, `V` and `ResidPost` of every layer.
    cache: ActivationCache,
    /// The interventions of the model.
    of_model: PlannedEdits,
}

impl BaseRun {
    /// The token ids. Shape: `[prompt][pos]`.
    pub(crate) fn tokens(&self) -> &[Vec<u32>] {
        self.cache.tokens()
    }

    /// An activation of a prompt with a row for each token. Shape: → `[pos, columns]`.
    fn rows(&self, prompt: usize, activation: Activation, layer: usize) -> Result<ArrayView2<'_, f32>> {
        let view = self.cache.view_of_prompt(prompt, activation, layer)?;
        let pos = view.shape()[0];
        let columns = view.len() / pos;
        let view = view.into_shape_with_order((pos, columns)).expect("kept rows are contiguous");
        Ok(view.into_dimensionality::<Ix2>().expect("two axes"))
    }

    /// The residual stream before a layer of the prompts of a batch, each from a position on; `None` for the embeddings,
    /// which are computed on the device. Shape: `copies [prompt] (prompt of this run, position)` → `[rows, d_model]`.
    fn resid_before(&self, layer: usize, copies: &[(usize, usize)]) -> Result<Option<Array2<f32>>> {
        let Some(below) = layer.checked_sub(1) else { return Ok(None) };
        let rows = |&(prompt, first): &(usize, usize)| {
            Ok(self.rows(prompt, Activation::ResidPost, below)?.slice_move(s![first.., ..]))
        };
        let rows = copies.iter().map(rows).collect::<Result<Vec<_>>>()?;
        Ok(Some(concatenate(Axis(0), &rows).expect("each has d_model columns")))
    }
}

/// A run that differs from the base run by interventions.
pub(crate) struct Variant {
    edits: PlannedEdits,
    /// The first layer that differs.
    layer: usize,
    /// The first position of each prompt that differs. Shape: `[prompt]`.
    first: Vec<usize>,
    /// Memory of the edits.
    bytes: usize,
}

impl Variant {
    /// The same run with the interventions of others too, whose values it shares with them: they take no further memory.
    pub(crate) fn with<'a>(mut self, others: impl IntoIterator<Item = &'a Variant>) -> Self {
        for other in others {
            self.edits.merge(&other.edits, |prompt| (prompt, 0));
            self.layer = self.layer.min(other.layer);
            self.first.iter_mut().zip(&other.first).for_each(|(first, other)| *first = (*first).min(*other));
        }
        self
    }

    /// An upper bound of the memory that its interventions take while it runs.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first layer that differs.
    pub(crate) fn layer(&self) -> usize {
        self.layer
    }

    /// The number of positions that are computed, in all prompts, if the last ones suffice.
    pub(crate) fn n_rows(&self, base: &BaseRun) -> usize {
        base.tokens().iter().zip(&self.first).map(|(tokens, first)| tokens.len() - first).sum()
    }
}

/// The rows after the final layer norm that are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinalRows {
    /// The last row of each prompt.
    Last,
    All,
}

impl Gpt2 {
    /// Runs prompts, and keeps what variants of the run need.
    pub(crate) fn base_run(&self, prompts: Prompts) -> Result<BaseRun> {
        let options =
            RunOptions::default().activations([Activation::K, Activation::V, Activation::ResidPost]).no_logits();
        let (_, cache) = self.run_with_cache_options(prompts, options)?;
        let of_model = PlannedEdits::new(self.interventions(), &[], &self.target(cache.tokens()))?;
        Ok(BaseRun { cache, of_model })
    }

    fn target<'a>(&'a self, tokens: &'a [Vec<u32>]) -> Target<'a> {
        Target { config: self.config(), tokens, past: vec![0; tokens.len()], layers: 0..self.config().n_layers }
    }

    /// Checks the interventions of a variant, whose prompts are those of the base run.
    ///
    /// # Errors
    /// [`Error::Intervention`](crate::Error::Intervention).
    pub(crate) fn variant(&self, base: &BaseRun, interventions: &[Intervention]) -> Result<Variant> {
        let tokens = base.tokens();
        let edits = PlannedEdits::new(&[], interventions, &self.target(tokens))?;
        let layer = edits.iter().map(|(layer, _)| layer).min().unwrap_or(self.config().n_layers);
        let mut first: Vec<usize> = tokens.iter().map(|tokens| tokens.len() - 1).collect();
        if base.of_model.has_closure() {
            first.fill(0);
        }
        for (_, edit) in edits.iter() {
            first[edit.prompt] = first[edit.prompt].min(edit.first_position());
        }
        let bytes = edits.bytes(tokens);
        Ok(Variant { edits, layer, first, bytes })
    }

    /// Runs variants as one batch, from their first layer on. Returns rows after the final layer norm.
    /// Shape: → `[variant] [prompt] [1 or pos, d_model]`.
    pub(crate) fn run_variants(
        &self,
        base: &BaseRun,
        variants: &[&Variant],
        rows: FinalRows,
    ) -> Result<Vec<Vec<Array2<f32>>>> {
        let (tokens, config) = (base.tokens(), self.config());
        let (n_prompts, n_layers) = (tokens.len(), config.n_layers);
        let layer = first_layer(variants, n_layers);
        let copies: Vec<(usize, usize)> = variants
            .iter()
            .flat_map(|variant| {
                (0..n_prompts).map(|prompt| (prompt, if rows == FinalRows::All { 0 } else { variant.first[prompt] }))
            })
            .collect(); // the prompt and the first position of each prompt of the batch
        let plan = RunPlan::of_variants(edits_of_batch(base, variants, &copies), layer..n_layers);
        let new_tokens: Vec<Vec<u32>> =
            copies.iter().map(|&(prompt, first)| tokens[prompt][first..].to_vec()).collect();
        let first: Vec<usize> = copies.iter().map(|&(_, first)| first).collect();
        let resid = base.resid_before(layer, &copies)?;
        let mut past = None;
        if first.iter().any(|&first| first > 0) {
            let mut keys_and_values = KeyValueCache::new(config, copies.len());
            for layer in layer..n_layers {
                for (index, &(prompt, first)) in copies.iter().enumerate() {
                    let [k, v] = [Activation::K, Activation::V].map(|activation| base.rows(prompt, activation, layer));
                    let (k, v) = (k?, v?);
                    keys_and_values.in_layer(layer)[index].push(k.slice(s![..first, ..]), v.slice(s![..first, ..]));
                }
            }
            past = Some(keys_and_values);
        }
        let input = VariantInput { tokens: new_tokens, first, resid, past, last_only: rows == FinalRows::Last };
        let mut all = self.on_device_arc().run_variants(input, &plan)?.into_iter();
        Ok(variants.iter().map(|_| all.by_ref().take(n_prompts).collect()).collect())
    }

    /// Runs variants as one batch, from their first layer on, at all positions, up to the last of `layers`, and caches an
    /// activation of these layers. Returns a cache of the prompts for each variant.
    pub(crate) fn cache_variants(
        &self,
        base: &BaseRun,
        variants: &[&Variant],
        activation: Activation,
        layers: &[usize],
    ) -> Result<Vec<ActivationCache>> {
        let (tokens, n_layers) = (base.tokens(), self.config().n_layers);
        let copies: Vec<(usize, usize)> =
            variants.iter().flat_map(|_| (0..tokens.len()).map(|prompt| (prompt, 0))).collect();
        let layer = first_layer(variants, n_layers);
        let end = layers.iter().max().map_or(layer, |&last| (last + 1).max(layer));
        let plan = RunPlan::of_variants(edits_of_batch(base, variants, &copies), layer..end);
        let plan = plan.that_caches(activation, layers, base.resid_before(layer, &copies)?);
        let all = copies.iter().map(|&(prompt, _)| tokens[prompt].clone()).collect();
        let (_, cache) = self.on_device_arc().run(all, &plan)?;
        Ok(cache.split(tokens.len()))
    }
}

/// The first layer that differs in one of the variants.
fn first_layer(variants: &[&Variant], n_layers: usize) -> usize {
    variants.iter().map(|variant| variant.layer).min().unwrap_or(n_layers)
}

/// The edits of variants that run as one batch, whose prompts are those of the base run, once for each variant.
/// Shape: `copies [prompt of the batch]`.
fn edits_of_batch(base: &BaseRun, variants: &[&Variant], copies: &[(usize, usize)]) -> PlannedEdits {
    let n_prompts = base.tokens().len();
    let mut edits = PlannedEdits::default();
    for (index, variant) in variants.iter().enumerate() {
        let moved = |prompt: usize| (index * n_prompts + prompt, copies[index * n_prompts + prompt].1);
        edits.merge(&base.of_model, moved);
        edits.merge(&variant.edits, moved);
    }
    edits
}

/// What a batch of variants starts from.
pub(crate) struct VariantInput {
    /// The tokens that are computed. Shape: `[prompt][pos]`.
    pub(super) tokens: Vec<Vec<u32>>,
    /// The position of the first of them. Shape: `[prompt]`.
    pub(super) first: Vec<usize>,
    /// The residual stream before the first layer; `None` for the embeddings. Shape: `[rows, d_model]`.
    pub(super) resid: Option<Array2<f32>>,
    /// The keys and values of earlier positions, from the first layer on.
    pub(super) past: Option<KeyValueCache>,
    /// Whether the last row of each prompt suffices.
    pub(super) last_only: bool,
}

impl VariantInput {
    /// The rows of the last position of each prompt.
    pub(super) fn last_rows(prompts: &[Range<usize>]) -> Vec<usize> {
        prompts.iter().map(|rows| rows.end - 1).collect()
    }
}
