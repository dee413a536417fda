//! The functions of the original notebook, under their own names.
//!
//! Each function is one call of [`Gpt2`], [`head_data`] or [`Figure`]. They borrow figures and return new ones, because
//! a variable that a cell moves is lost to the cells after it.
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

use std::fmt;

use ndarray::Array2;

use crate::attention_tokens::{DecodeOptions, Feature, HeadData, OfOnePrompt, head_data, layer_data};
use crate::decode::Reading;
use crate::error::Result;
use crate::model::{ActivationCache, Gpt2, Prompts};
use crate::plot::{Figure, FigureStyle, Figures, HeadPanel, Look, Table};

/// The attention above which [`add_attn_overlay`] frames a cell in the original.
pub const MIN_ATTN: f32 = 0.3;

/// A run of a model on prompts: logits and all activations. `Debug` shows their shapes.
#[derive(Clone)]
pub struct PromptRun {
    /// The model.
    pub model: Gpt2,
    /// The logits of each prompt. Shape: `[prompt] [pos, d_vocab]`.
    pub logits: Vec<Array2<f32>>,
    /// Every activation.
    pub cache: ActivationCache,
}

impl fmt::Debug for PromptRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<_> = self.logits.iter().take(3).map(|logits| format!("{:?}", logits.shape())).collect();
        let more = if self.logits.len() > shapes.len() { ", …" } else { "" };
        writeln!(f, "PromptRun of {}: logits {}{more}", self.model.name(), shapes.join(", "))?;
        self.cache.fmt(f)
    }
}

impl PromptRun {
    /// The run of one prompt of the batch, which shares the activations, for the functions that draw one prompt.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) if the batch has no such prompt.
    pub fn prompt(&self, prompt: usize) -> Result<PromptRun> {
        let cache = self.cache.prompt(prompt)?;
        let logits = self.logits.get(prompt).cloned().into_iter().collect();
        Ok(Self { model: self.model.clone(), logits, cache })
    }
}

/// Tokenizes the prompts, with the beginning-of-sequence token in front (if the model has one), runs the model, and
/// caches every activation.
///
/// # Errors
/// As for [`Gpt2::run_with_cache`].
pub fn run_prompts(model: &Gpt2, prompts: impl Into<Prompts>) -> Result<PromptRun> {
    run_with_full_cache(model, prompts.into())
}

/// [`run_prompts`] without the generic parameter, because every cell that calls a generic function compiles it again.
fn run_with_full_cache(model: &Gpt2, prompts: Prompts) -> Result<PromptRun> {
    let (logits, cache) = model.run_with_full_cache(prompts)?;
    Ok(PromptRun { model: model.clone(), logits, cache })
}

/// The data of one head on every prompt, with the projection of the original notebook and the two best tokens of each
/// vector. [`calculate_attns_with`] takes another reading, [`head_data`] more tokens too.
///
/// # Errors
/// As for [`head_data`].
pub fn calculate_attns(run: &PromptRun, layer: usize, head: usize) -> Result<HeadData> {
    head_data(&run.model, &run.cache, layer, head, with_runner_up(Reading::default()))
}

/// [`calculate_attns`] with another way of reading a cell: a [`Reading`], or a [`Projection`](crate::Projection).
///
/// ```
/// use attention_tokens::notebook::*;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, "Monday, Tuesday,")?;
/// let written = calculate_attns_with(&run, 3, 5, Reading::WRITTEN.unembed_bias(false))?.prompt(0)?;
/// // A key is written as the same token for every query.
/// assert_eq!(written.attention_tokens()[[3, 1]], written.attention_tokens()[[4, 1]]);
/// assert!(written.lowest.is_some()); // the token that a cell writes against
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As for [`head_data`].
pub fn calculate_attns_with(
    run: &PromptRun,
    layer: usize,
    head: usize,
    reading: impl Into<Reading>,
) -> Result<HeadData> {
    head_data(&run.model, &run.cache, layer, head, with_runner_up(reading.into()))
}

/// The best token of each vector and the second-best one.
fn with_runner_up(reading: Reading) -> DecodeOptions {
    DecodeOptions { reading, top_k: 2 }
}

/// A heat map of a pattern in the look of the original notebook, [`Look::Original`]: viridis with its midpoint at 0.5, no
/// colour bar, row 0 on top, square cells, no tick labels, white background. Shape: `[query_pos, key_pos]`.
///
/// One thing differs from the original: a value that fills the triangle above the diagonal, and that no other cell has, is
/// "no token" (−1 in a feature, 1 in its [`unique_index_pattern`](crate::unique_index_pattern)), and has a light grey of
/// its own instead of a colour of the scale. For a colour for each token, see [`Figure::with_look`] and [`plot_head`].
pub fn plot_attns(pattern: &Array2<f32>) -> Figure {
    let style = FigureStyle { look: Look::Original, ..FigureStyle::default() };
    Figure::of_panel(HeadPanel::new(pattern.clone()), style)
}

/// Adds a white frame, 2 pixels wide and without a fill, around each cell whose attention exceeds `min_attn`
/// ([`MIN_ATTN`] in the original).
///
/// # Errors
/// [`Error::FigureKind`](crate::Error::FigureKind) if the figure is not one heat map,
/// [`Error::Shape`](crate::Error::Shape) if its size is not that of the data.
pub fn add_attn_overlay(plot: &Figure, data: &impl OfOnePrompt, min_attn: f32) -> Result<Figure> {
    let panel = plot.panel_of(data.of_one_prompt(), "add_attn_overlay")?.with_frames(min_attn);
    Ok(Figure::of_panel(panel, plot.style()))
}

/// Adds tokens along the sides: the input tokens on the left (rows), the q tokens at the top, the v tokens on the
/// right, the k tokens at the bottom, each side with its name; top and bottom turned by −90°, size 12, black, 20 pixels
/// away. Labels of more than 14 characters are cut.
///
/// # Errors
/// [`Error::FigureKind`](crate::Error::FigureKind) if the figure is not one heat map,
/// [`Error::Shape`](crate::Error::Shape) if its size is not that of the data.
pub fn add_axis_labels(plot: &Figure, data: &impl OfOnePrompt) -> Result<Figure> {
    let panel = plot.panel_of(data.of_one_prompt(), "add_axis_labels")?.with_axis_labels();
    Ok(Figure::of_panel(panel, plot.style()))
}

/// Adds to each cell with key ≤ query its token; for [`Feature::Attn`], which has no tokens, the attention with two
/// decimals. Unlike the original's, the texts are horizontal and as large as the cells allow (10 to 20 pixels), black or
/// white, whichever has more contrast. What does not fit into its cell is left out; the pointer shows it.
///
/// plotly makes the texts larger when one zooms in, up to 20 pixels, and clips them at the edges of the figure. It does not
/// turn them, breaks no lines anew, and does not bring back texts that were left out.
///
/// # Errors
/// [`Error::FigureKind`](crate::Error::FigureKind) if the figure is not one heat map,
/// [`Error::Shape`](crate::Error::Shape) if its size is not that of the data.
pub fn add_token_labels(plot: &Figure, data: &impl OfOnePrompt, feature: Feature) -> Result<Figure> {
    let panel = plot.panel_of(data.of_one_prompt(), "add_token_labels")?.with_token_labels(feature);
    Ok(Figure::of_panel(panel, plot.style()))
}

/// Two figures as one, with a title above and a description below: side by side where their cells are large enough so,
/// else one below the other. The look is [`Look::Tokens`]: a token has the same colour in both panels, and a legend lists
/// the tokens of both. (Two patterns without data have a colour for each number.)
///
/// # Errors
/// [`Error::FigureKind`](crate::Error::FigureKind) if one of them is not a single heat map.
pub fn compare_plots(a: &Figure, b: &Figure, title: &str, description: &str) -> Result<Figure> {
    let (left, right) = (a.panel("compare_plots")?, b.panel("compare_plots")?);
    let style = FigureStyle { look: Look::Tokens, ..a.style() };
    Ok(Figure::of_panels(left.clone(), right.clone(), title, description, style))
}

/// The data of every head of a layer, as [`calculate_attns`] returns it for one.
///
/// # Errors
/// As for [`layer_data`].
pub fn calculate_layer(run: &PromptRun, layer: usize) -> Result<Vec<HeadData>> {
    layer_data(&run.model, &run.cache, layer, with_runner_up(Reading::default()))
}

/// The data of every head of a layer, as [`calculate_attns_with`] returns it for one.
///
/// # Errors
/// As for [`layer_data`].
pub fn calculate_layer_with(run: &PromptRun, layer: usize, reading: impl Into<Reading>) -> Result<Vec<HeadData>> {
    layer_data(&run.model, &run.cache, layer, with_runner_up(reading.into()))
}

/// The heads of a layer, or any others, at a glance: a small heat map of each head's attention tokens, without labels,
/// in rows and columns as close to 3:4 as the number of heads allows. Above each head is its number of distinct tokens. A
/// token has the same colour in all heads. `prompt` is the index of the prompt in its batch.
///
/// All heads are one heat map with one pair of axes, because plotly.rs has at most eight pairs: zooming shows a part of the
/// grid, not the same part of each head.
///
/// Eight heads take 170 kB of a notebook on 13 tokens, and 2.7 MB on 128 tokens, without hover texts (there are none
/// beyond 10,000 cells, gaps included). The limit is 300,000 cells, about 5 MB.
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
/// [`Error::Count`](crate::Error::Count) if there are no heads or too many cells,
/// [`Error::DifferentPrompts`](crate::Error::DifferentPrompts) if the heads ran on different prompts,
/// [`Error::OutOfRange`](crate::Error::OutOfRange) if there is no such prompt.
pub fn layer_grid(heads: &[HeadData], prompt: usize) -> Result<Figure> {
    Figure::grid(heads, prompt)
}

/// One figure of many heads, with a menu to choose the head whose attention tokens, frames and labels are shown. It
/// works wherever plotly does, without a kernel; a static picture shows the first head. `prompt` is the index of the
/// prompt in its batch.
///
/// Four heads on 13 tokens take 200 kB of a notebook. The limit is 8,000 cells with key ≤ query in all heads together,
/// about 4 MB.
///
/// # Errors
/// As for [`layer_grid`].
pub fn browse_heads(heads: &[HeadData], prompt: usize) -> Result<Figure> {
    Figure::menu(heads, prompt, MIN_ATTN)
}

/// A head on a prompt: the attention tokens, a colour for each ([`Look::Tokens`]) and a legend, frames above [`MIN_ATTN`],
/// labels along the sides, and tokens in the cells. [`Figure::with_look`] gives the colours of the original.
///
/// Beyond 32 positions there are names of positions on the axes instead of labels. Beyond 192, the pointer shows a cell's
/// token without its logit; beyond 512, positions alone: 1,024 positions take about 3 MB of a notebook. The figure says
/// what it leaves out.
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
pub fn plot_head(data: &impl OfOnePrompt) -> Figure {
    Figure::of_panel(HeadPanel::labelled(data.of_one_prompt().clone(), MIN_ATTN), FigureStyle::default())
}

/// The attention pattern of a head, with the tokens on both axes: [`ActivationCache::plot_attention`]. A run of several
/// prompts takes [`run.prompt(i)?`](PromptRun::prompt).
///
/// ```
/// use attention_tokens::notebook::*;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, ["The next sentence is false.", "The next bus is late."])?;
/// let figure = plot_attention(&run.prompt(1)?, 0, 1)?;
/// assert!(figure.describe().starts_with("matrix: Attention of head 0.1 of demo"));
/// assert!(plot_attention(&run, 0, 1).is_err(), "which of the two?");
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As for [`ActivationCache::plot_attention`].
pub fn plot_attention(run: &PromptRun, layer: usize, head: usize) -> Result<Figure> {
    run.cache.plot_attention(&run.model, layer, head)
}

/// The attention patterns of all heads of a layer, small, with one colour scale:
/// [`ActivationCache::plot_layer_attention`].
///
/// ```
/// use attention_tokens::notebook::*;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, "The next sentence is false.")?;
/// assert!(plot_layer_attention(&run, 0)?.describe().starts_with("grid of heat maps: Attention of the 8 heads of layer 0"));
/// assert!(plot_attention_over_tokens(&run, 0)?.describe().contains("a menu of 8 heads and a slider of tokens"));
/// assert!(plot_attention_lines(&run, 0)?.describe().starts_with("lines between tokens"));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As for [`ActivationCache::plot_layer_attention`].
pub fn plot_layer_attention(run: &PromptRun, layer: usize) -> Result<Figure> {
    run.cache.plot_layer_attention(&run.model, layer)
}

/// What a token attends to, as shaded text with a menu of heads and a slider of tokens, the view of CircuitsVis:
/// [`ActivationCache::plot_attention_over_tokens`].
///
/// # Errors
/// As for [`ActivationCache::plot_attention_over_tokens`].
pub fn plot_attention_over_tokens(run: &PromptRun, layer: usize) -> Result<Figure> {
    run.cache.plot_attention_over_tokens(&run.model, layer)
}

/// What each token attends to, as lines between two columns of tokens, the head view of BertViz:
/// [`ActivationCache::plot_attention_lines`].
///
/// # Errors
/// As for [`ActivationCache::plot_attention_lines`].
pub fn plot_attention_lines(run: &PromptRun, layer: usize) -> Result<Figure> {
    run.cache.plot_attention_lines(&run.model, layer)
}

/// Several figures as one output of a cell, one below the other. By itself, a cell shows only the last of several.
///
/// ```
/// use attention_tokens::notebook::*;
/// use ndarray::arr2;
///
/// let (a, b) = (plot_attns(&arr2(&[[0.0]])), plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]])));
/// assert_eq!(show_all(&[&a, &b]).describe().lines().count(), 2);
/// ```
pub fn show_all(figures: &[&Figure]) -> Figures {
    Figures::new(figures)
}

/// The attention tokens of a head as a table, with a row for each query position.
pub fn attention_table(data: &impl OfOnePrompt) -> Table {
    Table::of_attention_tokens(data.of_one_prompt())
}
