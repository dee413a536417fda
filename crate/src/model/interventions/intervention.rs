//! An intervention: a hook point, the part of it that changes, and how.

use std::sync::Arc;

use ndarray::ArrayD;

use super::edit::{Edit, EditValues, HookContext};
use super::hook_point::HookPoint;
use super::selection::Selection;
use crate::model::{Activation, ActivationCache};

/// A change of an activation in a run: what is changed, where, and how.
///
/// A constructor names the hook point and the change; further methods restrict it to heads, positions, keys, neurons or
/// prompts of the batch. Nothing is changed until a run takes it: [`Gpt2::run_with_hooks`](crate::Gpt2::run_with_hooks),
/// [`RunOptions::hooks`](crate::RunOptions::hooks), or [`Gpt2::hooked`](crate::Gpt2::hooked) for a model that everything
/// else takes. The run checks it first, and an error repeats it in words.
///
/// Interventions at one point apply in the order given. What follows in the run is computed from the changed numbers, and
/// a cache holds them. Two rules belong to attention: an edit of [`Pattern`](Activation::Pattern) is not renormalized,
/// and a row of scores that is −∞ everywhere gives a pattern of zeros. Cells with key > query stay masked.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let prompt = "Monday, Tuesday,";
/// let without_head = Intervention::zero(Activation::Z.at(1)).head(3).pos(-1);
/// let logits = model.run_with_hooks(prompt, &[without_head])?;
/// assert_ne!(logits[0], model.forward(prompt)?[0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Intervention {
    pub(super) point: HookPoint,
    pub(super) edit: Edit,
    pub(super) selection: Selection,
    /// The change in words: `zero`, `scale 0.5`, `patch`.
    pub(super) verb: String,
}

impl Intervention {
    fn new(point: HookPoint, edit: Edit, verb: impl Into<String>) -> Self {
        Self { point, edit, selection: Selection::default(), verb: verb.into() }
    }

    /// Sets the activation to zero.
    pub fn zero(point: impl Into<HookPoint>) -> Self {
        Self::new(point.into(), Edit::Set(0.0.into()), "zero")
    }

    /// Multiplies the activation with a factor.
    pub fn scale(point: impl Into<HookPoint>, factor: f32) -> Self {
        Self::new(point.into(), Edit::Scale(factor), format!("scale by {factor}"))
    }

    /// Replaces the activation by a number or by an array, which is broadcast to the selected part.
    /// Shape: [`EditValues`].
    pub fn set(point: impl Into<HookPoint>, values: impl Into<EditValues>) -> Self {
        let values = values.into();
        let verb = format!("set to {}", in_words(&values));
        Self::new(point.into(), Edit::Set(values), verb)
    }

    /// Adds a number or an array, which is broadcast to the selected part: a steering vector, for instance.
    /// Shape: [`EditValues`].
    pub fn add(point: impl Into<HookPoint>, values: impl Into<EditValues>) -> Self {
        let values = values.into();
        let verb = format!("add {}", in_words(&values));
        Self::new(point.into(), Edit::Add(values), verb)
    }

    /// Replaces the activation by that of a cache, of one prompt for all, or of as many prompts as the run has. Each must
    /// have as many tokens as the prompt of the run.
    pub fn patch(point: impl Into<HookPoint>, cache: &ActivationCache) -> Self {
        Self::new(point.into(), Edit::Patch(Arc::new(cache.clone())), "patch")
    }

    /// Replaces the activation by its mean over the prompts of a cache, position by position. A position that a prompt of
    /// the cache does not have takes no part in the mean.
    pub fn mean(point: impl Into<HookPoint>, cache: &ActivationCache) -> Self {
        Self::new(point.into(), Edit::Mean(Arc::new(cache.clone()), None), "mean")
    }

    /// [`mean`](Self::mean) over the prompts of the same group. The cache has the prompts of the run, and `groups` gives
    /// the group of each: prompts made from one template, for instance.
    pub fn mean_by(point: impl Into<HookPoint>, cache: &ActivationCache, groups: impl Into<Vec<usize>>) -> Self {
        Self::new(point.into(), Edit::Mean(Arc::new(cache.clone()), Some(groups.into())), "mean by group")
    }

    /// Replaces the activation by that of a prompt drawn at random from the prompts of a cache with as many tokens and
    /// with other tokens. The same seed gives the same choice for each prompt of the batch at every hook point.
    pub fn resample(point: impl Into<HookPoint>, cache: &ActivationCache, seed: u64) -> Self {
        Self::new(point.into(), Edit::Resample(Arc::new(cache.clone()), seed), format!("resample with seed {seed}"))
    }

    /// Sets the attention scores of pairs of a query and a key to −∞, so that the query does not attend to the key. The
    /// attention to the other keys grows, because rows of the pattern sum to 1. Negative positions count from the end.
    pub fn knock_out(layer: usize, cells: impl Into<Vec<(isize, isize)>>) -> Self {
        let edit = Edit::Set(f32::NEG_INFINITY.into());
        Self::new(Activation::AttnScores.at(layer), edit, "knock out").cells(cells)
    }

    /// Replaces the activation by the result of a closure, once for each prompt. The closure gets a copy of the selected
    /// part, and returns an array of the same shape, without NaN. It runs on the host.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let relu = Intervention::hook(Activation::MlpOut.at(0), |values, _| values.mapv(|x| x.max(0.0)));
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?.hooked(&[relu])?;
    /// let (_, cache) = model.run_with_cache("Monday, Tuesday,")?;
    /// assert!(cache.get(Activation::MlpOut, 0)?.iter().all(|&x| x >= 0.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn hook(
        point: impl Into<HookPoint>,
        closure: impl Fn(ArrayD<f32>, &HookContext) -> ArrayD<f32> + Send + Sync + 'static,
    ) -> Self {
        Self::new(point.into(), Edit::Hook(Arc::new(closure)), "hook")
    }

    /// Holds the scale of every layer norm as it was in the run of a cache, of one prompt for all, or of as many prompts as
    /// the run has, with as many tokens: the layer norms become linear, so that what components write to the logits adds
    /// up. The layer norms are those whose residual stream the cache holds (`ResidPre`, `ResidMid`, and `ResidPost` of the
    /// last layer). If it holds none, the interventions are those of every layer norm, and a run refuses them.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (logits, cache) = model.run_with_cache("Monday, Tuesday,")?;
    /// let mut hooks = Intervention::freeze_layer_norms(&cache);
    /// assert_eq!(hooks.len(), 9); // two of each layer, and the final one
    /// hooks.insert(0, Intervention::scale(Activation::ResidPost.at(3), 2.0));
    /// let doubled = model.hooked(&hooks)?.forward("Monday, Tuesday,")?; // a layer norm would undo the factor
    /// assert!((doubled[0][[4, 7]] - logits[0][[4, 7]]).abs() > 0.1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn freeze_layer_norms(cache: &ActivationCache) -> Vec<Self> {
        let cache = Arc::new(cache.clone());
        let last = cache.n_layers().saturating_sub(1);
        let before_layer_norm = |&(layer, activation): &(usize, Activation)| match activation {
            Activation::ResidPre | Activation::ResidMid => true,
            _ => activation == Activation::ResidPost && layer == last,
        };
        let freeze = |(layer, activation): (usize, Activation)| {
            let edit = Edit::FreezeLayerNorm(cache.clone());
            Self::new(activation.at(layer), edit, FREEZE_LAYER_NORM)
        };
        let mut held: Vec<(usize, Activation)> = cache.held().into_iter().filter(before_layer_norm).collect();
        if held.is_empty() {
            // Of the layer norms, so that the run says what the cache lacks, where an empty list would hold nothing.
            held = (0..=last)
                .flat_map(|layer| [Activation::ResidPre, Activation::ResidMid].map(|of| (layer, of)))
                .collect();
            held.push((last, Activation::ResidPost));
        }
        held.into_iter().map(freeze).collect()
    }

    /// Changes this head only.
    pub fn head(self, head: usize) -> Self {
        self.heads([head])
    }

    /// Changes these heads only.
    pub fn heads(mut self, heads: impl Into<Vec<usize>>) -> Self {
        self.selection.heads = Some(heads.into());
        self
    }

    /// Changes this position only: the query's, in scores and patterns. −1 is each prompt's own last position.
    pub fn pos(self, position: isize) -> Self {
        self.positions([position])
    }

    /// Changes these positions only: those of queries, in scores and patterns. Negative ones count from each prompt's end.
    pub fn positions(mut self, positions: impl Into<Vec<isize>>) -> Self {
        self.selection.positions = Some(positions.into());
        self
    }

    /// Changes the scores or the pattern at this key position only.
    pub fn key(self, position: isize) -> Self {
        self.keys([position])
    }

    /// Changes the scores or the pattern at these key positions only. Negative ones count from each prompt's end.
    pub fn keys(mut self, positions: impl Into<Vec<isize>>) -> Self {
        self.selection.keys = Some(positions.into());
        self
    }

    /// Changes the scores or the pattern at these pairs of a query and a key only. Values still have a number for each
    /// selected query and key.
    pub fn cells(mut self, cells: impl Into<Vec<(isize, isize)>>) -> Self {
        self.selection.cells = Some(cells.into());
        self
    }

    /// Changes this neuron only.
    pub fn neuron(self, neuron: usize) -> Self {
        self.neurons([neuron])
    }

    /// Changes these neurons only.
    pub fn neurons(mut self, neurons: impl Into<Vec<usize>>) -> Self {
        self.selection.neurons = Some(neurons.into());
        self
    }

    /// Changes this prompt of the batch only.
    pub fn prompt(self, prompt: usize) -> Self {
        self.prompts([prompt])
    }

    /// Changes these prompts of the batch only.
    pub fn prompts(mut self, prompts: impl Into<Vec<usize>>) -> Self {
        self.selection.prompts = Some(prompts.into());
        self
    }

    /// The activation and the layer that it changes.
    pub fn point(&self) -> HookPoint {
        self.point
    }
}

/// The words of an intervention that holds the scale of a layer norm.
pub(crate) const FREEZE_LAYER_NORM: &str = "freeze the layer norm after";

/// A number, or the shape of an array.
fn in_words(EditValues(values): &EditValues) -> String {
    match values.first() {
        Some(value) if values.ndim() == 0 => value.to_string(),
        _ => format!("values {:?}", values.shape()),
    }
}
