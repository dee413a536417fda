//! Activation patching by head, and of direct paths between two heads.

use attention_tokens::ndarray::{Axis, Dimension, Ix2, s};
use attention_tokens::patching::{
    get_act_patch_attn_head_out_all_pos, get_act_patch_attn_head_pattern_all_pos, get_act_patch_attn_head_v_all_pos,
};
use attention_tokens::prelude::*;
use attention_tokens::{Result, Sweep};

use crate::circuits::Heads;
use crate::indirect_objects::{eight, exchanged};
use crate::row::Row;

const EXPLORATORY_74: &str = "TransformerLens Exploratory_Analysis_Demo, cells 74–99";
const DIRECT_PATH_13: &str = "TransformerLens direct_path_patching_ioi, cells 11, 13";

const EARLY_AND_LATE: Heads = &[[3, 0], [5, 5], [6, 9], [9, 9], [10, 7], [11, 10]];
const MIDDLE: Heads = &[[7, 9], [8, 6], [8, 10]];

/// The eight prompts with the givers exchanged, and one activation of a head as with the right giver: the share of the
/// logit difference that comes back.
pub(crate) fn by_head(model: &Gpt2) -> Result<Vec<Row>> {
    let (mut clean, mut corrupted, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for (prompt, right, wrong) in eight() {
        corrupted.push(exchanged(&prompt, right, wrong));
        clean.push(prompt);
        answers.push([model.to_single_token(right)?, model.to_single_token(wrong)?]);
    }
    let metric = Metric::logit_diff(&answers);
    let ends = [metric.measure(model, &clean)?, metric.measure(model, &corrupted)?];
    let metric = metric.normalized(ends[0], ends[1])?;
    let (_, cache) = model.run_with_cache(&clean)?;
    let z = get_act_patch_attn_head_out_all_pos(model, &corrupted, &cache, &metric)?;
    let v = get_act_patch_attn_head_v_all_pos(model, &corrupted, &cache, &metric)?;
    let pattern = get_act_patch_attn_head_pattern_all_pos(model, &corrupted, &cache, &metric)?;
    let published = "3.0 5.5 6.9 7.3 7.9 8.6 8.10 9.9 10.7 11.10";
    Ok(vec![
        Row::text("the ten heads whose z has the largest effect", published, largest(&z, 10), EXPLORATORY_74),
        Row::at_least(
            "v: smallest effect of 7.9 8.6 8.10 − largest of 3.0 5.5 6.9 9.9 10.7 11.10",
            0.0,
            separation(&v, MIDDLE, EARLY_AND_LATE),
            EXPLORATORY_74,
        ),
        Row::at_least(
            "pattern: smallest effect of 3.0 5.5 6.9 9.9 10.7 11.10 − largest of 7.9 8.6 8.10",
            0.0,
            separation(&pattern, EARLY_AND_LATE, MIDDLE),
            EXPLORATORY_74,
        ),
    ])
}

/// The heads with the largest effects, in the order of the model.
fn largest(sweep: &Sweep, n: usize) -> String {
    let differences = sweep.differences();
    let mut heads: Vec<(Vec<usize>, f32)> =
        differences.indexed_iter().map(|(head, x)| (head.as_array_view().to_vec(), x.abs())).collect();
    heads.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    heads.truncate(n);
    heads.sort_by(|(one, _), (other, _)| one.cmp(other));
    heads.iter().map(|(head, _)| format!("{}.{}", head[0], head[1])).collect::<Vec<_>>().join(" ")
}

/// The smallest magnitude of some effects minus the largest of others.
fn separation(sweep: &Sweep, large: Heads, small: Heads) -> f32 {
    let differences = sweep.differences();
    let magnitude = |head: &[usize; 2]| differences[*head].abs();
    let smallest = large.iter().map(magnitude).fold(f32::INFINITY, f32::min);
    smallest - small.iter().map(magnitude).fold(0.0, f32::max)
}

/// The corrupted prompt, with the queries of one head as they would be if a head before it wrote what it writes for the
/// clean prompt: the difference of the outputs, through the layer norm of the corrupted run and `W_Q`.
pub(crate) fn direct_paths(model: &Gpt2) -> Result<Vec<Row>> {
    let clean = "When Mary and John went to the store, John gave a drink to";
    let corrupted = "When Mary and John went to the store, Mary gave a drink to";
    let metric = Metric::logit_diff(&[[model.to_single_token(" Mary")?, model.to_single_token(" John")?]]);
    let ends = [metric.measure(model, clean)?, metric.measure(model, corrupted)?];
    let metric = metric.normalized(ends[0], ends[1])?;
    let (_, clean_cache) = model.run_with_cache(clean)?;
    let (_, corrupted_cache) = model.run_with_cache(corrupted)?;
    let weights = model.weights()?;
    let mut paths = Vec::new();
    for [from_layer, from_head] in [[7, 3], [7, 9], [8, 6], [8, 10]] {
        let changed =
            clean_cache.get(Activation::Result, from_layer)? - corrupted_cache.get(Activation::Result, from_layer)?; // [pos, n_heads, d_model]
        let changed =
            changed.slice(s![.., from_head, ..]).to_owned().into_dimensionality::<Ix2>().expect("two axes left");
        for [layer, head] in [[9, 9], [9, 6], [10, 0]] {
            let scale = corrupted_cache.ln1_scale(model, layer)?; // [pos]
            let through_w_q =
                (&changed / &scale.insert_axis(Axis(1))).dot(&weights.blocks[layer].w_q.slice(s![head, .., ..])); // [pos, d_head]
            let values = through_w_q.insert_axis(Axis(1)); // [pos, 1, d_head]
            let hook = Intervention::add(Activation::Q.at(layer), values).head(head);
            let value = metric.measure(&model.hooked(&[hook])?, corrupted)?;
            paths.push((format!("{from_layer}.{from_head} → {layer}.{head}"), value));
        }
    }
    let strongest = paths.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let strongest = strongest.map(|(name, _)| name.clone()).unwrap_or_default();
    let of_8_6 = paths.iter().find(|(name, _)| name == "8.6 → 9.9").map_or(f32::NAN, |(_, value)| *value);
    Ok(vec![
        Row::rounded("direct path 8.6 → queries of 9.9, normalized", 0.083, 3, of_8_6, DIRECT_PATH_13),
        Row::text("the strongest of the 12 such paths to name movers", "8.6 → 9.9", strongest, DIRECT_PATH_13),
    ])
}
