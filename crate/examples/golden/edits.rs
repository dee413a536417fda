//! Compares interventions with `analysis.safetensors`: `edit.*`, `edited.*`, `patch.*`, `path.*`.

use attention_tokens::patching::{self, Receiver, SweepOptions};
use attention_tokens::prelude::*;
use ndarray::{Array1, Array2, ArrayD, Axis};

use super::Result;
use super::expected::Expected;

/// Whether the library's value of a tensor is computed here.
pub(super) fn knows(name: &str) -> bool {
    ["edit.", "edited.", "patch.", "path."].iter().any(|beginning| name.starts_with(beginning))
}

/// The library's value of a tensor. `None` for an unknown name. Shape: → as in the file.
pub(super) fn compute(name: &str, model: &Gpt2, expected: &Expected, answers: [u32; 2]) -> Result<Option<ArrayD<f32>>> {
    let clean = expected.tokens("clean")?;
    let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
    if let Some(activation) = name.strip_prefix("edited.") {
        return edited(activation, model, clean);
    }
    if let Some(swept) = name.strip_prefix("patch.") {
        return patch(swept, model, expected, answers);
    }
    if name == "path.head_to_logits" {
        let (metric, options) = (Metric::logit_diff(&[answers]), SweepOptions::default());
        let corrupted = model.run_with_cache(expected.tokens("corrupted")?)?.1;
        let sweep = patching::path_patch(model, clean, &corrupted, &Receiver::Logits, &metric, options)?;
        return Ok(Some(sweep.values));
    }
    let Some(edit) = name.strip_prefix("edit.") else { return Ok(None) };
    let both = vec![clean.clone(), expected.tokens("corrupted")?];
    let cache = model.run_with_cache(both)?.1;
    let logit_diff = |intervention: Intervention| -> attention_tokens::Result<f32> {
        let logits = model.run_with_hooks(clean.clone(), &[intervention])?.remove(0);
        let last = logits.row(logits.nrows() - 1);
        Ok(last[answers[0] as usize] - last[answers[1] as usize])
    };
    let of_head = |layer: usize| -> Option<Intervention> {
        use Activation::{AttnScores, K, Pattern, Q, V, Z};
        Some(match edit {
            "q_zero" => Intervention::zero(Q.at(layer)),
            "k_zero" => Intervention::zero(K.at(layer)),
            "v_zero" => Intervention::zero(V.at(layer)),
            "z_zero" => Intervention::zero(Z.at(layer)),
            "z_zero_at_end" => Intervention::zero(Z.at(layer)).pos(-1),
            "z_mean" => Intervention::mean(Z.at(layer), &cache),
            "pattern_zero" => Intervention::zero(Pattern.at(layer)),
            "knock_out_end_1" => Intervention::knock_out(layer, [(-1, 1)]),
            "knock_out_row_3" => Intervention::set(AttnScores.at(layer), f32::NEG_INFINITY).pos(3),
            _ => return None,
        })
    };
    let of_layer = |layer: usize| -> Option<Intervention> {
        use Activation::{AttnOut, MlpOut, ResidMid, ResidPre};
        Some(match edit {
            "attn_out_zero" => Intervention::zero(AttnOut.at(layer)),
            "mlp_out_zero" => Intervention::zero(MlpOut.at(layer)),
            "resid_mid_zero_pos_2" => Intervention::zero(ResidMid.at(layer)).pos(2),
            "resid_pre_halved" => Intervention::scale(ResidPre.at(layer), 0.5),
            "resid_pre_plus_0.1_pos_3" => Intervention::add(ResidPre.at(layer), 0.1).pos(3),
            _ => return None,
        })
    };
    if of_head(0).is_some() {
        let heads = (0..n_layers).flat_map(|layer| (0..n_heads).map(move |head| (layer, head)));
        let values = heads.map(|(layer, head)| logit_diff(of_head(layer).expect("a known name").head(head)));
        let values = values.collect::<attention_tokens::Result<Vec<f32>>>()?;
        return Ok(Some(Array2::from_shape_vec((n_layers, n_heads), values)?.into_dyn()));
    }
    if of_layer(0).is_some() {
        let values = (0..n_layers).map(|layer| logit_diff(of_layer(layer).expect("a known name")));
        let values = values.collect::<attention_tokens::Result<Vec<f32>>>()?;
        return Ok(Some(Array1::from(values).into_dyn()));
    }
    Ok(None)
}

/// The corrupted prompt with activations of the clean one.
fn patch(name: &str, model: &Gpt2, expected: &Expected, answers: [u32; 2]) -> Result<Option<ArrayD<f32>>> {
    let (corrupted, metric) = (expected.tokens("corrupted")?, Metric::logit_diff(&[answers]));
    let cache = model.run_with_cache(expected.tokens("clean")?)?.1;
    let sweep = match name {
        "resid_pre" => patching::get_act_patch_resid_pre(model, corrupted, &cache, &metric),
        "resid_mid" => patching::get_act_patch_resid_mid(model, corrupted, &cache, &metric),
        "attn_out" => patching::get_act_patch_attn_out(model, corrupted, &cache, &metric),
        "mlp_out" => patching::get_act_patch_mlp_out(model, corrupted, &cache, &metric),
        "head_out_all_pos" => patching::get_act_patch_attn_head_out_all_pos(model, corrupted, &cache, &metric),
        "head_q_all_pos" => patching::get_act_patch_attn_head_q_all_pos(model, corrupted, &cache, &metric),
        "head_k_all_pos" => patching::get_act_patch_attn_head_k_all_pos(model, corrupted, &cache, &metric),
        "head_v_all_pos" => patching::get_act_patch_attn_head_v_all_pos(model, corrupted, &cache, &metric),
        "head_pattern_all_pos" => patching::get_act_patch_attn_head_pattern_all_pos(model, corrupted, &cache, &metric),
        "head_out_by_pos" => patching::get_act_patch_attn_head_out_by_pos(model, corrupted, &cache, &metric),
        _ => return Ok(None),
    };
    Ok(Some(sweep?.values))
}

/// What the cache holds when z of head 0.0 is zeroed and the last `mlp_out` halved.
fn edited(name: &str, model: &Gpt2, clean: Vec<u32>) -> Result<Option<ArrayD<f32>>> {
    let n_layers = model.config().n_layers;
    let hooks = [
        Intervention::zero(Activation::Z.at(0)).head(0),
        Intervention::scale(Activation::MlpOut.at(n_layers - 1), 0.5),
    ];
    let (logits, cache) = model.hooked(&hooks)?.run_with_cache(clean)?;
    if name == "logits_last" {
        return Ok(Some(logits[0].row(logits[0].nrows() - 1).to_owned().into_dyn()));
    }
    let Some(activation) = Activation::ALL.into_iter().find(|activation| activation.name() == name) else {
        return Ok(None);
    };
    let layers = (0..n_layers).map(|layer| cache.get(activation, layer));
    let layers = layers.collect::<attention_tokens::Result<Vec<_>>>()?;
    Ok(Some(ndarray::stack(Axis(0), &layers.iter().map(|layer| layer.view()).collect::<Vec<_>>())?))
}
