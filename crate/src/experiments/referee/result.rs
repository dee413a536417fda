//! The result of the merge test: tables and figures.

use ndarray::{Array2, Array4, Array5};

use super::merge_test::MergeOptions;
use super::partition::NothingToMerge;
use super::statistics::interval;
use crate::decode::Reading;
use crate::error::{Error, Result, check_index};
use crate::experiments::permutation::LEVEL;
use crate::plot::{Figure, MatrixChart, Table, decimals};
use crate::random::seeded_rng;

/// The result of [`merge_test`](super::merge_test()) for one head and reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadMerge {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// The number of prompts that have something to merge.
    pub n_prompts: usize,
    /// The test over these prompts; `None` if there are none.
    pub result: Option<HeadResult>,
    /// The most frequent reason among the other prompts; `None` if there are none.
    pub nothing: Option<NothingToMerge>,
}

/// The test of one head and reading, which has something to merge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadResult {
    /// The z-score over prompts: above 0 where merging words changes predictions less than merging at random. About a
    /// standard normal number by chance.
    pub z: f64,
    /// 95% bootstrap percentile interval of `z`, over prompts drawn with replacement.
    pub interval: [f64; 2],
    /// One-sided permutation p-value, for words that are respected more than random partitions.
    pub p: f64,
    /// The p-value corrected for the number of heads (Westfall-Young max-T).
    pub p_corrected: f64,
    /// Mean KL divergence with merged words, in nats.
    pub kl_words: f64,
    /// Mean KL divergence with random partitions, in nats.
    pub kl_random: f64,
}

/// The result of [`merge_test`](super::merge_test()).
#[derive(Clone, Debug)]
pub struct MergeTest {
    /// The readings that were tested.
    pub readings: Vec<Reading>,
    /// Every head, layer by layer, for each reading. Shape: `[reading] [n_layers n_heads]`.
    pub heads: Vec<Vec<HeadMerge>>,
    /// Mean KL divergence with merged words, in nats; 0 where there is nothing to merge.
    /// Shape: `[reading, n_layers, n_heads, prompt]`.
    pub kl_words: Array4<f64>,
    /// Mean KL divergence of each random partition, in nats; 0 where there is nothing to merge.
    /// Shape: `[reading, n_layers, n_heads, prompt, n_random]`.
    pub kl_random: Array5<f64>,
    /// The reason why there is nothing to merge; `None` where there is. Shape: `[reading, n_layers, n_heads, prompt]`.
    pub nothing: Array4<Option<NothingToMerge>>,
    /// The token ids of the prompts. Shape: `[prompt] [pos]`.
    pub prompts: Vec<Vec<u32>>,
    /// The options of the test.
    pub options: MergeOptions,
    pub(super) model: String,
}

/// A reading in the ranking of [`MergeTest::ranking`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadingRank {
    /// The reading.
    pub reading: Reading,
    /// Number of heads that have something to merge in some prompt.
    pub n_tested: usize,
    /// Number of heads whose words are respected more than chance: a corrected p-value of at most 0.05.
    pub n_respected: usize,
    /// Mean z-score of the tested heads; 0 if there are none.
    pub mean_z: f64,
    /// 95% bootstrap percentile interval of `mean_z`, over prompts drawn with replacement.
    pub interval: [f64; 2],
    /// Mean KL divergence with merged words, over that with random partitions, as the median of the tested heads; 1 if there
    /// are none.
    pub kl_ratio: f64,
}

impl MergeTest {
    /// The readings by the number of heads whose words are respected, and then by mean z-score, best first.
    pub fn ranking(&self) -> Vec<ReadingRank> {
        let mut ranking: Vec<ReadingRank> = (0..self.readings.len()).map(|index| self.rank(index)).collect();
        ranking.sort_by(|a, b| b.n_respected.cmp(&a.n_respected).then(b.mean_z.total_cmp(&a.mean_z)));
        ranking
    }

    fn rank(&self, reading: usize) -> ReadingRank {
        let results: Vec<HeadResult> = self.heads[reading].iter().filter_map(|head| head.result).collect();
        let n_tested = results.len();
        let mut ratios: Vec<f64> =
            results.iter().filter(|head| head.kl_random > 0.0).map(|head| head.kl_words / head.kl_random).collect();
        ratios.sort_by(f64::total_cmp);
        let (mean_z, interval) = self.mean_z(reading);
        ReadingRank {
            reading: self.readings[reading],
            n_tested,
            n_respected: results.iter().filter(|head| head.p_corrected <= LEVEL).count(),
            mean_z,
            interval,
            kl_ratio: ratios.get(ratios.len() / 2).copied().unwrap_or(1.0),
        }
    }

    /// The mean over tested heads of the z-score, and its interval over prompts.
    fn mean_z(&self, reading: usize) -> (f64, [f64; 2]) {
        let tested: Vec<&HeadMerge> = self.heads[reading].iter().filter(|head| head.result.is_some()).collect();
        if tested.is_empty() {
            return (0.0, [0.0, 0.0]);
        }
        // What each prompt adds to the mean: z of a head is a sum over prompts.
        let n_prompts = self.prompts.len();
        let share = |prompt: usize| {
            let z = |head: &&HeadMerge| {
                self.z_of_prompt([reading, head.layer, head.head, prompt]).unwrap_or(0.0)
                    / (head.n_prompts as f64).sqrt()
            };
            tested.iter().map(z).sum::<f64>() / tested.len() as f64
        };
        let shares: Vec<f64> = (0..n_prompts).map(share).collect();
        // `interval` scales a mean by the root of n, and the statistic is a sum.
        let root = (n_prompts as f64).sqrt();
        let of_sum = interval(&shares, self.options.resamples, &mut seeded_rng(self.options.seed)).map(|x| x * root);
        (shares.iter().sum(), of_sum)
    }

    /// The z-score of a head on one prompt, `None` where there is nothing to merge.
    fn z_of_prompt(&self, at: [usize; 4]) -> Option<f64> {
        if self.nothing[at].is_some() {
            return None;
        }
        let random = self.kl_random.slice(ndarray::s![at[0], at[1], at[2], at[3], ..]).to_vec();
        super::statistics::MergedPrompt::Merged { words: self.kl_words[at], random }.z()
    }

    /// The ranking of the readings as a table.
    pub fn table(&self) -> Table {
        let row = |rank: &ReadingRank| {
            vec![
                rank.reading.to_string(),
                format!("{} of {}", rank.n_respected, rank.n_tested),
                decimals(rank.mean_z, 2),
                interval_text(rank.interval),
                format!("{:.2}", rank.kl_ratio),
                (self.heads[0].len() - rank.n_tested).to_string(),
            ]
        };
        let header =
            ["reading", "heads respected", "mean z", "95% interval", "KL of words / of random", "nothing to merge"];
        let caption = format!("Heads whose words are respected more than chance: {}", self.source());
        Table::new(caption, &header, self.ranking().iter().map(row).collect())
    }

    /// The ranking beside the same readings of a control, such as a model that has learned nothing: words of such a model are
    /// respected too, for keys with one word have similar products with a query.
    ///
    /// ```
    /// use attention_tokens::experiments::{MergeOptions, merge_test};
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("letters", LoadOptions::default())?;
    /// let options = MergeOptions { n_random: 5, resamples: 99, ..Default::default() };
    /// let test = |model: &Gpt2| merge_test(model, "a b c a b c", &[Reading::OV, Reading::MATCHED], options.clone());
    /// let table = test(&model)?.table_with_control(&test(&model.with_random_weights(1)?)?)?;
    /// # assert!(table.to_text().contains("matched"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] if the control lacks a reading.
    pub fn table_with_control(&self, control: &MergeTest) -> Result<Table> {
        let row = |rank: &ReadingRank| {
            let index = control.readings.iter().position(|reading| *reading == rank.reading);
            let of_control = control.rank(index.ok_or_else(|| Error::Setting {
                function: "MergeTest::table_with_control",
                option: "control",
                expected: "a test of the same readings".into(),
                found: format!("one without {}", rank.reading),
            })?);
            let pair = |value: fn(&ReadingRank) -> String| [value(rank), value(&of_control)];
            let respected = pair(|rank| format!("{} of {}", rank.n_respected, rank.n_tested));
            let z = pair(|rank| decimals(rank.mean_z, 2));
            let ratio = pair(|rank| format!("{:.2}", rank.kl_ratio));
            Ok([rank.reading.to_string()].into_iter().chain(respected).chain(z).chain(ratio).collect())
        };
        let header =
            ["reading", "heads respected", "control", "mean z", "control", "KL of words / of random", "control"];
        let caption = format!("Heads whose words are respected: {}; control: {}", self.source(), control.source());
        Ok(Table::new(caption, &header, self.ranking().iter().map(row).collect::<Result<_>>()?))
    }

    /// The heads of a reading as a table, by z-score, largest first; heads with nothing to merge come last, with the reason.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if there is no such reading.
    pub fn heads_table(&self, reading: usize) -> Result<Table> {
        check_index("reading", reading, "the test", self.readings.len())?;
        let mut heads = self.heads[reading].clone();
        let z = |head: &HeadMerge| head.result.map_or(f64::NEG_INFINITY, |result| result.z);
        heads.sort_by(|a, b| z(b).total_cmp(&z(a)));
        let row = |head: &HeadMerge| {
            let name = format!("{}.{}", head.layer, head.head);
            let n = format!("{} of {}", head.n_prompts, self.prompts.len());
            let reason = head.nothing.map_or("", NothingToMerge::in_words).to_owned();
            match head.result {
                None => [name, n].into_iter().chain(vec![String::new(); 6]).chain([reason]).collect(),
                Some(HeadResult { z, interval, p, p_corrected, kl_words, kl_random }) => vec![
                    name,
                    n,
                    decimals(z, 2),
                    interval_text(interval),
                    format!("{p:.4}"),
                    format!("{p_corrected:.4}"),
                    format!("{kl_words:.2e}"),
                    format!("{kl_random:.2e}"),
                    reason,
                ],
            }
        };
        let header = [
            "head",
            "prompts",
            "z",
            "95% interval",
            "p",
            "p corrected",
            "KL of words",
            "KL of random",
            "other prompts",
        ];
        Ok(Table::new(self.caption(reading), &header, heads.iter().map(row).collect()))
    }

    /// The z-score of each head of a reading, NaN where there is nothing to merge. Shape: → `[n_layers, n_heads]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if there is no such reading.
    pub fn z(&self, reading: usize) -> Result<Array2<f32>> {
        check_index("reading", reading, "the test", self.readings.len())?;
        let (_, n_layers, n_heads, _) = self.kl_words.dim();
        let z = self.heads[reading].iter().map(|head| head.result.map_or(f32::NAN, |result| result.z as f32));
        Ok(Array2::from_shape_vec((n_layers, n_heads), z.collect()).expect("a number for each head"))
    }

    /// The z-scores of a reading's heads as a heat map: red where words are respected more than random partitions, blue where
    /// less. A star marks a corrected p-value of at most 0.05. A head with nothing to merge is an empty cell.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if there is no such reading.
    pub fn plot(&self, reading: usize) -> Result<Figure> {
        let values = self.z(reading)?;
        let largest = self.largest_z();
        let label = |head: &HeadMerge| {
            head.result.map_or(String::new(), |result| {
                format!("{}{}", decimals(result.z, 1), if result.p_corrected <= LEVEL { "∗" } else { "" })
            })
        };
        let text = |head: &HeadMerge| {
            let name = format!("head {}.{}", head.layer, head.head);
            let reason = head.nothing.map_or("", NothingToMerge::in_words);
            match head.result {
                None => format!("{name}\nnothing to merge: {reason}"),
                Some(HeadResult { z, interval, p, p_corrected, kl_words, kl_random }) => format!(
                    "z {} ({})\n{name}, {} of {} prompts\np {p:.4}, corrected {p_corrected:.4}\nKL \
                     {kl_words:.2e} of words, {kl_random:.2e} of random partitions",
                    decimals(z, 2),
                    interval_text(interval),
                    head.n_prompts,
                    self.prompts.len()
                ),
            }
        };
        let heads = &self.heads[reading];
        let chart = MatrixChart {
            labels: heads.iter().map(label).collect(),
            texts: heads.iter().map(text).collect(),
            ..MatrixChart::of_heads(self.caption(reading), values, ("z".into(), [-largest, largest]))
        };
        Ok(chart.diverging_figure())
    }

    /// The largest z-score of all readings, so that their figures have one scale.
    fn largest_z(&self) -> f32 {
        let all = self.heads.iter().flatten().filter_map(|head| head.result);
        all.map(|result| result.z.abs() as f32).fold(1.0, f32::max)
    }

    fn caption(&self, reading: usize) -> String {
        format!("Merged words against random partitions, reading {}: {}", self.readings[reading], self.source())
    }

    /// The model, the prompts and the controls.
    fn source(&self) -> String {
        let n = self.prompts.len();
        let prompts = if n == 1 { "prompt" } else { "prompts" };
        format!("{}, {n} {prompts}, {} random partitions", self.model, self.options.n_random)
    }

    /// Shows the ranking in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.table().evcxr_display();
    }
}

fn interval_text([low, high]: [f64; 2]) -> String {
    format!("{} to {}", decimals(low, 2), decimals(high, 2))
}
