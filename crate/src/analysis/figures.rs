//! Figures of a run: the logit lens, and the logits that components and heads write.

use ndarray::{Array1, Array2, Axis, concatenate, s};

use super::logit_lens::{LensScale, LogitLens};
use super::residual_stream::ResidualStack;
use crate::attention_tokens::PromptHeadData;
use crate::error::{Result, check_index, check_position, check_setting};
use crate::model::{ActivationCache, Gpt2};
use crate::plot::{ChartAxis, Figure, MatrixChart, decimals};
use crate::tokenizer::TokenLabels;

/// Maximum number of components in a figure; of more, those with the largest logits are drawn.
const MAX_COMPONENTS: usize = 40;

/// The number that colours the cells of [`LogitLens::plot`]. An answer is its index in
/// [`LogitLens::answers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LensColor {
    /// The probability of the most likely token.
    TopProbability,
    /// The probability of an answer.
    Probability(usize),
    /// The logit of an answer.
    Logit(usize),
    /// The rank of an answer, on a logarithmic scale: `log10(rank + 1)`, so 0 is the most likely token.
    Rank(usize),
}

impl LogitLens {
    /// The lens as a heat map with a row for each place in the model, the last layer on top, and a column for each
    /// position. Each cell shows the most likely token; hover texts show it with its probability, and logit, probability
    /// and rank of each answer.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("When Mary and John went to the store, John gave a drink to")?;
    /// let lens = cache.logit_lens(&model, &[model.to_single_token(" Mary")?])?;
    /// let figure = lens.plot(&model, LensColor::Rank(0))?;
    /// assert!(figure.describe().contains("rank of ␣Mary"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for an answer that the lens does not have.
    pub fn plot(&self, model: &Gpt2, color: LensColor) -> Result<Figure> {
        let labels = model.token_labels();
        let answer = |index: usize| -> Result<(usize, String)> {
            check_index("answer", index, "the lens", self.answers.len())?;
            Ok((index, labels.label(self.answers[index])))
        };
        let of_answer = |values: &ndarray::Array3<f32>, index: usize| values.index_axis(Axis(2), index).to_owned();
        let (values, name, bar, ends) = match color {
            LensColor::TopProbability => {
                (self.top_probabilities.clone(), "probability".into(), "probability", Some([0.0, 1.0]))
            }
            LensColor::Probability(index) => {
                let (index, text) = answer(index)?;
                (
                    of_answer(&self.probabilities, index),
                    format!("probability of {text}"),
                    "probability",
                    Some([0.0, 1.0]),
                )
            }
            LensColor::Logit(index) => {
                let (index, text) = answer(index)?;
                (of_answer(&self.logits, index), format!("logit of {text}"), "logit", None)
            }
            LensColor::Rank(index) => {
                let (index, text) = answer(index)?;
                let ranks = self.ranks.index_axis(Axis(2), index);
                let d_vocab = model.config().d_vocab as f32;
                let values = ranks.mapv(|rank| (rank as f32 + 1.0).log10());
                (values, format!("log10(1 + rank of {text})"), "log10(1 + rank)", Some([0.0, d_vocab.log10()]))
            }
        };
        let (components, pos) = values.dim();
        let from_top = || (0..components).rev();
        let cells = || from_top().flat_map(|component| (0..pos).map(move |pos| (component, pos)));
        let hover = |(component, pos): (usize, usize)| {
            let mut text = format!(
                "most likely: {} {:.3}\n{}, position {pos} {}",
                labels.label(self.tokens[[component, pos]]),
                self.top_probabilities[[component, pos]],
                self.labels[component],
                labels.label(self.input[pos])
            );
            for (answer, &token) in self.answers.iter().enumerate() {
                let at = [component, pos, answer];
                text.push_str(&format!(
                    "\n{}: logit {}, probability {:.3}, rank {}",
                    labels.label(token),
                    decimals(self.logits[at], 3),
                    self.probabilities[at],
                    self.ranks[at]
                ));
            }
            text
        };
        let chart = MatrixChart {
            title: match self.scale {
                LensScale::Own => format!("Logit lens: the most likely next token; colour: {name}"),
                scale => format!("Logit lens, {}: the most likely next token; colour: {name}", scale.name()),
            },
            rows: ChartAxis::names("residual stream", from_top().map(|component| self.labels[component].clone())),
            columns: position_axis(&labels, self.input.iter().copied().enumerate()),
            labels: cells().map(|at| labels.label(self.tokens[[at.0, at.1]])).collect(),
            texts: cells().map(hover).collect(),
            scale: (bar.into(), ends.unwrap_or_else(|| range(&values))),
            values: values.slice(s![..;-1, ..]).to_owned(),
        };
        Ok(chart.figure())
    }
}

/// Figures of direct logit attribution in a run of one prompt. With `incorrect_token`, the logit is the difference to
/// that token's.
impl ActivationCache {
    /// The logit that each component of a stack writes at each position, [`logit_attrs`](Self::logit_attrs), as a heat map
    /// of components and positions; red raises the logit, blue lowers it. The title has a bound of the difference between
    /// the sum of all components with the bias and the logit of the model
    /// ([`logit_attrs_deviation`](Self::logit_attrs_deviation)). Of more than 40 components those with the largest
    /// logits are drawn.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("When Mary and John went to the store, John gave a drink to")?;
    /// let (mary, john) = (model.to_single_token(" Mary")?, model.to_single_token(" John")?);
    /// cache.plot_logit_attrs(&model, &cache.decompose_resid(&model, None)?, mary, Some(john))?
    /// # ;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`logit_attrs`](Self::logit_attrs).
    pub fn plot_logit_attrs(
        &self,
        model: &Gpt2,
        stack: &ResidualStack,
        token: u32,
        incorrect_token: Option<u32>,
    ) -> Result<Figure> {
        let attrs = self.logit_attrs(model, stack, token, incorrect_token)?; // [component, pos]
        let deviation = self.deviation(model, stack, &attrs, token, incorrect_token)?;
        let (labels, n) = (model.token_labels(), attrs.nrows());
        let largest = |component: usize| attrs.row(component).fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let mut shown: Vec<usize> = (0..n).collect();
        if n > MAX_COMPONENTS {
            let sizes: Vec<f32> = (0..n).map(largest).collect();
            shown.sort_by(|&a, &b| sizes[b].total_cmp(&sizes[a]));
            shown.truncate(MAX_COMPONENTS);
            shown.sort_unstable();
        }
        let part = if n > MAX_COMPONENTS { format!(", the {MAX_COMPONENTS} largest of {n}") } else { String::new() };
        let tokens = self.one_prompt()?;
        let columns: Vec<(usize, u32)> = stack.positions.iter().map(|&pos| (pos, tokens[pos])).collect();
        let values = attrs.select(Axis(0), &shown);
        let name = |&component: &usize| stack.labels[component].clone();
        let text = |((row, column), value): ((usize, usize), &f32)| {
            let (pos, token) = columns[column];
            format!("{}\n{}, position {pos} {}", decimals(*value, 4), stack.labels[shown[row]], labels.label(token))
        };
        let chart = MatrixChart {
            title: format!(
                "{} by component{part}; sum with the bias within {} of the model's",
                logit_name(&labels, token, incorrect_token),
                bound_of(deviation)
            ),
            rows: ChartAxis::names("component", shown.iter().map(name)),
            columns: position_axis(&labels, columns.iter().map(|&(pos, token)| (pos, token))),
            labels: Vec::new(),
            texts: values.indexed_iter().map(text).collect(),
            scale: ("logit".into(), symmetric_range(&values)),
            values,
        };
        Ok(chart.diverging_figure())
    }

    /// The largest difference, over the positions of a stack, between the sum of what its components write with the bias
    /// of the unembedding, and the logit that the model computes. It is a rounding error if the components of the stack
    /// add up to the residual stream, as those of [`decompose_resid`](Self::decompose_resid) and
    /// [`get_full_resid_decomposition`](Self::get_full_resid_decomposition) do.
    ///
    /// # Errors
    /// As for [`logit_attrs`](Self::logit_attrs).
    pub fn logit_attrs_deviation(
        &self,
        model: &Gpt2,
        stack: &ResidualStack,
        token: u32,
        incorrect_token: Option<u32>,
    ) -> Result<f32> {
        let attrs = self.logit_attrs(model, stack, token, incorrect_token)?;
        self.deviation(model, stack, &attrs, token, incorrect_token)
    }

    /// Shape: `attrs [component, pos]`.
    fn deviation(
        &self,
        model: &Gpt2,
        stack: &ResidualStack,
        attrs: &Array2<f32>,
        token: u32,
        incorrect_token: Option<u32>,
    ) -> Result<f32> {
        let resid = self.resid_before(self.n_layers())?.select(Axis(0), &stack.positions);
        // The layer norm of zeros is its bias, so the last row has the constant part of each logit.
        let rows = concatenate(Axis(0), &[resid.view(), Array2::zeros((1, resid.ncols())).view()]);
        let logits = model.on_device().unembed(rows.expect("rows of d_model columns"))?; // [pos + 1, d_vocab]
        let of_token = |token: u32| logits.column(token as usize).to_owned();
        let logits: Array1<f32> = match incorrect_token {
            Some(incorrect) => of_token(token) - of_token(incorrect),
            None => of_token(token),
        };
        let constant = logits[logits.len() - 1];
        let sums = attrs.sum_axis(Axis(0)) + constant;
        Ok(sums.iter().zip(&logits).fold(0.0, |largest, (sum, logit)| f32::max(largest, (sum - logit).abs())))
    }

    /// The logit that each head writes at a position, [`head_logit_attrs`](Self::head_logit_attrs), as a heat map of
    /// layers and heads; red raises the logit, blue lowers it. −1 is the last position.
    ///
    /// # Errors
    /// As for [`head_logit_attrs`](Self::head_logit_attrs), and [`Error::Position`](crate::Error::Position).
    pub fn plot_head_logit_attrs(
        &self,
        model: &Gpt2,
        token: u32,
        incorrect_token: Option<u32>,
        position: isize,
    ) -> Result<Figure> {
        let tokens = self.one_prompt()?;
        let pos = check_position(position, 0, tokens.len())?;
        let attrs = self.head_logit_attrs(model, token, incorrect_token)?; // [layer, head, pos]
        let (values, labels) = (attrs.index_axis(Axis(2), pos).to_owned(), model.token_labels());
        let logit = logit_name(&labels, token, incorrect_token);
        let title = format!("{logit} by head, at position {pos} {}", labels.label(tokens[pos]));
        let scale = ("logit".into(), symmetric_range(&values));
        Ok(MatrixChart::of_heads(title, values, scale).diverging_figure())
    }

    /// What each pair of a head says beside what it writes: a triangle of queries and keys, where a cell is labelled with
    /// the pair's attention token and coloured by the logit that the pair writes,
    /// [`cell_logit_attrs`](Self::cell_logit_attrs); red raises the logit, blue lowers it. `data` is the head's, from
    /// [`head_data`](crate::head_data) on this cache; a run of one prompt.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("When Mary and John went to the store, John gave a drink to")?;
    /// let (mary, john) = (model.to_single_token(" Mary")?, model.to_single_token(" John")?);
    /// let said = head_data(&model, &cache, 3, 5, DecodeOptions::default())?.prompt(0)?;
    /// let figure = cache.plot_cell_logit_attrs(&model, &said, mary, Some(john))?;
    /// assert!(figure.describe().contains("Head 3.5"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`cell_logit_attrs`](Self::cell_logit_attrs), and [`Error::Setting`](crate::Error::Setting) for the data of
    /// another prompt.
    pub fn plot_cell_logit_attrs(
        &self,
        model: &Gpt2,
        data: &PromptHeadData,
        token: u32,
        incorrect_token: Option<u32>,
    ) -> Result<Figure> {
        let tokens = self.one_prompt()?;
        check_setting(
            "plot_cell_logit_attrs",
            "data",
            data.input == tokens,
            "the head's data on the prompt of the cache",
            "data of another prompt",
        )?;
        let mut values = self.cell_logit_attrs(model, data.layer, data.head, token, incorrect_token)?;
        values.indexed_iter_mut().filter(|((query, key), _)| key > query).for_each(|(_, value)| *value = f32::NAN);
        let (said, labels) = (data.attention_tokens(), model.token_labels());
        let label = |at: (usize, usize)| said[at].map_or_else(String::new, |token| labels.label(token));
        let text = |((query, key), value): ((usize, usize), &f32)| {
            if value.is_nan() {
                return String::new();
            }
            format!(
                "writes {}\nsays {}\nquery {query} {}, key {key} {}\nattention {:.4}",
                decimals(*value, 4),
                said[[query, key]].map_or_else(String::new, |token| labels.label(token)),
                labels.label(tokens[query]),
                labels.label(tokens[key]),
                data.attn[[query, key]]
            )
        };
        let positions = |title: &str| {
            let names = tokens.iter().enumerate().map(|(pos, &token)| format!("{pos} {}", labels.label(token)));
            ChartAxis::names(title, names)
        };
        let chart = MatrixChart {
            title: format!(
                "Head {}.{}: labels are said (through {}), colours are written ({})",
                data.layer,
                data.head,
                data.reading.in_words(),
                logit_name(&labels, token, incorrect_token)
            ),
            rows: positions("query"),
            columns: positions("key"),
            labels: values.indexed_iter().map(|(at, _)| label(at)).collect(),
            texts: values.indexed_iter().map(text).collect(),
            scale: ("logit".into(), symmetric_range(&values)),
            values,
        };
        Ok(chart.diverging_figure())
    }
}

/// The first of 5e-5, 5e-4, … that a deviation does not exceed. A rounding error differs from one processor to another, and
/// such a bound hardly ever does. There is none below 5e-5, ten times the rounding error of a logit of some tens.
pub(crate) fn bound_of(deviation: f32) -> String {
    if !deviation.is_finite() {
        return deviation.to_string();
    }
    let exponent = (f64::from(deviation.max(5e-5)) / 5.0).log10().ceil() as i32;
    format!("5e{exponent}")
}

/// `Logit of ␣Mary minus ␣John`.
fn logit_name(labels: &TokenLabels, token: u32, incorrect_token: Option<u32>) -> String {
    let minus = incorrect_token.map_or_else(String::new, |token| format!(" minus {}", labels.label(token)));
    format!("Logit of {}{minus}", labels.label(token))
}

/// Positions with their tokens.
fn position_axis(labels: &TokenLabels, tokens: impl Iterator<Item = (usize, u32)>) -> ChartAxis {
    ChartAxis::names("position", tokens.map(|(pos, token)| format!("{pos} {}", labels.label(token))))
}

/// The lowest and the highest value; 0 and 1 if there is none.
fn range(values: &Array2<f32>) -> [f32; 2] {
    let [low, high] =
        values.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &x| [low.min(x), high.max(x)]);
    if low <= high { [low, high] } else { [0.0, 1.0] }
}

/// A range with 0 in its middle.
fn symmetric_range(values: &Array2<f32>) -> [f32; 2] {
    let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    if largest > 0.0 { [-largest, largest] } else { [-1.0, 1.0] }
}

#[cfg(test)]
mod tests {
    use super::bound_of;

    #[test]
    fn a_bound_is_not_below_the_deviation_and_none_tells_small_ones_apart() {
        for (deviation, bound) in
            [(0.0, "5e-5"), (7e-7, "5e-5"), (5e-5, "5e-5"), (5.1e-5, "5e-4"), (0.3, "5e-1"), (0.9, "5e0"), (9.0, "5e1")]
        {
            assert_eq!(bound_of(deviation), bound);
        }
        assert_eq!(bound_of(f32::NAN), "NaN");
    }
}
