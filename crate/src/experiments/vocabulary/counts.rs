//! What words heads use: their attention tokens, counted over many prompts.

use std::collections::{BTreeMap, BTreeSet};

use crate::attention_tokens::{DecodeOptions, PromptHeadData, layer_data};
use crate::decode::Projection;
use crate::decode::TopTokens;
use crate::error::{Error, Result, check_index};
use crate::model::Prompts;
use crate::model::{Gpt2, RunOptions};
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, Series, Table};
use crate::tokenizer::TokenLabels;

/// What is counted: one token for each cell, or one for each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The attention tokens of all cells with key ≤ query.
    Qk,
    /// The tokens of the query vectors of all positions.
    Q,
    /// The tokens of the key vectors of all positions.
    K,
    /// The tokens of the value vectors of all positions.
    V,
}

impl Component {
    /// All of them.
    pub const ALL: [Component; 4] = [Component::Qk, Component::Q, Component::K, Component::V];

    /// `"qk"`, `"q"`, `"k"`, `"v"`: the original's column names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qk => "qk",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
        }
    }

    fn tokens(self, data: &PromptHeadData) -> &TopTokens {
        match self {
            Self::Qk => &data.qk,
            Self::Q => &data.q,
            Self::K => &data.k,
            Self::V => &data.v,
        }
    }
}

/// Whose tokens were counted, and how they were decoded: counts of different sources cannot be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) d_vocab: usize,
    pub(super) projection: Projection,
    /// Of the weights of two heads, which training, processing and rounding have made what they are.
    pub(super) fingerprint: u64,
}

impl Source {
    pub(super) fn new(model: &Gpt2, projection: Projection) -> Result<Self> {
        let config = model.config();
        let (n_layers, n_heads, d_vocab) = (config.n_layers, config.n_heads, config.d_vocab);
        // FNV-1a.
        let mut fingerprint = 0xcbf2_9ce4_8422_2325_u64;
        for weights in [model.w_v(0, 0)?, model.w_o(n_layers - 1, n_heads - 1)?] {
            for weight in weights.iter() {
                fingerprint = (fingerprint ^ u64::from(weight.to_bits())).wrapping_mul(0x100_0000_01b3);
            }
        }
        Ok(Self { n_layers, n_heads, d_vocab, projection, fingerprint })
    }
}

/// How often each head of a model used each token, over any number of prompts.
///
/// ```
/// use attention_tokens::{experiments::*, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let mut counts = VocabularyCounts::new(&model, Projection::Notebook)?;
/// counts.add(&model, ["The next bus is late.", "The previous bus was early."])?;
/// assert_eq!(counts.n_prompts(), 2);
/// let of_head = counts.of(0, 1, Component::Qk)?;
/// assert_eq!(of_head.values().sum::<u64>(), 28 + 28); // 7 positions each: 28 cells
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct VocabularyCounts {
    pub(super) source: Source,
    pub(super) n_prompts: u64,
    /// Of each head and component, in this order, the counts of its tokens.
    pub(super) counts: Vec<BTreeMap<u32, u64>>,
    pub(super) labels: TokenLabels,
}

impl VocabularyCounts {
    /// No counts yet.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn new(model: &Gpt2, projection: Projection) -> Result<Self> {
        Ok(Self::empty(Source::new(model, projection)?, model.token_labels()))
    }

    pub(super) fn empty(source: Source, labels: TokenLabels) -> Self {
        let counts = vec![BTreeMap::new(); source.n_layers * source.n_heads * Component::ALL.len()];
        Self { source, n_prompts: 0, counts, labels }
    }

    /// Runs the prompts as one batch and counts the tokens of every head.
    ///
    /// # Errors
    /// As for [`Gpt2::run_with_cache`], and [`Error::Shape`] or [`Error::OtherCounts`] if it is another model than the
    /// one that was counted.
    pub fn add(&mut self, model: &Gpt2, prompts: impl Into<Prompts>) -> Result<()> {
        self.add_prompts(model, prompts.into())
    }

    fn add_prompts(&mut self, model: &Gpt2, prompts: Prompts) -> Result<()> {
        self.same_source(&Source::new(model, self.source.projection)?)?;
        self.add_checked(model, prompts)
    }

    /// As [`add`](Self::add), of a model that is known to be the one.
    pub(super) fn add_checked(&mut self, model: &Gpt2, prompts: Prompts) -> Result<()> {
        let (_, cache) = model.run_with_cache_options(prompts, RunOptions::for_head_data())?;
        let decode = DecodeOptions { projection: self.source.projection, top_k: 1 };
        for layer in 0..self.source.n_layers {
            for head in layer_data(model, &cache, layer, decode)? {
                for component in Component::ALL {
                    let at = self.index(layer, head.head, component);
                    for data in head.prompts() {
                        for &token in component.tokens(data).tokens.column(0) {
                            *self.counts[at].entry(token).or_default() += 1;
                        }
                    }
                }
            }
        }
        self.n_prompts += cache.n_prompts() as u64;
        Ok(())
    }

    /// Adds the counts of other prompts, for instance of another machine's share: counts add exactly, in any order.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::OtherCounts`] if they are of another model, or decoded with another projection.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.same_source(&other.source)?;
        self.n_prompts += other.n_prompts;
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            for (&token, count) in other {
                *own.entry(token).or_default() += count;
            }
        }
        Ok(())
    }

    pub(super) fn same_source(&self, other: &Source) -> Result<()> {
        let shape = |source: &Source| vec![source.n_layers, source.n_heads, source.d_vocab];
        let made_with = |source: &Source| (source.projection.name(), source.fingerprint);
        let (expected, found) = (shape(&self.source), shape(other));
        if expected != found {
            let hint = "only counts of one model add up";
            return Err(Error::Shape {
                what: "counts".into(),
                axes: "[n_layers, n_heads, d_vocab]",
                expected,
                found,
                hint,
            });
        }
        let (expected, found) = (made_with(&self.source), made_with(other));
        if expected == found { Ok(()) } else { Err(Error::OtherCounts { expected, found }) }
    }

    fn index(&self, layer: usize, head: usize, component: Component) -> usize {
        (layer * self.source.n_heads + head) * Component::ALL.len() + component as usize
    }

    /// Number of prompts that were counted.
    pub fn n_prompts(&self) -> u64 {
        self.n_prompts
    }

    /// How often a head used each token.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a layer or head that the model does not have.
    pub fn of(&self, layer: usize, head: usize, component: Component) -> Result<&BTreeMap<u32, u64>> {
        check_index("layer", layer, "the model", self.source.n_layers)?;
        check_index("head", head, "each layer", self.source.n_heads)?;
        Ok(&self.counts[self.index(layer, head, component)])
    }

    /// Each head as (layer, head), with how often it used each token.
    pub(super) fn heads(&self, component: Component) -> impl Iterator<Item = ((usize, usize), &BTreeMap<u32, u64>)> {
        let n_heads = self.source.n_heads;
        let of_component = self.counts.iter().skip(component as usize).step_by(Component::ALL.len());
        of_component.enumerate().map(move |(index, counts)| ((index / n_heads, index % n_heads), counts))
    }

    /// How often all heads together used each token.
    pub(super) fn totals(&self, component: Component) -> BTreeMap<u32, u64> {
        let mut totals = BTreeMap::new();
        for (_, counts) in self.heads(component) {
            counts.iter().for_each(|(&token, count)| *totals.entry(token).or_default() += count);
        }
        totals
    }

    /// The tokens that every head uses, for each of some components, most frequent first.
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

    /// By how many heads each token is used; the tokens of most heads first, of these the most frequent.
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

    /// How tables and figures show a token.
    pub fn label(&self, token: u32) -> String {
        self.labels.label(token)
    }

    /// For each head: how many tokens were counted, how many distinct ones, and the most frequent ones.
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
        let caption = format!("Tokens of each head ({}), {} prompts", component.name(), self.n_prompts);
        Table::new(caption, &["head", "count", "distinct", "most frequent"], self.heads(component).map(row).collect())
    }

    /// The tokens used by most heads, at most `rows` of them.
    pub fn shared_table(&self, component: Component, rows: usize) -> Table {
        let totals = self.totals(component);
        let n_heads = self.source.n_layers * self.source.n_heads;
        let row = |(token, heads): (u32, usize)| {
            vec![self.label(token), format!("{heads} of {n_heads}"), totals[&token].to_string()]
        };
        let caption =
            format!("Tokens by the number of heads that use them ({}), {} prompts", component.name(), self.n_prompts);
        let rows = self.heads_per_token(component).into_iter().take(rows).map(row).collect();
        Table::new(caption, &["token", "heads", "count"], rows)
    }

    /// How often a head uses its most frequent token, its second, and so on: a line for each head, both axes logarithmic. Of the
    /// higher ranks, which lie close together, every so many-th is drawn.
    pub fn plot_rank_frequency(&self, component: Component) -> Figure {
        let line = |((layer, head), counts): ((usize, usize), &BTreeMap<u32, u64>)| {
            let ranked = ranked(counts);
            let ranks = drawn_ranks(ranked.len());
            let name = if head == 0 { format!("layer {layer}") } else { String::new() };
            let text = |&rank: &usize| {
                let (token, count) = ranked[rank - 1];
                format!("head {layer}.{head}, rank {rank}\n“{}”, {count} times", self.label(token))
            };
            let points = ranks.iter().map(|&rank| [rank as f64, ranked[rank - 1].1 as f64]).collect();
            Series {
                symbol: layer,
                texts: ranks.iter().map(text).collect(),
                ..Series::new(name, Form::Line, Color::of_layer(layer, self.source.n_layers), points)
            }
        };
        Chart {
            title: format!("How often heads use their words ({}), {} prompts", component.name(), self.n_prompts),
            x: ChartAxis::log("rank of the token"),
            y: ChartAxis::log("count"),
            series: self.heads(component).map(line).collect(),
        }
        .figure()
    }
}

/// Tokens with their counts, most frequent first; of equals, the lower id.
pub(super) fn ranked(counts: &BTreeMap<u32, u64>) -> Vec<(u32, u64)> {
    let mut ranked: Vec<(u32, u64)> = counts.iter().map(|(&token, &count)| (token, count)).collect();
    ranked.sort_by_key(|&(token, count)| (std::cmp::Reverse(count), token));
    ranked
}

/// Ranks from 1 to `n`: the first ten, then each a fifth higher than the one before, and the last.
fn drawn_ranks(n: usize) -> Vec<usize> {
    let next = |&rank: &usize| (rank < n).then(|| (rank + 1).max(rank * 6 / 5).min(n));
    std::iter::successors((n > 0).then_some(1), next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers of one head; the counts of qk are given, the other components are empty.
    fn counts(of_heads: [&[(u32, u64)]; 2]) -> VocabularyCounts {
        let projection = Projection::Notebook;
        let source = Source { n_layers: 2, n_heads: 1, d_vocab: 100, projection, fingerprint: 1 };
        let mut counts = VocabularyCounts::empty(source, TokenLabels::new(None));
        for (layer, own) in of_heads.into_iter().enumerate() {
            let at = counts.index(layer, 0, Component::Qk);
            counts.counts[at] = own.iter().copied().collect();
        }
        counts.n_prompts = 1;
        counts
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
    fn shards_add_up_exactly_and_other_models_do_not() {
        let (a, b) = (counts([&[(5, 2), (7, 1)], &[(7, 8)]]), counts([&[(5, 3)], &[(1, 1), (7, 1)]]));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b).unwrap();
        ba.merge(&a).unwrap();
        assert_eq!((&ab.counts, ab.n_prompts), (&ba.counts, 2));
        assert_eq!(ab.of(0, 0, Component::Qk).unwrap(), &BTreeMap::from([(5, 5), (7, 1)]));
        let mut other = a.clone();
        other.source.projection = Projection::Ov;
        assert!(ab.merge(&other).unwrap_err().to_string().contains("projection ov"));
        assert!(ab.of(2, 0, Component::Qk).is_err());
    }

    #[test]
    fn drawn_ranks_begin_with_the_first_and_end_with_the_last() {
        assert_eq!(drawn_ranks(0), [0; 0]);
        assert_eq!(drawn_ranks(3), [1, 2, 3]);
        let many = drawn_ranks(50_000);
        assert_eq!((many[9], many.last()), (10, Some(&50_000)));
        assert!(many.len() < 70 && many.is_sorted());
    }
}
