//! Several sweeps of activation patching stacked, as in TransformerLens.

use ndarray::{ArrayViewD, Axis};

use super::act_patch::{PatchAxis, patch};
use super::engine::Engine;
use super::metric::Metric;
use super::options::SweepOptions;
use super::sweep::{Sweep, SweepAxis};
use crate::error::Result;
use crate::model::{Activation, ActivationCache, Gpt2, Prompts};

/// Patches each head's output, queries, keys, values and pattern at all positions. Shape: → `[5, n_layers, n_heads]`.
///
/// # Errors
/// As for [`generic_activation_patch`](super::generic_activation_patch).
pub fn get_act_patch_attn_head_all_pos_every(
    model: &Gpt2,
    corrupted: impl Into<Prompts>,
    clean_cache: &ActivationCache,
    metric: &Metric,
) -> Result<Sweep> {
    use Activation::{K, Pattern, Q, V, Z};
    let axes: &[PatchAxis] = &[PatchAxis::Head];
    every(model, corrupted.into(), clean_cache, metric, &[(Z, axes), (Q, axes), (K, axes), (V, axes), (Pattern, axes)])
}

/// Patches each head's output, queries, keys and values position by position, and its pattern query by query.
/// Shape: → `[5, n_layers, pos, n_heads]`.
///
/// # Errors
/// As for [`generic_activation_patch`](super::generic_activation_patch).
pub fn get_act_patch_attn_head_by_pos_every(
    model: &Gpt2,
    corrupted: impl Into<Prompts>,
    clean_cache: &ActivationCache,
    metric: &Metric,
) -> Result<Sweep> {
    use Activation::{K, Pattern, Q, V, Z};
    let axes: &[PatchAxis] = &[PatchAxis::Pos, PatchAxis::Head];
    let of_pattern: &[PatchAxis] = &[PatchAxis::DestPos, PatchAxis::Head];
    let kinds = [(Z, axes), (Q, axes), (K, axes), (V, axes), (Pattern, of_pattern)];
    every(model, corrupted.into(), clean_cache, metric, &kinds)
}

/// Patches the residual stream before each block, what attention adds, and what the MLP adds, position by position.
/// Shape: → `[3, n_layers, pos]`.
///
/// # Errors
/// As for [`generic_activation_patch`](super::generic_activation_patch).
pub fn get_act_patch_block_every(
    model: &Gpt2,
    corrupted: impl Into<Prompts>,
    clean_cache: &ActivationCache,
    metric: &Metric,
) -> Result<Sweep> {
    use Activation::{AttnOut, MlpOut, ResidPre};
    let axes: &[PatchAxis] = &[PatchAxis::Pos];
    every(model, corrupted.into(), clean_cache, metric, &[(ResidPre, axes), (AttnOut, axes), (MlpOut, axes)])
}

/// One sweep for each activation, stacked along a first axis.
fn every(
    model: &Gpt2,
    corrupted: Prompts,
    clean_cache: &ActivationCache,
    metric: &Metric,
    kinds: &[(Activation, &[PatchAxis])],
) -> Result<Sweep> {
    let engine = Engine::new(model, corrupted, metric, SweepOptions::default())?;
    let sweep = |&(activation, axes): &(Activation, &[PatchAxis])| patch(&engine, clean_cache, activation, axes);
    let sweeps = kinds.iter().map(sweep).collect::<Result<Vec<Sweep>>>()?;
    let views: Vec<ArrayViewD<f32>> = sweeps.iter().map(|sweep| sweep.values.view()).collect();
    let values = ndarray::stack(Axis(0), &views).expect("sweeps of one shape");
    let name = |(activation, _): &(Activation, &[PatchAxis])| activation.name().to_owned();
    let mut axes = vec![SweepAxis { name: "activation".into(), labels: kinds.iter().map(name).collect() }];
    axes.extend(sweeps[0].axes.iter().cloned());
    Ok(Sweep { values, axes, title: "patching".into(), ..sweeps[0].clone() })
}
