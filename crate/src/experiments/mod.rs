//! The claims that the original notebook makes in words, each as an experiment that can be run.
//!
//! | claim | see |
//! |---|---|
//! | heads learn vocabularies of their own, and share some tokens | [`VocabularyCounts`], [`count_file`], [`SharedTokens`], [`EmbeddingMap`] |
//! | inputs alike in structure or meaning give alike patterns | [`similarity_test()`] |
//! | some heads contract a prompt, some expand it | [`contraction()`], [`ContractionByHead`] |
//! | appending a token acts like the operation of a group | [`appending()`], [`TokenMap`], [`Monoid`] |
//! | what the figures show depends on choices that they do not mention | [`TokenAgreement`] |
//! | a head's weights can be read as tokens | [`singular_vectors()`] |
//!
//! Each has a notebook. They take what a run gives ([`HeadData`] of all heads) and give plain numbers, with a
//! [`Figure`](crate::Figure) of them.

mod appending;
mod contraction;
mod prompt_sets;
mod similarity;
mod singular_vectors;
mod token_agreement;
mod vocabulary;

pub use appending::{Appending, Group, Monoid, TokenMap, appending};
pub use contraction::{Contraction, ContractionByHead, contraction};
pub use prompt_sets::{one_token_repeated, random_tokens, three_token_cycle, varied_prompts};
pub use similarity::{
    Controls, HeadSimilarity, PatternMeasure, PromptPair, SimilarityOptions, SimilarityTest, similarity_test,
};
pub use singular_vectors::{SingularVectors, WeightMatrix, singular_vectors};
pub use token_agreement::{AttentionScoreCheck, TokenAgreement, agreement_table};
pub use vocabulary::{
    Component, EmbeddingMap, MapMethod, SharedTokens, SweepEstimate, SweepOptions, SweepProgress, VocabularyCounts,
    count_file, estimate_sweep,
};

use crate::attention_tokens::HeadData;
use crate::error::{Error, Result};

/// How many layers and heads a list of heads has, if it has all heads of a model in their order.
fn layers_and_heads(heads: &[HeadData], what: &'static str) -> Result<(usize, usize)> {
    let n_layers = heads.last().map_or(0, |head| head.layer + 1);
    let n_heads = heads.len().checked_div(n_layers).unwrap_or(0);
    let in_order =
        |(index, head): (usize, &HeadData)| (head.layer, head.head) == (index / n_heads.max(1), index % n_heads.max(1));
    match n_heads > 0 && n_layers * n_heads == heads.len() && heads.iter().enumerate().all(in_order) {
        true => Ok((n_layers, n_heads)),
        false => Err(Error::NotEveryHead {
            function: what,
            found: heads.iter().map(|head| (head.layer, head.head)).collect(),
        }),
    }
}
