//! One head on one prompt as a heat map with frames and labels: what there is to draw.

use std::sync::Arc;

use ndarray::Array2;

use crate::attention_tokens::PromptHeadData;

pub(in crate::plot) const LABEL_SIZE: usize = 12;
pub(in crate::plot) const TOKEN_SIZE: usize = 10;
/// Pixels between the heat map and its labels.
pub(in crate::plot) const LABEL_DISTANCE: f64 = 20.0;
/// Pixels between the part of the figure that is the panel's and its caption.
pub(in crate::plot) const CAPTION_DISTANCE: f64 = 95.0;
/// The value in the middle of the colour scale.
pub(in crate::plot) const COLOR_MIDPOINT: f64 = 0.5;
/// Beyond this many positions a panel has the light form: a browser cannot move thousands of texts, and nobody can read them.
const FULL_FORM: usize = 32;

/// What a panel shows.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// The colour of each cell. Shape: `[query_pos, key_pos]`.
    pub(crate) pattern: Array2<f32>,
    /// Cells with a white frame, as (query, key).
    pub(crate) frames: Vec<(usize, usize)>,
    /// The tokens along the four sides.
    pub(crate) axis_labels: Option<AxisLabels>,
    /// The tokens inside the cells, as (query, key, token).
    pub(crate) token_labels: Vec<(usize, usize, String)>,
    /// What the cells are of, once that is known.
    pub(crate) data: Option<Arc<PromptHeadData>>,
}

/// The tokens along the four sides of a panel, a label for each position.
#[derive(Clone, Debug)]
pub(crate) struct AxisLabels {
    pub(crate) left: Vec<String>,
    pub(crate) top: Vec<String>,
    pub(crate) right: Vec<String>,
    pub(crate) bottom: Vec<String>,
}

impl Panel {
    pub(crate) fn new(pattern: Array2<f32>) -> Self {
        Self { pattern, frames: Vec::new(), axis_labels: None, token_labels: Vec::new(), data: None }
    }

    /// Whether there are too many cells for texts in them.
    pub(in crate::plot) fn light(&self) -> bool {
        let (rows, columns) = self.pattern.dim();
        rows.max(columns) > FULL_FORM
    }

    /// Which head it is; nothing where that is not known.
    pub(in crate::plot) fn name(&self) -> String {
        self.data.as_ref().map_or(String::new(), |data| data.name())
    }

    /// Which head it is, and how its tokens were decoded.
    pub(in crate::plot) fn caption(&self) -> Option<String> {
        self.data.as_ref().map(|data| data.caption())
    }

    /// What the panel shows, in words.
    pub(in crate::plot) fn describe(&self) -> String {
        let (rows, columns) = self.pattern.dim();
        let mut distinct: Vec<u32> = self.pattern.iter().map(|value| value.to_bits()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let caption = self.caption().map_or(String::new(), |caption| format!(" of {caption}"));
        let mut text = format!("heat map{caption}: {rows} × {columns} cells, {} distinct values", distinct.len());
        if !self.frames.is_empty() {
            text += &format!(", {} framed", self.frames.len());
        }
        if !self.token_labels.is_empty() && !self.light() {
            text += &format!(", {} labelled", self.token_labels.len());
        }
        text
    }

    /// Where on the colour scale a value lies, from 0 to 1. plotly makes the scale as wide on one side of its midpoint as it
    /// must be on the other.
    pub(in crate::plot) fn color_share(&self) -> impl Fn(f32) -> f64 {
        let off = self.pattern.iter().map(|&value| (f64::from(value) - COLOR_MIDPOINT).abs());
        let widest = off.filter(|off| off.is_finite()).fold(0.0, f64::max);
        move |value| match widest > 0.0 {
            true => 0.5 + (f64::from(value) - COLOR_MIDPOINT) / (2.0 * widest),
            false => 0.5,
        }
    }
}
