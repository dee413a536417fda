//! The greater-than task (Hanna et al. 2023): *The war lasted from the year 1732 to the year 17*.

use rand::seq::IndexedRandom;

use super::evaluation::{for_each_last_logits, mean, probabilities};
use super::words::{EVENTS, Word, exact_token, single_tokens};
use crate::error::{Result, check_count, check_setting};
use crate::model::Gpt2;
use crate::random::seeded_rng;
use crate::tokenizer::Tokenizer;

const FUNCTION: &str = "GreaterThanDataset";

/// The centuries and the years of a century that the paper draws from. Some years are greater than 98, some are smaller
/// than 02.
const CENTURIES: std::ops::RangeInclusive<u32> = 11..=17;
const YEARS: std::ops::RangeInclusive<u32> = 2..=98;

/// Options of [`GreaterThanDataset::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreaterThanOptions {
    num_samples: usize,
    seed: u64,
    nouns: Vec<String>,
}

impl Default for GreaterThanOptions {
    fn default() -> Self {
        Self { num_samples: 1000, seed: 0, nouns: EVENTS.split_whitespace().map(str::to_owned).collect() }
    }
}

impl GreaterThanOptions {
    /// The number of prompts. Default: 1000.
    pub fn num_samples(mut self, n: usize) -> Self {
        self.num_samples = n;
        self
    }

    /// The seed of the choices. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The nouns, for what lasts. Those that are not single tokens are left out. Default: 35 nouns.
    pub fn nouns(mut self, nouns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.nouns = nouns.into_iter().map(Into::into).collect();
        self
    }
}

/// A prompt of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreaterThanPrompt {
    /// *The {noun} lasted from the year {XX}{YY} to the year {XX}*.
    pub text: String,
    /// The tokens of the text, with the beginning-of-sequence token in front if the model has one. Shape: `[pos]`.
    pub tokens: Vec<u32>,
    /// The same with the year `01`: every later year is then a right answer. Shape: `[pos]`.
    pub corrupted_tokens: Vec<u32>,
    /// What lasts.
    pub noun: String,
    /// `XX`, from 11 to 17.
    pub century: u32,
    /// `YY`, from 2 to 98.
    pub year: u32,
    /// The position of `YY`.
    pub year_pos: usize,
    /// The last position, which predicts the year.
    pub end_pos: usize,
}

/// How well a model does the task.
#[derive(Clone, Debug, PartialEq)]
pub struct GreaterThanScores {
    /// The mean over the prompts of the probability of the years after `YY` minus that of the others, between −1 and 1.
    pub probability_diff: f64,
    /// The mean of the probability of `YY + 1` minus that of `YY − 1`: how sharply the model distinguishes.
    pub cutoff_sharpness: f64,
    /// The probability difference of each prompt.
    pub probability_diffs: Vec<f64>,
}

/// Prompts of the greater-than task.
///
/// A year is drawn if the tokenizer splits it into its two halves, ` XX` and `YY`, and so XX01. GPT-2's has single tokens
/// for many years.
///
/// ```
/// use attention_tokens::datasets::{GreaterThanDataset, GreaterThanOptions};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let dataset = GreaterThanDataset::new(model.tokenizer()?, GreaterThanOptions::default().num_samples(10))?;
/// let prompt = &dataset.prompts[0];
/// assert_eq!(prompt.tokens[prompt.year_pos], dataset.years[prompt.year as usize]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GreaterThanDataset {
    /// The prompts.
    pub prompts: Vec<GreaterThanPrompt>,
    /// The tokens of `00`, `01`, …, `99`: the answers. Shape: `[100]`.
    pub years: Vec<u32>,
}

impl GreaterThanDataset {
    /// Draws prompts.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if no noun is a single token, or if the tokenizer does not split years so,
    /// [`Error::Count`](crate::Error::Count) for no samples.
    pub fn new(tokenizer: &Tokenizer, options: GreaterThanOptions) -> Result<Self> {
        check_count(FUNCTION, "num_samples", options.num_samples, 1, None)?;
        let nouns = single_tokens(tokenizer, options.nouns.iter().map(String::as_str), 1, FUNCTION, "nouns")?;
        let years: Option<Vec<u32>> = (0..100).map(|year| exact_token(tokenizer, &format!("{year:02}"))).collect();
        let needed = "one with a token for each of 00, 01, …, 99";
        check_setting(FUNCTION, "tokenizer", years.is_some(), needed, "one without")?;
        let years = years.unwrap_or_default();
        let mut splits = Vec::new(); // (century, year)
        for century in CENTURIES {
            let Some(token) = exact_token(tokenizer, &format!(" {century}")) else { continue };
            let is_split = |year: u32| -> Result<bool> {
                let tokens = tokenizer.to_tokens_without_bos(&format!(" {century}{year:02}"))?;
                Ok(tokens == [token, years[year as usize]])
            };
            if is_split(1)? {
                for year in YEARS {
                    if is_split(year)? {
                        splits.push((century, year));
                    }
                }
            }
        }
        let expected = "a tokenizer that splits some years into their halves";
        check_setting(FUNCTION, "tokenizer", !splits.is_empty(), expected, "none")?;
        let rng = &mut seeded_rng(options.seed);
        let mut prompts = Vec::new();
        for _ in 0..options.num_samples {
            let (Some(noun), Some(&(century, year))) = (nouns.choose(rng), splits.choose(rng)) else { continue };
            prompts.push(prompt(tokenizer, noun, century, year, &years)?);
        }
        Ok(Self { prompts, years })
    }

    /// The tokens of every prompt, to run. Shape: `[prompt][pos]`.
    pub fn tokens(&self) -> Vec<Vec<u32>> {
        self.prompts.iter().map(|prompt| prompt.tokens.clone()).collect()
    }

    /// The tokens of every corrupted prompt. Shape: `[prompt][pos]`.
    pub fn corrupted_tokens(&self) -> Vec<Vec<u32>> {
        self.prompts.iter().map(|prompt| prompt.corrupted_tokens.clone()).collect()
    }

    /// How well a model does the task on these prompts.
    ///
    /// # Errors
    /// As for [`Gpt2::forward`].
    pub fn eval(&self, model: &Gpt2) -> Result<GreaterThanScores> {
        let (mut probability_diffs, mut sharpness) = (Vec::new(), Vec::new());
        model.check_tokens(&self.years)?;
        for_each_last_logits(model, self.tokens(), |prompt, logits| {
            let year = self.prompts[prompt].year as usize;
            let by_year = probabilities(logits, &self.years); // [100]
            let (not_after, after) = by_year.split_at(year + 1);
            probability_diffs.push(after.iter().sum::<f64>() - not_after.iter().sum::<f64>());
            sharpness.push(by_year[year + 1] - by_year[year - 1]);
        })?;
        let (probability_diff, cutoff_sharpness) = (mean(&probability_diffs), mean(&sharpness));
        Ok(GreaterThanScores { probability_diff, cutoff_sharpness, probability_diffs })
    }
}

fn prompt(tokenizer: &Tokenizer, noun: &Word, century: u32, year: u32, years: &[u32]) -> Result<GreaterThanPrompt> {
    let noun = noun.text.clone();
    let text = format!("The {noun} lasted from the year {century}{year:02} to the year {century}");
    let tokens = tokenizer.to_tokens(&text)?;
    let year_pos = tokens.iter().position(|&token| token == years[year as usize]);
    let expected = "a tokenizer that splits a year in a sentence as it does alone";
    check_setting(FUNCTION, "tokenizer", year_pos.is_some(), expected, format!("{text:?}"))?;
    let (year_pos, end_pos) = (year_pos.unwrap_or_default(), tokens.len() - 1);
    let mut corrupted_tokens = tokens.clone();
    corrupted_tokens[year_pos] = years[1];
    Ok(GreaterThanPrompt { text, tokens, corrupted_tokens, noun, century, year, year_pos, end_pos })
}
