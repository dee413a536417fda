//! Tokens that heads share: common to every head, or between pairs of heads as Jaccard overlap.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;

use super::counts::{Component, VocabularyCounts};
use crate::plot::{ChartAxis, Figure, MatrixChart, Table};

/// The number of tokens that each pair of heads shares, and their Jaccard overlap.
///
/// ```text
/// jaccard(a, b) = tokens that both heads use / tokens that either head uses
/// ```
#[derive(Clone, Debug)]
pub struct SharedTokens {
    /// The component that was counted.
    pub component: Component,
    /// The heads as (layer, head), in the order of rows and columns.
    pub heads: Vec<(usize, usize)>,
    /// Number of distinct tokens that both heads use; on the diagonal, that one head uses. Shape: `[head, head]`.
    pub shared: Array2<u32>,
    /// Jaccard overlap, from 0 to 1: 1 on the diagonal, 0 between heads without tokens. Shape: `[head, head]`.
    pub jaccard: Array2<f32>,
    /// The prompts and the choice about `b_U`, for the title.
    description: String,
}

impl SharedTokens {
    /// A table with a row for each layer: the mean Jaccard overlap of pairs of its heads, and of its heads with those of
    /// other layers. Empty for a layer with one head.
    pub fn by_layer(&self) -> Table {
        let n = self.heads.len();
        let pairs = || (0..n).flat_map(|a| (0..n).filter(move |&b| b != a).map(move |b| (a, b)));
        let mean = |layer: usize, same: bool| {
            let chosen = pairs().filter(|&(a, b)| self.heads[a].0 == layer && (self.heads[b].0 == layer) == same);
            let overlaps: Vec<f64> = chosen.map(|pair| f64::from(self.jaccard[pair])).collect();
            if overlaps.is_empty() {
                return String::new();
            }
            format!("{:.3}", overlaps.iter().sum::<f64>() / overlaps.len() as f64)
        };
        let layers = self.heads.iter().map(|&(layer, _)| layer).collect::<BTreeSet<_>>();
        let row = |layer: usize| vec![layer.to_string(), mean(layer, true), mean(layer, false)];
        Table::new(
            format!("Mean overlap of pairs of heads ({}), {}", self.component.name(), self.description),
            &["layer", "with the same layer", "with other layers"],
            layers.into_iter().map(row).collect(),
        )
    }
}

impl VocabularyCounts {
    /// The tokens that every head uses, in each of the given components, most frequent first. Shape: → `[token]`.
    pub fn common_tokens(&self, components: &[Component]) -> Vec<u32> {
        let mut common: Option<BTreeSet<u32>> = None;
        let mut totals: BTreeMap<u32, u64> = BTreeMap::new();
        for &component in components {
            for (_, counts) in self.heads(component) {
                let tokens = counts.keys().copied();
                common = Some(match common {
                    None => tokens.collect(),
                    Some(common) => tokens.filter(|token| common.contains(token)).collect(),
                });
            }
            self.totals(component).into_iter().for_each(|(token, count)| *totals.entry(token).or_default() += count);
        }
        let mut common: Vec<u32> = common.unwrap_or_default().into_iter().collect();
        common.sort_by_key(|token| (std::cmp::Reverse(totals[token]), *token));
        common
    }

    /// The number of heads that use each token, as (token, heads): most heads first, then most frequent. Shape: →
    /// `[token]`.
    pub fn heads_per_token(&self, component: Component) -> Vec<(u32, usize)> {
        let mut heads: BTreeMap<u32, usize> = BTreeMap::new();
        self.heads(component)
            .flat_map(|(_, counts)| counts.keys())
            .for_each(|&token| *heads.entry(token).or_default() += 1);
        let totals = self.totals(component);
        let mut heads: Vec<(u32, usize)> = heads.into_iter().collect();
        heads.sort_by_key(|&(token, heads)| (std::cmp::Reverse((heads, totals[&token])), token));
        heads
    }

    /// A table of the first `rows` tokens of [`heads_per_token`](Self::heads_per_token), with their number of heads and
    /// their count.
    pub fn shared_table(&self, component: Component, rows: usize) -> Table {
        let totals = self.totals(component);
        let n_heads = self.source.n_layers * self.source.n_heads;
        let row = |(token, heads): (u32, usize)| {
            vec![self.label(token), format!("{heads} of {n_heads}"), totals[&token].to_string()]
        };
        let description = self.description();
        let caption = format!("Tokens by the number of heads that use them ({}), {description}", component.name());
        let rows = self.heads_per_token(component).into_iter().take(rows).map(row).collect();
        Table::new(caption, &["token", "heads", "count"], rows)
    }

    /// The tokens that each pair of heads shares, heads layer by layer. Shape: → `[head, head]`.
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
        SharedTokens { component, heads, shared, jaccard, description: self.description() }
    }
}

impl SharedTokens {
    /// The same pairs with the heads in the order of a hierarchical clustering (average linkage of 1 − Jaccard
    /// overlap), which puts heads with similar vocabularies next to each other. Shape: `[head, head]` → the same,
    /// permuted.
    pub fn clustered(&self) -> Self {
        let n = self.heads.len();
        let mut distances: Vec<f64> = (0..n)
            .flat_map(|a| (a + 1..n).map(move |b| [a, b]))
            .map(|pair| 1.0 - f64::from(self.jaccard[pair]))
            .collect();
        // Each step of the dendrogram joins two clusters into cluster n, n + 1, ...; its members are those of the
        // first, then the second.
        let mut members: Vec<Vec<usize>> = (0..n).map(|head| vec![head]).collect();
        if n > 1 {
            for step in kodama::linkage(&mut distances, n, kodama::Method::Average).steps() {
                let joined = [&members[step.cluster1][..], &members[step.cluster2][..]].concat();
                members.push(joined);
            }
        }
        let order = members.pop().unwrap_or_default();
        let permuted = |row: usize, column: usize| [order[row], order[column]];
        Self {
            heads: order.iter().map(|&head| self.heads[head]).collect(),
            shared: Array2::from_shape_fn((n, n), |(row, column)| self.shared[permuted(row, column)]),
            jaccard: Array2::from_shape_fn((n, n), |(row, column)| self.jaccard[permuted(row, column)]),
            component: self.component,
            description: self.description.clone(),
        }
    }

    /// The Jaccard overlap of all pairs as a heat map, in the order of [`heads`](Self::heads). The diagonal, which is
    /// always 1, is empty.
    pub fn plot(&self) -> Figure {
        let names = || self.heads.iter().map(|(layer, head)| format!("{layer}.{head}"));
        let mut values = self.jaccard.clone();
        values.diag_mut().fill(f32::NAN);
        let highest =
            values.iter().filter(|value| value.is_finite()).fold(0.0_f32, |highest, &value| highest.max(value));
        let name: Vec<String> = names().collect();
        let text = |((a, b), &shared): ((usize, usize), &u32)| {
            let [of_a, of_b] = [a, b].map(|head| self.shared[[head, head]]);
            let (name_a, name_b) = (&name[a], &name[b]);
            format!("{name_a} and {name_b}: {shared} shared, of {of_a} and {of_b}\nJaccard {:.3}", self.jaccard[[a, b]])
        };
        MatrixChart {
            title: format!("Words that heads share ({}), {}", self.component.name(), self.description),
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
    use crate::experiments::vocabulary::counts::tests::counts;

    /// Shape: `[head, head]`.
    fn shared(jaccard: Array2<f32>) -> SharedTokens {
        let n = jaccard.nrows();
        let heads = (0..n).map(|head| (0, head)).collect();
        SharedTokens {
            component: Component::Qk,
            heads,
            shared: Array2::zeros((n, n)),
            jaccard,
            description: String::new(),
        }
    }

    #[test]
    fn tokens_are_common_to_every_head_or_counted_by_head() {
        let counts = counts([&[(5, 2), (7, 1), (9, 4)], &[(7, 8), (9, 1), (11, 1)]]);
        assert_eq!(counts.common_tokens(&[Component::Qk]), [7, 9]); // 9 times and 5 times
        assert!(counts.common_tokens(&[Component::Qk, Component::V]).is_empty());
        assert_eq!(counts.heads_per_token(Component::Qk), [(7, 2), (9, 2), (5, 1), (11, 1)]);
        assert_eq!(counts.table(Component::Qk).rows()[0], ["0.0", "7", "3", "#9 57% ¦ #5 29% ¦ #7 14%"]);
    }

    #[test]
    fn clustering_puts_similar_heads_next_to_each_other() {
        // 0 and 2 are similar, and so are 1 and 3.
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
