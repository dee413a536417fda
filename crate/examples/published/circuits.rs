//! The indirect-object task and the heads of its circuit, as Wang et al. 2022 measured them.
//!
//! The paper's prompts are drawn from its 15 templates in both orders, with its places and objects, without a
//! beginning-of-sequence token. Other names are drawn here than there, and fewer prompts, so the tolerances are wide.

use attention_tokens::Result;
use attention_tokens::datasets::{IoiDataset, IoiOptions};
use attention_tokens::prelude::*;

use crate::row::Row;

const SECTION_2: &str = "Wang et al. 2022, arXiv:2211.00593, section 2";
const SECTION_3_1: &str = "Wang et al. 2022, arXiv:2211.00593, section 3.1";
const SECTION_3_2: &str = "Wang et al. 2022, arXiv:2211.00593, section 3.2";

/// The templates in the order BABA.
const TEMPLATES: [&str; 15] = [
    "Then, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to [A]",
    "Then, [B] and [A] had a lot of fun at the [PLACE]. [B] gave a [OBJECT] to [A]",
    "Then, [B] and [A] were working at the [PLACE]. [B] decided to give a [OBJECT] to [A]",
    "Then, [B] and [A] were thinking about going to the [PLACE]. [B] wanted to give a [OBJECT] to [A]",
    "Then, [B] and [A] had a long argument, and afterwards [B] said to [A]",
    "After [B] and [A] went to the [PLACE], [B] gave a [OBJECT] to [A]",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give it to [A]",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give the [OBJECT] to [A]",
    "While [B] and [A] were working at the [PLACE], [B] gave a [OBJECT] to [A]",
    "While [B] and [A] were commuting to the [PLACE], [B] gave a [OBJECT] to [A]",
    "After the lunch, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to [A]",
    "Afterwards, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to [A]",
    "Then, [B] and [A] had a long argument. Afterwards [B] said to [A]",
    "The [PLACE] [B] and [A] went to had a [OBJECT]. [B] gave it to [A]",
    "Friends [B] and [A] found a [OBJECT] at the [PLACE]. [B] gave it to [A]",
];
const PLACES: [&str; 8] = ["store", "garden", "restaurant", "school", "hospital", "office", "house", "station"];
const OBJECTS: [&str; 8] = ["ring", "kiss", "bone", "basketball", "computer", "necklace", "drink", "snack"];

/// Heads as (layer, head).
pub(crate) type Heads = &'static [[usize; 2]];
pub(crate) const NAME_MOVERS: Heads = &[[9, 6], [9, 9], [10, 0]];
pub(crate) const NEGATIVE_NAME_MOVERS: Heads = &[[10, 7], [11, 10]];
pub(crate) const S_INHIBITION: Heads = &[[7, 3], [7, 9], [8, 6], [8, 10]];

/// The templates in both orders.
pub(crate) fn templates() -> impl Iterator<Item = String> {
    let abba = TEMPLATES.map(|text| text.replacen("[B] and [A]", "[A] and [B]", 1));
    TEMPLATES.map(String::from).into_iter().chain(abba)
}

/// Prompts of the task.
fn dataset(model: &Gpt2, num_samples: usize) -> Result<IoiDataset> {
    dataset_of(model, templates(), num_samples)
}

/// Prompts of some templates.
pub(crate) fn dataset_of(
    model: &Gpt2,
    templates: impl IntoIterator<Item = String>,
    num_samples: usize,
) -> Result<IoiDataset> {
    let options = IoiOptions::default().templates(templates).nouns("PLACE", PLACES).nouns("OBJECT", OBJECTS);
    let mut dataset = IoiDataset::new(model.tokenizer()?, options.num_samples(num_samples))?;
    for prompt in &mut dataset.prompts {
        prompt.tokens.remove(0);
        for pos in [&mut prompt.io_pos, &mut prompt.s1_pos, &mut prompt.s2_pos, &mut prompt.end_pos] {
            *pos -= 1;
        }
    }
    Ok(dataset)
}

pub(crate) fn task(model: &Gpt2) -> Result<Vec<Row>> {
    let scores = dataset(model, 500)?.eval(model)?;
    Ok(vec![
        Row::number("accuracy, 500 prompts (published: 100,000)", 0.993, 0.015, scores.accuracy, SECTION_2),
        Row::number("mean logit difference", 3.56, 0.5, scores.logit_diff, SECTION_2),
        Row::number("mean P(indirect object)", 0.49, 0.1, scores.probability, SECTION_2),
    ])
}

pub(crate) fn attention(model: &Gpt2) -> Result<Vec<Row>> {
    let (mut to_io, mut to_s2, n) = (0.0, 0.0, 100);
    for prompt in dataset(model, n)?.prompts {
        let options = RunOptions::default().activations([Activation::Pattern]).no_logits();
        let (_, cache) = model.run_with_cache_options(prompt.tokens, options)?;
        let mean = |heads: Heads, key: usize| {
            let mut sum = 0.0;
            for &[layer, head] in heads {
                sum += f64::from(cache.get(Activation::Pattern, layer)?[[head, prompt.end_pos, key]]);
            }
            Ok::<_, Error>(sum / heads.len() as f64)
        };
        to_io += mean(NAME_MOVERS, prompt.io_pos)? / n as f64;
        to_s2 += mean(S_INHIBITION, prompt.s2_pos)? / n as f64;
    }
    Ok(vec![
        Row::number("name movers 9.6 9.9 10.0: attention from the end to the IO", 0.59, 0.1, to_io, SECTION_3_1),
        Row::number("7.3 7.9 8.6 8.10: attention from the end to the second S", 0.51, 0.1, to_s2, SECTION_3_2),
    ])
}

pub(crate) fn name_movers(model: &Gpt2) -> Result<Vec<Row>> {
    let dataset = dataset(model, 20)?;
    let names: Vec<u32> = dataset.answers().concat();
    let answers: Vec<u32> = dataset.prompts.iter().map(|prompt| prompt.io).collect();
    let scores = model.name_mover_scores(dataset.tokens(), &names, &answers, 5)?;
    let of = |scores: &attention_tokens::HeadScores, [layer, head]: [usize; 2]| f64::from(scores.values[[layer, head]]);
    let mut rows = Vec::new();
    for &head in NAME_MOVERS {
        let [layer, index] = head;
        rows.push(Row::at_least(format!("{layer}.{index}: copy score"), 0.95, of(&scores.copy, head), SECTION_3_1));
        let correlation = of(&scores.correlation, head);
        let what = format!("{layer}.{index}: correlation of attention and written logit");
        rows.push(Row::at_least(what, 0.81, correlation, SECTION_3_1));
    }
    let mean = |scores: &attention_tokens::HeadScores| f64::from(scores.values.mean().unwrap_or(f32::NAN));
    rows.push(Row::at_most("copy score, mean of all heads", 0.2, mean(&scores.copy), SECTION_3_1));
    let negative = NEGATIVE_NAME_MOVERS.iter().map(|&head| of(&scores.negative_copy, head)).sum::<f64>() / 2.0;
    rows.push(Row::number("10.7 11.10: negative copy score", 0.98, 0.05, negative, SECTION_3_1));
    let mean = mean(&scores.negative_copy);
    rows.push(Row::number("negative copy score, mean of all heads", 0.12, 0.08, mean, SECTION_3_1));
    Ok(rows)
}
