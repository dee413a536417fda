//! The merge test: the runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ndarray::{Array2, Array4, Array5, Axis};

use super::divergence::CleanPredictions;
use super::partition::{FIRST_QUERY, NothingToMerge, Partitions};
use super::result::MergeTest;
use super::statistics::{MergedPrompt, merged_heads};
use crate::attention_tokens::{DecodeOptions, PromptHeadData, layer_data};
use crate::decode::Reading;
use crate::error::{Result, check_count, check_position};
use crate::model::{Activation, ActivationCache, BaseRun, FinalRows, Gpt2, Intervention, Prompts, RunOptions, Variant};
use crate::random::seeded_stream;

/// The time between progress lines, and before the first.
const BETWEEN_LINES: Duration = Duration::from_secs(5);
/// Divergences up to this one, in nats, are rounding.
const ROUNDING: f64 = 1e-11;

/// Options of [`merge_test`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOptions {
    /// Number of random partitions of each head and prompt.
    pub n_random: usize,
    /// Number of permutations, and of bootstrap samples. The smallest possible p-value is 1 / (`resamples` + 1).
    pub resamples: usize,
    /// The positions whose predictions are compared; negative ones count from each prompt's end. `None` for all.
    pub positions: Option<Vec<isize>>,
    /// Seed of the random partitions, permutations and samples.
    pub seed: u64,
    /// Memory limit in bytes for the runs that are computed together.
    pub max_bytes: usize,
    /// Whether a line is printed to stderr every 5 seconds.
    pub progress: bool,
}

impl Default for MergeOptions {
    /// 100 random partitions, 9,999 resamples, all positions, seed 1, 256 MiB, with progress lines.
    fn default() -> Self {
        Self { n_random: 100, resamples: 9_999, positions: None, seed: 1, max_bytes: 256 << 20, progress: true }
    }
}

/// Tests for each reading and head whether the model's computation respects the head's words.
///
/// **Question.** The model reads only the sum of a cell's products: two cells with one score and two words are the same to
/// it, so "replace a word and see" has no meaning. But a reading divides the keys of a row into words, and it can be tested
/// whether that *partition* is one that the computation respects.
///
/// **Statistic.** In each row of a head's pattern, the attention of the keys that share a word is replaced by their mean
/// ([`merge_attention`](super::merge_attention)), the model runs on, and its predictions are compared with the clean ones:
///
/// ```text
/// KL = mean over positions of KL(clean ‖ merged)
/// z of a prompt = (mean KL of random partitions − KL of the words) / their standard deviation
/// z of a head   = Σ z of prompts / √(number of prompts)
/// ```
///
/// A positive z means that merging what the reading calls the same changes the predictions less than merging as many keys at
/// random.
///
/// **Control.** Random partitions of the same sizes, row by row. The first token and the query itself are kept apart in both,
/// as many heads attend to nothing else. Under the null hypothesis the words are one more random partition, which gives
/// permutation p-values; they are corrected for the number of heads by the max-T procedure (Westfall and Young: Resampling-Based
/// Multiple Testing, Wiley, 1993). The second control is
/// the same test on a model that has learned nothing ([`Gpt2::with_random_weights`]), which respects words too: keys with
/// one word have similar products with the query, and so similar attention, or similar values. Only what a trained model
/// has beyond that has been learned. A third one is the same reading in another basis ([`Signs`](crate::Signs)).
///
/// **Limits.** A reading that gives all keys different words, or one word, has nothing to merge, and is not tested: the result
/// says how many heads were. Equal tokens have equal words more often than others, and similar attention and values too, so a
/// partition by the input tokens would be respected as well: being respected does not make a word's meaning true. The test
/// asks for one head at a time.
///
/// Runs begin in the edited layer and are computed together, within [`MergeOptions::max_bytes`]. The predictions take most of
/// the time: a product with the unembedding for each position of each run.
///
/// ```
/// use attention_tokens::experiments::{MergeOptions, merge_test};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("letters", LoadOptions::default())?;
/// let options = MergeOptions { n_random: 9, resamples: 99, ..Default::default() };
/// let test = merge_test(&model, ["a b c a b c", "x y x y"], &[Reading::MATCHED.unembed_bias(false)], options)?;
/// assert_eq!(test.heads[0].len(), model.config().n_layers * model.config().n_heads);
/// test.table()
/// # ;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`](crate::Error::Count) if there is no reading, or if `n_random` is below 2 or `resamples` 0;
/// [`Error::Position`](crate::Error::Position) for a position that a prompt does not have; otherwise as for
/// [`Gpt2::run_with_cache`] and [`layer_data`].
pub fn merge_test(
    model: &Gpt2,
    prompts: impl Into<Prompts>,
    readings: &[Reading],
    options: MergeOptions,
) -> Result<MergeTest> {
    test_prompts(model, prompts.into(), readings, options)
}

/// [`merge_test`] without the generic parameter.
fn test_prompts(model: &Gpt2, prompts: Prompts, readings: &[Reading], options: MergeOptions) -> Result<MergeTest> {
    const FUNCTION: &str = "merge_test";
    check_count(FUNCTION, "readings", readings.len(), 1, None)?;
    check_count(FUNCTION, "n_random", options.n_random, 2, None)?;
    check_count(FUNCTION, "resamples", options.resamples, 1, None)?;
    let config = model.config();
    let (n_layers, n_heads) = (config.n_layers, config.n_heads);
    let prompts = model.checked_prompts(prompts)?;
    let n = prompts.len() * n_layers * n_heads * readings.len();
    let mut progress = Progress { n, done: 0, next_line: options.progress.then(|| Instant::now() + BETWEEN_LINES) };
    // By reading, head and prompt.
    let mut merged: Vec<Vec<Vec<MergedPrompt>>> = vec![vec![Vec::new(); n_layers * n_heads]; readings.len()];
    for (index, tokens) in prompts.iter().enumerate() {
        let prompt = OnePrompt::new(model, index, tokens, &options)?;
        for layer in 0..n_layers {
            for (&reading, merged) in readings.iter().zip(&mut merged) {
                for data in layer_data(model, &prompt.cache, layer, DecodeOptions::from(reading))? {
                    merged[layer * n_heads + data.head].push(prompt.merged(&data.prompts()[0])?);
                    progress.one_more();
                }
            }
        }
    }
    let heads = merged.iter().map(|heads| merged_heads(heads, n_heads, options.resamples, options.seed)).collect();
    let shape = (readings.len(), n_layers, n_heads, prompts.len());
    let at = |[reading, layer, head, prompt]: [usize; 4]| &merged[reading][layer * n_heads + head][prompt];
    let kl_words = Array4::from_shape_fn(shape, |(a, b, c, d)| at([a, b, c, d]).words());
    let (a, b, c, d) = shape;
    let kl_random = Array5::from_shape_fn((a, b, c, d, options.n_random), |(a, b, c, d, draw)| {
        at([a, b, c, d]).random().get(draw).copied().unwrap_or(0.0)
    });
    let nothing = Array4::from_shape_fn(shape, |(a, b, c, d)| at([a, b, c, d]).nothing());
    let model = model.name().to_owned();
    Ok(MergeTest { readings: readings.to_vec(), heads, kl_words, kl_random, nothing, prompts, options, model })
}

/// Lines on stderr.
struct Progress {
    /// Number of heads of all readings and prompts.
    n: usize,
    done: usize,
    /// `None` for no lines.
    next_line: Option<Instant>,
}

impl Progress {
    fn one_more(&mut self) {
        self.done += 1;
        if self.next_line.is_some_and(|next| Instant::now() >= next) {
            eprintln!("merge test: {} of {} heads of all prompts and readings", self.done, self.n);
            self.next_line = Some(Instant::now() + BETWEEN_LINES);
        }
    }
}

/// A prompt with its clean run.
struct OnePrompt<'a> {
    model: &'a Gpt2,
    options: &'a MergeOptions,
    index: usize,
    /// The activations that readings decode.
    cache: ActivationCache,
    /// What edited runs differ from. `None` for a prompt without a row that could be merged.
    clean: Option<(BaseRun, CleanPredictions)>,
}

impl<'a> OnePrompt<'a> {
    /// Shape: `tokens [pos]`.
    fn new(model: &'a Gpt2, index: usize, tokens: &[u32], options: &'a MergeOptions) -> Result<Self> {
        let pos = tokens.len();
        let positions = match &options.positions {
            None => (0..pos).collect(),
            Some(positions) => {
                let checked = positions.iter().map(|&position| check_position(position, index, pos));
                checked.collect::<Result<BTreeSet<usize>>>()?
            }
        };
        let prompt = || vec![tokens.to_vec()];
        let (_, cache) = model.run_with_cache_options(prompt(), RunOptions::for_head_data())?;
        let clean = if pos > FIRST_QUERY {
            let base = model.base_run(prompt().into())?;
            let unchanged = model.variant(&base, &[])?;
            let rows = model.run_variants(&base, &[&unchanged], FinalRows::All)?.remove(0).remove(0);
            let n = positions.len();
            let changed = positions.into_iter().filter(|&position| position >= FIRST_QUERY).collect();
            let predictions = CleanPredictions::new(model, &rows, changed, n)?;
            Some((base, predictions))
        } else {
            None
        };
        Ok(Self { model, options, index, cache, clean })
    }

    /// The divergences of the runs with merged attention of a head.
    fn merged(&self, data: &PromptHeadData) -> Result<MergedPrompt> {
        let words = Partitions::of_words(data);
        if let Some(reason) = words.nothing_to_merge() {
            return Ok(MergedPrompt::Nothing(reason));
        }
        let Some((base, clean)) = &self.clean else { return Ok(MergedPrompt::Nothing(NothingToMerge::TooShort)) };
        // A stream for each head and prompt, so that readings are compared on the same draws.
        let head = data.layer * self.model.config().n_heads + data.head;
        let mut rng = seeded_stream(self.options.seed, ((self.index as u64) << 32) | head as u64);
        let random = std::iter::repeat_with(|| words.shuffled(&mut rng)).take(self.options.n_random);
        let patterns = std::iter::once(words.merge(data.attn.view()));
        let patterns: Vec<Array2<f32>> = patterns.chain(random.map(|random| random.merge(data.attn.view()))).collect();
        let variant = |pattern: Array2<f32>| {
            let edit = Intervention::set(Activation::Pattern.at(data.layer), pattern.insert_axis(Axis(0)));
            self.model.variant(base, &[edit.head(data.head)])
        };
        let mut divergences = Vec::with_capacity(patterns.len());
        let mut patterns = patterns.into_iter().map(variant);
        while let Some(first) = patterns.next().transpose()? {
            let together = (self.options.max_bytes / self.bytes(&first)).max(1);
            let more = patterns.by_ref().take(together - 1).collect::<Result<Vec<Variant>>>()?;
            let batch: Vec<&Variant> = std::iter::once(&first).chain(&more).collect();
            let rows = self.model.run_variants(base, &batch, FinalRows::All)?;
            let rows: Vec<&Array2<f32>> = rows.iter().map(|prompts| &prompts[0]).collect();
            divergences.extend(clean.divergences(self.model, &rows)?);
        }
        if divergences.iter().all(|&kl| kl <= ROUNDING) {
            return Ok(MergedPrompt::Nothing(NothingToMerge::NoEffect));
        }
        let words = divergences.remove(0);
        Ok(MergedPrompt::Merged { words, random: divergences })
    }

    /// An upper bound of the memory that a run takes: residual stream, queries, keys, values, z and outputs, the neurons
    /// before and after the activation function, and the patterns.
    fn bytes(&self, variant: &Variant) -> usize {
        let (config, pos) = (self.model.config(), self.cache.tokens()[0].len());
        let row = 12 * config.d_model + 2 * config.d_mlp + 2 * config.n_heads * pos;
        size_of::<f32>() * pos * row + variant.bytes()
    }
}
