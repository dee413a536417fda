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

use ndarray::Array2;

use crate::activation_cache::ActivationCache;
use crate::attention_tokens::{DecodeOptions, Feature, HeadData, PromptHeadData, head_data};
use crate::backend::TopTokens;
use crate::error::{Error, Result};
use crate::model::Gpt2;
use crate::plot::{AxisLabels, Figure, Panel};
use crate::prompts::Prompts;

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
    let (logits, cache) = model.run_with_cache(prompts)?;
    Ok(PromptRun { model: model.clone(), logits, cache })
}

/// The data of one head on every prompt, with the projection of the original notebook, and the two best tokens of each
/// vector. [`head_data`] has other projections and more tokens.
///
/// # Errors
/// As for [`head_data`].
pub fn calculate_attns(run: &PromptRun, layer: usize, head: usize) -> Result<HeadData> {
    head_data(&run.model, &run.cache, layer, head, DecodeOptions { top_k: 2, ..Default::default() })
}

/// A heat map of a pattern: viridis with its midpoint at 0.5, no colour bar, row 0 on top, square cells, no tick
/// labels, white background, 1200 × 800 pixels. Shape: `[query_pos, key_pos]`.
pub fn plot_attns(pattern: &Array2<f32>) -> Figure {
    Figure::from_panel(Panel::new(pattern.clone()))
}

/// Draws a white frame, 2 pixels wide and without a fill, around each cell whose attention exceeds `min_attn`
/// ([`MIN_ATTN`] in the original).
///
/// # Errors
/// [`Error::Mismatch`] if the figure is not one heat map of the size of the data.
pub fn add_attn_overlay(plot: &Figure, data: &PromptHeadData, min_attn: f32) -> Result<Figure> {
    let mut panel = panel_for(plot, data, "add_attn_overlay")?;
    let above = data.attn.indexed_iter().filter(|&(_, &attn)| attn > min_attn);
    panel.frames.extend(above.map(|(cell, _)| cell).filter(|(query, key)| key <= query));
    Ok(Figure::from_panel(panel))
}

/// Writes tokens along the sides: left the input tokens (rows), top the q tokens, right the v tokens, bottom the
/// k tokens; top and bottom turned by −90°, size 12, black, 20 pixels away.
///
/// # Errors
/// [`Error::Mismatch`] if the figure is not one heat map of the size of the data.
pub fn add_axis_labels(plot: &Figure, data: &PromptHeadData) -> Result<Figure> {
    let mut panel = panel_for(plot, data, "add_axis_labels")?;
    let best = |top: &TopTokens| top.tokens.column(0).iter().map(|&token| data.token_label(token)).collect();
    panel.axis_labels = Some(AxisLabels {
        left: data.input.iter().map(|&token| data.token_label(token)).collect(),
        top: best(&data.q),
        right: best(&data.v),
        bottom: best(&data.k),
    });
    Ok(Figure::from_panel(panel))
}

/// Writes into each cell with key ≤ query its token, white, size 10, turned by −45°. For [`Feature::Attn`], which
/// has no tokens, the attention with two decimals.
///
/// # Errors
/// [`Error::Mismatch`] if the figure is not one heat map of the size of the data.
pub fn add_token_labels(plot: &Figure, data: &PromptHeadData, feature: Feature) -> Result<Figure> {
    let mut panel = panel_for(plot, data, "add_token_labels")?;
    let values = data.feature(feature);
    let cells = values.indexed_iter().filter(|((query, key), _)| key <= query);
    panel.token_labels = cells
        .map(|((query, key), &value)| match feature {
            Feature::Attn => (query, key, format!("{value:.2}")),
            _ => (query, key, data.token_label(value as u32)),
        })
        .collect();
    Ok(Figure::from_panel(panel))
}

/// Two figures side by side as one, 600 × 400 pixels each, with a title above and a description below.
///
/// # Errors
/// [`Error::Mismatch`] if one of them is not a single heat map.
pub fn compare_plots(a: &Figure, b: &Figure, title: &str, description: &str) -> Result<Figure> {
    let (a, b) = (a.panel("compare_plots")?, b.panel("compare_plots")?);
    Ok(Figure::from_panels(a.clone(), b.clone(), title, description))
}

/// The figure's heat map, if it has the size of the data; from here on the figure says which head it shows.
fn panel_for(plot: &Figure, data: &PromptHeadData, what: &'static str) -> Result<Panel> {
    let mut panel = plot.panel(what)?.clone();
    let pos = data.n_pos();
    if panel.pattern.dim() != (pos, pos) {
        let (rows, columns) = panel.pattern.dim();
        return Err(Error::Mismatch {
            what,
            expected: format!("a figure of {pos} × {pos} cells, as the data has"),
            found: format!("{rows} × {columns}"),
        });
    }
    panel.hover = Some(Array2::from_shape_fn((pos, pos), |(query, key)| hover(data, query, key)));
    panel.caption = Some(format!("head {}.{}, projection {}", data.layer, data.head, data.projection.name()));
    Ok(panel)
}

/// What there is to say of a cell; nothing where key > query.
fn hover(data: &PromptHeadData, query: usize, key: usize) -> Vec<String> {
    let Some(cell) = data.cell(query, key) else { return Vec::new() };
    let token = |token: u32| format!("“{}”", data.token_label(token));
    let (best, logits) = (data.qk.tokens.row(cell), data.qk.logits.row(cell));
    let mut lines = vec![
        format!("query {query} {}", token(data.input[query])),
        format!("key {key} {}", token(data.input[key])),
        format!("attention {}", significant(data.attn[[query, key]])),
        format!("attention token {}, logit {}", token(best[0]), significant(logits[0])),
    ];
    if best.len() > 1 {
        lines.push(format!("then {}, less by {}", token(best[1]), significant(data.qk.margin[cell])));
    }
    lines
}

/// A number with four significant digits.
fn significant(x: f32) -> String {
    let whole_digits = x.abs().log10().floor() + 1.0; // −∞ for 0
    format!("{x:.*}", (4.0 - whole_digits).clamp(0.0, 6.0) as usize)
}
