//! Do heads contract a prompt, follow it, or expand it?
//!
//! A head *contracts* a prompt if it says fewer words about it than the prompt has, and *expands* it if it says more. Two
//! measures, both relative to the prompt's own distinct tokens:
//!
//! ```text
//! distinct ratio = distinct attention tokens of all cells / distinct input tokens
//! runs ratio     = Σ_rows runs of equal tokens in the row / Σ_rows distinct input tokens up to the row's query
//! ```
//!
//! A run is as many neighbouring keys of one row as have the same attention token. A head that says the same word about
//! everything has one run in each row, one that follows the prompt word by word has as many as keys.

use std::collections::HashSet;

use ndarray::Array2;

use super::layers_and_heads;
use crate::attention_tokens::{HeadData, PromptHeadData};
use crate::error::{Result, check_count};
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, MatrixChart, Series};

/// How many words a head uses about a prompt, and how many it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contraction {
    /// The prompt's positions, the beginning-of-sequence token included.
    pub n_pos: usize,
    /// Distinct tokens of the prompt.
    pub distinct_inputs: usize,
    /// Distinct attention tokens of all cells with key ≤ query.
    pub distinct: usize,
    /// Runs of equal attention tokens along the keys, of all rows together.
    pub runs: usize,
    /// Distinct tokens of the prompt up to each query, of all rows together.
    pub distinct_inputs_of_rows: usize,
}

impl Contraction {
    /// Distinct attention tokens to distinct input tokens: below 1, the head contracts the prompt; above, it expands it.
    pub fn distinct_ratio(&self) -> f64 {
        self.distinct as f64 / self.distinct_inputs as f64
    }

    /// Runs of equal attention tokens in a row to distinct input tokens up to its query, over all rows: near 1, the head changes
    /// its word from key to key, as a text does.
    pub fn runs_ratio(&self) -> f64 {
        self.runs as f64 / self.distinct_inputs_of_rows as f64
    }
}

/// What a head does with each beginning of a prompt, from one position to all: the last is that of the whole prompt.
///
/// A beginning needs no run of its own: attention is causal, so the rows of a prompt's first queries are the data of its
/// beginning. Shape: → `[pos]`.
///
/// ```
/// use attention_tokens::{experiments::contraction, notebook::*, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, "The next sentence is false. The previous sentence is true.")?;
/// let data = calculate_attns(&run, 0, 1)?.prompt(0)?;
/// let whole = contraction(&data).pop().unwrap();
/// assert_eq!((whole.distinct, whole.distinct_inputs), (10, 10)); // of 13 positions: "sentence", "is" and "." come twice
/// # Ok::<(), Error>(())
/// ```
pub fn contraction(data: &PromptHeadData) -> Vec<Contraction> {
    of_rows(&data.input, (0..data.n_pos()).map(|query| data.tokens_of_query(query)))
}

/// As for [`contraction`], of rows of tokens.
fn of_rows(input: &[u32], rows: impl Iterator<Item = Vec<u32>>) -> Vec<Contraction> {
    let (mut inputs, mut said) = (HashSet::new(), HashSet::new());
    let (mut runs, mut distinct_inputs_of_rows) = (0, 0);
    let upto = |(query, (&token, row)): (usize, (&u32, Vec<u32>))| {
        inputs.insert(token);
        runs += row.chunk_by(|a, b| a == b).count();
        said.extend(row);
        distinct_inputs_of_rows += inputs.len();
        let (distinct_inputs, distinct) = (inputs.len(), said.len());
        Contraction { n_pos: query + 1, distinct_inputs, distinct, runs, distinct_inputs_of_rows }
    };
    input.iter().zip(rows).enumerate().map(upto).collect()
}

/// How much every head of a model contracts or expands, as the mean over prompts.
#[derive(Clone, Debug)]
pub struct ContractionByHead {
    /// Mean of [`Contraction::distinct_ratio`]. Shape: `[n_layers, n_heads]`.
    pub distinct_ratio: Array2<f32>,
    /// Mean of [`Contraction::runs_ratio`]. Shape: `[n_layers, n_heads]`.
    pub runs_ratio: Array2<f32>,
    /// Mean distinct ratio of the prompts' beginnings, of as many positions as there are in the longest. Of those lengths that not
    /// all prompts have, the prompts that have it count. Shape: `[n_layers n_heads] [pos]`.
    by_length: Vec<Vec<f64>>,
    prompts: usize,
}

impl ContractionByHead {
    /// Of all heads of a model, as [`all_heads_data`](crate::all_heads_data) gives them.
    ///
    /// # Errors
    /// [`Error::NotEveryHead`](crate::Error::NotEveryHead) if the heads are not those of a whole model in their order,
    /// [`Error::Count`](crate::Error::Count) if there is no prompt.
    pub fn new(heads: &[HeadData]) -> Result<Self> {
        let (n_layers, n_heads) = layers_and_heads(heads, "ContractionByHead")?;
        let prompts = heads[0].n_prompts();
        check_count("ContractionByHead", "prompts", prompts, 1, None)?;
        let (mut distinct_ratio, mut runs_ratio) = (Vec::new(), Vec::new());
        let mut by_length = Vec::with_capacity(heads.len());
        for head in heads {
            let of_prompts: Vec<Vec<Contraction>> = head.prompts().iter().map(contraction).collect();
            let mean = |of: fn(&Contraction) -> f64| {
                of_prompts.iter().filter_map(|beginnings| beginnings.last()).map(of).sum::<f64>() / prompts as f64
            };
            distinct_ratio.push(mean(Contraction::distinct_ratio) as f32);
            runs_ratio.push(mean(Contraction::runs_ratio) as f32);
            let longest = of_prompts.iter().map(Vec::len).max().unwrap_or(0);
            let at_length = |index: usize| {
                let ratios: Vec<f64> =
                    of_prompts.iter().filter_map(|of| of.get(index)).map(Contraction::distinct_ratio).collect();
                ratios.iter().sum::<f64>() / ratios.len() as f64
            };
            by_length.push((0..longest).map(at_length).collect());
        }
        let matrix = |values| Array2::from_shape_vec((n_layers, n_heads), values).expect("a value for each head");
        Ok(Self { distinct_ratio: matrix(distinct_ratio), runs_ratio: matrix(runs_ratio), by_length, prompts })
    }

    /// The head with the lowest distinct ratio, as (layer, head); the first of equals.
    pub fn most_contracting(&self) -> (usize, usize) {
        self.extreme(|ratio, best| ratio < best)
    }

    /// The head with the highest distinct ratio, as (layer, head); the first of equals.
    pub fn most_expanding(&self) -> (usize, usize) {
        self.extreme(|ratio, best| ratio > best)
    }

    fn extreme(&self, better: impl Fn(f32, f32) -> bool) -> (usize, usize) {
        let heads = self.distinct_ratio.indexed_iter();
        let best = heads.reduce(|best, head| if better(*head.1, *best.1) { head } else { best });
        best.expect("a model has heads").0
    }

    /// The distinct ratio of every head as a heat map.
    pub fn plot_distinct_ratio(&self) -> Figure {
        self.plot(&self.distinct_ratio, "Distinct attention tokens to distinct input tokens")
    }

    /// The runs ratio of every head as a heat map.
    pub fn plot_runs_ratio(&self) -> Figure {
        self.plot(&self.runs_ratio, "Runs of equal attention tokens to distinct input tokens")
    }

    fn plot(&self, ratio: &Array2<f32>, title: &str) -> Figure {
        let high = ratio.iter().fold(0.0_f32, |high, &ratio| high.max(ratio));
        MatrixChart::of_heads(self.titled(title), ratio.clone(), ("ratio".into(), [0.0, high])).figure()
    }

    /// The distinct ratio over the length of the prompt, a line for each head.
    pub fn plot_by_length(&self) -> Figure {
        let (n_layers, n_heads) = self.distinct_ratio.dim();
        let line = |(index, ratios): (usize, &Vec<f64>)| {
            let (layer, head) = (index / n_heads, index % n_heads);
            let points = ratios.iter().enumerate().map(|(index, &ratio)| [(index + 1) as f64, ratio]).collect();
            let name = if head == 0 { format!("layer {layer}") } else { String::new() };
            let texts =
                |(index, ratio): (usize, &f64)| format!("head {layer}.{head}\n{} positions: {ratio:.3}", index + 1);
            Series {
                texts: ratios.iter().enumerate().map(texts).collect(),
                symbol: layer,
                ..Series::new(name, Form::Line, Color::of_layer(layer, n_layers), points)
            }
        };
        Chart {
            title: self.titled("Contraction and the length of the prompt"),
            x: ChartAxis::linear("positions"),
            y: ChartAxis::linear("distinct attention tokens / distinct input tokens"),
            series: self.by_length.iter().enumerate().map(line).collect(),
        }
        .figure()
    }

    fn titled(&self, title: &str) -> String {
        match self.prompts {
            1 => format!("{title}, 1 prompt"),
            prompts => format!("{title}, mean of {prompts} prompts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_repeats_itself_contracts_and_one_that_never_does_expands() {
        let input = [9, 1, 2, 1];
        let rows = |token: fn(usize, usize) -> u32| {
            (0..4).map(move |query| (0..=query).map(|key| token(query, key)).collect::<Vec<u32>>())
        };
        let last = |token| *of_rows(&input, rows(token)).last().unwrap();
        let constant = last(|_, _| 7);
        assert_eq!((constant.distinct, constant.distinct_inputs, constant.runs), (1, 3, 4));
        assert_eq!((constant.distinct_ratio(), constant.runs_ratio()), (1.0 / 3.0, 4.0 / 9.0)); // rows have 1, 2, 3, 3 inputs
        let new_every_time = last(|query, key| (10 * query + key) as u32);
        assert_eq!((new_every_time.distinct, new_every_time.runs), (10, 10));
        // What the key says: EOS, "1", "2", "1" again.
        let follows = last(|_, key| [9, 1, 2, 1][key]);
        assert_eq!((follows.distinct_ratio(), follows.runs), (1.0, 10));
        // Two chunks in every row that has them.
        let chunks = last(|_, key| (key / 2) as u32);
        assert_eq!((chunks.distinct, chunks.runs), (2, 1 + 1 + 2 + 2));
    }

    #[test]
    fn beginnings_are_what_a_shorter_prompt_has() {
        let rows = || (0..5_u32).map(|query| (0..=query).map(|key| key % 2 + query / 3).collect::<Vec<u32>>());
        let input = [5, 6, 5, 7, 7];
        let all = of_rows(&input, rows());
        for len in 1..=5 {
            assert_eq!(of_rows(&input[..len], rows().take(len)).last(), all.get(len - 1));
        }
    }
}
