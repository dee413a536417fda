//! Path patching: the effect of a head on what reads it, with every other head held as it was.

use std::collections::{BTreeSet, VecDeque};

use ndarray::{ArrayD, IxDyn};

use super::engine::Engine;
use super::metric::Metric;
use super::options::SweepOptions;
use super::sweep::{Sweep, SweepAxis};
use crate::error::{Result, check_count};
use crate::model::{Activation, ActivationCache, Gpt2, Intervention, Prompts, RunOptions, Variant};

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
/// instance. If it holds it of none, the interventions are those of every layer, and a run refuses them.
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
    let mut layers: Vec<usize> = held.map(|(layer, _)| layer).collect();
    if layers.is_empty() {
        layers = (0..cache.n_layers()).collect(); // so that the run says what the cache lacks
    }
    layers.into_iter().map(|layer| Intervention::patch(activation.at(layer), cache)).collect()
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
    if let Some((_, heads)) = receiver.heads() {
        check_count("path_patch", "receivers", heads.len(), 1, None)?;
        heads.iter().try_for_each(|&(layer, head)| model.config().check_head(layer, head))?;
    }
    let senders = Senders::new(&engine, corrupted_cache)?;
    let title = format!("paths from heads to {}", receiver.name());
    let n = n_layers * n_heads;
    let (unchanged, values) = match receiver.heads() {
        None => {
            let all = (0..n_layers).flat_map(|layer| (0..n_heads).map(move |head| (layer, head)));
            engine.run(n, all.map(|(layer, head)| senders.variant(layer, head, n_layers)), &title)?
        }
        Some((activation, heads)) => {
            let second_runs = (0..n_layers).flat_map(|layer| senders.second_runs(layer, activation, heads));
            engine.run(n, second_runs, &title)?
        }
    };
    let values = ArrayD::from_shape_vec(IxDyn(&[n_layers, n_heads]), values).expect("a value for each sender");
    let axes = vec![SweepAxis::numbered("layer", n_layers), SweepAxis::numbered("head", n_heads)];
    Ok(Sweep { values, axes, unchanged, metric: engine.metric.name().into(), title })
}

/// The runs in which one head sends its corrupted output.
struct Senders<'a> {
    engine: &'a Engine<'a>,
    /// Each layer's `z` as for the corrupted prompts. Shape: `[layer]`.
    corrupted: Vec<Intervention>,
    /// Each layer's `z` held as for the clean prompts. Shape: `[layer]`.
    frozen: Vec<Variant>,
}

impl<'a> Senders<'a> {
    fn new(engine: &'a Engine, corrupted_cache: &ActivationCache) -> Result<Self> {
        let only_z = RunOptions::default().activations([Activation::Z]).no_logits();
        let (_, clean_cache) = engine.model.run_with_cache_options(engine.tokens().to_vec(), only_z)?;
        let frozen = freeze(Activation::Z, &clean_cache).into_iter().map(|hook| engine.variant(&[hook]));
        let frozen = frozen.collect::<Result<Vec<_>>>()?;
        let corrupted = |layer| Intervention::patch(Activation::Z.at(layer), corrupted_cache);
        Ok(Self { engine, corrupted: (0..frozen.len()).map(corrupted).collect(), frozen })
    }

    /// A head sends its corrupted output, and the heads of the layers after it, up to `end`, are held.
    fn variant(&self, layer: usize, head: usize, end: usize) -> Result<Variant> {
        let sender = self.engine.variant(&[self.corrupted[layer].clone().head(head)])?;
        Ok(sender.with(self.frozen[..end].iter().skip(layer + 1)))
    }

    /// The second runs of the heads of a layer: the receivers that they reach get what they read in the first run. First
    /// runs are computed in batches that fit the memory option, each just before its second runs.
    fn second_runs(
        &self,
        layer: usize,
        activation: Activation,
        receivers: &[(usize, usize)],
    ) -> impl Iterator<Item = Result<Variant>> {
        let reached: Vec<(usize, usize)> = receivers.iter().copied().filter(|(to, _)| *to > layer).collect();
        let mut ready = VecDeque::new();
        (0..self.engine.model.config().n_heads).map(move |head| {
            if reached.is_empty() {
                return self.engine.variant(&[]);
            }
            if ready.is_empty() {
                ready = self.second_runs_from(layer, head, activation, &reached)?.into();
            }
            Ok(ready.pop_front().expect("a run for each sender"))
        })
    }

    /// The second runs of a head and of some heads after it in its layer.
    fn second_runs_from(
        &self,
        layer: usize,
        head: usize,
        activation: Activation,
        reached: &[(usize, usize)],
    ) -> Result<Vec<Variant>> {
        let layers: BTreeSet<usize> = reached.iter().map(|&(to, _)| to).collect();
        let layers: Vec<usize> = layers.into_iter().collect();
        let end = layers.last().map_or(0, |last| last + 1);
        let first = self.variant(layer, head, end)?;
        let n = self.engine.n_cached_together(&first, layers.len());
        let others = (head + 1..self.engine.model.config().n_heads).take(n - 1);
        let others = others.map(|head| self.variant(layer, head, end));
        let variants = std::iter::once(Ok(first)).chain(others).collect::<Result<Vec<_>>>()?;
        let second_run = |read: ActivationCache| {
            let patch = |&(to, head): &(usize, usize)| Intervention::patch(activation.at(to), &read).head(head);
            self.engine.variant(&reached.iter().map(patch).collect::<Vec<_>>())
        };
        self.engine.cache(&variants, activation, &layers)?.into_iter().map(second_run).collect()
    }
}
