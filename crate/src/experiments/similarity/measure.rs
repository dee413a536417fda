//! How alike two patterns of attention tokens are, whatever tokens they are made of.
//!
//! Two prompts have alike patterns if the same pairs of cells share a token in both. For prompts of one length, the cells lie on
//! each other and the measure is the *adjusted Rand index* of the two groupings of cells (Hubert and Arabie: Comparing partitions,
//! Journal of Classification 2, 1985): 1 for the same grouping, 0 on average for unrelated ones. For any lengths, it is one minus
//! an edit distance: rows are inserted, deleted or replaced, where replacing a row costs the edit distance of the two rows (each
//! with its tokens renamed by the order of their first appearance) as a share of the longer one.

use std::collections::HashMap;

use crate::attention_tokens::PromptHeadData;

/// How to compare two patterns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PatternMeasure {
    /// The adjusted Rand index of the cells, for prompts of one length: at most 1, and 0 on average by chance.
    #[default]
    AdjustedRand,
    /// One minus the edit distance of the rows, for any lengths: from 0 to 1. Chance gives more than 0.
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

    /// How alike the patterns of a head on two prompts are. `None` for [`AdjustedRand`](Self::AdjustedRand) and prompts of
    /// different lengths, whose cells do not lie on each other.
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

/// The adjusted Rand index of two groupings of the same things, each given by the group of each thing. Two groupings that are both
/// trivial in the same way (one group, or one for each thing) are alike: 1.
fn adjusted_rand(a: &[u32], b: &[u32]) -> f64 {
    let pairs = |count: u64| (count * count.saturating_sub(1) / 2) as f64;
    let mut both: HashMap<(u32, u32), u64> = HashMap::new();
    let (mut of_a, mut of_b): (HashMap<u32, u64>, HashMap<u32, u64>) = Default::default();
    for (&a, &b) in a.iter().zip(b) {
        *both.entry((a, b)).or_default() += 1;
        *of_a.entry(a).or_default() += 1;
        *of_b.entry(b).or_default() += 1;
    }
    // Sums of whole numbers: they do not depend on the order.
    let together: f64 = both.values().map(|&count| pairs(count)).sum();
    let in_a: f64 = of_a.values().map(|&count| pairs(count)).sum();
    let in_b: f64 = of_b.values().map(|&count| pairs(count)).sum();
    let all = pairs(a.len() as u64);
    let expected = if all > 0.0 { in_a * in_b / all } else { 0.0 };
    let most = (in_a + in_b) / 2.0;
    if most == expected { 1.0 } else { (together - expected) / (most - expected) }
}

/// One minus the edit distance of two lists of rows, as a share of the longer list.
fn row_edit_similarity(a: &[Vec<u32>], b: &[Vec<u32>]) -> f64 {
    let renamed = |rows: &[Vec<u32>]| -> Vec<Vec<u32>> { rows.iter().map(|row| by_first_appearance(row)).collect() };
    let (a, b) = (renamed(a), renamed(b));
    let longest = a.len().max(b.len());
    if longest == 0 {
        return 1.0;
    }
    // The cost of making the first rows of b out of the first rows of a, row by row of a.
    let mut costs: Vec<f64> = (0..=b.len()).map(|inserted| inserted as f64).collect();
    for row in &a {
        let mut diagonal = costs[0];
        costs[0] += 1.0;
        for (index, other) in b.iter().enumerate() {
            let replaced = diagonal + row_distance(row, other);
            diagonal = costs[index + 1];
            costs[index + 1] = replaced.min(diagonal + 1.0).min(costs[index] + 1.0);
        }
    }
    1.0 - costs[b.len()] / longest as f64
}

/// The edit distance of two rows, as a share of the longer one.
fn row_distance(a: &[u32], b: &[u32]) -> f64 {
    let longest = a.len().max(b.len()).max(1);
    strsim::generic_levenshtein(&Row(a), &Row(b)) as f64 / longest as f64
}

/// A row as `strsim` wants it.
struct Row<'a>(&'a [u32]);

impl<'a> IntoIterator for &Row<'a> {
    type Item = &'a u32;
    type IntoIter = std::slice::Iter<'a, u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Each token replaced by the order of its first appearance.
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

    /// The values that scikit-learn 1.5 gives, and its documentation's examples.
    #[test]
    fn the_adjusted_rand_index_is_that_of_the_literature() {
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
    fn rows_are_compared_whatever_their_tokens_are() {
        let rows = [vec![7], vec![7, 8], vec![7, 8, 7]];
        let renamed = [vec![1], vec![1, 2], vec![1, 2, 1]];
        assert_eq!(row_edit_similarity(&rows, &renamed), 1.0);
        // One row more, which is inserted.
        let longer = [vec![1], vec![1, 2], vec![1, 2, 1], vec![1, 2, 1, 3]];
        assert_eq!(row_edit_similarity(&rows, &longer), 0.75);
        assert_eq!(row_edit_similarity(&longer, &rows), 0.75);
        // One of the last row's three tokens differs.
        let other = [vec![1], vec![1, 2], vec![1, 2, 2]];
        assert!((row_edit_similarity(&rows, &other) - (1.0 - 1.0 / 9.0)).abs() < 1e-12);
        assert_eq!((row_edit_similarity(&[], &[]), row_edit_similarity(&rows, &[])), (1.0, 0.0));
    }
}
