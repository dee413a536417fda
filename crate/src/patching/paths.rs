//! Path patching: the effect of a head on what reads it, with every other head held as it was.

use ndarray::{ArrayD, IxDyn};

use super::engine::Engine;
use super::metric::Metric;
use super::options::SweepOptions;
use super::sweep::{Sweep, SweepAxis};
use crate::error::{Result, check_count};
use crate::model::{Activation, ActivationCache, Gpt2, Intervention, Prompts, RunOptions};

/// The end of the paths of [`path_patch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The logits.
    Logits,
    /// The queries of heads, as (layer, head).
    Queries(Vec<(usize, usize)>),
    /// The keys of heads, as (layer, head).
    Keys(Vec<(usize, usize)>),
    /// The values of heads, as (layer, head).
    Values(Vec<(usize, usize)>),
}

impl Receiver {
    /// The activation and the heads; `None` for the logits.
    fn heads(&self) -> Option<(Activation, &[(usize, usize)])> {
        match self {
            Receiver::Logits => None,
            Receiver::Queries(heads) => Some((Activation::Q, heads)),
            Receiver::Keys(heads) => Some((Activation::K, heads)),
            Receiver::Values(heads) => Some((Activation::V, heads)),
        }
    }

    fn name(&self) -> String {
        match self.heads() {
            None => "the logits".into(),
            Some((activation, heads)) => {
                let heads: Vec<String> = heads.iter().map(|(layer, head)| format!("{layer}.{head}")).collect();
                format!("{} of {}", activation.name(), heads.join(" "))
            }
        }
    }
}

/// Interventions that hold an activation as a cache has it, in every layer that the cache holds it of: every pattern, for
/// instance.
///
/// ```
/// use attention_tokens::{patching::freeze, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let (_, cache) = model.run_with_cache("Monday, Tuesday,")?;
/// let frozen = model.hooked(&freeze(Activation::Pattern, &cache))?;
/// assert_eq!(frozen.interventions().len(), 4);
/// # Ok::<(), Error>(())
/// ```
pub fn freeze(activation: Activation, cache: &ActivationCache) -> Vec<Intervention> {
    let held = cache.held().into_iter().filter(|&(_, held)| held == activation);
    held.map(|(layer, _)| Intervention::patch(activation.at(layer), cache)).collect()
}

/// The metric of the clean prompts where each head in turn sends its output for the corrupted prompts to the receiver, on
/// the paths that go through no other head: path patching as of Wang et al. (2022). Every head's `z` is held as in the
/// clean run, except the sender's, which is that of `corrupted_cache`; MLPs and layer norms are recomputed. If the
/// receivers are heads, what they read in that run is given to them in a second run, in which everything else is
/// recomputed. `corrupted_cache` holds `Z` of as many prompts, with as many tokens. Shape: → `[n_layers, n_heads]`.
///
/// ```
/// use attention_tokens::{patching, patching::*, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let clean = "When Mary and John went to the store, John gave a drink to";
/// let (_, corrupted) = model.run_with_cache("When Mary and John went to the store, Mary gave a drink to")?;
/// let metric = Metric::logit_diff(&[[model.to_single_token(" Mary")?, model.to_single_token(" John")?]]);
/// let receiver = Receiver::Queries(vec![(3, 0), (3, 1)]);
/// let sweep = patching::path_patch(&model, clean, &corrupted, &receiver, &metric, SweepOptions::default())?;
/// assert_eq!(sweep.values[[3, 5]], sweep.unchanged); // a head of layer 3 does not reach layer 3
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::OutOfRange`](crate::Error::OutOfRange) for a receiver that the model does not have, [`Error::Count`](crate::Error::Count) for none, [`Error::Intervention`](crate::Error::Intervention)
/// if the cache does not fit the prompts, those of [`Gpt2::forward`] and of [`Metric::measure`].
pub fn path_patch(
    model: &Gpt2,
    clean: impl Into<Prompts>,
    corrupted_cache: &ActivationCache,
    receiver: &Receiver,
    metric: &Metric,
    options: SweepOptions,
) -> Result<Sweep> {
    paths(Engine::new(model, clean.into(), metric, options)?, corrupted_cache, receiver)
}

/// [`path_patch`] without the generic parameter.
fn paths(engine: Engine, corrupted_cache: &ActivationCache, receiver: &Receiver) -> Result<Sweep> {
    let model = engine.model;
    let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
    let tokens: Vec<Vec<u32>> = engine.tokens().to_vec();
    let only_z = RunOptions::default().activations([Activation::Z]).no_logits();
    let (_, clean_cache) = model.run_with_cache_options(tokens.clone(), only_z)?;
    let patched: Vec<Intervention> =
        (0..n_layers).map(|layer| Intervention::patch(Activation::Z.at(layer), corrupted_cache)).collect();
    let frozen = freeze(Activation::Z, &clean_cache);
    let from_sender = |layer: usize, head: usize| -> Vec<Intervention> {
        let sender = patched[layer].clone().head(head);
        std::iter::once(sender).chain(frozen[layer + 1..].iter().cloned()).collect()
    };
    let senders = (0..n_layers).flat_map(|layer| (0..n_heads).map(move |head| (layer, head)));
    let title = format!("paths from heads to {}", receiver.name());
    let (unchanged, values) = match receiver.heads() {
        None => engine.run(n_layers * n_heads, senders.map(|(layer, head)| from_sender(layer, head)), &title)?,
        Some((activation, heads)) => {
            check_count("path_patch", "receivers", heads.len(), 1, None)?;
            heads.iter().try_for_each(|&(layer, head)| model.config().check_head(layer, head))?;
            let last = heads.iter().map(|&(layer, _)| layer).max().unwrap_or(0);
            let layers: Vec<usize> = heads.iter().map(|&(layer, _)| layer).collect();
            let second_run = |(layer, head): (usize, usize)| -> Result<Vec<Intervention>> {
                let reached = heads.iter().filter(|(receiver, _)| *receiver > layer);
                if reached.clone().next().is_none() {
                    return Ok(Vec::new());
                }
                let hooks: Vec<Intervention> =
                    from_sender(layer, head).into_iter().filter(|hook| hook.point().layer <= last).collect();
                let options = RunOptions::default().activations([activation]).layers(layers.iter().copied());
                let options = options.stop_at_layer(last + 1).hooks(&hooks);
                let (_, read) = model.run_with_cache_options(tokens.clone(), options)?;
                Ok(reached.map(|&(to, head)| Intervention::patch(activation.at(to), &read).head(head)).collect())
            };
            let runs = senders.map(second_run).collect::<Result<Vec<_>>>()?;
            engine.run(runs.len(), runs.into_iter(), &title)?
        }
    };
    let values = ArrayD::from_shape_vec(IxDyn(&[n_layers, n_heads]), values).expect("a value for each sender");
    let axes = vec![SweepAxis::numbered("layer", n_layers), SweepAxis::numbered("head", n_heads)];
    Ok(Sweep { values, axes, unchanged, metric: engine.metric.name().into(), title })
}
