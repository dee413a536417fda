//! The data of one heat map: a head on a prompt, with frames and labels.

use std::sync::Arc;

use ndarray::Array2;

use crate::attention_tokens::{Feature, PromptHeadData, unique_index_pattern};
use crate::decode::TopTokens;

/// Maximum number of positions of a panel in full form; thousands of texts would be slow and not readable.
const MAX_FULL_POSITIONS: usize = 32;

/// One heat map with frames and labels.
#[derive(Clone, Debug)]
pub(crate) struct HeadPanel {
    /// The value of each cell, from which its colour follows. Shape: `[query_pos, key_pos]`.
    pub(super) pattern: Array2<f32>,
    /// Cells with a white frame, as (query, key).
    pub(super) frames: Vec<(usize, usize)>,
    /// The tokens along the four sides.
    pub(super) axis_labels: Option<AxisLabels>,
    /// The tokens inside the cells, as (query, key, token).
    pub(super) token_labels: Vec<(usize, usize, String)>,
    /// The head's data, for hover texts and caption; `None` for a pattern alone.
    pub(super) data: Option<Arc<PromptHeadData>>,
}

/// The tokens along the four sides of a panel, a label for each position.
#[derive(Clone, Debug)]
pub(super) struct AxisLabels {
    pub(super) left: Vec<String>,
    pub(super) top: Vec<String>,
    pub(super) right: Vec<String>,
    pub(super) bottom: Vec<String>,
}

impl HeadPanel {
    /// A pattern alone. Shape: `[query_pos, key_pos]`.
    pub(crate) fn new(pattern: Array2<f32>) -> Self {
        Self { pattern, frames: Vec::new(), axis_labels: None, token_labels: Vec::new(), data: None }
    }

    /// The pattern of a head's attention tokens, without labels.
    pub(in crate::plot) fn of_head(data: PromptHeadData) -> Self {
        Self::new(unique_index_pattern(&data.feature(Feature::Qk))).with_data(data)
    }

    /// The pattern of a head's attention tokens, with all labels, and frames where the attention exceeds `min_attn`.
    pub(crate) fn labelled(data: PromptHeadData, min_attn: f32) -> Self {
        Self::of_head(data).with_frames(min_attn).with_axis_labels().with_token_labels(Feature::Qk)
    }

    /// The panel with the data of a head, for hover texts and caption.
    pub(in crate::plot) fn with_data(self, data: PromptHeadData) -> Self {
        Self { data: Some(Arc::new(data)), ..self }
    }

    /// The panel with more frames, around the cells whose attention exceeds `min_attn`.
    pub(crate) fn with_frames(mut self, min_attn: f32) -> Self {
        if let Some(data) = &self.data {
            let above = data.attn.indexed_iter().filter(|&(_, &attn)| attn > min_attn).map(|(cell, _)| cell);
            self.frames.extend(above.filter(|(query, key)| key <= query));
        }
        self
    }

    /// The panel with the tokens of its head along the sides.
    pub(crate) fn with_axis_labels(self) -> Self {
        let axis_labels = self.data.as_deref().map(AxisLabels::new);
        Self { axis_labels, ..self }
    }

    /// The panel with a text in each cell with key ≤ query: its token, or the attention for [`Feature::Attn`].
    pub(crate) fn with_token_labels(self, feature: Feature) -> Self {
        let token_labels = self.data.as_deref().map_or(Vec::new(), |data| token_labels(data, feature));
        Self { token_labels, ..self }
    }

    /// Rows and columns.
    pub(in crate::plot) fn dim(&self) -> (usize, usize) {
        self.pattern.dim()
    }

    /// Whether the panel has too many positions for texts in its cells and labels along its sides, and is drawn in the
    /// light form: names of positions on the axes instead.
    pub(super) fn is_light(&self) -> bool {
        let (rows, columns) = self.pattern.dim();
        rows.max(columns) > MAX_FULL_POSITIONS
    }

    /// The head's name, `layer.head`; empty for a pattern alone.
    pub(super) fn name(&self) -> String {
        self.data.as_ref().map_or(String::new(), |data| data.name())
    }

    /// The head's name and the projection of its tokens.
    pub(super) fn caption(&self) -> Option<String> {
        self.data.as_ref().map(|data| data.caption())
    }

    /// The panel in words.
    pub(super) fn describe(&self) -> String {
        let (rows, columns) = self.pattern.dim();
        let mut distinct: Vec<u32> = self.pattern.iter().map(|value| value.to_bits()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let caption = self.caption().map_or(String::new(), |caption| format!(" of {caption}"));
        let mut text = format!("heat map{caption}: {rows} × {columns} cells, {} distinct values", distinct.len());
        if !self.frames.is_empty() {
            text += &format!(", {} framed", self.frames.len());
        }
        if !self.token_labels.is_empty() && !self.is_light() {
            text += &format!(", {} labelled", self.token_labels.len());
        }
        text
    }
}

impl AxisLabels {
    /// Input tokens on the left, q tokens at the top, v tokens on the right, k tokens at the bottom.
    fn new(data: &PromptHeadData) -> Self {
        let best = |top: &TopTokens| top.tokens.column(0).iter().map(|&token| data.token_label(token)).collect();
        Self {
            left: data.input.iter().map(|&token| data.token_label(token)).collect(),
            top: best(&data.q),
            right: best(&data.v),
            bottom: best(&data.k),
        }
    }
}

/// The text of each cell with key ≤ query, as (query, key, text).
fn token_labels(data: &PromptHeadData, feature: Feature) -> Vec<(usize, usize, String)> {
    let values = data.feature(feature);
    let cells = values.indexed_iter().filter(|((query, key), _)| key <= query);
    let text = |value: f32| match feature {
        Feature::Attn => format!("{value:.2}"),
        _ => data.token_label(value as u32),
    };
    cells.map(|((query, key), &value)| (query, key, text(value))).collect()
}
