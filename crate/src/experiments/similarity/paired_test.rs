//! Do inputs that are alike in structure or in meaning give alike patterns?
//!
//! For each head, pairs of alike prompts are compared with controls: the first prompt of the pair with others of the same length
//! as the second. The statistic is the mean over pairs of (similarity of the pair − mean similarity to its controls). If being
//! alike does not matter, the second prompt is exchangeable with its controls: the p-value is the share of random exchanges, the
//! same ones for every head, that give as much. It is corrected for the number of heads by the largest statistic among them
//! (Westfall and Young: Resampling-based multiple testing, 1993), each in units of its own spread. Intervals are percentiles of the
//! statistic over pairs drawn with replacement.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::measure::PatternMeasure;
use super::permutation::{bootstrap_intervals, difference, permutation_p};
use crate::attention_tokens::{DecodeOptions, HeadData, layer_data};
use crate::decode::Projection;
use crate::error::{Error, Result, check_count};
use crate::model::ActivationCache;
use crate::model::{Gpt2, RunOptions};
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, Series, Table};

/// Prompts that are alike in something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptPair {
    /// In what they are alike; only pairs of one kind are tested together.
    pub kind: String,
    /// The first prompt.
    pub a: String,
    /// The second prompt.
    pub b: String,
}

impl PromptPair {
    /// The pairs that come with the crate: twelve of kind `"structure"` (the same sentence with other words) and twelve of kind
    /// `"meaning"` (the same statement said otherwise). In GPT-2's tokens, both prompts of a pair have the same length.
    pub fn shipped() -> Vec<Self> {
        let mut csv = csv::Reader::from_reader(include_str!("../../../data/pairs.csv").as_bytes());
        let pairs = csv.records().map(|record| record.expect("the crate's own file is well-formed"));
        pairs.map(|pair| Self { kind: pair[0].into(), a: pair[1].into(), b: pair[2].into() }).collect()
    }
}

/// What the second prompt of a pair is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Controls {
    /// Prompts of other pairs of any kind, as long as the second prompt: they differ from it in words and in structure.
    #[default]
    OtherPrompts,
    /// The second prompt's own tokens in a random order, the first (beginning-of-sequence) in its place: the same words without
    /// their structure.
    Shuffled,
    /// The second prompt with every token replaced by one drawn from all prompts, but for the tokens that the first prompt has at
    /// the same position: the same shared words in the same places, and nothing else in common.
    SharedWords,
}

/// How to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimilarityOptions {
    /// The projection that tokens are decoded with.
    pub projection: Projection,
    /// How patterns are compared.
    pub measure: PatternMeasure,
    /// What pairs are compared with.
    pub controls: Controls,
    /// At most so many controls a pair.
    pub n_controls: usize,
    /// Random exchanges, and random draws for the intervals. The smallest p-value is 1 / (this + 1).
    pub resamples: usize,
    /// Of the random numbers: the same seed gives the same result.
    pub seed: u64,
}

impl Default for SimilarityOptions {
    /// The `Notebook` projection, adjusted Rand index, 4 other prompts as controls, 4999 resamples.
    fn default() -> Self {
        Self {
            projection: Projection::default(),
            measure: PatternMeasure::default(),
            controls: Controls::default(),
            n_controls: 4,
            resamples: 4999,
            seed: 0,
        }
    }
}

/// The outcome of one head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSimilarity {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// Mean similarity within pairs.
    pub of_pairs: f64,
    /// Mean similarity to controls.
    pub of_controls: f64,
    /// The first minus the second.
    pub difference: f64,
    /// 95% interval of the difference, over pairs drawn with replacement.
    pub interval: [f64; 2],
    /// One-sided permutation p-value: pairs are more alike than controls.
    pub p: f64,
    /// The same, corrected for the number of heads.
    pub p_corrected: f64,
}

/// The outcome of every head.
#[derive(Clone, Debug)]
pub struct SimilarityTest {
    /// The kind of the pairs.
    pub kind: String,
    /// How it was tested.
    pub options: SimilarityOptions,
    /// Number of pairs.
    pub n_pairs: usize,
    /// Share of the positions behind the first at which both prompts of a pair have the same token: heads of the first layer see
    /// little else.
    pub equal_tokens_in_pairs: f64,
    /// The same of first prompts and controls.
    pub equal_tokens_in_controls: f64,
    /// Every head, layer by layer.
    pub heads: Vec<HeadSimilarity>,
}

/// Tests the pairs of one kind, on every head of a model. The other pairs serve as controls.
///
/// ```
/// use attention_tokens::experiments::{PromptPair, SimilarityOptions, similarity_test};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let options = SimilarityOptions { n_controls: 1, resamples: 99, ..Default::default() };
/// let test = similarity_test(&model, &PromptPair::shipped(), "structure", options)?;
/// assert_eq!((test.heads.len(), test.n_pairs), (32, 12));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::NoPairsOfKind`]; [`Error::Count`] if a pair has no controls, or none or no resamples are asked for;
/// [`Error::Shape`] if the prompts of a pair differ in length and the measure needs equal ones; otherwise as for
/// [`layer_data`].
pub fn similarity_test(
    model: &Gpt2,
    pairs: &[PromptPair],
    kind: &str,
    options: SimilarityOptions,
) -> Result<SimilarityTest> {
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let design = Design::new(model, pairs, kind, options, &mut random)?;
    let n_pairs = design.comparisons.len();
    let cache = design.run(model)?;
    let decode = DecodeOptions { projection: options.projection, top_k: 1 };
    // Per head and pair: the similarity of the pair, then those to its controls.
    let mut similarities: Vec<([usize; 2], Vec<Vec<f64>>)> = Vec::new();
    for layer in 0..model.config().n_layers {
        for head in layer_data(model, &cache, layer, decode)? {
            similarities.push(([layer, head.head], design.similarities(&head, options.measure)));
        }
    }
    let rows: Vec<&Vec<Vec<f64>>> = similarities.iter().map(|(_, rows)| rows).collect();
    let p_values = permutation_p(&rows, options.resamples, &mut random);
    let intervals = bootstrap_intervals(&rows, options.resamples, &mut random);
    let of_head = |(index, ([layer, head], rows)): (usize, &([usize; 2], Vec<Vec<f64>>))| {
        let of_pairs = rows.iter().map(|row| row[0]).sum::<f64>() / n_pairs as f64;
        let difference = rows.iter().map(|row| difference(row, 0)).sum::<f64>() / n_pairs as f64;
        let (p, p_corrected) = p_values[index];
        let (of_controls, interval) = (of_pairs - difference, intervals[index]);
        HeadSimilarity { layer: *layer, head: *head, of_pairs, of_controls, difference, interval, p, p_corrected }
    };
    let [equal_tokens_in_pairs, equal_tokens_in_controls] = design.equal_tokens();
    let heads = similarities.iter().enumerate().map(of_head).collect();
    let kind = kind.into();
    Ok(SimilarityTest { kind, options, n_pairs, equal_tokens_in_pairs, equal_tokens_in_controls, heads })
}

/// Which prompts are run and compared.
struct Design {
    /// Every prompt that is needed, once.
    prompts: Vec<Vec<u32>>,
    /// For each pair, the first prompt, the second, and the controls of the second.
    comparisons: Vec<(usize, Vec<usize>)>,
}

impl Design {
    fn new(
        model: &Gpt2,
        pairs: &[PromptPair],
        kind: &str,
        options: SimilarityOptions,
        random: &mut ChaCha8Rng,
    ) -> Result<Self> {
        const WHAT: &str = "similarity_test";
        check_count(WHAT, "n_controls", options.n_controls, 1, None)?;
        check_count(WHAT, "resamples", options.resamples, 1, None)?;
        let mut tokens = Vec::with_capacity(pairs.len());
        for pair in pairs {
            tokens.push([model.to_tokens(&pair.a)?, model.to_tokens(&pair.b)?]);
        }
        let all_words: Vec<u32> = tokens.iter().flatten().flat_map(|prompt| prompt.iter().skip(1).copied()).collect();
        let mut design = Self { prompts: Vec::new(), comparisons: Vec::new() };
        for (index, pair) in pairs.iter().enumerate().filter(|(_, pair)| pair.kind == kind) {
            let [a, b] = &tokens[index];
            if options.measure == PatternMeasure::AdjustedRand && a.len() != b.len() {
                return Err(Error::Shape {
                    what: format!("{WHAT}: the tokens of {:?}, paired with {:?}", pair.b, pair.a),
                    axes: "[pos]",
                    expected: vec![a.len()],
                    found: vec![b.len()],
                    hint: "PatternMeasure::RowEdits compares prompts of different lengths",
                });
            }
            let controls: Vec<Vec<u32>> = match options.controls {
                Controls::OtherPrompts => {
                    let others = tokens.iter().enumerate().filter(|&(other, _)| other != index);
                    let same_length = others.flat_map(|(_, pair)| pair).filter(|other| other.len() == b.len());
                    let mut controls: Vec<Vec<u32>> =
                        same_length.filter(|&other| other != a && other != b).cloned().collect();
                    controls.shuffle(random);
                    controls.truncate(options.n_controls);
                    controls
                }
                Controls::Shuffled => {
                    let shuffled = || {
                        let mut tokens = b.clone();
                        tokens.get_mut(1..).into_iter().for_each(|tokens| tokens.shuffle(random));
                        tokens
                    };
                    std::iter::repeat_with(shuffled).take(options.n_controls).collect()
                }
                Controls::SharedWords => {
                    let mut replaced = |(position, &token): (usize, &u32)| {
                        let of_a = a.get(position);
                        if position == 0 || of_a == Some(&token) {
                            return token;
                        }
                        // Prompts of one word have no other.
                        let mut draw = || all_words[random.random_range(0..all_words.len())];
                        (0..100).map(|_| draw()).find(|drawn| Some(drawn) != of_a).unwrap_or(token)
                    };
                    let replaced = || b.iter().enumerate().map(&mut replaced).collect();
                    std::iter::repeat_with(replaced).take(options.n_controls).collect()
                }
            };
            if controls.is_empty() {
                return Err(Error::Count {
                    function: WHAT,
                    what: format!("other prompts with the {} tokens of {:?}", b.len(), pair.b),
                    found: 0,
                    min: 1,
                    max: None,
                    hint: Some("add pairs, or take Controls::Shuffled"),
                });
            }
            let first = design.prompt(a);
            let second = std::iter::once(b).chain(&controls).map(|prompt| design.prompt(prompt)).collect();
            design.comparisons.push((first, second));
        }
        if design.comparisons.is_empty() {
            let mut found: Vec<String> = pairs.iter().map(|pair| pair.kind.clone()).collect();
            found.dedup();
            return Err(Error::NoPairsOfKind { kind: kind.into(), found });
        }
        Ok(design)
    }

    /// The index of a prompt, which is added if it is new.
    fn prompt(&mut self, prompt: &[u32]) -> usize {
        let at = self.prompts.iter().position(|other| other == prompt);
        at.unwrap_or_else(|| {
            self.prompts.push(prompt.to_vec());
            self.prompts.len() - 1
        })
    }

    fn run(&self, model: &Gpt2) -> Result<ActivationCache> {
        Ok(model.run_with_cache_options(self.prompts.clone(), RunOptions::for_head_data())?.1)
    }

    /// For each pair, the similarity of the pair and those to its controls.
    fn similarities(&self, head: &HeadData, measure: PatternMeasure) -> Vec<Vec<f64>> {
        let prompts = head.prompts();
        let similarity = |a: usize, b: usize| {
            measure.similarity(&prompts[a], &prompts[b]).expect("lengths were compared where the measure needs it")
        };
        let row = |(a, others): &(usize, Vec<usize>)| others.iter().map(|&b| similarity(*a, b)).collect();
        self.comparisons.iter().map(row).collect()
    }

    /// The share of positions with the same token, in pairs and in controls.
    fn equal_tokens(&self) -> [f64; 2] {
        let share = |a: usize, b: usize| {
            let (a, b) = (&self.prompts[a][1..], &self.prompts[b][1..]);
            a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len().max(b.len()).max(1) as f64
        };
        let of_row = |(a, others): &(usize, Vec<usize>)| {
            let shares: Vec<f64> = others.iter().map(|&b| share(*a, b)).collect();
            [shares[0], shares[1..].iter().sum::<f64>() / (shares.len() - 1) as f64]
        };
        let rows: Vec<[f64; 2]> = self.comparisons.iter().map(of_row).collect();
        [0, 1].map(|of| rows.iter().map(|row| row[of]).sum::<f64>() / rows.len() as f64)
    }
}

impl SimilarityTest {
    /// The heads, largest difference first.
    pub fn ranked(&self) -> Vec<HeadSimilarity> {
        let mut heads = self.heads.clone();
        heads.sort_by(|a, b| b.difference.total_cmp(&a.difference));
        heads
    }

    /// The heads with a corrected p-value of at most `level`, largest difference first.
    pub fn significant(&self, level: f64) -> Vec<HeadSimilarity> {
        self.ranked().into_iter().filter(|head| head.p_corrected <= level).collect()
    }

    /// Every head, ranked, as a table.
    pub fn table(&self) -> Table {
        let row = |head: &HeadSimilarity| {
            let name = format!("{}.{}", head.layer, head.head);
            let [low, high] = head.interval;
            let interval = format!("{low:.3} to {high:.3}");
            let numbers = [head.of_pairs, head.of_controls, head.difference].map(|value| format!("{value:.3}"));
            let p = [head.p, head.p_corrected].map(|p| format!("{p:.4}"));
            [name].into_iter().chain(numbers).chain([interval]).chain(p).collect()
        };
        let header = ["head", "pairs", "controls", "difference", "95% interval", "p", "p corrected"];
        Table::new(self.caption(), &header, self.ranked().iter().map(row).collect())
    }

    /// The heads by rank, each with its difference and interval; a star marks a corrected p-value of at most 0.05.
    pub fn plot(&self) -> Figure {
        let ranked = self.ranked();
        let n_layers = self.heads.last().map_or(0, |head| head.layer + 1);
        let series = |layer: usize| {
            let own: Vec<(usize, &HeadSimilarity)> =
                ranked.iter().enumerate().filter(|(_, head)| head.layer == layer).collect();
            let text = |(_, head): &(usize, &HeadSimilarity)| {
                let [low, high] = head.interval;
                format!(
                    "head {}.{}\npairs {:.3}, controls {:.3}\ndifference {:.3} ({low:.3} to {high:.3})\np {:.4}, corrected {:.4}",
                    head.layer, head.head, head.of_pairs, head.of_controls, head.difference, head.p, head.p_corrected
                )
            };
            let star = |(_, head): &(usize, &HeadSimilarity)| {
                if head.p_corrected <= 0.05 { "∗".into() } else { String::new() }
            };
            let points = own.iter().map(|(rank, head)| [*rank as f64, head.difference]).collect();
            let form = Form::Intervals(own.iter().map(|(_, head)| head.interval).collect());
            Series {
                symbol: layer,
                texts: own.iter().map(text).collect(),
                labels: own.iter().map(star).collect(),
                ..Series::new(format!("layer {layer}"), form, Color::of_layer(layer, n_layers), points)
            }
        };
        let names = ranked.iter().map(|head| format!("{}.{}", head.layer, head.head));
        let zero = vec![[-0.5, 0.0], [ranked.len() as f64 - 0.5, 0.0]];
        let zero = Series::new("", Form::Line, Color::Faint, zero);
        Chart {
            title: self.caption(),
            x: ChartAxis::names("head", names),
            y: ChartAxis::linear("similarity of pairs − similarity to controls"),
            series: std::iter::once(zero).chain((0..n_layers).map(series)).collect(),
        }
        .figure()
    }

    fn caption(&self) -> String {
        let controls = match self.options.controls {
            Controls::OtherPrompts => "other prompts",
            Controls::Shuffled => "shuffled tokens",
            Controls::SharedWords => "shared words alone",
        };
        let (measure, projection) = (self.options.measure.name(), self.options.projection.name());
        format!(
            "{} of {} pairs alike in {} against {controls}, projection {projection}",
            capitalized(measure),
            self.n_pairs,
            self.kind
        )
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
