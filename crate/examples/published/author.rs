//! The indirect-object notebook of the original's author.

use attention_tokens::Result;
use attention_tokens::ndarray::{Array1, Axis};
use attention_tokens::prelude::*;

use crate::row::Row;

const CELLS_14_29: &str = "layterz/experiments notebooks/ioi.ipynb, cells 14, 29";
const CELL_33: &str = "layterz/experiments notebooks/ioi.ipynb, cell 33";
const CELL_7: &str = "layterz/experiments notebooks/ioi.ipynb, cell 7";

/// The notebook's prompts.
struct Prompts54 {
    /// The subject gives.
    clean: Vec<String>,
    /// The indirect object gives; the answers stay.
    corrupted: Vec<String>,
    /// The logit of the indirect object minus that of the subject, the mean over the prompts.
    metric: Metric,
}

fn prompts(model: &Gpt2) -> Result<Prompts54> {
    let names = [" Mary", " John", " Alice"];
    let (mut clean, mut corrupted, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for place in [" shops", " park", " beach"] {
        for thing in [" bag", " ball", " book"] {
            for s in names {
                for io in names.into_iter().filter(|&io| io != s) {
                    let prompt = |giver: &str| format!("When{s} and{io} went to the{place}.{giver} gave the{thing} to");
                    clean.push(prompt(s));
                    corrupted.push(prompt(io));
                    answers.push([model.to_single_token(io)?, model.to_single_token(s)?]);
                }
            }
        }
    }
    Ok(Prompts54 { clean, corrupted, metric: Metric::logit_diff(&answers) })
}

pub(crate) fn logit_differences(model: &Gpt2) -> Result<Vec<Row>> {
    let Prompts54 { clean, corrupted, metric } = prompts(model)?;
    let (clean, corrupted) = (metric.measure(model, clean)?, metric.measure(model, corrupted)?);
    Ok(vec![
        Row::rounded("mean logit difference of 54 prompts", 3.258918524, 9, clean, CELLS_14_29),
        Row::rounded("the same where the indirect object gives", -3.436338425, 9, corrupted, CELLS_14_29),
    ])
}

/// The corrupted prompts, with the output of three heads as for the clean ones, at every position.
pub(crate) fn patched_heads(model: &Gpt2) -> Result<Vec<Row>> {
    let Prompts54 { clean, corrupted, metric } = prompts(model)?;
    let only_z = RunOptions::default().activations([Activation::Z]).no_logits();
    let (_, cache) = model.run_with_cache_options(clean, only_z)?;
    let hooks =
        [[9, 9], [9, 6], [10, 0]].map(|[layer, head]| Intervention::patch(Activation::Z.at(layer), &cache).head(head));
    let patched = metric.measure(&model.hooked(&hooks)?, corrupted)?;
    Ok(vec![Row::rounded("the same with z of 9.9, 9.6 and 10.0 patched", -1.686828017, 9, patched, CELL_33)])
}

/// The lens after each layer. Unlike the logit lens, it divides by the scale of the layer norm before that layer's
/// attention, so the numbers are no logits of a model that ends there.
pub(crate) fn lens(model: &Gpt2) -> Result<Vec<Row>> {
    let prompt = "John and Mary went to the shops. John gave the bag to";
    let published_tokens = " avoid get help be cover go go someone Mrs Mary Mary Mary";
    let published = [157.73, 17.42, 17.81, 18.56, 19.58, 19.34, 19.94, 23.19, 30.76, 55.80, 47.29, 36.26];
    let (_, cache) = model.run_with_cache(prompt)?;
    let weights = model.weights()?;
    let (mut tokens, mut rows) = (String::new(), Vec::new());
    for (layer, published) in published.into_iter().enumerate() {
        let resid = cache.get(Activation::ResidPost, layer)?;
        let last = resid.index_axis(Axis(0), resid.len_of(Axis(0)) - 1); // [d_model]
        let scale = cache.ln1_scale(model, layer)?;
        let centered = &last - last.mean().unwrap_or_default();
        let normalized: Array1<f32> = centered.iter().map(|x| x / scale[scale.len() - 1]).collect();
        let logits = normalized.dot(&weights.w_u) + &weights.b_u; // [d_vocab]
        let (token, logit) = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap_or((0, &f32::NAN));
        tokens += &model.to_single_str_token(token as u32)?;
        rows.push(Row::rounded(format!("its largest number after layer {layer}"), published, 2, *logit, CELL_7));
    }
    rows.insert(0, Row::text(format!("the author's lens, {prompt:?}"), published_tokens, tokens, CELL_7));
    Ok(rows)
}
