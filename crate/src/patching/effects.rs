//! What a metric loses without a head, or without the attention of a pair of positions.

use ndarray::{ArrayD, IxDyn};

use super::act_patch::positions;
use super::engine::Engine;
use super::metric::Metric;
use super::options::SweepOptions;
use super::sweep::{Sweep, SweepAxis};
use crate::error::Result;
use crate::model::{Activation, ActivationCache, Gpt2, Intervention, Prompts};

/// What replaces the output of a head, its `z` at every position.
#[derive(Clone, Debug)]
pub enum Ablation {
    /// Zeros.
    Zero,
    /// The mean over the prompts of a cache, position by position.
    Mean(ActivationCache),
    /// The output for another prompt of a cache with as many tokens, drawn with a seed.
    Resample(ActivationCache, u64),
}

impl Ablation {
    fn intervention(&self, layer: usize) -> Intervention {
        let z = Activation::Z.at(layer);
        match self {
            Ablation::Zero => Intervention::zero(z),
            Ablation::Mean(cache) => Intervention::mean(z, cache),
            Ablation::Resample(cache, seed) => Intervention::resample(z, cache, *seed),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Ablation::Zero => "zero ablation",
            Ablation::Mean(_) => "mean ablation",
            Ablation::Resample(..) => "resample ablation",
        }
    }
}

/// The metric of a run without each head in turn. Shape: → `[n_layers, n_heads]`.
///
/// ```
/// use attention_tokens::{patching, patching::*, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let prompt = "When Mary and John went to the store, John gave a drink to";
/// let metric = Metric::logit_diff(&[[model.to_single_token(" Mary")?, model.to_single_token(" John")?]]);
/// let effects = patching::head_effects(&model, prompt, &metric, Ablation::Zero, SweepOptions::default())?;
/// assert_eq!(effects.values.shape(), [4, 8]); // [layer, head]
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Intervention`](crate::Error::Intervention) if a cache does not fit the prompts, those of [`Gpt2::forward`] and of [`Metric::measure`].
pub fn head_effects(
    model: &Gpt2,
    prompts: impl Into<Prompts>,
    metric: &Metric,
    ablation: Ablation,
    options: SweepOptions,
) -> Result<Sweep> {
    effects_of_heads(Engine::new(model, prompts.into(), metric, options)?, &ablation)
}

/// [`head_effects`] without the generic parameter.
fn effects_of_heads(engine: Engine, ablation: &Ablation) -> Result<Sweep> {
    let config = engine.model.config();
    let (n_layers, n_heads) = (config.n_layers, config.n_heads);
    let title = format!("{} of heads", ablation.name());
    let by_layer: Vec<Intervention> = (0..n_layers).map(|layer| ablation.intervention(layer)).collect();
    let runs = by_layer.iter().flat_map(|hook| (0..n_heads).map(|head| engine.variant(&[hook.clone().head(head)])));
    let (unchanged, values) = engine.run(n_layers * n_heads, runs, &title)?;
    let values = ArrayD::from_shape_vec(IxDyn(&[n_layers, n_heads]), values).expect("a value for each head");
    let axes = vec![SweepAxis::numbered("layer", n_layers), SweepAxis::numbered("head", n_heads)];
    Ok(Sweep { values, axes, unchanged, metric: engine.metric.name().into(), title })
}

/// The metric of a run in which a head's query does not attend to a key, for each pair: its score is −∞. NaN above the
/// diagonal. The first position, which has one key, then gathers nothing.
/// Shape: → `[query_pos, key_pos]`.
///
/// # Errors
/// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer or head that the model does not have, [`Error::Shape`](crate::Error::Shape) for prompts of different
/// lengths, those of [`Gpt2::forward`] and of [`Metric::measure`].
pub fn cell_effects(
    model: &Gpt2,
    prompts: impl Into<Prompts>,
    layer: usize,
    head: usize,
    metric: &Metric,
    options: SweepOptions,
) -> Result<Sweep> {
    model.config().check_head(layer, head)?;
    effects_of_cells(Engine::new(model, prompts.into(), metric, options)?, layer, head)
}

/// [`cell_effects`] without the generic parameter.
fn effects_of_cells(engine: Engine, layer: usize, head: usize) -> Result<Sweep> {
    let axis = positions(&engine)?;
    let pos = axis.labels.len();
    let cells: Vec<(usize, usize)> = (0..pos).flat_map(|query| (0..=query).map(move |key| (query, key))).collect();
    let title = format!("cells of head {layer}.{head} knocked out");
    let knock_out = |&(query, key): &(usize, usize)| {
        let cell = [(query as isize, key as isize)];
        engine.variant(&[Intervention::knock_out(layer, cell).head(head).pos(query as isize).key(key as isize)])
    };
    let (unchanged, measured) = engine.run(cells.len(), cells.iter().map(knock_out), &title)?;
    let mut values = ArrayD::from_elem(IxDyn(&[pos, pos]), f32::NAN);
    for (&(query, key), value) in cells.iter().zip(measured) {
        values[[query, key]] = value;
    }
    let named = |name: &str| SweepAxis { name: name.into(), labels: axis.labels.clone() };
    let axes = vec![named("query_pos"), named("key_pos")];
    Ok(Sweep { values, axes, unchanged, metric: engine.metric.name().into(), title })
}
