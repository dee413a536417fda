//! Similarity of two patterns of attention tokens that does not depend on which tokens they are: adjusted Rand index,
//! or row edit distance.

use std::collections::HashMap;

use crate::attention_tokens::PromptHeadData;

/// A measure of similarity of two patterns of attention tokens.
///
/// Two patterns are similar if the same pairs of cells share a token in both; which tokens they are does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PatternMeasure {
    /// The adjusted Rand index of the two groupings of cells by token, for prompts of equal length (Hubert and Arabie:
    /// Comparing partitions, Journal of Classification 2, 1985). 1 for the same grouping, 0 on average for unrelated
    /// ones:
    ///
    /// ```text
    /// (S − E) / ((A + B) / 2 − E)     E = A B / all pairs of cells
    /// ```
    ///
    /// `A`, `B` and `S` count the pairs of cells that share a token in the first pattern, in the second, and in both.
    #[default]
    AdjustedRand,
    /// One minus an edit distance of the rows, for prompts of any length: from 0 to 1, and above 0 by chance. Inserting
    /// or deleting a row costs 1; replacing one costs the Levenshtein distance of the two rows divided by the length of
    /// the longer one, each with its tokens numbered by first appearance. The distance is divided by the number of rows
    /// of the longer pattern.
    RowEdits,
}

impl PatternMeasure {
    /// `"adjusted Rand index"` or `"row edit similarity"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdjustedRand => "adjusted Rand index",
            Self::RowEdits => "row edit similarity",
        }
    }

    /// The similarity of the patterns of a head on two prompts. `None` for [`AdjustedRand`](Self::AdjustedRand) if the
    /// prompts differ in length, because their cells do not correspond.
    pub fn similarity(self, a: &PromptHeadData, b: &PromptHeadData) -> Option<f64> {
        let cells = |data: &PromptHeadData| data.qk.tokens.column(0).to_vec();
        match self {
            Self::AdjustedRand => (a.n_pos() == b.n_pos()).then(|| adjusted_rand(&cells(a), &cells(b))),
            Self::RowEdits => {
                let rows = |data: &PromptHeadData| {
                    (0..data.n_pos()).map(|query| data.tokens_of_query(query)).collect::<Vec<_>>()
                };
                Some(row_edit_similarity(&rows(a), &rows(b)))
            }
        }
    }
}

/// The adjusted Rand index of two groupings, given as the group of each item. It is 1 where the formula is 0 / 0: both
/// groupings have one group, or both have a group for each item. Shape: `[item]`, `[item]` → a number.
fn adjusted_rand(a: &[u32], b: &[u32]) -> f64 {
    let pairs = |count: u64| (count * count.saturating_sub(1) / 2) as f64;
    let mut sizes_both: HashMap<(u32, u32), u64> = HashMap::new();
    let (mut sizes_a, mut sizes_b): (HashMap<u32, u64>, HashMap<u32, u64>) = Default::default();
    for (&a, &b) in a.iter().zip(b) {
        *sizes_both.entry((a, b)).or_default() += 1;
        *sizes_a.entry(a).or_default() += 1;
        *sizes_b.entry(b).or_default() += 1;
    }
    // Sums of integers are exact, so the order of a hash map does not matter.
    let pairs_both: f64 = sizes_both.values().map(|&count| pairs(count)).sum();
    let pairs_a: f64 = sizes_a.values().map(|&count| pairs(count)).sum();
    let pairs_b: f64 = sizes_b.values().map(|&count| pairs(count)).sum();
    let all = pairs(a.len() as u64);
    let expected = if all > 0.0 { pairs_a * pairs_b / all } else { 0.0 };
    let maximum = (pairs_a + pairs_b) / 2.0;
    if maximum == expected { 1.0 } else { (pairs_both - expected) / (maximum - expected) }
}

/// [`PatternMeasure::RowEdits`] of two patterns. Shape: `[query] [key]`, `[query] [key]` → a number.
fn row_edit_similarity(a: &[Vec<u32>], b: &[Vec<u32>]) -> f64 {
    let numbered = |rows: &[Vec<u32>]| -> Vec<Vec<u32>> { rows.iter().map(|row| by_first_appearance(row)).collect() };
    let (a, b) = (numbered(a), numbered(b));
    let longest = a.len().max(b.len());
    if longest == 0 {
        return 1.0;
    }
    // costs[j]: the distance of the rows of a so far from the first j rows of b.
    let mut costs: Vec<f64> = (0..=b.len()).map(|inserted| inserted as f64).collect();
    for row in &a {
        let mut diagonal = costs[0];
        costs[0] += 1.0;
        for (index, other) in b.iter().enumerate() {
            let replace = diagonal + row_distance(row, other);
            diagonal = costs[index + 1];
            costs[index + 1] = replace.min(diagonal + 1.0).min(costs[index] + 1.0);
        }
    }
    1.0 - costs[b.len()] / longest as f64
}

/// The Levenshtein distance of two rows, divided by the length of the longer one. Shape: `[key]`, `[key]` → a number.
fn row_distance(a: &[u32], b: &[u32]) -> f64 {
    let longest = a.len().max(b.len()).max(1);
    strsim::generic_levenshtein(&Row(a), &Row(b)) as f64 / longest as f64
}

/// `strsim` compares sequences whose reference is iterable, which a slice is not.
struct Row<'a>(&'a [u32]);

impl<'a> IntoIterator for &Row<'a> {
    type Item = &'a u32;
    type IntoIter = std::slice::Iter<'a, u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Each token replaced by the order of its first appearance, from 0. Shape: `[key]` → `[key]`.
fn by_first_appearance(row: &[u32]) -> Vec<u32> {
    let mut order = HashMap::new();
    row.iter()
        .map(|token| {
            let next = order.len() as u32;
            *order.entry(token).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of scikit-learn 1.5's `adjusted_rand_score`, and the examples of its documentation.
    #[test]
    fn adjusted_rand_index_matches_scikit_learn() {
        assert_eq!(adjusted_rand(&[0, 0, 1, 1], &[5, 5, 9, 9]), 1.0);
        assert!((adjusted_rand(&[0, 0, 1, 2], &[0, 0, 1, 1]) - 4.0 / 7.0).abs() < 1e-12);
        assert_eq!(adjusted_rand(&[0, 0, 0, 0], &[0, 1, 2, 3]), 0.0);
        assert!((adjusted_rand(&[0, 0, 1, 1], &[0, 1, 0, 1]) - -0.5).abs() < 1e-12);
        assert_eq!(
            (adjusted_rand(&[3, 3], &[4, 4]), adjusted_rand(&[1, 2], &[3, 4]), adjusted_rand(&[], &[])),
            (1.0, 1.0, 1.0)
        );
    }

    #[test]
    fn row_edit_similarity_ignores_which_tokens_they_are() {
        let rows = [vec![7], vec![7, 8], vec![7, 8, 7]];
        let renamed = [vec![1], vec![1, 2], vec![1, 2, 1]];
        assert_eq!(row_edit_similarity(&rows, &renamed), 1.0);
        // One row is inserted.
        let longer = [vec![1], vec![1, 2], vec![1, 2, 1], vec![1, 2, 1, 3]];
        assert_eq!(row_edit_similarity(&rows, &longer), 0.75);
        assert_eq!(row_edit_similarity(&longer, &rows), 0.75);
        // One of the last row's three tokens differs.
        let other = [vec![1], vec![1, 2], vec![1, 2, 2]];
        assert!((row_edit_similarity(&rows, &other) - (1.0 - 1.0 / 9.0)).abs() < 1e-12);
        assert_eq!((row_edit_similarity(&[], &[]), row_edit_similarity(&rows, &[])), (1.0, 0.0));
    }
}
