//! The words of a row as a partition of its keys, and the pattern whose attention is merged within the parts.

use std::collections::{HashMap, HashSet};

use ndarray::{Array2, ArrayView2};
use rand::seq::SliceRandom;

use crate::attention_tokens::PromptHeadData;
use crate::error::{Error, Result};
use crate::random::SeededRng;

/// The reason why a prompt says nothing about the words of a head: every partition of the same sizes gives the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NothingToMerge {
    /// No row has two keys besides the first token and the query: the prompt has fewer than four tokens.
    TooShort,
    /// No two keys of a row share a word.
    AllDifferent,
    /// All keys of a row share one word.
    OneWord,
    /// Each row has one word, or words that are all different.
    OneWordOrAllDifferent,
    /// No merge changes the predictions by more than rounding.
    NoEffect,
}

impl NothingToMerge {
    /// The reason in words, for tables: `no two keys share a word`.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::TooShort => "fewer than four tokens",
            Self::AllDifferent => "no two keys share a word",
            Self::OneWord => "all keys share one word",
            Self::OneWordOrAllDifferent => "rows of one word, or of different ones alone",
            Self::NoEffect => "no merge changes the predictions",
        }
    }
}

/// The first query with two keys between the first token and itself.
pub(super) const FIRST_QUERY: usize = 3;

/// The keys that can share a word: all but the first token, where heads that find nothing attend, and the query itself.
fn keys_between(query: usize) -> std::ops::Range<usize> {
    1..query.max(1)
}

/// A partition of the keys of each row.
pub(super) struct Partitions {
    /// The part of each key of [`keys_between`], from 0. Shape: `[query] [key − 1]`.
    rows: Vec<Vec<usize>>,
}

impl Partitions {
    /// Keys with one word are a part.
    pub(super) fn of_words(data: &PromptHeadData) -> Self {
        Self::new(data.n_pos(), |query| data.tokens_of_query(query))
    }

    /// Keys with equal words are a part. Shape: `words(query) [query + 1]`.
    fn new(pos: usize, words: impl Fn(usize) -> Vec<u32>) -> Self {
        let row = |query: usize| {
            let (words, mut parts) = (words(query), HashMap::new());
            let mut part = |key: usize| {
                let next = parts.len();
                *parts.entry(words[key]).or_insert(next)
            };
            keys_between(query).map(&mut part).collect()
        };
        Self { rows: (0..pos).map(row).collect() }
    }

    /// A random partition of each row, of the same sizes.
    pub(super) fn shuffled(&self, rng: &mut SeededRng) -> Self {
        let shuffled = |row: &Vec<usize>| {
            let mut row = row.clone();
            row.shuffle(rng);
            row
        };
        Self { rows: self.rows.iter().map(shuffled).collect() }
    }

    /// The reason why all partitions of these sizes are the same one; `None` if they differ.
    pub(super) fn nothing_to_merge(&self) -> Option<NothingToMerge> {
        let (mut one_word, mut all_different) = (false, false);
        for row in self.rows.iter().filter(|row| row.len() > 1) {
            let n = row.iter().collect::<HashSet<_>>().len();
            if n == 1 {
                one_word = true;
            } else if n == row.len() {
                all_different = true;
            } else {
                return None;
            }
        }
        Some(match (one_word, all_different) {
            (false, false) => NothingToMerge::TooShort,
            (true, false) => NothingToMerge::OneWord,
            (false, true) => NothingToMerge::AllDifferent,
            (true, true) => NothingToMerge::OneWordOrAllDifferent,
        })
    }

    /// The pattern with the attention of each part's keys replaced by their mean.
    /// Shape: `[query_pos, key_pos]` → the same.
    pub(super) fn merge(&self, attn: ArrayView2<f32>) -> Array2<f32> {
        let mut merged = attn.to_owned();
        for (mut attn, parts) in merged.outer_iter_mut().zip(&self.rows) {
            let mut sums = vec![(0.0_f64, 0.0_f64); parts.len()];
            for (key, &part) in (1..).zip(parts) {
                sums[part].0 += f64::from(attn[key]);
                sums[part].1 += 1.0;
            }
            for (key, &part) in (1..).zip(parts) {
                let (sum, n) = sums[part];
                // A part of one key keeps its bits.
                if n > 1.0 {
                    attn[key] = (sum / n) as f32;
                }
            }
        }
        merged
    }
}

/// The pattern of a head with, in each row, the attention of the keys that share a word replaced by their mean: the edit that
/// [`merge_test`](super::merge_test()) makes. The first token and the query itself keep their attention, and a row its sum.
/// `words` are those of [`PromptHeadData::attention_tokens`].
/// Shape: `attn`, `words` each `[query_pos, key_pos]` → the same.
///
/// ```
/// use attention_tokens::experiments::merge_attention;
/// use ndarray::arr2;
///
/// let attn = arr2(&[[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.5, 0.25, 0.25, 0.0], [0.0, 0.5, 0.25, 0.25]]);
/// let words = ndarray::Array2::from_shape_fn((4, 4), |(query, key)| (key <= query).then_some(7));
/// let merged = merge_attention(&attn, &words)?;
/// assert_eq!(merged.row(3).to_vec(), [0.0, 0.375, 0.375, 0.25]); // keys 1 and 2 of the last query share a word
/// assert_eq!(merged.row(2), attn.row(2));
/// # Ok::<(), attention_tokens::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if the two have different shapes or are not square, or if a cell with key ≤ query has no word.
pub fn merge_attention(attn: &Array2<f32>, words: &Array2<Option<u32>>) -> Result<Array2<f32>> {
    let pos = attn.nrows();
    let has_words = words.indexed_iter().all(|((query, key), word)| key > query || word.is_some());
    if attn.dim() != (pos, pos) || words.dim() != (pos, pos) || !has_words {
        return Err(Error::Shape {
            what: "merge_attention: the words".into(),
            axes: "[query_pos, key_pos], with a word for each cell with key ≤ query",
            expected: vec![pos, pos],
            found: words.shape().to_vec(),
            hint: "take both from one head's data: attn, and attention_tokens()",
        });
    }
    let words_of = |query: usize| words.row(query).iter().take(query + 1).flatten().copied().collect();
    Ok(Partitions::new(pos, words_of).merge(attn.view()))
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;
    use crate::random::seeded_rng;

    fn partitions(rows: &[&[u32]]) -> Partitions {
        Partitions::new(rows.len(), |query| rows[query].to_vec())
    }

    #[test]
    fn degenerate_partitions_are_named() {
        let of = |rows: &[&[u32]]| partitions(rows).nothing_to_merge();
        assert_eq!(of(&[]), Some(NothingToMerge::TooShort));
        assert_eq!(of(&[&[1], &[1, 1], &[1, 1, 1]]), Some(NothingToMerge::TooShort));
        // The words of the first token and of the query do not count.
        assert_eq!(of(&[&[1], &[1, 1], &[1, 1, 1], &[9, 1, 2, 1]]), Some(NothingToMerge::AllDifferent));
        assert_eq!(of(&[&[1], &[1, 1], &[1, 1, 1], &[9, 1, 1, 2]]), Some(NothingToMerge::OneWord));
        let mixed: [&[u32]; 5] = [&[1], &[1, 1], &[1, 1, 1], &[9, 1, 1, 2], &[0, 1, 2, 3, 0]];
        assert_eq!(of(&mixed), Some(NothingToMerge::OneWordOrAllDifferent));
        assert_eq!(of(&[&[1], &[1, 1], &[1, 1, 1], &[9, 1, 1, 2], &[0, 1, 2, 1, 0]]), None);
    }

    #[test]
    fn merging_keeps_sums_and_the_first_token_and_the_query() {
        let attn = arr2(&[
            [1.0, 0.0, 0.0, 0.0, 0.0],
            [0.5, 0.5, 0.0, 0.0, 0.0],
            [0.25, 0.25, 0.5, 0.0, 0.0],
            [0.25, 0.5, 0.125, 0.125, 0.0],
            [0.125, 0.5, 0.125, 0.125, 0.125],
        ]);
        let words: [&[u32]; 5] = [&[7], &[7, 7], &[7, 7, 7], &[7, 7, 8, 7], &[7, 7, 8, 7, 7]];
        let partitions = partitions(&words);
        let merged = partitions.merge(attn.view());
        assert_eq!(merged.slice(ndarray::s![..4, ..]), attn.slice(ndarray::s![..4, ..]));
        assert_eq!(merged.row(4).to_vec(), [0.125, 0.3125, 0.125, 0.3125, 0.125]);
        let mut rng = seeded_rng(1);
        for _ in 0..20 {
            let shuffled = partitions.shuffled(&mut rng);
            let sizes = |rows: &Partitions| {
                let mut last = rows.rows[4].clone();
                last.sort_unstable();
                last
            };
            assert_eq!(sizes(&shuffled), sizes(&partitions));
            let merged = shuffled.merge(attn.view());
            assert!(merged.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-6));
            assert_eq!((merged[[4, 0]], merged[[4, 4]]), (0.125, 0.125));
        }
    }
}
