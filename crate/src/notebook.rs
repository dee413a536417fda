//! The functions of the original notebook, under their own names.
//!
//! They are thin: what they do lives in [`Gpt2`], [`head_data`] and [`Figure`]. They borrow figures and give new ones: a
//! value that a cell moves is gone for the cells after it.
//!
//! ```
//! use attention_tokens::notebook::*;
//! use attention_tokens::prelude::*;
//!
//! let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
//! let run = run_prompts(&model, "The next sentence is false. The previous sentence is true.")?;
//! let data = calculate_attns(&run, 0, 1)?.prompt(0)?;
//! let figure = plot_attns(&unique_index_pattern(&data.feature(Feature::Qk)));
//! let figure = add_attn_overlay(&figure, &data, MIN_ATTN)?;
//! let figure = add_axis_labels(&figure, &data)?;
//! let figure = add_token_labels(&figure, &data, Feature::Qk)?;
//! assert!(figure.describe().contains("13 × 13 cells"));
//! # Ok::<(), Error>(())
//! ```

use std::sync::Arc;

use ndarray::Array2;

use crate::attention_tokens::{
    DecodeOptions, Feature, HeadData, PromptHeadData, head_data, layer_data, unique_index_pattern,
};
use crate::decode::TopTokens;
use crate::error::{Error, Result, check_count};
use crate::model::ActivationCache;
use crate::model::Gpt2;
use crate::model::Prompts;
use crate::plot::{AxisLabels, Figure, Look, Panel, Table};

/// The attention above which [`add_attn_overlay`] frames a cell in the original.
pub const MIN_ATTN: f32 = 0.3;

/// A model, the prompts that it ran on, and everything it computed.
#[derive(Clone, Debug)]
pub struct PromptRun {
    /// The model.
    pub model: Gpt2,
    /// The logits of each prompt. Shape: `[prompt] [pos, d_vocab]`.
    pub logits: Vec<Array2<f32>>,
    /// Every activation.
    pub cache: ActivationCache,
}

/// Tokenizes the prompts, with the beginning-of-sequence token in front, runs the model, and keeps every activation.
///
/// # Errors
/// As for [`Gpt2::run_with_cache`].
pub fn run_prompts(model: &Gpt2, prompts: impl Into<Prompts>) -> Result<PromptRun> {
    run_and_keep(model, prompts.into())
}

/// Not generic: what is, is compiled again in every cell that calls it.
fn run_and_keep(model: &Gpt2, prompts: Prompts) -> Result<PromptRun> {
    let (logits, cache) = model.run_with_everything(prompts)?;
    Ok(PromptRun { model: model.clone(), logits, cache })
}

/// The data of one head on every prompt, with the projection of the original notebook, and the two best tokens of each
/// vector. [`head_data`] has other projections and more tokens.
///
/// # Errors
/// As for [`head_data`].
pub fn calculate_attns(run: &PromptRun, layer: usize, head: usize) -> Result<HeadData> {
    head_data(&run.model, &run.cache, layer, head, with_runner_up())
}

fn with_runner_up() -> DecodeOptions {
    DecodeOptions { top_k: 2, ..Default::default() }
}

/// A heat map of a pattern: viridis with its midpoint at 0.5, no colour bar, row 0 on top, square cells, no tick
/// labels, white background, 1200 × 800 pixels. Shape: `[query_pos, key_pos]`.
pub fn plot_attns(pattern: &Array2<f32>) -> Figure {
    Figure::from_panel(Panel::new(pattern.clone()), Look::default())
}

/// Draws a white frame, 2 pixels wide and without a fill, around each cell whose attention exceeds `min_attn`
/// ([`MIN_ATTN`] in the original).
///
/// # Errors
/// [`Error::FigureKind`] if the figure is not one heat map, [`Error::Shape`] if its size is not that of the data.
pub fn add_attn_overlay(plot: &Figure, data: &PromptHeadData, min_attn: f32) -> Result<Figure> {
    let mut panel = panel_for(plot, data, "add_attn_overlay")?;
    panel.frames.extend(frames(data, min_attn));
    Ok(Figure::from_panel(panel, plot.look()))
}

/// Writes tokens along the sides: left the input tokens (rows), top the q tokens, right the v tokens, bottom the
/// k tokens; top and bottom turned by −90°, size 12, black, 20 pixels away.
///
/// # Errors
/// [`Error::FigureKind`] if the figure is not one heat map, [`Error::Shape`] if its size is not that of the data.
pub fn add_axis_labels(plot: &Figure, data: &PromptHeadData) -> Result<Figure> {
    let mut panel = panel_for(plot, data, "add_axis_labels")?;
    panel.axis_labels = Some(axis_labels(data));
    Ok(Figure::from_panel(panel, plot.look()))
}

/// Writes into each cell with key ≤ query its token, white, size 10, turned by −45°. For [`Feature::Attn`], which
/// has no tokens, the attention with two decimals.
///
/// # Errors
/// [`Error::FigureKind`] if the figure is not one heat map, [`Error::Shape`] if its size is not that of the data.
pub fn add_token_labels(plot: &Figure, data: &PromptHeadData, feature: Feature) -> Result<Figure> {
    let mut panel = panel_for(plot, data, "add_token_labels")?;
    panel.token_labels = token_labels(data, feature);
    Ok(Figure::from_panel(panel, plot.look()))
}

/// Two figures side by side as one, 600 × 400 pixels each, with a title above and a description below.
///
/// # Errors
/// [`Error::FigureKind`] if one of them is not a single heat map.
pub fn compare_plots(a: &Figure, b: &Figure, title: &str, description: &str) -> Result<Figure> {
    let look = a.look();
    let (a, b) = (a.panel("compare_plots")?, b.panel("compare_plots")?);
    Ok(Figure::from_panels(a.clone(), b.clone(), title, description, look))
}

/// The data of every head of a layer, as [`calculate_attns`] gives it for one.
///
/// # Errors
/// As for [`layer_data`].
pub fn calculate_layer(run: &PromptRun, layer: usize) -> Result<Vec<HeadData>> {
    layer_data(&run.model, &run.cache, layer, with_runner_up())
}

/// The heads of a layer, or any others, at a glance: their patterns of attention tokens as small heat maps without labels,
/// in rows and columns as near to 3:4 as their number allows. `prompt` is the index of the prompt in its batch.
///
/// Eight heads on 13 tokens take 170 kB of a notebook, and 2.7 MB on 128 tokens, where the pointer says nothing of a cell (beyond
/// 10,000 cells, gaps included). At most 300,000 cells, some 5 MB.
///
/// ```
/// use attention_tokens::notebook::*;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, "The next sentence is false.")?;
/// let layer = calculate_layer(&run, 0)?;
/// assert!(layer_grid(&layer, 0)?.describe().starts_with("grid of 8 heat maps"));
/// assert!(browse_heads(&layer, 0)?.describe().starts_with("menu of heads 0.0, 0.1, 0.2"));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`] if there are no heads or too many cells, [`Error::DifferentPrompts`] if the heads saw different
/// prompts, [`Error::OutOfRange`] if there is no such prompt.
pub fn layer_grid(heads: &[HeadData], prompt: usize) -> Result<Figure> {
    Figure::grid(of_prompt(heads, prompt, "layer_grid")?.into_iter().map(panel_of).collect())
}

/// One figure of many heads, with a menu inside it to choose one: attention tokens, frames and labels are those of the
/// head. It works wherever plotly does, and asks nothing of the kernel; a static picture shows the first head. `prompt` is the
/// index of the prompt in its batch.
///
/// Four heads on 13 tokens take 200 kB of a notebook. At most 8,000 cells with key ≤ query in all heads together, some 4 MB.
///
/// # Errors
/// As for [`layer_grid`].
pub fn browse_heads(heads: &[HeadData], prompt: usize) -> Result<Figure> {
    Figure::browser(of_prompt(heads, prompt, "browse_heads")?.into_iter().map(labelled_panel_of).collect())
}

/// A head on a prompt with everything that the original draws: the pattern of its attention tokens, frames above [`MIN_ATTN`], labels
/// along the sides and tokens in the cells.
///
/// ```
/// use attention_tokens::notebook::*;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, "The next sentence is false.")?;
/// let figure = plot_head(&calculate_attns(&run, 0, 1)?.prompt(0)?);
/// assert!(figure.describe().contains("28 labelled"));
/// # Ok::<(), Error>(())
/// ```
pub fn plot_head(data: &PromptHeadData) -> Figure {
    Figure::from_panel(labelled_panel_of(data.clone()), Look::default())
}

/// The attention tokens of a head as a table, to read and to copy: a row for each query position.
pub fn attention_table(data: &PromptHeadData) -> Table {
    Table::of_attention_tokens(data)
}

/// The pattern of a head's attention tokens, without labels.
fn panel_of(data: PromptHeadData) -> Panel {
    let pattern = unique_index_pattern(&data.feature(Feature::Qk));
    Panel { data: Some(Arc::new(data)), ..Panel::new(pattern) }
}

/// The same with frames and all labels.
fn labelled_panel_of(data: PromptHeadData) -> Panel {
    Panel {
        frames: frames(&data, MIN_ATTN).collect(),
        axis_labels: Some(axis_labels(&data)),
        token_labels: token_labels(&data, Feature::Qk),
        ..panel_of(data)
    }
}

/// The data of one prompt from each head, if there are heads and they saw the same one.
fn of_prompt(heads: &[HeadData], prompt: usize, what: &'static str) -> Result<Vec<PromptHeadData>> {
    let data = heads.iter().map(|head| head.prompt(prompt)).collect::<Result<Vec<_>>>()?;
    check_count(what, "heads", data.len(), 1, None)?;
    let first = &data[0];
    if let Some(other) = data.iter().find(|data| data.input != first.input) {
        let (first, other) = ((first.layer, first.head), (other.layer, other.head));
        return Err(Error::DifferentPrompts { function: what, prompt, first, other });
    }
    Ok(data)
}

/// The cells whose attention exceeds `min_attn`.
fn frames(data: &PromptHeadData, min_attn: f32) -> impl Iterator<Item = (usize, usize)> {
    let above = data.attn.indexed_iter().filter(move |&(_, &attn)| attn > min_attn);
    above.map(|(cell, _)| cell).filter(|(query, key)| key <= query)
}

fn axis_labels(data: &PromptHeadData) -> AxisLabels {
    let best = |top: &TopTokens| top.tokens.column(0).iter().map(|&token| data.token_label(token)).collect();
    AxisLabels {
        left: data.input.iter().map(|&token| data.token_label(token)).collect(),
        top: best(&data.q),
        right: best(&data.v),
        bottom: best(&data.k),
    }
}

/// What stands in each cell with key ≤ query, as (query, key, text).
fn token_labels(data: &PromptHeadData, feature: Feature) -> Vec<(usize, usize, String)> {
    let values = data.feature(feature);
    let cells = values.indexed_iter().filter(|((query, key), _)| key <= query);
    let text = |value: f32| match feature {
        Feature::Attn => format!("{value:.2}"),
        _ => data.token_label(value as u32),
    };
    cells.map(|((query, key), &value)| (query, key, text(value))).collect()
}

/// The figure's heat map, if it has the size of the data; from here on the figure says which head it shows.
fn panel_for(plot: &Figure, data: &PromptHeadData, what: &'static str) -> Result<Panel> {
    let mut panel = plot.panel(what)?.clone();
    let pos = data.n_pos();
    if panel.pattern.dim() != (pos, pos) {
        let (rows, columns) = panel.pattern.dim();
        return Err(Error::Shape {
            what: what.into(),
            axes: "[query_pos, key_pos]",
            expected: vec![pos, pos],
            found: vec![rows, columns],
            hint: "the figure and the data must be of the same prompt",
        });
    }
    panel.data = Some(Arc::new(data.clone()));
    Ok(panel)
}
