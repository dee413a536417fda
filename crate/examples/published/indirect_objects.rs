//! The indirect-object task in TransformerLens' demos and tests.

use attention_tokens::Result;
use attention_tokens::datasets::{IoiDataset, IoiOptions};
use attention_tokens::prelude::*;

use crate::predictions::logit_diff;
use crate::row::Row;

const EXPLORATORY_26: &str = "TransformerLens Exploratory_Analysis_Demo, cells 26, 57";
const EXPLORATORY_101: &str = "TransformerLens Exploratory_Analysis_Demo, cell 101";
const ATTRIBUTION_18: &str = "TransformerLens Direct_Logit_Attribution_Demo, cell 18";
const EVALS_TEST: &str = "TransformerLens tests/acceptance/test_evals.py";
const EVALS_DOC: &str = "TransformerLens transformer_lens/evals.py, documentation";

/// The prompts of the demo: a template, and the two names. Each name is the indirect object once.
const PROMPTS: [(&str, [&str; 2]); 4] = [
    ("When John and Mary went to the shops,{} gave the bag to", [" Mary", " John"]),
    ("When Tom and James went to the park,{} gave the ball to", [" Tom", " James"]),
    ("When Dan and Sid went to the shops,{} gave an apple to", [" Dan", " Sid"]),
    ("After Martin and Amy went to the park,{} gave a drink to", [" Martin", " Amy"]),
];

/// The eight prompts, each with its right and its wrong answer.
pub(crate) fn eight() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    PROMPTS.into_iter().flat_map(|(template, [one, other])| {
        [(one, other), (other, one)].map(|(right, wrong)| (template.replace("{}", wrong), right, wrong))
    })
}

/// A prompt with the other name in the place of the giver; the answers stay.
pub(crate) fn exchanged(prompt: &str, right: &str, wrong: &str) -> String {
    prompt.replacen(&format!(",{wrong} gave"), &format!(",{right} gave"), 1)
}

pub(crate) fn eight_prompts(model: &Gpt2) -> Result<Vec<Row>> {
    let published = [3.3368, 3.2018, 2.7098, 3.7976, 1.7206, 5.2815, 2.6010, 5.7676];
    let (mut rows, mut clean, mut swapped) = (Vec::new(), 0.0, 0.0);
    for ((prompt, right, wrong), published) in eight().zip(published) {
        let yours = logit_diff(model, model.to_tokens(&prompt)?, right, wrong)?;
        clean += yours / 8.0;
        let other = exchanged(&prompt, right, wrong);
        swapped += logit_diff(model, model.to_tokens(&other)?, right, wrong)? / 8.0;
        rows.push(Row::rounded(format!("{} −{wrong}, {prompt:?}", right.trim()), published, 4, yours, EXPLORATORY_26));
    }
    rows.push(Row::rounded("mean of the eight", 3.5521, 4, clean, EXPLORATORY_26));
    rows.push(Row::rounded("mean with the givers exchanged", -3.5521, 4, swapped, EXPLORATORY_26));
    Ok(rows)
}

pub(crate) fn evaluation(model: &Gpt2) -> Result<Vec<Row>> {
    let options = IoiOptions::default()
        .templates([
            "[A] and [B] went to the [LOCATION] to buy [OBJECT]. [B] handed the [OBJECT] to [A]",
            "Then, [B] and [A] went to the [LOCATION]. [B] gave the [OBJECT] to [A]",
        ])
        .names(["John", "Mary"])
        .nouns("LOCATION", ["store", "market"])
        .nouns("OBJECT", ["milk", "eggs", "bread"])
        .num_samples(100);
    let accuracy = IoiDataset::new(model.tokenizer()?, options)?.eval(model)?.accuracy;
    // `IOIDataset` seeds its choices anew for each prompt, so that all prompts of the documentation are these.
    let default = "Mary and John went to the store to buy bread. John handed the bread to";
    let custom = "Charlie met with Bob. Bob gave the ball to";
    let default = logit_diff(model, model.to_tokens(default)?, " Mary", " John")?;
    let custom = logit_diff(model, model.to_tokens(custom)?, " Charlie", " Bob")?;
    Ok(vec![
        Row::at_least("accuracy on IOIDataset, 100 prompts", 0.99, accuracy, EVALS_TEST),
        Row::rounded("logit difference of ioi_eval's prompt", 5.476, 3, default, EVALS_DOC),
        Row::rounded("logit difference of its prompt with templates of one's own", 5.397, 3, custom, EVALS_DOC),
    ])
}

/// The difference of two answers' logits that heads write at the last position. Shape: `heads [n]` → the same.
fn attribution(model: &Gpt2, prompt: &str, right: &str, wrong: &str, heads: &[[usize; 2]]) -> Result<Vec<f64>> {
    let (_, cache) = model.run_with_cache(prompt)?;
    let [right, wrong] = [model.to_single_token(right)?, model.to_single_token(wrong)?];
    let attrs = cache.head_logit_attrs(model, right, Some(wrong))?; // [layer, head, pos]
    let last = attrs.dim().2 - 1;
    Ok(heads.iter().map(|&[layer, head]| f64::from(attrs[[layer, head, last]])).collect())
}

pub(crate) fn attribution_of_9_9(model: &Gpt2) -> Result<Vec<Row>> {
    let mut mean = 0.0;
    for (prompt, right, wrong) in eight() {
        mean += attribution(model, &prompt, right, wrong, &[[9, 9]])?[0] / 8.0;
    }
    Ok(vec![Row::rounded("9.9, mean of the eight prompts", 2.9856, 4, mean, EXPLORATORY_101)])
}

pub(crate) fn attribution_of_heads(model: &Gpt2) -> Result<Vec<Row>> {
    let prompt = "When John and Mary went to the shops, John gave the bag to";
    let heads = [[9, 9], [9, 6], [10, 7], [11, 1], [11, 10], [10, 0], [10, 10], [8, 10]];
    let published = [1.9583, 1.6281, -1.4267, -0.9117, -0.9042, 0.6370, 0.4524, 0.4264];
    let yours = attribution(model, prompt, " Mary", " John", &heads)?;
    let rows = heads.into_iter().zip(published).zip(yours).map(|(([layer, head], published), yours)| {
        Row::rounded(
            format!("{layer}.{head}: Mary − John, \"When John and Mary went to the shops, John …\""),
            published,
            4,
            yours,
            ATTRIBUTION_18,
        )
    });
    Ok(rows.collect())
}
