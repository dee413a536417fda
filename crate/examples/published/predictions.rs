//! Losses, probabilities and logit differences of single prompts.

use attention_tokens::ndarray::Array1;
use attention_tokens::prelude::*;
use attention_tokens::{Result, log_probs, test_prompt_options};

use crate::row::Row;

/// Cells of a published, executed copy of TransformerLens' `Main_Demo.ipynb`.
const MAIN_28: &str = "TransformerLens Main_Demo, cell 28";
const MAIN_33: &str = "TransformerLens Main_Demo, cell 33";
const MAIN_78: &str = "TransformerLens Main_Demo, cell 78";
const MAIN_92: &str = "TransformerLens Main_Demo, cell 92";
const EXPLORATORY_18: &str = "TransformerLens Exploratory_Analysis_Demo, cell 18";

/// The sentence that TransformerLens' main demo runs.
pub(crate) const PAPER: &str = "Natural language processing tasks, such as question answering, machine translation, reading comprehension, \
     and summarization, are typically approached with supervised learning on taskspecific datasets.";

/// The logits after the last token of a prompt. Shape: → `[d_vocab]`.
pub(crate) fn last_logits(model: &Gpt2, tokens: Vec<u32>) -> Result<Array1<f32>> {
    Ok(model.logits_at(tokens, &[-1])?.remove(0).row(0).to_owned())
}

/// The logit of an answer minus that of another, after the last token of a prompt.
pub(crate) fn logit_diff(model: &Gpt2, tokens: Vec<u32>, right: &str, wrong: &str) -> Result<f64> {
    let logits = last_logits(model, tokens)?;
    let logit = |text: &str| Ok::<_, Error>(f64::from(logits[model.to_single_token(text)? as usize]));
    Ok(logit(right)? - logit(wrong)?)
}

pub(crate) fn losses(model: &Gpt2) -> Result<Vec<Row>> {
    let test = "TransformerLens tests/acceptance/test_hooked_transformer.py";
    Ok(vec![
        Row::number("loss of \"Hello world!\"", 5.331855774, 4e-5, model.loss("Hello world!")?[0], test),
        Row::rounded("loss of \"Natural language processing tasks, …\"", 3.999, 3, model.loss(PAPER)?[0], MAIN_28),
    ])
}

pub(crate) fn cat(model: &Gpt2) -> Result<Vec<Row>> {
    let logits = model.logits_at("The cat sat on the mat.", &[-1])?.remove(0);
    let probability = log_probs(&logits)[[0, model.to_single_token(" The")? as usize]].exp();
    Ok(vec![Row::rounded("P(\" The\") after \"The cat sat on the mat.\"", 0.1198, 4, probability, MAIN_78)])
}

pub(crate) fn milk(model: &Gpt2) -> Result<Vec<Row>> {
    let row = |giver: &str, published: f64| {
        let prompt = format!("After John and Mary went to the store, {giver} gave a bottle of milk to");
        let yours = logit_diff(model, model.to_tokens(&prompt)?, " John", " Mary")?;
        Ok(Row::rounded(
            format!("John − Mary, \"After John and Mary went …, {giver} gave …\""),
            published,
            3,
            yours,
            MAIN_33,
        ))
    };
    Ok(vec![row("Mary", 4.276)?, row("John", -2.738)?])
}

pub(crate) fn test_prompt(model: &Gpt2) -> Result<Vec<Row>> {
    let prompt = "After John and Mary went to the store, John gave a bottle of milk to";
    let answers = test_prompt_options(model, prompt, " Mary", true, 3)?.answer;
    let (answer, top) = (&answers[0].answer, &answers[0].top);
    let tokens: String = top.iter().map(|token| format!("|{}|", token.text)).collect();
    Ok(vec![
        Row::number("rank of \" Mary\" in test_prompt", 0.0, 0.0, answer.rank as f64, EXPLORATORY_18),
        Row::rounded("logit of \" Mary\"", 18.09, 2, answer.logit, EXPLORATORY_18),
        Row::rounded("P(\" Mary\")", 0.7007, 4, answer.prob, EXPLORATORY_18),
        Row::text("the three most likely tokens", "| Mary|| the|| John|", tokens, EXPLORATORY_18),
        Row::rounded("P of the second", 0.0467, 4, top[1].prob, EXPLORATORY_18),
        Row::rounded("P of the third", 0.0453, 4, top[2].prob, EXPLORATORY_18),
    ])
}

pub(crate) fn bos_matters(model: &Gpt2) -> Result<Vec<Row>> {
    let prompt = "Claire and Mary went to the shops, then Mary gave a bottle of milk to";
    let with = logit_diff(model, model.to_tokens(prompt)?, " Claire", " Mary")?;
    let without = logit_diff(model, model.to_tokens_without_bos(prompt)?, " Claire", " Mary")?;
    Ok(vec![
        Row::rounded("Claire − Mary, \"Claire and Mary went to the shops, …\"", 6.754, 3, with, MAIN_92),
        Row::rounded("the same without the beginning-of-sequence token", 2.782, 3, without, MAIN_92),
    ])
}
