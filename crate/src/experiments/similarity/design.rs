//! Prompt pairs, their controls, the comparisons between them, and the options of the test.

use rand::Rng;
use rand::seq::SliceRandom;

use super::measure::PatternMeasure;
use crate::attention_tokens::HeadData;
use crate::decode::Reading;
use crate::error::{Error, Result, check_count};
use crate::model::{ActivationCache, Gpt2, RunOptions};
use crate::random::SeededRng;

/// Two prompts that are similar in some respect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptPair {
    /// The respect in which they are similar, for instance `"structure"`. Only pairs of one kind are tested together.
    pub kind: String,
    /// The first prompt.
    pub a: String,
    /// The second prompt.
    pub b: String,
}

impl PromptPair {
    /// The pairs that come with the crate: twelve of kind `"structure"` (one syntax, other words) and twelve of kind
    /// `"meaning"` (paraphrases). Both prompts of a pair have the same number of GPT-2 tokens.
    pub fn shipped() -> Vec<Self> {
        let mut csv = csv::Reader::from_reader(include_str!("../../../data/pairs.csv").as_bytes());
        let pairs = csv.records().map(|record| record.expect("the crate's own file is well-formed"));
        pairs.map(|pair| Self { kind: pair[0].into(), a: pair[1].into(), b: pair[2].into() }).collect()
    }
}

/// The control prompts that take the place of a pair's second prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Controls {
    /// Prompts of other pairs, of any kind, with the same number of tokens as the second prompt. They differ from it in
    /// words and in structure.
    #[default]
    OtherPrompts,
    /// The second prompt's own tokens in a random order, after the beginning-of-sequence token: the same words without
    /// their structure.
    Shuffled,
    /// The second prompt with random tokens of all prompts, except where the first prompt has the same token at the
    /// same position: the shared words stay in place, and nothing else is in common. The hardest control, but random
    /// words make no sentence.
    SharedWords,
}

/// Options of [`similarity_test()`](super::similarity_test()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimilarityOptions {
    /// How cells are read as tokens. A [`Projection`](crate::Projection) converts into a reading, with `b_U`.
    pub reading: Reading,
    /// The similarity of two patterns.
    pub measure: PatternMeasure,
    /// The prompts that pairs are compared with.
    pub controls: Controls,
    /// Maximum number of controls for each pair.
    pub n_controls: usize,
    /// Number of permutations, and of bootstrap samples. The smallest possible p-value is 1 / (`resamples` + 1).
    pub resamples: usize,
    /// Seed of the random numbers: the same seed gives the same result.
    pub seed: u64,
}

impl Default for SimilarityOptions {
    /// The original's reading, [`Reading::NOTEBOOK`], the adjusted Rand index, 4 other prompts as controls, 4999 resamples, seed 0.
    fn default() -> Self {
        Self {
            reading: Reading::NOTEBOOK,
            measure: PatternMeasure::default(),
            controls: Controls::default(),
            n_controls: 4,
            resamples: 4999,
            seed: 0,
        }
    }
}

/// The prompts of a test, and which of them are compared.
pub(super) struct Design {
    /// Every distinct prompt, once. Shape: `[prompt] [pos]`.
    prompts: Vec<Vec<u32>>,
    /// For each pair, as indices of prompts: the first prompt; the second, followed by its controls.
    comparisons: Vec<(usize, Vec<usize>)>,
    /// The position after the beginning-of-sequence token; 0 for a model without one.
    first_word: usize,
}

impl Design {
    /// Tokenizes the pairs of one kind, and draws the controls of each.
    pub(super) fn new(
        model: &Gpt2,
        pairs: &[PromptPair],
        kind: &str,
        options: SimilarityOptions,
        rng: &mut SeededRng,
    ) -> Result<Self> {
        const FUNCTION: &str = "similarity_test";
        check_count(FUNCTION, "n_controls", options.n_controls, 1, None)?;
        check_count(FUNCTION, "resamples", options.resamples, 1, None)?;
        let mut tokens = Vec::with_capacity(pairs.len());
        for pair in pairs {
            tokens.push([model.to_tokens(&pair.a)?, model.to_tokens(&pair.b)?]);
        }
        let first_word = usize::from(model.config().bos_token_id.is_some());
        let all_words: Vec<u32> =
            tokens.iter().flatten().flat_map(|prompt| prompt.iter().skip(first_word).copied()).collect();
        let mut design = Self { prompts: Vec::new(), comparisons: Vec::new(), first_word };
        for (index, pair) in pairs.iter().enumerate().filter(|(_, pair)| pair.kind == kind) {
            let [a, b] = &tokens[index];
            if options.measure == PatternMeasure::AdjustedRand && a.len() != b.len() {
                return Err(Error::Shape {
                    what: format!("{FUNCTION}: the tokens of {:?}, paired with {:?}", pair.b, pair.a),
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
                    controls.shuffle(rng);
                    controls.truncate(options.n_controls);
                    controls
                }
                Controls::Shuffled => {
                    let shuffled = || {
                        let mut tokens = b.clone();
                        tokens.get_mut(first_word..).into_iter().for_each(|tokens| tokens.shuffle(rng));
                        tokens
                    };
                    std::iter::repeat_with(shuffled).take(options.n_controls).collect()
                }
                Controls::SharedWords => {
                    let mut replaced = |(position, &token): (usize, &u32)| {
                        let token_of_a = a.get(position);
                        if position < first_word || token_of_a == Some(&token) {
                            return token;
                        }
                        // The token that the first prompt has here would be a shared one; 100 draws bound the search.
                        let mut draw = || all_words[rng.random_range(0..all_words.len())];
                        (0..100).map(|_| draw()).find(|drawn| Some(drawn) != token_of_a).unwrap_or(token)
                    };
                    let replaced = || b.iter().enumerate().map(&mut replaced).collect();
                    std::iter::repeat_with(replaced).take(options.n_controls).collect()
                }
            };
            if controls.is_empty() {
                return Err(Error::Count {
                    function: FUNCTION,
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

    /// Number of pairs.
    pub(super) fn n_pairs(&self) -> usize {
        self.comparisons.len()
    }

    /// The index of a prompt, which is added if it is new. Shape: `[pos]` → an index.
    fn prompt(&mut self, prompt: &[u32]) -> usize {
        let index = self.prompts.iter().position(|other| other == prompt);
        index.unwrap_or_else(|| {
            self.prompts.push(prompt.to_vec());
            self.prompts.len() - 1
        })
    }

    /// Runs all prompts as one batch.
    pub(super) fn run(&self, model: &Gpt2) -> Result<ActivationCache> {
        Ok(model.run_with_cache_options(self.prompts.clone(), RunOptions::for_head_data())?.1)
    }

    /// For each pair, the similarity of the pair, then those of its first prompt to the controls. Shape: →
    /// `[pair] [1 + controls]`.
    pub(super) fn similarities(&self, head: &HeadData, measure: PatternMeasure) -> Vec<Vec<f64>> {
        let prompts = head.prompts();
        let similarity = |a: usize, b: usize| {
            measure
                .similarity(&prompts[a], &prompts[b])
                .expect("the lengths were checked where the measure needs equal ones")
        };
        let row = |(a, others): &(usize, Vec<usize>)| others.iter().map(|&b| similarity(*a, b)).collect();
        self.comparisons.iter().map(row).collect()
    }

    /// The proportion of positions with the same token in both prompts: in pairs, and between first prompts and
    /// controls. The beginning-of-sequence token does not count; prompts of different lengths are aligned at their
    /// beginning.
    pub(super) fn equal_tokens(&self) -> [f64; 2] {
        let proportion = |a: usize, b: usize| {
            let (a, b) = (&self.prompts[a][self.first_word..], &self.prompts[b][self.first_word..]);
            a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len().max(b.len()).max(1) as f64
        };
        let pair_and_controls = |(a, others): &(usize, Vec<usize>)| {
            let proportions: Vec<f64> = others.iter().map(|&b| proportion(*a, b)).collect();
            [proportions[0], proportions[1..].iter().sum::<f64>() / (proportions.len() - 1) as f64]
        };
        let rows: Vec<[f64; 2]> = self.comparisons.iter().map(pair_and_controls).collect();
        [0, 1].map(|column| rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64)
    }
}
