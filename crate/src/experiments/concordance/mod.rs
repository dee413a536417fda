//! A concordance: for each head and each of its words, the contexts in which the head says it.
//!
//! | file | content |
//! |---|---|
//! | `mod` | [`Concordance`], [`ConcordanceOptions`] |
//! | `collect` | [`concordance()`]: two passes over files of prompts |
//! | `best` | the best contexts of each word of a head, in bounded memory |
//! | `pages` | [`Concordance::write_pages`]: an HTML page for each head, and an index |

mod best;
mod collect;
mod pages;

use std::fmt;

pub use self::collect::concordance;
use crate::decode::Reading;
use crate::tokenizer::TokenLabels;

/// Options of [`concordance()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcordanceOptions {
    /// How a cell is read as a word.
    pub reading: Reading,
    /// Maximum tokens of a prompt, including the beginning-of-sequence token. Longer prompts are truncated.
    pub max_tokens: usize,
    /// Tokens in a batch: prompts are added until there are this many.
    pub batch_tokens: usize,
    /// The number of words of a head that have contexts: its most frequent ones.
    pub words_per_head: usize,
    /// The number of contexts of a word: those with the highest attention.
    pub contexts_per_word: usize,
    /// Whether cells whose key is the first token of a prompt count. Heads attend to it when they have nothing else to
    /// attend to, so that it would be the best context of most words.
    pub first_key: bool,
}

impl Default for ConcordanceOptions {
    /// The `Matched` reading without `b_U`, 30 tokens a prompt, batches of 1024 tokens, 200 words of 5 contexts, without the
    /// first token as a key.
    fn default() -> Self {
        Self {
            reading: Reading::MATCHED.unembed_bias(false),
            max_tokens: 30,
            batch_tokens: 1024,
            words_per_head: 200,
            contexts_per_word: 5,
            first_key: false,
        }
    }
}

/// Progress of [`concordance()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcordanceProgress {
    /// 1 while words are counted, 2 while contexts are collected.
    pub pass: usize,
    /// Prompts of this pass so far.
    pub prompts: u64,
}

impl fmt::Display for ConcordanceProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pass {} of 2: {} prompts", self.pass, self.prompts)
    }
}

/// A cell in which a head says a word.
#[derive(Clone, Debug, PartialEq)]
pub struct WordContext {
    /// The index of the prompt in the files, from 0. Empty lines have none.
    pub prompt: u64,
    /// The token ids of the prompt. Shape: `[pos]`.
    pub tokens: Vec<u32>,
    /// The query position.
    pub query: usize,
    /// The key position.
    pub key: usize,
    /// The attention.
    pub attn: f32,
    /// The token that the cell writes: [`Projection::Written`](crate::Projection::Written), without `b_U`.
    pub written: u32,
}

/// A word of a head, and its best contexts.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadWord {
    /// The word.
    pub token: u32,
    /// The number of cells that have it.
    pub count: u64,
    /// The contexts with the highest attention, at most one for each prompt, highest first.
    pub contexts: Vec<WordContext>,
}

/// The words of a head, most frequent first.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadWords {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// The number of distinct words, of which the most frequent ones are in `words`.
    pub n_words: usize,
    /// The number of cells.
    pub n_cells: u64,
    /// The words with contexts.
    pub words: Vec<HeadWord>,
}

/// The words of every head with their contexts: the result of [`concordance()`].
#[derive(Clone, Debug)]
pub struct Concordance {
    /// Every head, layer by layer. Shape: `[n_layers n_heads]`.
    pub heads: Vec<HeadWords>,
    /// The number of prompts.
    pub n_prompts: u64,
    /// The options.
    pub options: ConcordanceOptions,
    model: String,
    labels: TokenLabels,
}
