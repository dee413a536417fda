//! The bias of the unembedding, and the attention tokens that heads share because of it.

use std::collections::BTreeSet;

use attention_tokens::Result;
use attention_tokens::experiments::{Component, VocabularyCounts};
use attention_tokens::prelude::*;

use crate::row::Row;

const MAIN_66: &str = "TransformerLens Main_Demo, cell 66";
const MAIN_68: &str = "TransformerLens Main_Demo, cell 68";
const TOKENS_37: &str = "layterz/experiments notebooks/attention-tokens.ipynb, cells 37, 39";
/// Not a published number, but what the demo model lets one expect.
const THIS_PROJECT: &str = "expected here, notebooks/02_vocabularies.ipynb";

pub(crate) fn largest_biases(model: &Gpt2) -> Result<Vec<Row>> {
    let b_u = model.weights()?.b_u;
    let mut tokens: Vec<u32> = (0..b_u.len() as u32).collect();
    tokens.sort_by(|&a, &b| b_u[b as usize].total_cmp(&b_u[a as usize]));
    let yours: String = model.to_str_tokens_of(&tokens[..5])?.iter().map(|token| format!("|{token}|")).collect();
    let mut rows = vec![Row::text("the five largest entries", "|,|| the|| and||.||\n|", yours, MAIN_66)];
    let published = [(",", 7.03), (" the", 6.98), (" and", 6.68), (".", 6.49), ("\n", 6.48)];
    for (text, published) in published {
        let yours = b_u[model.to_single_token(text)? as usize];
        rows.push(Row::rounded(format!("b_U of {text:?}"), published, 2, yours, MAIN_66));
    }
    Ok(rows)
}

pub(crate) fn names(model: &Gpt2) -> Result<Vec<Row>> {
    let b_u = model.weights()?.b_u;
    let row = |text: &str, published: f64| {
        let yours = b_u[model.to_single_token(text)? as usize];
        Ok(Row::rounded(format!("b_U of {text:?}"), published, 4, yours, MAIN_68))
    };
    Ok(vec![row(" John", 2.8995)?, row(" Mary", 1.6034)?])
}

/// The 14 tokens that the author finds in every component: of q, k, v and the product of query and key, each has it in at
/// least two heads. The author's prompts were random, and the notebook says that any give the same.
pub(crate) fn common_tokens(model: &Gpt2) -> Result<Vec<Row>> {
    let author = [11, 12, 13, 198, 257, 262, 284, 286, 287, 290, 357, 366, 393, 705];
    let prompts = RepeatedTokens { len: 15, batch: 2, ..RepeatedTokens::default() }.prompts(model.config())?;
    let found = |unembed_bias: bool| {
        let mut counts = VocabularyCounts::new(model, Reading::NOTEBOOK.unembed_bias(unembed_bias))?;
        counts.add(model, prompts.clone())?;
        let shared = Component::ALL.map(|component| {
            let heads = counts.heads_per_token(component).into_iter();
            heads.filter(|&(_, heads)| heads >= 2).map(|(token, _)| token).collect::<BTreeSet<u32>>()
        });
        Ok::<_, Error>(author.iter().filter(|token| shared.iter().all(|shared| shared.contains(token))).count() as f64)
    };
    let (with, without) = (found(true)?, found(false)?);
    Ok(vec![
        Row::number("of the author's 14 tokens, those that every component shares", 14.0, 1.0, with, TOKENS_37),
        Row::at_most("the same without b_U: at most half as many", 7.0, without, THIS_PROJECT),
    ])
}
