//! Contraction: how many distinct attention tokens a head has for a prompt, relative to the prompt's own tokens.

use std::collections::HashSet;

use ndarray::Array2;

use super::layers_and_heads;
use crate::attention_tokens::{HeadData, OfOnePrompt};
use crate::error::{Result, check_count};
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, MatrixPlot, Series};

/// The counts behind the two contraction ratios of one head on one prompt.
///
/// **Question.** The original claims that some heads contract a prompt to a few chunks, some follow it token by token,
/// and some expand it.
///
/// **Statistics.** Both are relative to the prompt's own distinct tokens, and both are below 1 for a head that
/// contracts:
///
/// ```text
/// distinct ratio = distinct attention tokens of all cells / distinct input tokens
/// runs ratio     = Σ_rows runs of equal tokens in the row / Σ_rows distinct input tokens up to the row's query
/// ```
///
/// A run is a maximal sequence of neighbouring keys of one row with the same attention token. A head with one token for
/// everything has one run in each row; a head whose token changes from key to key has a run for each key.
///
/// **Control.** The same heads on [`random_tokens_like`](super::random_tokens_like) each prompt, which have its length and
/// its repetitions, and nothing in them to contract. Compare heads at one prompt length only: *n* tokens have *n* (*n* + 1) / 2 cells, so the distinct ratio of a head
/// that never repeats a token grows as (*n* + 1) / 2.
///
/// **Limits.** A head with few tokens need not summarize: the direction of its `q ⊙ k` may hardly depend on the
/// prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contraction {
    /// Positions of the prompt, including the beginning-of-sequence token.
    pub n_pos: usize,
    /// Distinct tokens of the prompt.
    pub distinct_inputs: usize,
    /// Distinct attention tokens of all cells with key ≤ query.
    pub distinct: usize,
    /// Runs of equal attention tokens along the keys, summed over rows.
    pub runs: usize,
    /// Distinct tokens of the prompt up to each query, summed over rows.
    pub distinct_inputs_of_rows: usize,
}

impl Contraction {
    /// Distinct attention tokens / distinct input tokens: below 1 the head contracts the prompt, above 1 it expands it.
    pub fn distinct_ratio(&self) -> f64 {
        self.distinct as f64 / self.distinct_inputs as f64
    }

    /// Runs of equal attention tokens / distinct input tokens up to the query, both summed over rows: near 1 the
    /// attention token changes from key to key, as the tokens of a text do.
    pub fn runs_ratio(&self) -> f64 {
        self.runs as f64 / self.distinct_inputs_of_rows as f64
    }
}

/// The [`Contraction`] of every prefix of a prompt, from one position to all of them; the last entry is the whole
/// prompt.
///
/// Shape: `[pos]` positions → `[pos]`. No prefix needs a run of its own: attention is causal, so the rows of the first
/// queries are the data of the prefix.
///
/// ```
/// use attention_tokens::{experiments::contraction, notebook::*, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, "The next sentence is false. The previous sentence is true.")?;
/// let data = calculate_attns(&run, 0, 1)?.prompt(0)?;
/// let whole = contraction(&data).pop().unwrap();
/// assert_eq!((whole.distinct, whole.distinct_inputs), (10, 10)); // 13 positions, 3 tokens come twice
/// # Ok::<(), Error>(())
/// ```
pub fn contraction(data: &impl OfOnePrompt) -> Vec<Contraction> {
    let data = data.of_one_prompt();
    contraction_of_prefixes(&data.input, (0..data.n_pos()).map(|query| data.tokens_of_query(query)))
}

/// [`contraction`] from the input tokens and the attention tokens of each query. Shape: `[pos]`, `[pos] [query + 1]` →
/// `[pos]`.
fn contraction_of_prefixes(input: &[u32], rows: impl Iterator<Item = Vec<u32>>) -> Vec<Contraction> {
    let (mut inputs, mut attention_tokens) = (HashSet::new(), HashSet::new());
    let (mut runs, mut distinct_inputs_of_rows) = (0, 0);
    let prefix = |(query, (&token, row)): (usize, (&u32, Vec<u32>))| {
        inputs.insert(token);
        runs += row.chunk_by(|a, b| a == b).count();
        attention_tokens.extend(row);
        distinct_inputs_of_rows += inputs.len();
        let (distinct_inputs, distinct) = (inputs.len(), attention_tokens.len());
        Contraction { n_pos: query + 1, distinct_inputs, distinct, runs, distinct_inputs_of_rows }
    };
    input.iter().zip(rows).enumerate().map(prefix).collect()
}

/// The contraction ratios of every head of a model, as means over prompts. [`Contraction`] defines them.
#[derive(Clone, Debug)]
pub struct ContractionByHead {
    /// Mean of [`Contraction::distinct_ratio`]. Shape: `[n_layers, n_heads]`.
    pub distinct_ratio: Array2<f32>,
    /// Mean of [`Contraction::runs_ratio`]. Shape: `[n_layers, n_heads]`.
    pub runs_ratio: Array2<f32>,
    /// Mean distinct ratio by length of the prefix, up to the length of the shortest prompt: beyond it, the mean would be
    /// over other prompts. Shape: `[n_layers n_heads] [shortest pos]`.
    by_length: Vec<Vec<f64>>,
    n_prompts: usize,
}

impl ContractionByHead {
    /// From the data of every head of a model, as [`all_heads_data`](crate::all_heads_data) returns it.
    ///
    /// Shape: `[n_layers n_heads]` heads → ratios `[n_layers, n_heads]`.
    ///
    /// # Errors
    /// [`Error::NotEveryHead`](crate::Error::NotEveryHead) if the heads are not those of a whole model in their order,
    /// [`Error::Count`](crate::Error::Count) if there is no prompt.
    pub fn new(heads: &[HeadData]) -> Result<Self> {
        let (n_layers, n_heads) = layers_and_heads(heads, "ContractionByHead")?;
        let n_prompts = heads[0].n_prompts();
        check_count("ContractionByHead", "prompts", n_prompts, 1, None)?;
        let (mut distinct_ratio, mut runs_ratio) = (Vec::new(), Vec::new());
        let mut by_length = Vec::with_capacity(heads.len());
        for head in heads {
            let prefixes: Vec<Vec<Contraction>> = head.prompts().iter().map(contraction).collect(); // [prompt] [pos]
            let mean = |ratio: fn(&Contraction) -> f64| {
                prefixes.iter().filter_map(|of_prompt| of_prompt.last()).map(ratio).sum::<f64>() / n_prompts as f64
            };
            distinct_ratio.push(mean(Contraction::distinct_ratio) as f32);
            runs_ratio.push(mean(Contraction::runs_ratio) as f32);
            let shortest = prefixes.iter().map(Vec::len).min().unwrap_or(0);
            let at_length = |index: usize| {
                let ratios = prefixes.iter().map(|of_prompt| of_prompt[index].distinct_ratio());
                ratios.sum::<f64>() / n_prompts as f64
            };
            by_length.push((0..shortest).map(at_length).collect());
        }
        let matrix = |values| Array2::from_shape_vec((n_layers, n_heads), values).expect("a value for each head");
        Ok(Self { distinct_ratio: matrix(distinct_ratio), runs_ratio: matrix(runs_ratio), by_length, n_prompts })
    }

    /// The head with the lowest distinct ratio, as (layer, head). A tie goes to the first head.
    pub fn most_contracting(&self) -> (usize, usize) {
        self.extreme(|ratio, best| ratio < best)
    }

    /// The head with the highest distinct ratio, as (layer, head). A tie goes to the first head.
    pub fn most_expanding(&self) -> (usize, usize) {
        self.extreme(|ratio, best| ratio > best)
    }

    /// The first head whose distinct ratio no other head beats by `better`, a strict comparison.
    fn extreme(&self, better: impl Fn(f32, f32) -> bool) -> (usize, usize) {
        let heads = self.distinct_ratio.indexed_iter();
        let best = heads.reduce(|best, head| if better(*head.1, *best.1) { head } else { best });
        best.expect("a model has heads").0
    }

    /// The distinct ratio of every head as a heat map: blue heads contract (below 1), red ones expand.
    pub fn plot_distinct_ratio(&self) -> Figure {
        self.plot(&self.distinct_ratio, "Distinct attention tokens to distinct input tokens")
    }

    /// The runs ratio of every head as a heat map.
    pub fn plot_runs_ratio(&self) -> Figure {
        self.plot(&self.runs_ratio, "Runs of equal attention tokens to distinct input tokens")
    }

    /// A ratio of every head as a heat map. Its colours are on a logarithmic scale around 1, so that half and twice are
    /// as far from it. Shape: `[n_layers, n_heads]`.
    fn plot(&self, ratio: &Array2<f32>, title: &str) -> Figure {
        let log = ratio.mapv(f32::log2);
        let most = log.iter().filter(|x| x.is_finite()).fold(0.1_f32, |most, x| most.max(x.abs()));
        let text = |((layer, head), ratio): ((usize, usize), &f32)| format!("{ratio:.3}\nhead {layer}.{head}");
        let plot = MatrixPlot::new(log).title(self.titled(title)).y_label("layer").x_label("head");
        let plot = plot.color_label("log2(ratio)").diverging(0.0).between([-most, most]);
        let plot = plot.in_cells(ratio.iter().map(|ratio| format!("{ratio:.2}")).collect());
        plot.under_the_pointer(ratio.indexed_iter().map(text).collect()).figure()
    }

    /// The distinct ratio of the first positions of each prompt by their number, a line for each head, up to the length
    /// of the shortest prompt.
    pub fn plot_by_length(&self) -> Figure {
        let (n_layers, n_heads) = self.distinct_ratio.dim();
        let line = |(index, ratios): (usize, &Vec<f64>)| {
            let (layer, head) = (index / n_heads, index % n_heads);
            let points = ratios.iter().enumerate().map(|(index, &ratio)| [(index + 1) as f64, ratio]).collect();
            let name = if head == 0 { format!("layer {layer}") } else { String::new() };
            let texts =
                |(index, ratio): (usize, &f64)| format!("{ratio:.3}\nhead {layer}.{head}, {} positions", index + 1);
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

    /// A figure's title with the number of prompts.
    fn titled(&self, title: &str) -> String {
        match self.n_prompts {
            1 => format!("{title}, 1 prompt"),
            n_prompts => format!("{title}, mean of {n_prompts} prompts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_token_contracts_and_distinct_tokens_expand() {
        let input = [9, 1, 2, 1];
        let rows = |token: fn(usize, usize) -> u32| {
            (0..4).map(move |query| (0..=query).map(|key| token(query, key)).collect::<Vec<u32>>())
        };
        let last = |token| *contraction_of_prefixes(&input, rows(token)).last().unwrap();
        let constant = last(|_, _| 7);
        assert_eq!((constant.distinct, constant.distinct_inputs, constant.runs), (1, 3, 4));
        // Distinct inputs of the rows: 1 + 2 + 3 + 3.
        assert_eq!((constant.distinct_ratio(), constant.runs_ratio()), (1.0 / 3.0, 4.0 / 9.0));
        let new_every_time = last(|query, key| (10 * query + key) as u32);
        assert_eq!((new_every_time.distinct, new_every_time.runs), (10, 10));
        // The key's own token: EOS, "1", "2", "1" again.
        let follows = last(|_, key| [9, 1, 2, 1][key]);
        assert_eq!((follows.distinct_ratio(), follows.runs), (1.0, 10));
        // Two chunks in each row with more than two keys.
        let chunks = last(|_, key| (key / 2) as u32);
        assert_eq!((chunks.distinct, chunks.runs), (2, 1 + 1 + 2 + 2));
    }

    #[test]
    fn prefixes_have_the_counts_of_a_shorter_prompt() {
        let rows = || (0..5_u32).map(|query| (0..=query).map(|key| key % 2 + query / 3).collect::<Vec<u32>>());
        let input = [5, 6, 5, 7, 7];
        let all = contraction_of_prefixes(&input, rows());
        for len in 1..=5 {
            assert_eq!(contraction_of_prefixes(&input[..len], rows().take(len)).last(), all.get(len - 1));
        }
    }
}
