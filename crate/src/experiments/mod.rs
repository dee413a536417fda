//! Experiments: the claims that the original notebook makes in words, each as a test that can be run.
//!
//! | claim | experiment |
//! |---|---|
//! | heads learn vocabularies of their own, and share some tokens | [`VocabularyCounts`], [`count_file`], [`SharedTokens`], [`EmbeddingMap`] |
//! | prompts of similar structure or meaning give similar patterns | [`similarity_test()`] |
//! | some heads contract a prompt, some expand it | [`contraction()`], [`ContractionByHead`] |
//! | appending a token acts like the operation of a group | [`appending()`], [`TokenMap`], [`Monoid`]; without prompts, [`multiplication_table()`] |
//!
//! | question that the original leaves open | experiment |
//! |---|---|
//! | how far do attention tokens depend on the basis of a head and on the projection? | [`TokenAgreement`], [`AttentionScoreCheck`] |
//! | does the model's computation respect the words that a reading gives to pairs? | [`merge_test()`], which ranks readings |
//! | do heads mean what they say: is it what they write, and what the prediction needs? | [`said_written_needed()`], [`word_agreement()`] |
//! | which pairs, MLPs and embeddings write a prediction, and what if one is missing? | [`receipt()`], [`Receipt::strike`] |
//! | in which contexts does a head say a word? | [`concordance()`], which writes pages to read |
//! | which tokens do a head's weights point at, without any prompt? | [`singular_vectors()`] |
//!
//! Each experiment documents its question, its statistic, its control, and what it cannot show; notebooks 02 to 07 and
//! 12 to 14 run them. They take a model or the [`HeadData`] of a run, and return plain numbers with a
//! [`Figure`](crate::Figure) of them.

mod appending;
mod attention_score_check;
mod concordance;
mod contraction;
mod multiplication;
mod permutation;
mod prompt_sets;
mod receipt;
mod referee;
mod said_written_needed;
mod similarity;
mod singular_vectors;
mod token_agreement;
mod vocabulary;

pub use appending::{Appending, Group, Monoid, TokenMap, appending};
pub use attention_score_check::AttentionScoreCheck;
pub use concordance::{
    Concordance, ConcordanceOptions, ConcordanceProgress, HeadWord, HeadWords, WordContext, concordance,
};
pub use contraction::{Contraction, ContractionByHead, contraction};
pub use multiplication::{
    MultiplicationTable, ProductTable, PropertyTest, ShuffledProperty, TableProperty, TableTest,
    closed_multiplication_table, multiplication_table,
};
pub use prompt_sets::{one_token_repeated, random_tokens, random_tokens_like, three_token_cycle, varied_prompts};
pub use receipt::{Contributor, Receipt, ReceiptCell, ReceiptLine, ReceiptOptions, Strike, Strikes, receipt};
pub use referee::{
    HeadMerge, HeadResult, MergeOptions, MergeTest, NothingToMerge, ReadingRank, merge_attention, merge_test,
};
pub use said_written_needed::{
    AgreementOptions, HeadAgreement, NeedOptions, SaidWrittenNeeded, WithChance, WordAgreement, said_written_needed,
    word_agreement,
};
pub use similarity::{
    Controls, HeadSimilarity, PatternMeasure, PromptPair, SimilarityOptions, SimilarityTest, similarity_test,
};
pub use singular_vectors::{SingularVectors, WeightMatrix, singular_vectors};
pub use token_agreement::{TokenAgreement, agreement_table};
pub use vocabulary::{
    Component, CountIdentity, EmbeddingMap, MapMethod, SharedTokens, SharedVocabulary, SweepEstimate, SweepOptions,
    SweepProgress, UnembedBiasShare, VocabularyCounts, count_file, estimate_sweep,
};

use crate::attention_tokens::{HeadData, run_caption};
use crate::error::{Error, Result, check_setting};
use crate::model::Gpt2;

/// The number of layers and of heads per layer, from the data of every head of a model.
///
/// Shape: `[n_layers n_heads]` → `(n_layers, n_heads)`.
///
/// # Errors
/// [`Error::NotEveryHead`] if a head is missing or out of order.
fn layers_and_heads(heads: &[HeadData], function: &'static str) -> Result<(usize, usize)> {
    let n_layers = heads.last().map_or(0, |head| head.layer + 1);
    let n_heads = heads.len().checked_div(n_layers).unwrap_or(0);
    let in_order =
        |(index, head): (usize, &HeadData)| (head.layer, head.head) == (index / n_heads.max(1), index % n_heads.max(1));
    if n_heads > 0 && n_layers * n_heads == heads.len() && heads.iter().enumerate().all(in_order) {
        Ok((n_layers, n_heads))
    } else {
        Err(Error::NotEveryHead { function, found: heads.iter().map(|head| (head.layer, head.head)).collect() })
    }
}

/// Checks the right and the wrong token of a logit difference.
///
/// # Errors
/// [`Error::OutOfRange`] for a token that the vocabulary does not have, [`Error::Setting`] for two equal ones.
fn check_answers(model: &Gpt2, function: &'static str, [right, wrong]: [u32; 2]) -> Result<()> {
    model.check_tokens(&[right, wrong])?;
    let expected = "two different tokens, the right one and the wrong one";
    check_setting(function, "answers", right != wrong, expected, format!("token {right} twice"))
}

/// ` of demo; zero blocks.1.attn.hook_z`: a model and its interventions, the end of a caption.
fn source_of(model: &Gpt2) -> String {
    let interventions: Vec<String> = model.interventions().iter().map(ToString::to_string).collect();
    run_caption(model.name(), "", &interventions)
}
