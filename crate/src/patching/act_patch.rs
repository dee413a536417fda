//! Activation patching, as in `transformer_lens.patching`: the corrupted prompts run with one activation of the clean ones.

use ndarray::{ArrayD, Dimension, IxDyn};

use super::engine::Engine;
use super::metric::Metric;
use super::options::SweepOptions;
use super::sweep::{Sweep, SweepAxis};
use crate::error::{Error, Result, check_setting};
use crate::model::{Activation, ActivationCache, Gpt2, Intervention, Prompts};

/// An axis that [`generic_activation_patch`] goes through, besides the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatchAxis {
    /// Positions, of an activation with a row for each.
    Pos,
    /// Heads.
    Head,
    /// Query positions of scores and patterns.
    DestPos,
    /// Key positions of scores and patterns.
    SrcPos,
}

impl PatchAxis {
    /// TransformerLens' name.
    fn name(self) -> &'static str {
        match self {
            PatchAxis::Pos => "pos",
            PatchAxis::Head => "head",
            PatchAxis::DestPos => "dest_pos",
            PatchAxis::SrcPos => "src_pos",
        }
    }
}

/// Runs the corrupted prompts once for each layer and each combination of the axes' indices, with an activation of the
/// clean cache there: TransformerLens' `generic_activation_patch`. `clean_cache` has as many prompts as `corrupted`, or
/// one for all, with as many tokens. Where a key is after the query, nothing is patched, and the value is the unchanged
/// run's. Shape: → `[n_layers, …]`, an axis for each of `axes`.
///
/// # Errors
/// [`Error::Setting`] for an axis that is named twice, [`Error::Intervention`] if the cache does not fit the prompts,
/// [`Error::Shape`] for prompts of different lengths where
/// positions are an axis, those of [`Gpt2::forward`] and of [`Metric::measure`].
pub fn generic_activation_patch(
    model: &Gpt2,
    corrupted: impl Into<Prompts>,
    clean_cache: &ActivationCache,
    metric: &Metric,
    activation: Activation,
    axes: &[PatchAxis],
    options: SweepOptions,
) -> Result<Sweep> {
    patch(&Engine::new(model, corrupted.into(), metric, options)?, clean_cache, activation, axes)
}

/// [`generic_activation_patch`] of prompts that were run.
pub(super) fn patch(
    engine: &Engine,
    clean_cache: &ActivationCache,
    activation: Activation,
    axes: &[PatchAxis],
) -> Result<Sweep> {
    let config = engine.model.config();
    for (index, axis) in axes.iter().enumerate() {
        // `Pos` is the query of a pattern too.
        let selects = |axis: &PatchAxis| if *axis == PatchAxis::Pos { PatchAxis::DestPos } else { *axis };
        let again = axes[..index].iter().any(|other| selects(other) == selects(axis));
        check_setting("generic_activation_patch", "axes", !again, "each once", format!("{axes:?}"))?;
    }
    let mut named = vec![SweepAxis::numbered("layer", config.n_layers)];
    for axis in axes {
        named.push(match axis {
            PatchAxis::Head => SweepAxis::numbered("head", config.n_heads),
            _ => SweepAxis { name: axis.name().into(), ..positions(engine)? },
        });
    }
    let shape: Vec<usize> = named.iter().map(|axis| axis.labels.len()).collect();
    let patch = |layer| Intervention::patch(activation.at(layer), clean_cache);
    let patches: Vec<Intervention> = (0..config.n_layers).map(patch).collect();
    let place = |index: &[usize]| {
        let mut masked = [0, usize::MAX]; // key and query
        let intervention =
            index[1..].iter().zip(axes).fold(patches[index[0]].clone(), |intervention, (&index, axis)| match axis {
                PatchAxis::Head => intervention.head(index),
                PatchAxis::Pos => intervention.pos(index as isize),
                PatchAxis::DestPos => {
                    masked[1] = index;
                    intervention.pos(index as isize)
                }
                PatchAxis::SrcPos => {
                    masked[0] = index;
                    intervention.key(index as isize)
                }
            });
        (masked[0] <= masked[1]).then_some(intervention)
    };
    let title = format!("patching {}", activation.name());
    let indices: Vec<Vec<usize>> =
        ndarray::indices(IxDyn(&shape)).into_iter().map(|index| index.slice().to_vec()).collect();
    let patched: Vec<Option<Intervention>> = indices.iter().map(|index| place(index)).collect();
    let runs = patched.iter().flatten().map(|hook| engine.variant(std::slice::from_ref(hook)));
    let (unchanged, values) = engine.run(patched.iter().flatten().count(), runs, &title)?;
    let mut values = values.into_iter();
    let values = patched.iter().map(|hook| match hook {
        Some(_) => values.next().expect("a value for each run"),
        None => unchanged,
    });
    let values = ArrayD::from_shape_vec(IxDyn(&shape), values.collect()).expect("a value for each place");
    Ok(Sweep { values, axes: named, unchanged, metric: engine.metric.name().into(), title })
}

/// The axis of positions, labelled by the tokens of the first prompt.
pub(super) fn positions(engine: &Engine) -> Result<SweepAxis> {
    let tokens = engine.tokens();
    if let Some((index, other)) = tokens.iter().enumerate().find(|(_, other)| other.len() != tokens[0].len()) {
        return Err(Error::Shape {
            what: format!("a sweep over positions: prompt {index}"),
            axes: "[pos]",
            expected: vec![tokens[0].len()],
            found: vec![other.len()],
            hint: "positions can be compared between prompts of one length only",
        });
    }
    let labels = engine.model.token_labels();
    let label = |(pos, &token): (usize, &u32)| format!("{pos} {}", labels.label(token));
    Ok(SweepAxis { name: "pos".into(), labels: tokens[0].iter().enumerate().map(label).collect() })
}

macro_rules! act_patch {
    ($($(#[$doc:meta])* $name:ident: $activation:ident, $axes:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// As for [`generic_activation_patch`].
        pub fn $name(
            model: &Gpt2,
            corrupted: impl Into<Prompts>,
            clean_cache: &ActivationCache,
            metric: &Metric,
        ) -> Result<Sweep> {
            let engine = Engine::new(model, corrupted.into(), metric, SweepOptions::default())?;
            patch(&engine, clean_cache, Activation::$activation, &$axes)
        }
    )*};
}

act_patch! {
    /// Patches the residual stream before each block, position by position. Shape: → `[n_layers, pos]`.
    get_act_patch_resid_pre: ResidPre, [PatchAxis::Pos];
    /// Patches the residual stream between attention and MLP, position by position. Shape: → `[n_layers, pos]`.
    get_act_patch_resid_mid: ResidMid, [PatchAxis::Pos];
    /// Patches what attention adds, position by position. Shape: → `[n_layers, pos]`.
    get_act_patch_attn_out: AttnOut, [PatchAxis::Pos];
    /// Patches what the MLP adds, position by position. Shape: → `[n_layers, pos]`.
    get_act_patch_mlp_out: MlpOut, [PatchAxis::Pos];
    /// Patches each head's `z`, position by position. Shape: → `[n_layers, pos, n_heads]`.
    get_act_patch_attn_head_out_by_pos: Z, [PatchAxis::Pos, PatchAxis::Head];
    /// Patches each head's queries, position by position. Shape: → `[n_layers, pos, n_heads]`.
    get_act_patch_attn_head_q_by_pos: Q, [PatchAxis::Pos, PatchAxis::Head];
    /// Patches each head's keys, position by position. Shape: → `[n_layers, pos, n_heads]`.
    get_act_patch_attn_head_k_by_pos: K, [PatchAxis::Pos, PatchAxis::Head];
    /// Patches each head's values, position by position. Shape: → `[n_layers, pos, n_heads]`.
    get_act_patch_attn_head_v_by_pos: V, [PatchAxis::Pos, PatchAxis::Head];
    /// Patches each head's pattern, query by query. Shape: → `[n_layers, n_heads, dest_pos]`.
    get_act_patch_attn_head_pattern_by_pos: Pattern, [PatchAxis::Head, PatchAxis::DestPos];
    /// Patches each head's pattern, cell by cell. Shape: → `[n_layers, n_heads, dest_pos, src_pos]`.
    get_act_patch_attn_head_pattern_dest_src_pos: Pattern, [PatchAxis::Head, PatchAxis::DestPos, PatchAxis::SrcPos];
    /// Patches each head's `z` at all positions. Shape: → `[n_layers, n_heads]`.
    get_act_patch_attn_head_out_all_pos: Z, [PatchAxis::Head];
    /// Patches each head's queries at all positions. Shape: → `[n_layers, n_heads]`.
    get_act_patch_attn_head_q_all_pos: Q, [PatchAxis::Head];
    /// Patches each head's keys at all positions. Shape: → `[n_layers, n_heads]`.
    get_act_patch_attn_head_k_all_pos: K, [PatchAxis::Head];
    /// Patches each head's values at all positions. Shape: → `[n_layers, n_heads]`.
    get_act_patch_attn_head_v_all_pos: V, [PatchAxis::Head];
    /// Patches each head's pattern at all positions. Shape: → `[n_layers, n_heads]`.
    get_act_patch_attn_head_pattern_all_pos: Pattern, [PatchAxis::Head];
}
