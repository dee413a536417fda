//! The activations of a forward pass, by prompt, layer and name.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD};

use super::activation::Activation;
use super::cached_activation::CachedActivation;
use super::gpt2::Gpt2;
use super::sizes::Sizes;
use crate::error::{Error, Result, check_index};
use crate::memory::HostArray;

/// The activations of a forward pass over one or several prompts, as `ndarray` arrays.
///
/// [`Activation`] lists the use, the shape and the place in the block of each.
/// [`RunOptions`](crate::RunOptions) chooses which ones a run caches.
///
/// Prompts of different lengths have arrays of different lengths, without padding: take one prompt with
/// [`prompt`](Self::prompt), then read its arrays with the methods of their names ([`pattern`](Self::pattern),
/// [`resid_pre`](Self::resid_pre), …), with [`get`](Self::get), or by TransformerLens' names of hooks with
/// [`get_by_name`](Self::get_by_name). `Debug` lists them with their shapes. Cloning a cache shares the arrays.
///
/// [`AttnScores`](Activation::AttnScores), [`Result`](Activation::Result), [`MlpPre`](Activation::MlpPre) and
/// [`MlpPost`](Activation::MlpPost) are computed when they are first read. Until then, a cache that has one of the last
/// three keeps the weights of its model in memory, also when the model is dropped.
///
/// Memory: the arrays of dropped caches, up to 1 GiB, are reused by the next runs until a model is dropped. If the
/// model is on a GPU ([`Device::cuda`](crate::Device::cuda)), an activation stays there until it is first read, which
/// copies it to the host and frees its memory on the GPU. Dropping the cache frees the rest.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let (_, cache) = model.run_with_cache(["The bus is late.", "The bus was early today."])?;
/// let pattern = cache.prompt(1)?.pattern(0)?; // [n_heads, query_pos, key_pos]
/// assert_eq!(pattern.dim(), (8, 7, 7));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct ActivationCache {
    /// The token ids of each prompt, the beginning-of-sequence token included.
    tokens: Vec<Vec<u32>>,
    /// The activations of each prompt, by layer and name.
    activations: Vec<BTreeMap<(usize, Activation), Arc<CachedActivation>>>,
    /// The sizes of the model.
    sizes: Arc<Sizes>,
    /// The interventions of the run, in words.
    interventions: Vec<Arc<str>>,
    /// The scales of layer norms that the run held, of each prompt: by layer, the activation that the layer norm reads, and
    /// position.
    held_scales: Vec<HeldScales>,
}

/// The scales of layer norms that a run held, by layer, the activation that the layer norm reads, and position.
type HeldScales = BTreeMap<(usize, Activation, usize), f32>;

impl ActivationCache {
    /// An empty cache for prompts of these tokens. Shape: `tokens [prompt][pos]`.
    pub(super) fn new(tokens: Vec<Vec<u32>>, sizes: Arc<Sizes>) -> Self {
        let n = tokens.len();
        let (activations, held_scales) = (vec![BTreeMap::new(); n], vec![BTreeMap::new(); n]);
        Self { tokens, activations, sizes, interventions: Vec::new(), held_scales }
    }

    /// The same cache, of a run with these interventions.
    pub(crate) fn with_interventions(mut self, interventions: &[Arc<str>]) -> Self {
        self.interventions = interventions.to_vec();
        self
    }

    /// The run held the scale of a layer norm, at one position of a prompt.
    pub(crate) fn hold_scale(
        &mut self,
        prompt: usize,
        (layer, reads): (usize, Activation),
        position: usize,
        scale: f32,
    ) {
        self.held_scales[prompt].insert((layer, reads, position), scale);
    }

    /// The scale of the layer norm that reads an activation, if the run held it there.
    pub(crate) fn held_scale(
        &self,
        prompt: usize,
        (layer, reads): (usize, Activation),
        position: usize,
    ) -> Option<f32> {
        self.held_scales[prompt].get(&(layer, reads, position)).copied()
    }

    /// The interventions that changed the run, in words and in order; those of prompts that a
    /// [`prompt`](Self::prompt) left out too.
    pub fn interventions(&self) -> Vec<String> {
        self.interventions.iter().map(ToString::to_string).collect()
    }

    /// The sizes of the model that ran.
    pub(super) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// [`Error::Shape`] unless the model has the sizes of the one that filled the cache. `function` reads both.
    pub(crate) fn check_model(&self, model: &Gpt2, function: &'static str) -> Result<()> {
        self.sizes.check(&Sizes::of(model.config()), function)
    }

    /// The number that a layer's products of queries and keys are multiplied with to give its scores.
    pub(crate) fn score_scale(&self, layer: usize) -> f32 {
        self.sizes.score_scales[layer]
    }

    /// Adds an activation of one prompt. Shape: as [`Activation`] lists.
    pub(super) fn insert(
        &mut self,
        prompt: usize,
        activation: Activation,
        layer: usize,
        values: Arc<CachedActivation>,
    ) {
        self.activations[prompt].insert((layer, activation), values);
    }

    /// An empty cache of a model for prompts of these tokens. Shape: `tokens [prompt][pos]`.
    pub(crate) fn of_model(model: &Gpt2, tokens: Vec<Vec<u32>>) -> Self {
        Self::new(tokens, Arc::new(Sizes::of(model.config())))
    }

    /// Adds an array of one prompt. Shape: as [`Activation`] lists.
    pub(crate) fn insert_array(&mut self, prompt: usize, activation: Activation, layer: usize, array: ArrayD<f32>) {
        let values = CachedActivation::new(HostArray::from(array).into());
        self.insert(prompt, activation, layer, Arc::new(values));
    }

    /// Whether an intervention of the run changed an activation of some layer.
    pub(crate) fn is_edited(&self, activation: Activation) -> bool {
        (0..self.n_layers())
            .map(|layer| activation.hook_name(layer))
            .any(|name| self.interventions.iter().any(|text| text.split([' ', ',']).any(|word| word == name)))
    }

    /// The layer and the name of each activation in the cache.
    pub(crate) fn held(&self) -> Vec<(usize, Activation)> {
        self.activations.first().map(|activations| activations.keys().copied().collect()).unwrap_or_default()
    }

    /// Number of prompts.
    pub fn n_prompts(&self) -> usize {
        self.tokens.len()
    }

    /// The token ids of every prompt, the beginning-of-sequence token included. Shape: `[prompt][pos]`.
    pub fn tokens(&self) -> &[Vec<u32>] {
        &self.tokens
    }

    /// The cache of one prompt of the batch. It may share the batch's memory, which is then freed with the last cache
    /// that shares it.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the batch has no such prompt.
    pub fn prompt(&self, prompt: usize) -> Result<ActivationCache> {
        check_index("prompt", prompt, "the cache", self.n_prompts())?;
        Ok(Self {
            tokens: vec![self.tokens[prompt].clone()],
            activations: vec![self.activations[prompt].clone()],
            sizes: self.sizes.clone(),
            interventions: self.interventions.clone(),
            held_scales: vec![self.held_scales[prompt].clone()],
        })
    }

    /// The caches of `n` prompts each, of a batch whose number of prompts is a multiple of it.
    pub(super) fn split(self, n: usize) -> Vec<ActivationCache> {
        let part = |first: usize| Self {
            tokens: self.tokens[first..first + n].to_vec(),
            activations: self.activations[first..first + n].to_vec(),
            sizes: self.sizes.clone(),
            interventions: self.interventions.clone(),
            held_scales: self.held_scales[first..first + n].to_vec(),
        };
        (0..self.n_prompts()).step_by(n).map(part).collect()
    }

    /// Number of layers of the model, whether the cache holds their activations or not.
    pub fn n_layers(&self) -> usize {
        self.sizes.score_scales.len()
    }

    /// A copy of an activation, for a cache of one prompt. Shape: → as [`Activation`] lists.
    ///
    /// # Errors
    /// [`Error::SeveralPrompts`] if the cache holds several prompts (take one with [`prompt`](Self::prompt)),
    /// [`Error::OutOfRange`] if the model has no such layer, [`Error::NotCached`] if the options of the run left it
    /// out, [`Error::Device`] if it cannot be copied from a GPU.
    pub fn get(&self, activation: Activation, layer: usize) -> Result<ArrayD<f32>> {
        Ok(self.view(activation, layer)?.to_owned())
    }

    /// [`get`](Self::get) without the copy, for programs: a variable of a notebook cannot hold a borrowed value.
    /// Shape: → as [`Activation`] lists.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn view(&self, activation: Activation, layer: usize) -> Result<ArrayViewD<'_, f32>> {
        self.one_prompt()?;
        self.view_of_prompt(0, activation, layer)
    }

    /// The token ids of the only prompt. Shape: → `[pos]`.
    pub(crate) fn one_prompt(&self) -> Result<&[u32]> {
        match &self.tokens[..] {
            [tokens] => Ok(tokens),
            several => Err(Error::SeveralPrompts { n_prompts: several.len() }),
        }
    }

    /// A view of an activation of one prompt of the batch. Shape: → as [`Activation`] lists.
    pub(crate) fn view_of_prompt(
        &self,
        prompt: usize,
        activation: Activation,
        layer: usize,
    ) -> Result<ArrayViewD<'_, f32>> {
        check_index("layer", layer, "the model", self.n_layers())?;
        match self.activations[prompt].get(&(layer, activation)) {
            Some(values) => values.view(),
            None => Err(Error::NotCached {
                activation: activation.name(),
                layer,
                hint: format!(
                    "it holds only {}; run again with RunOptions whose activations and layers include it, or with \
                     run_with_cache, which caches everything",
                    self.contents()
                ),
            }),
        }
    }
}
