//! Token frequencies of each head: the most frequent tokens, and frequency by rank.

use std::collections::BTreeMap;

use super::counts::{Component, VocabularyCounts};
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, Series, Table};

impl VocabularyCounts {
    /// A table with a row for each head: its number of tokens, of distinct tokens, and its five most frequent tokens.
    pub fn table(&self, component: Component) -> Table {
        let row = |((layer, head), counts): ((usize, usize), &BTreeMap<u32, u64>)| {
            let all: u64 = counts.values().sum();
            let most = ranked(counts)
                .into_iter()
                .take(5)
                .map(|(token, count)| format!("{} {:.0}%", self.label(token), 100.0 * count as f64 / all as f64));
            let most: Vec<String> = most.collect();
            vec![format!("{layer}.{head}"), all.to_string(), counts.len().to_string(), most.join(" ¦ ")]
        };
        let caption = format!("Tokens of each head ({}), {}", component.name(), self.description());
        Table::new(caption, &["head", "count", "distinct", "most frequent"], self.heads(component).map(row).collect())
    }

    /// Frequency by rank (Zipf's law): the count of each head's tokens, most frequent first, a line for each head on
    /// logarithmic axes. Higher ranks, which are close together there, are thinned out. The grey line is Zipf's law, count
    /// ∝ 1 / rank; the lines of the three heads with the most distinct tokens and of the three with the fewest have
    /// their names at the end, where there is room.
    pub fn plot_rank_frequency(&self, component: Component) -> Figure {
        let line = |((layer, head), counts): ((usize, usize), &BTreeMap<u32, u64>)| {
            let ranked = ranked(counts);
            let ranks = plotted_ranks(ranked.len());
            let name = if head == 0 { format!("layer {layer}") } else { String::new() };
            let text = |&rank: &usize| {
                let (token, count) = ranked[rank - 1];
                format!("{}: {count} times\nhead {layer}.{head}, rank {rank}", self.label(token))
            };
            let points = ranks.iter().map(|&rank| [rank as f64, ranked[rank - 1].1 as f64]).collect();
            Series {
                symbol: layer,
                texts: ranks.iter().map(text).collect(),
                ..Series::new(name, Form::Line, Color::of_layer(layer, self.source.n_layers), points)
            }
        };
        let mut ends: Vec<(usize, f64, String)> = self
            .heads(component)
            .filter_map(|((layer, head), counts)| {
                let last = *counts.values().min()?;
                Some((counts.len(), last as f64, format!("{layer}.{head}")))
            })
            .collect();
        ends.sort_by_key(|&(distinct, ..)| distinct);
        let n = ends.len();
        let mut named: Vec<(usize, f64, String)> = Vec::new();
        for (index, (distinct, last, name)) in ends.into_iter().enumerate() {
            // Two lines that end at one place have one name each, one above the other, which cannot be read.
            let is_near = |other: &(usize, f64, String)| {
                (distinct as f64 / other.0 as f64).ln().abs() < 0.12 && (last / other.1).ln().abs() < 0.5
            };
            if (index < 3 || index + 3 >= n) && !named.iter().any(is_near) {
                named.push((distinct, last, name));
            }
        }
        let names = Series {
            labels: named.iter().map(|(.., name)| name.clone()).collect(),
            texts: named.iter().map(|(distinct, _, name)| format!("head {name}\n{distinct} distinct tokens")).collect(),
            ..Series::new(
                "",
                Form::Points,
                Color::Faint,
                named.iter().map(|&(distinct, last, _)| [distinct as f64, last]).collect(),
            )
        };
        let zipf = self.zipf_line(component);
        Chart {
            title: format!("How often heads use their words ({}), {}", component.name(), self.description()),
            x: ChartAxis::log("rank of the token"),
            y: ChartAxis::log("count"),
            series: zipf.into_iter().chain(self.heads(component).map(line)).chain([names]).collect(),
        }
        .figure()
    }

    /// A line of slope −1 from the highest count of any head to the last rank, or to a count of 1 if that comes first;
    /// `None` without counts.
    fn zipf_line(&self, component: Component) -> Option<Series> {
        let highest = self.heads(component).filter_map(|(_, counts)| counts.values().max().copied()).max()? as f64;
        let last_rank = self.heads(component).map(|(_, counts)| counts.len()).max()? as f64;
        let end = last_rank.min(highest);
        let points = vec![[1.0, highest], [end, highest / end]];
        Some(Series::new("Zipf's law, 1 / rank", Form::Line, Color::Faint, points))
    }
}

/// Tokens with their counts, most frequent first. A tie goes to the lower id. Shape: → `[token]`.
pub(in crate::experiments) fn ranked(counts: &BTreeMap<u32, u64>) -> Vec<(u32, u64)> {
    let mut ranked: Vec<(u32, u64)> = counts.iter().map(|(&token, &count)| (token, count)).collect();
    ranked.sort_by_key(|&(token, count)| (std::cmp::Reverse(count), token));
    ranked
}

/// Ranks from 1 to `n` for a logarithmic axis: the first ten, then each a fifth higher than the one before, and the
/// last. Shape: → `[rank]`.
fn plotted_ranks(n: usize) -> Vec<usize> {
    let next = |&rank: &usize| (rank < n).then(|| (rank + 1).max(rank * 6 / 5).min(n));
    std::iter::successors((n > 0).then_some(1), next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plotted_ranks_begin_with_the_first_and_end_with_the_last() {
        assert_eq!(plotted_ranks(0), [0; 0]);
        assert_eq!(plotted_ranks(3), [1, 2, 3]);
        let many = plotted_ranks(50_000);
        assert_eq!((many[9], many.last()), (10, Some(&50_000)));
        assert!(many.len() < 70 && many.is_sorted());
    }
}
