//! The best contexts of the words of one head, in bounded memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use super::WordContext;
use crate::attention_tokens::PromptHeadData;

/// The cells of a prompt that count, as (query, key, row).
pub(super) fn counted_cells(data: &PromptHeadData, first_key: bool) -> impl Iterator<Item = (usize, usize, usize)> {
    let cells = data.cells().enumerate().map(|(row, (query, key))| (query, key, row));
    cells.filter(move |&(_, key, _)| first_key || key > 0)
}

/// The best contexts of chosen words.
pub(super) struct BestContexts {
    /// The contexts of each word, best first; at most `n`.
    contexts: HashMap<u32, Vec<WordContext>>,
    n: usize,
}

impl BestContexts {
    pub(super) fn new(words: impl Iterator<Item = u32>, n: usize) -> Self {
        Self { contexts: words.map(|word| (word, Vec::new())).collect(), n }
    }

    /// Adds the best cell of each word in a prompt. `written` has the tokens that its cells write, in the rows of `data`.
    pub(super) fn add(&mut self, prompt: u64, data: &PromptHeadData, written: &PromptHeadData, first_key: bool) {
        let mut best: BTreeMap<u32, (usize, usize, usize)> = BTreeMap::new();
        let attn = |(query, key, _): (usize, usize, usize)| data.attn[[query, key]];
        for cell in counted_cells(data, first_key) {
            let word = data.qk.tokens[[cell.2, 0]];
            if self.contexts.contains_key(&word) {
                let best = best.entry(word).or_insert(cell);
                // Of equal cells, the first one.
                if attn(cell).total_cmp(&attn(*best)) == Ordering::Greater {
                    *best = cell;
                }
            }
        }
        for (word, (query, key, row)) in best {
            let contexts = self.contexts.get_mut(&word).expect("a chosen word");
            let attn = data.attn[[query, key]];
            // Prompts come in their order, so that of equal contexts the first one stays before.
            let place = contexts.partition_point(|other| other.attn.total_cmp(&attn) != Ordering::Less);
            // A text that is repeated in the files is one context.
            if place < self.n && !contexts.iter().any(|other| other.tokens == data.input) {
                let written = written.qk.tokens[[row, 0]];
                let tokens = data.input.clone();
                contexts.insert(place, WordContext { prompt, tokens, query, key, attn, written });
                contexts.truncate(self.n);
            }
        }
    }

    /// The contexts of a word.
    pub(super) fn take(&mut self, word: u32) -> Vec<WordContext> {
        self.contexts.remove(&word).unwrap_or_default()
    }
}
