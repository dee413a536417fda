//! Options of a run: which activations to cache, how far to run, and what to change.

use std::ops::Range;

use ndarray::{Array2, Axis, concatenate};

use super::activation::Activation;
use super::interventions::{Intervention, PlannedEdits, Target};
use crate::config::Gpt2Config;
use crate::error::{Error, Result, check_count, check_index, check_position};

/// Options of [`Gpt2::run_with_cache_options`](crate::Gpt2::run_with_cache_options): which activations to cache, how far
/// to run, and what to change. By default a run caches every activation of every layer, and computes the logits.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    activations: Option<Vec<Activation>>,
    layers: Option<Vec<usize>>,
    /// The layer to start at, and each prompt's residual stream there. Shape: `[prompt] [pos, d_model]`.
    start_at_layer: Option<(usize, Vec<Array2<f32>>)>,
    stop_at_layer: Option<usize>,
    no_logits: bool,
    logits_at: Option<Vec<isize>>,
    hooks: Vec<Intervention>,
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

    /// Start before this layer, from this residual stream in the place of the one that the prompts have there:
    /// TransformerLens' `start_at_layer`. The layers below do not run. The prompts still give the lengths and the tokens
    /// of the cache; [`Gpt2::forward_from`](crate::Gpt2::forward_from) needs none.
    /// Shape: `resid [prompt] [pos, d_model]`.
    pub fn start_at_layer(mut self, layer: usize, resid: impl Into<Vec<Array2<f32>>>) -> Self {
        self.start_at_layer = Some((layer, resid.into()));
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

    /// Compute the logits at these positions of each prompt only, in this order; negative ones count from the prompt's
    /// end, −1 is its last. The rest of the unembedding, which is most of a short prompt's time, is saved.
    pub fn logits_at(mut self, positions: impl Into<Vec<isize>>) -> Self {
        self.logits_at = Some(positions.into());
        self
    }

    /// Change the run by these interventions, after those of a [`hooked`](crate::Gpt2::hooked) model. A cache holds the
    /// changed activations. Each must be of a layer that the run computes.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let hooks = [Intervention::knock_out(2, [(-1, 1)]).head(0)]; // the last position does not attend to position 1
    /// let (_, cache) = model.run_with_cache_options("Monday, Tuesday,", RunOptions::default().hooks(&hooks))?;
    /// assert_eq!(cache.get(Activation::Pattern, 2)?[[0, 4, 1]], 0.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn hooks(mut self, interventions: &[Intervention]) -> Self {
        self.hooks.extend_from_slice(interventions);
        self
    }

    /// Fills in the defaults, and checks everything against the model, its own interventions and the prompts.
    /// Shape: `tokens [prompt][pos]`.
    pub(super) fn plan(&self, config: &Gpt2Config, of_model: &[Intervention], tokens: &[Vec<u32>]) -> Result<RunPlan> {
        let n_layers = config.n_layers;
        let layers = self.layers.clone().unwrap_or_else(|| (0..n_layers).collect());
        for &layer in &layers {
            check_index("layer", layer, "the model", n_layers)?;
        }
        if let Some(layer) = self.stop_at_layer {
            check_count("RunOptions", "stop_at_layer", layer, 0, Some(n_layers))?;
        }
        let start_at_layer = self.start_at_layer.as_ref().map_or(0, |&(layer, _)| layer);
        let stop_at_layer = self.stop_at_layer.unwrap_or(n_layers);
        check_count("RunOptions", "start_at_layer", start_at_layer, 0, Some(stop_at_layer))?;
        let at = |(prompt, tokens): (usize, &Vec<u32>), positions: &[isize]| -> Result<Vec<usize>> {
            positions.iter().map(|&position| check_position(position, prompt, tokens.len())).collect()
        };
        let logits_at = self.logits_at.as_ref().map(|positions| {
            check_count("RunOptions", "logits_at", positions.len(), 1, None)?;
            tokens.iter().enumerate().map(|prompt| at(prompt, positions)).collect::<Result<Vec<_>>>()
        });
        let target = Target { config, tokens, past: vec![0; tokens.len()], layers: start_at_layer..stop_at_layer };
        Ok(RunPlan {
            edits: PlannedEdits::new(of_model, &self.hooks, &target)?,
            activations: self.activations.clone().unwrap_or_else(|| Activation::ALL.to_vec()),
            layers,
            start_at_layer,
            resid: self.start_at_layer.as_ref().map(|(_, resid)| rows_of(resid, tokens, config.d_model)).transpose()?,
            stop_at_layer,
            logits_at: logits_at.transpose()?,
            logits: !self.no_logits && self.stop_at_layer.is_none(),
        })
    }
}

/// The residual streams of all prompts as one matrix, if they fit the prompts.
/// Shape: `resid [prompt] [pos, d_model]`, `tokens [prompt][pos]` → `[rows, d_model]`.
fn rows_of(resid: &[Array2<f32>], tokens: &[Vec<u32>], d_model: usize) -> Result<Array2<f32>> {
    let n = tokens.len();
    check_count("RunOptions", "residual streams of start_at_layer, one for each prompt", resid.len(), n, Some(n))?;
    for (prompt, (resid, tokens)) in resid.iter().zip(tokens).enumerate() {
        let expected = vec![tokens.len(), d_model];
        if resid.shape() != expected {
            return Err(Error::Shape {
                what: format!("start_at_layer: the residual stream of prompt {prompt}"),
                axes: "[pos, d_model]",
                expected,
                found: resid.shape().to_vec(),
                hint: "a row for each token of the prompt, the beginning-of-sequence token included",
            });
        }
    }
    let views: Vec<_> = resid.iter().map(|resid| resid.view()).collect();
    Ok(concatenate(Axis(0), &views).expect("each has d_model columns"))
}

/// [`RunOptions`] without defaults, checked against a model and its prompts.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    /// What interventions change.
    pub(super) edits: PlannedEdits,
    activations: Vec<Activation>,
    layers: Vec<usize>,
    start_at_layer: usize,
    /// The residual stream before `start_at_layer`, if it is not that of the prompts. Shape: `[rows, d_model]`.
    pub(super) resid: Option<Array2<f32>>,
    /// Only the blocks below this one run.
    stop_at_layer: usize,
    /// The positions of each prompt whose logits are computed; all of them for `None`. Shape: `[prompt][position]`.
    pub(super) logits_at: Option<Vec<Vec<usize>>>,
    pub(super) logits: bool,
}

impl RunPlan {
    /// A run of all layers that caches nothing, and continues an earlier one with new tokens of each prompt.
    /// Shape: `tokens [prompt][pos]`, `past [prompt]`.
    pub(super) fn with_past(
        config: &Gpt2Config,
        of_model: &[Intervention],
        tokens: &[Vec<u32>],
        past: Vec<usize>,
    ) -> Result<Self> {
        let n_layers = config.n_layers;
        let target = Target { config, tokens, past, layers: 0..n_layers };
        Ok(Self {
            edits: PlannedEdits::new(of_model, &[], &target)?,
            activations: Vec::new(),
            layers: Vec::new(),
            start_at_layer: 0,
            resid: None,
            stop_at_layer: n_layers,
            logits_at: None,
            logits: true,
        })
    }

    /// A run of some layers that caches nothing, with these edits.
    pub(super) fn of_variants(edits: PlannedEdits, layers: Range<usize>) -> Self {
        Self {
            edits,
            activations: Vec::new(),
            layers: Vec::new(),
            start_at_layer: layers.start,
            resid: None,
            stop_at_layer: layers.end,
            logits_at: None,
            logits: true,
        }
    }

    /// The same run from a residual stream, or from the embeddings for `None`, without logits, caching an activation of
    /// some layers. Shape: `resid [rows, d_model]`.
    pub(super) fn that_caches(self, activation: Activation, layers: &[usize], resid: Option<Array2<f32>>) -> Self {
        Self { activations: vec![activation], layers: layers.to_vec(), resid, logits: false, ..self }
    }

    pub(super) fn caches(&self, activation: Activation, layer: usize) -> bool {
        self.activations.contains(&activation) && self.layers.contains(&layer)
    }

    /// Whether an activation of this layer that is cached is computed from this one.
    pub(super) fn derives_from(&self, source: Activation, layer: usize) -> bool {
        let derived = |activation: &&Activation| activation.computed_from() == Some(source);
        self.layers.contains(&layer) && self.activations.iter().any(|activation| derived(&activation))
    }

    /// The blocks that have to run.
    pub(super) fn blocks(&self) -> Range<usize> {
        let needed =
            if self.logits { self.stop_at_layer } else { self.layers.iter().max().map_or(0, |&last| last + 1) };
        self.start_at_layer..needed.min(self.stop_at_layer).max(self.start_at_layer)
    }
}
