//! What a forward pass computed on the way, by name and layer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::activation::Activation;
use crate::error::{Error, Result, check_index};
use crate::memory::{HostArray, LazyArray};

/// An activation: an array on the host from the moment that somebody looks at it.
struct Values {
    array: OnceLock<HostArray<IxDyn>>,
    /// Makes it; `None` once it is made, so that nothing is held twice.
    kept: Mutex<Option<LazyArray<IxDyn>>>,
}

impl Values {
    fn view(&self) -> Result<ArrayViewD<'_, f32>> {
        if let Some(array) = self.array.get() {
            return Ok(array.view());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(make) = &*kept {
            let array = make.compute()?; // an error leaves everything as it is
            self.array.get_or_init(|| array);
            *kept = None;
        }
        Ok(self.array.get().expect("what is not to be made has been made").view())
    }
}

/// The activations of a forward pass over one or several prompts, as `ndarray` arrays.
///
/// Prompts of different lengths have arrays of different lengths: nothing is padded. Cloning is cheap, the arrays are
/// shared. Up to 1 GiB of the memory of dropped caches is kept for the next runs, until a model is dropped.
///
/// Of a model on a GPU ([`Device::cuda`](crate::Device::cuda)) an activation stays there until it is first looked at; then it
/// is copied to the host, and its memory on the GPU freed. Dropping the cache frees all of it.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let (_, cache) = model.run_with_cache(["The bus is late.", "The bus was early today."])?;
/// let pattern = cache.prompt(1)?.get(Activation::Pattern, 0)?; // [n_heads, query_pos, key_pos]
/// assert_eq!(pattern.shape(), [8, 7, 7]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct ActivationCache {
    /// The token ids of each prompt, the beginning-of-sequence token included.
    tokens: Vec<Vec<u32>>,
    /// A prompt each.
    activations: Vec<BTreeMap<(usize, Activation), Arc<Values>>>,
    n_layers: usize,
}

impl ActivationCache {
    pub(crate) fn new(tokens: Vec<Vec<u32>>, n_layers: usize) -> Self {
        Self { activations: vec![BTreeMap::new(); tokens.len()], tokens, n_layers }
    }

    pub(crate) fn insert(&mut self, prompt: usize, activation: Activation, layer: usize, values: LazyArray<IxDyn>) {
        let values = Values { array: OnceLock::new(), kept: Mutex::new(Some(values)) };
        self.activations[prompt].insert((layer, activation), Arc::new(values));
    }

    /// How many prompts the cache holds.
    pub fn n_prompts(&self) -> usize {
        self.tokens.len()
    }

    /// The token ids of every prompt, the beginning-of-sequence token included. Shape: `[prompt][pos]`.
    pub fn tokens(&self) -> &[Vec<u32>] {
        &self.tokens
    }

    /// The cache of one prompt of the batch. (It may share the batch's memory, which is freed with the last of them.)
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the batch has no such prompt.
    pub fn prompt(&self, prompt: usize) -> Result<ActivationCache> {
        check_index("prompt", prompt, "the cache", self.n_prompts())?;
        Ok(Self {
            tokens: vec![self.tokens[prompt].clone()],
            activations: vec![self.activations[prompt].clone()],
            n_layers: self.n_layers,
        })
    }

    /// Number of layers of the model that ran, whether their activations were kept or not.
    pub fn n_layers(&self) -> usize {
        self.n_layers
    }

    /// An activation of the only prompt, copied. [`Activation`] has the shapes.
    ///
    /// # Errors
    /// [`Error::SeveralPrompts`] if the cache holds several prompts (take one with [`prompt`](Self::prompt)),
    /// [`Error::OutOfRange`] if the model has no such layer, [`Error::NotCached`] if the run was told not to keep it,
    /// [`Error::Device`] if a GPU does not give it.
    pub fn get(&self, activation: Activation, layer: usize) -> Result<ArrayD<f32>> {
        Ok(self.view(activation, layer)?.to_owned())
    }

    /// As [`get`](Self::get), without copying. (A notebook cannot keep a borrowed value in a variable: use `get`.)
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn view(&self, activation: Activation, layer: usize) -> Result<ArrayViewD<'_, f32>> {
        match self.n_prompts() {
            1 => self.view_of_prompt(0, activation, layer),
            n_prompts => Err(Error::SeveralPrompts { n_prompts }),
        }
    }

    pub(crate) fn view_of_prompt(
        &self,
        prompt: usize,
        activation: Activation,
        layer: usize,
    ) -> Result<ArrayViewD<'_, f32>> {
        check_index("layer", layer, "the model", self.n_layers)?;
        match self.activations[prompt].get(&(layer, activation)) {
            Some(values) => values.view(),
            None => Err(Error::NotCached {
                activation: activation.name(),
                layer,
                hint: format!("the run was told to keep only {}", self.kept()),
            }),
        }
    }

    /// What is kept, in words, for error messages.
    fn kept(&self) -> String {
        let Some(kept) = self.activations.first() else { return "nothing".into() };
        let activations: BTreeSet<&str> = kept.keys().map(|(_, activation)| activation.name()).collect();
        let layers: BTreeSet<usize> = kept.keys().map(|&(layer, _)| layer).collect();
        let list = |items: Vec<String>| items.join(", ");
        match kept.is_empty() {
            true => "nothing".into(),
            false => format!(
                "{} of layers {}",
                list(activations.into_iter().map(str::to_owned).collect()),
                list(layers.into_iter().map(|layer| layer.to_string()).collect())
            ),
        }
    }
}

impl std::fmt::Debug for ActivationCache {
    /// Sizes, not numbers: a cache can hold gigabytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActivationCache")
            .field("prompts", &self.n_prompts())
            .field("tokens", &self.tokens.iter().map(Vec::len).collect::<Vec<_>>())
            .field("layers", &self.n_layers)
            .field("kept", &self.kept())
            .finish()
    }
}
