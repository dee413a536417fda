//! Vocabularies of heads: attention tokens counted over many prompts.

use std::collections::BTreeMap;

use crate::attention_tokens::{DecodeOptions, PromptHeadData, layer_data};
use crate::decode::{Reading, TopTokens};
use crate::error::{Error, Result, check_index};
use crate::model::{ActivationCache, Gpt2, Prompts, RunOptions};
use crate::tokenizer::TokenLabels;

/// The tokens that are counted: one for each cell, or one for each position.
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
    /// All components.
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

    /// The decoded tokens of a prompt. Shape: → `[cells or pos, top_k]`.
    fn tokens(self, data: &PromptHeadData) -> &TopTokens {
        match self {
            Self::Qk => &data.qk,
            Self::Q => &data.q,
            Self::K => &data.k,
            Self::V => &data.v,
        }
    }
}

/// The model and the decoding of some counts. Counts of different sources cannot be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) d_vocab: usize,
    pub(super) reading: Reading,
    /// FNV-1a hash of `W_V` of the first head and `W_O` of the last, so that models of one shape but other weights, or
    /// other weight processing, differ.
    pub(super) fingerprint: u64,
}

impl Source {
    pub(super) fn new(model: &Gpt2, reading: Reading) -> Result<Self> {
        let config = model.config();
        let (n_layers, n_heads, d_vocab) = (config.n_layers, config.n_heads, config.d_vocab);
        // FNV-1a, written out because a stored file needs a hash that never changes, which `std`'s hashers do not
        // promise.
        let mut fingerprint = 0xcbf2_9ce4_8422_2325_u64;
        for weights in [model.w_v(0, 0)?, model.w_o(n_layers - 1, n_heads - 1)?] {
            for weight in weights.iter() {
                fingerprint = (fingerprint ^ u64::from(weight.to_bits())).wrapping_mul(0x100_0000_01b3);
            }
        }
        Ok(Self { n_layers, n_heads, d_vocab, reading, fingerprint })
    }

    /// The decoding of the tokens that are counted.
    pub(super) fn decode_options(&self) -> DecodeOptions {
        DecodeOptions::from(self.reading)
    }

    /// The decoding in words: `"notebook"`, `"notebook, without b_U"`.
    fn decoding(&self) -> String {
        self.reading.to_string()
    }

    /// `", without b_U"` where that is so.
    pub(super) fn without_bias(&self) -> &'static str {
        if self.reading.unembed_bias { "" } else { ", without b_U" }
    }
}

/// Counts of the attention tokens of every head over any number of prompts: each head's vocabulary.
///
/// **Question.** The original claims that each head learns a vocabulary of its own, and that some tokens are shared by
/// all heads.
///
/// **Statistics.** `count(head, component, token)`, exact over all prompts. From it: [`table`](Self::table) and
/// [`plot_rank_frequency`](Self::plot_rank_frequency) (how many tokens a head has, and how unevenly it uses them),
/// [`common_tokens`](Self::common_tokens) and [`shared_tokens`](Self::shared_tokens) (Jaccard overlap of pairs of
/// heads), and [`embedding_map`](Self::embedding_map).
///
/// **Control.** Prompts without meaning: [`one_token_repeated`](crate::experiments::one_token_repeated),
/// [`three_token_cycle`](crate::experiments::three_token_cycle), [`random_tokens`](crate::experiments::random_tokens).
/// Tokens that a head produces for those are not about the meaning of a text.
///
/// **Limits.** A single use makes a token one of a head's, so the tokens common to all heads depend on the number of
/// prompts. A low overlap alone is no division of labour: random vocabularies overlap even less. Whether a token
/// belongs to the head or to the basis is a question for [`TokenAgreement`](crate::experiments::TokenAgreement).
///
/// ```
/// use attention_tokens::{experiments::*, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let mut counts = VocabularyCounts::new(&model, Projection::Notebook)?;
/// counts.add(&model, ["The next bus is late.", "The previous bus was early."])?;
/// assert_eq!(counts.n_prompts(), 2);
/// let tokens = counts.of(0, 1, Component::Qk)?;
/// assert_eq!(tokens.values().sum::<u64>(), 28 + 28); // two prompts of 7 positions: 28 cells each
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct VocabularyCounts {
    pub(super) source: Source,
    pub(super) n_prompts: u64,
    /// The counts by token. Shape: `[n_layers n_heads components]`.
    pub(super) counts: Vec<BTreeMap<u32, u64>>,
    pub(super) labels: TokenLabels,
}

impl VocabularyCounts {
    /// Counts of no prompts, for a model and a reading, or a [`Projection`](crate::Projection).
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn new(model: &Gpt2, reading: impl Into<Reading>) -> Result<Self> {
        Ok(Self::empty(Source::new(model, reading.into())?, model.token_labels()))
    }

    /// Counts of no prompts.
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

    /// [`add`](Self::add) without the generic parameter.
    fn add_prompts(&mut self, model: &Gpt2, prompts: Prompts) -> Result<()> {
        self.check_same_source(&Source::new(model, self.source.reading)?)?;
        self.add_checked(model, prompts)
    }

    /// [`add`](Self::add) without the check of the model, which hashes weights.
    pub(super) fn add_checked(&mut self, model: &Gpt2, prompts: Prompts) -> Result<()> {
        let (_, cache) = model.run_with_cache_options(prompts, RunOptions::for_head_data())?;
        self.add_run(model, &cache)
    }

    /// Counts the tokens of every head in a run of the model that is counted.
    pub(super) fn add_run(&mut self, model: &Gpt2, cache: &ActivationCache) -> Result<()> {
        let decode = self.source.decode_options();
        for layer in 0..self.source.n_layers {
            for head in layer_data(model, cache, layer, decode)? {
                for component in Component::ALL {
                    let index = self.index(layer, head.head, component);
                    for data in head.prompts() {
                        for &token in component.tokens(data).tokens.column(0) {
                            *self.counts[index].entry(token).or_default() += 1;
                        }
                    }
                }
            }
        }
        self.n_prompts += cache.n_prompts() as u64;
        Ok(())
    }

    /// Adds the counts of other prompts, for instance of another shard. Counts add exactly, in any order.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::OtherCounts`] if they are of another model, or decoded with another projection.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.check_same_source(&other.source)?;
        self.n_prompts += other.n_prompts;
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            for (&token, count) in other {
                *own.entry(token).or_default() += count;
            }
        }
        Ok(())
    }

    /// Checks that counts of another source can be added.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::OtherCounts`] if the sources differ.
    pub(super) fn check_same_source(&self, other: &Source) -> Result<()> {
        let shape = |source: &Source| vec![source.n_layers, source.n_heads, source.d_vocab];
        let made_with = |source: &Source| (source.decoding(), source.fingerprint);
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

    /// The index in `counts`.
    fn index(&self, layer: usize, head: usize, component: Component) -> usize {
        (layer * self.source.n_heads + head) * Component::ALL.len() + component as usize
    }

    /// The prompts and the choice about `b_U`, for captions.
    pub(super) fn description(&self) -> String {
        format!("{} prompts{}", self.n_prompts, self.source.without_bias())
    }

    /// Number of prompts that were counted.
    pub fn n_prompts(&self) -> u64 {
        self.n_prompts
    }

    /// The count of each token of a head.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a layer or head that the model does not have.
    pub fn of(&self, layer: usize, head: usize, component: Component) -> Result<&BTreeMap<u32, u64>> {
        check_index("layer", layer, "the model", self.source.n_layers)?;
        check_index("head", head, "each layer", self.source.n_heads)?;
        Ok(&self.counts[self.index(layer, head, component)])
    }

    /// Each head as (layer, head), with its counts by token. Shape: → `[n_layers n_heads]`.
    pub(super) fn heads(&self, component: Component) -> impl Iterator<Item = ((usize, usize), &BTreeMap<u32, u64>)> {
        let n_heads = self.source.n_heads;
        let of_component = self.counts.iter().skip(component as usize).step_by(Component::ALL.len());
        of_component.enumerate().map(move |(index, counts)| ((index / n_heads, index % n_heads), counts))
    }

    /// The count of each token over all heads.
    pub(super) fn totals(&self, component: Component) -> BTreeMap<u32, u64> {
        let mut totals = BTreeMap::new();
        for (_, counts) in self.heads(component) {
            counts.iter().for_each(|(&token, count)| *totals.entry(token).or_default() += count);
        }
        totals
    }

    /// A token as tables and figures show it.
    pub fn label(&self, token: u32) -> String {
        self.labels.label(token)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two layers of one head. The counts of `Qk` are given, those of the other components are empty.
    pub(in crate::experiments::vocabulary) fn counts(heads: [&[(u32, u64)]; 2]) -> VocabularyCounts {
        let source = Source { n_layers: 2, n_heads: 1, d_vocab: 100, reading: Reading::NOTEBOOK, fingerprint: 1 };
        let mut counts = VocabularyCounts::empty(source, TokenLabels::new(None));
        for (layer, own) in heads.into_iter().enumerate() {
            let index = counts.index(layer, 0, Component::Qk);
            counts.counts[index] = own.iter().copied().collect();
        }
        counts.n_prompts = 1;
        counts
    }

    #[test]
    fn shards_add_up_exactly_and_other_sources_are_refused() {
        let (a, b) = (counts([&[(5, 2), (7, 1)], &[(7, 8)]]), counts([&[(5, 3)], &[(1, 1), (7, 1)]]));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b).unwrap();
        ba.merge(&a).unwrap();
        assert_eq!((&ab.counts, ab.n_prompts), (&ba.counts, 2));
        assert_eq!(ab.of(0, 0, Component::Qk).unwrap(), &BTreeMap::from([(5, 5), (7, 1)]));
        let mut other = a.clone();
        other.source.reading = Reading::OV;
        assert!(ab.merge(&other).unwrap_err().to_string().contains("projection ov"));
        other.source = Source { reading: Reading::NOTEBOOK.unembed_bias(false), ..a.source.clone() };
        assert!(ab.merge(&other).unwrap_err().to_string().contains("projection notebook, without b_U"));
        assert!(ab.of(2, 0, Component::Qk).is_err());
    }
}
