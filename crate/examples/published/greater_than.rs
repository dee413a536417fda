//! The greater-than task (Hanna et al. 2023). Other nouns and years are drawn here than there.

use attention_tokens::datasets::{GreaterThanDataset, GreaterThanOptions, GreaterThanPrompt};
use attention_tokens::ndarray::Array2;
use attention_tokens::patching::freeze;
use attention_tokens::prelude::*;
use attention_tokens::{Result, log_probs};

use crate::row::Row;

const SECTION_2: &str = "Hanna et al. 2023, arXiv:2305.00586, section 2";
const SECTION_3: &str = "Hanna et al. 2023, arXiv:2305.00586, section 3";

pub(crate) fn task(model: &Gpt2) -> Result<Vec<Row>> {
    let dataset = GreaterThanDataset::new(model.tokenizer()?, GreaterThanOptions::default().num_samples(300))?;
    let difference = dataset.eval(model)?.probability_diff;
    Ok(vec![Row::number("probability difference, 300 prompts", 0.817, 0.06, difference, SECTION_2)])
}

/// The MLPs whose output at the last position, on its direct way to the logits, matters most: one of them at a time is
/// that for the year 01, and everything after it is as it was.
pub(crate) fn mlps(model: &Gpt2) -> Result<Vec<Row>> {
    let dataset = GreaterThanDataset::new(model.tokenizer()?, GreaterThanOptions::default().num_samples(100))?;
    let outputs = || RunOptions::default().activations([Activation::AttnOut, Activation::MlpOut]).no_logits();
    let (_, clean) = model.run_with_cache_options(dataset.tokens(), outputs())?;
    let (_, corrupted) = model.run_with_cache_options(dataset.corrupted_tokens(), outputs())?;
    let frozen: Vec<Intervention> =
        [Activation::AttnOut, Activation::MlpOut].into_iter().flat_map(|out| freeze(out, &clean)).collect();
    let difference = |hooks: &[Intervention]| {
        let options = RunOptions::default().activations([]).logits_at([-1]).hooks(hooks);
        let (logits, _) = model.run_with_cache_options(dataset.tokens(), options)?;
        Ok::<_, Error>(mean_difference(&dataset, &logits.unwrap_or_default()))
    };
    let unchanged = difference(&[])?;
    let mut effects = Vec::new();
    for layer in 0..model.config().n_layers {
        let mut hooks = vec![Intervention::patch(Activation::MlpOut.at(layer), &corrupted).pos(-1)];
        hooks.extend(frozen.iter().filter(|hook| hook.point().layer > layer).cloned());
        effects.push((layer, (difference(&hooks)? - unchanged).abs()));
    }
    effects.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    effects.truncate(4);
    effects.sort_by_key(|&(layer, _)| layer);
    let layers: Vec<String> = effects.iter().map(|(layer, _)| layer.to_string()).collect();
    let what = "the four MLPs that matter most on their direct way to the logits";
    Ok(vec![Row::text(what, "8 9 10 11", layers.join(" "), SECTION_3)])
}

/// The probability of the years after that of the prompt minus that of the others, the mean over the prompts.
/// Shape: `logits [prompt] [1, d_vocab]`.
fn mean_difference(dataset: &GreaterThanDataset, logits: &[Array2<f32>]) -> f64 {
    let of_prompt = |(prompt, logits): (&GreaterThanPrompt, &Array2<f32>)| -> f64 {
        let log_probs = log_probs(logits);
        let signed = dataset.years.iter().enumerate().map(|(year, &token)| {
            let probability = f64::from(log_probs[[0, token as usize]]).exp();
            if year as u32 > prompt.year { probability } else { -probability }
        });
        signed.sum()
    };
    dataset.prompts.iter().zip(logits).map(of_prompt).sum::<f64>() / logits.len() as f64
}
