//! Which heads share words with which.

use std::collections::BTreeSet;

use ndarray::Array2;

use super::counts::{Component, VocabularyCounts};
use crate::plot::{ChartAxis, Figure, MatrixChart};

/// The tokens that each pair of heads shares.
#[derive(Clone, Debug)]
pub struct SharedTokens {
    /// What was counted.
    pub component: Component,
    /// The heads as (layer, head), in the order of rows and columns.
    pub heads: Vec<(usize, usize)>,
    /// Distinct tokens that both heads use; on the diagonal, a head's own. Shape: `[head, head]`.
    pub shared: Array2<u32>,
    /// Jaccard overlap: shared tokens to the tokens of either; 1 on the diagonal, 0 for a head without any. Shape: `[head, head]`.
    pub jaccard: Array2<f32>,
    n_prompts: u64,
}

impl VocabularyCounts {
    /// The tokens that each pair of heads shares, heads by layer.
    pub fn shared_tokens(&self, component: Component) -> SharedTokens {
        let (heads, sets): (Vec<(usize, usize)>, Vec<BTreeSet<u32>>) =
            self.heads(component).map(|(head, counts)| (head, counts.keys().copied().collect())).unzip();
        let n = heads.len();
        let (mut shared, mut jaccard) = (Array2::zeros((n, n)), Array2::zeros((n, n)));
        for (a, b) in (0..n).flat_map(|a| (0..=a).map(move |b| (a, b))) {
            let both = sets[a].intersection(&sets[b]).count();
            let either = sets[a].len() + sets[b].len() - both;
            let overlap = if either > 0 { both as f32 / either as f32 } else { 0.0 };
            for cell in [[a, b], [b, a]] {
                shared[cell] = both as u32;
                jaccard[cell] = overlap;
            }
        }
        SharedTokens { component, heads, shared, jaccard, n_prompts: self.n_prompts }
    }
}

impl SharedTokens {
    /// The same pairs with heads in the order of a hierarchical clustering (average linkage of one minus the Jaccard overlap): heads
    /// with alike vocabularies come to lie beside each other.
    pub fn clustered(&self) -> Self {
        let n = self.heads.len();
        let mut distances: Vec<f64> = (0..n)
            .flat_map(|a| (a + 1..n).map(move |b| [a, b]))
            .map(|pair| 1.0 - f64::from(self.jaccard[pair]))
            .collect();
        // A dendrogram's step joins two clusters, numbered from n on; a cluster's members follow those of what it was joined from.
        let mut members: Vec<Vec<usize>> = (0..n).map(|head| vec![head]).collect();
        if n > 1 {
            for step in kodama::linkage(&mut distances, n, kodama::Method::Average).steps() {
                let joined = [&members[step.cluster1][..], &members[step.cluster2][..]].concat();
                members.push(joined);
            }
        }
        let order = members.pop().unwrap_or_default();
        let at = |[row, column]: [usize; 2]| [order[row], order[column]];
        Self {
            heads: order.iter().map(|&head| self.heads[head]).collect(),
            shared: Array2::from_shape_fn((n, n), |(row, column)| self.shared[at([row, column])]),
            jaccard: Array2::from_shape_fn((n, n), |(row, column)| self.jaccard[at([row, column])]),
            ..*self
        }
    }

    /// The Jaccard overlap of all pairs as a heat map, in the order of [`heads`](Self::heads). The diagonal, which is always 1, is
    /// left empty.
    pub fn plot(&self) -> Figure {
        let names = || self.heads.iter().map(|(layer, head)| format!("{layer}.{head}"));
        let mut values = self.jaccard.clone();
        values.diag_mut().fill(f32::NAN);
        let highest =
            values.iter().filter(|value| value.is_finite()).fold(0.0_f32, |highest, &value| highest.max(value));
        let names_of: Vec<String> = names().collect();
        let text = |((a, b), &shared): ((usize, usize), &u32)| {
            let [of_a, of_b] = [a, b].map(|head| self.shared[[head, head]]);
            let (name_a, name_b) = (&names_of[a], &names_of[b]);
            format!("{name_a} and {name_b}: {shared} shared, of {of_a} and {of_b}\nJaccard {:.3}", self.jaccard[[a, b]])
        };
        let n_prompts = self.n_prompts;
        MatrixChart {
            title: format!("Words that heads share ({}), {n_prompts} prompts", self.component.name()),
            rows: ChartAxis::names("head", names()),
            columns: ChartAxis::names("head", names()),
            values,
            scale: ("Jaccard".into(), [0.0, highest]),
            labels: vec![String::new(); self.shared.len()],
            texts: self.shared.indexed_iter().map(text).collect(),
        }
        .figure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(jaccard: Array2<f32>) -> SharedTokens {
        let n = jaccard.nrows();
        let heads = (0..n).map(|head| (0, head)).collect();
        SharedTokens { component: Component::Qk, heads, shared: Array2::zeros((n, n)), jaccard, n_prompts: 1 }
    }

    #[test]
    fn clustering_puts_alike_heads_beside_each_other() {
        // 0 and 2 are alike, and so are 1 and 3.
        let jaccard =
            ndarray::arr2(&[[1.0, 0.1, 0.9, 0.1], [0.1, 1.0, 0.1, 0.8], [0.9, 0.1, 1.0, 0.2], [0.1, 0.8, 0.2, 1.0]]);
        let clustered = shared(jaccard).clustered();
        let order: Vec<usize> = clustered.heads.iter().map(|head| head.1).collect();
        assert_eq!(order, [0, 2, 1, 3]);
        assert_eq!(clustered.jaccard.row(0).to_vec(), [1.0, 0.9, 0.1, 0.1]);
        assert_eq!(shared(Array2::ones((1, 1))).clustered().heads, [(0, 0)]);
        assert!(shared(Array2::ones((0, 0))).clustered().heads.is_empty());
    }
}
