//! Paired test: do similar prompts give similar patterns of attention tokens?

use super::design::{Controls, Design, PromptPair, SimilarityOptions};
use crate::attention_tokens::{DecodeOptions, layer_data};
use crate::error::Result;
use crate::experiments::permutation::{LEVEL, Significance, bootstrap_intervals, difference, permutation_test};
use crate::model::Gpt2;
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, Series, Table, decimals};
use crate::random::seeded_rng;

/// The result of [`similarity_test()`] for one head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSimilarity {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// Mean over pairs of the similarity of the two prompts' patterns.
    pub of_pairs: f64,
    /// Mean over pairs of the mean similarity of the first prompt to the controls.
    pub of_controls: f64,
    /// The statistic: `of_pairs − of_controls`.
    pub difference: f64,
    /// 95% bootstrap percentile interval of the difference, over pairs drawn with replacement.
    pub interval: [f64; 2],
    /// One-sided permutation p-value, for pairs more similar than controls.
    pub p: f64,
    /// The p-value corrected for the number of heads (Westfall-Young max-T).
    pub p_corrected: f64,
    /// The difference above which the corrected p-value is at most 0.05: what the test could have seen. A head whose true
    /// difference is this large is found in about half of all repetitions. Infinite with fewer than 19 resamples.
    pub smallest_significant: f64,
}

/// The result of [`similarity_test()`].
#[derive(Clone, Debug)]
pub struct SimilarityTest {
    /// The kind of the pairs.
    pub kind: String,
    /// The options of the test.
    pub options: SimilarityOptions,
    /// Number of pairs.
    pub n_pairs: usize,
    /// Mean proportion of positions, after the first, with the same token in both prompts of a pair. In the first layer
    /// a query and a key depend on their own token and position alone, so equal tokens make equal patterns there.
    pub equal_tokens_in_pairs: f64,
    /// The same proportion between first prompts and controls.
    pub equal_tokens_in_controls: f64,
    /// Every head, layer by layer.
    pub heads: Vec<HeadSimilarity>,
}

/// Tests on every head whether the pairs of one kind have more similar patterns of attention tokens than controls.
///
/// **Question.** The original claims that prompts of similar structure or meaning give similar patterns.
///
/// **Statistic.** For each head, the mean over pairs of a [`PatternMeasure`](super::PatternMeasure):
///
/// ```text
/// difference = mean_pairs( similarity(a, b) − mean_controls similarity(a, control) )
/// ```
///
/// **Control.** [`Controls`] take the place of the second prompt; `pairs` of every kind serve as
/// [`Controls::OtherPrompts`]. Under the null hypothesis the second prompt is exchangeable with its controls, which
/// gives permutation p-values. They are corrected for the number of heads by the max-T procedure (Westfall and Young:
/// Resampling-Based Multiple Testing, Wiley, 1993); each exchange is made for all heads at once, so that dependent
/// heads are not corrected for as if they were independent.
///
/// **Limits.** Twelve pairs find only differences that are large against their spread. A difference need not come from
/// structure or meaning: compare `equal_tokens_in_pairs` with `equal_tokens_in_controls`, and test against
/// [`Controls::SharedWords`]. The adjusted Rand index compares cells in place, so a phrase that moves counts as another
/// pattern.
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
/// [`Error::NoPairsOfKind`](crate::Error::NoPairsOfKind); [`Error::Count`](crate::Error::Count) if a pair has no
/// controls, or if `n_controls` or `resamples` is 0; [`Error::Shape`](crate::Error::Shape) if the prompts of a pair
/// differ in length and the measure needs equal ones; otherwise as for [`layer_data`].
pub fn similarity_test(
    model: &Gpt2,
    pairs: &[PromptPair],
    kind: &str,
    options: SimilarityOptions,
) -> Result<SimilarityTest> {
    let mut rng = seeded_rng(options.seed);
    let design = Design::new(model, pairs, kind, options, &mut rng)?;
    let n_pairs = design.n_pairs();
    let cache = design.run(model)?;
    let decode = DecodeOptions::from(options.reading);
    let mut similarities: Vec<([usize; 2], Vec<Vec<f64>>)> = Vec::new(); // [head] [pair] [1 + controls]
    for layer in 0..model.config().n_layers {
        for head in layer_data(model, &cache, layer, decode)? {
            similarities.push(([layer, head.head], design.similarities(&head, options.measure)));
        }
    }
    let rows: Vec<&Vec<Vec<f64>>> = similarities.iter().map(|(_, rows)| rows).collect();
    let significance = permutation_test(&rows, options.resamples, &mut rng);
    let intervals = bootstrap_intervals(&rows, options.resamples, &mut rng);
    let result = |(index, ([layer, head], rows)): (usize, &([usize; 2], Vec<Vec<f64>>))| {
        let of_pairs = rows.iter().map(|row| row[0]).sum::<f64>() / n_pairs as f64;
        let difference = rows.iter().map(|row| difference(row, 0)).sum::<f64>() / n_pairs as f64;
        let Significance { p, p_corrected, smallest: smallest_significant } = significance[index];
        let (of_controls, interval) = (of_pairs - difference, intervals[index]);
        let (layer, head) = (*layer, *head);
        HeadSimilarity {
            layer,
            head,
            of_pairs,
            of_controls,
            difference,
            interval,
            p,
            p_corrected,
            smallest_significant,
        }
    };
    let [equal_tokens_in_pairs, equal_tokens_in_controls] = design.equal_tokens();
    let heads = similarities.iter().enumerate().map(result).collect();
    let kind = kind.into();
    Ok(SimilarityTest { kind, options, n_pairs, equal_tokens_in_pairs, equal_tokens_in_controls, heads })
}

impl SimilarityTest {
    /// The heads by difference, largest first.
    pub fn ranked(&self) -> Vec<HeadSimilarity> {
        let mut heads = self.heads.clone();
        heads.sort_by(|a, b| b.difference.total_cmp(&a.difference));
        heads
    }

    /// The heads with a corrected p-value of at most `level`, by difference, largest first.
    pub fn significant(&self, level: f64) -> Vec<HeadSimilarity> {
        self.ranked().into_iter().filter(|head| head.p_corrected <= level).collect()
    }

    /// The whole test in a table of two columns: significant heads, means over heads, what the test could have found, and
    /// the equal words of pairs and controls.
    pub fn summary(&self) -> Table {
        let n = self.heads.len().max(1) as f64;
        let mean = |value: fn(&HeadSimilarity) -> f64| self.heads.iter().map(value).sum::<f64>() / n;
        let mut needed: Vec<f64> = self.heads.iter().map(|head| head.smallest_significant).collect();
        needed.sort_by(f64::total_cmp);
        let median = needed.get(needed.len() / 2).copied().unwrap_or(f64::NAN);
        let largest = self.ranked().first().copied();
        let largest = largest.map_or(String::new(), |head| {
            let [low, high] = head.interval;
            let [difference, low, high] = [head.difference, low, high].map(|value| decimals(value, 2));
            format!("{difference} ({low} to {high}), head {}.{}", head.layer, head.head)
        });
        let two = |value: f64| decimals(value, 2);
        let rows = [
            (
                format!("heads with a corrected p-value of at most {LEVEL}"),
                format!("{} of {}", self.significant(LEVEL).len(), self.heads.len()),
            ),
            ("similarity of pairs, mean over heads".into(), two(mean(|head| head.of_pairs))),
            ("similarity to controls, mean over heads".into(), two(mean(|head| head.of_controls))),
            ("difference, mean over heads".into(), two(mean(|head| head.difference))),
            ("largest difference, with its 95% interval".into(), largest),
            ("difference that a head needs to be significant, median over heads".into(), two(median)),
            ("equal words in pairs".into(), two(self.equal_tokens_in_pairs)),
            ("equal words in controls".into(), two(self.equal_tokens_in_controls)),
        ];
        let rows = rows.into_iter().map(|(what, value)| vec![what, value]).collect();
        Table::new(self.caption(), &["statistic", "value"], rows)
    }

    /// A table with a row for each head, by difference, largest first.
    pub fn table(&self) -> Table {
        let row = |head: &HeadSimilarity| {
            let name = format!("{}.{}", head.layer, head.head);
            let [low, high] = head.interval;
            let interval = format!("{} to {}", decimals(low, 3), decimals(high, 3));
            let numbers = [head.of_pairs, head.of_controls, head.difference].map(|value| decimals(value, 3));
            let p = [head.p, head.p_corrected].map(|p| format!("{p:.4}"));
            let needed = format!("{:.3}", head.smallest_significant);
            [name].into_iter().chain(numbers).chain([interval]).chain(p).chain([needed]).collect()
        };
        let header = ["head", "pairs", "controls", "difference", "95% interval", "p", "p corrected", "needed"];
        Table::new(self.caption(), &header, self.ranked().iter().map(row).collect())
    }

    /// The difference and its interval for each head, by rank. A star marks a corrected p-value of at most 0.05. An
    /// interval can exclude 0 without a star: it is that of one head, and is not corrected for the number of heads.
    pub fn plot(&self) -> Figure {
        let ranked = self.ranked();
        let n_layers = self.heads.last().map_or(0, |head| head.layer + 1);
        let series = |layer: usize| {
            let own: Vec<(usize, &HeadSimilarity)> =
                ranked.iter().enumerate().filter(|(_, head)| head.layer == layer).collect();
            let text = |(_, head): &(usize, &HeadSimilarity)| {
                let [low, high] = head.interval;
                let numbers = [head.of_pairs, head.of_controls, head.difference, low, high];
                let [pairs, controls, difference, low, high] = numbers.map(|value| decimals(value, 3));
                format!(
                    "head {}.{}\npairs {pairs}, controls {controls}\ndifference {difference} ({low} to {high})\np {:.4}, corrected {:.4}",
                    head.layer, head.head, head.p, head.p_corrected
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
        let (measure, reading) = (self.options.measure.name(), self.options.reading);
        format!(
            "{} of {} pairs alike in {} against {controls}, projection {reading}",
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
