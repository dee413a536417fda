//! The data of one heat map: a head on a prompt, with frames and labels.

use std::sync::Arc;

use ndarray::Array2;

use crate::attention_tokens::{Feature, PromptHeadData, unique_index_pattern};
use crate::decode::TopTokens;
use crate::plot::fit;

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
    /// The feature of the data that the pattern has, or counts by first appearance; `None` if there is none.
    pub(super) feature: Option<Feature>,
}

/// The tokens along the four sides of a panel, a label for each position.
#[derive(Clone, Debug)]
pub(super) struct AxisLabels {
    /// The least width of each side in characters, which is the same for every head of a figure with a menu.
    pub(super) least: [usize; 4],
    pub(super) left: Vec<String>,
    pub(super) top: Vec<String>,
    pub(super) right: Vec<String>,
    pub(super) bottom: Vec<String>,
}

impl HeadPanel {
    /// A pattern alone. Shape: `[query_pos, key_pos]`.
    pub(crate) fn new(pattern: Array2<f32>) -> Self {
        Self { pattern, frames: Vec::new(), axis_labels: None, token_labels: Vec::new(), data: None, feature: None }
    }

    /// The pattern of a head's attention tokens, without labels.
    pub(in crate::plot) fn of_head(data: PromptHeadData) -> Self {
        let feature = Some(Feature::Qk);
        let pattern = unique_index_pattern(&data.feature(Feature::Qk));
        Self { feature, data: Some(Arc::new(data)), ..Self::new(pattern) }
    }

    /// The pattern of a head's attention tokens, with all labels, and frames where the attention exceeds `min_attn`.
    pub(crate) fn labelled(data: PromptHeadData, min_attn: f32) -> Self {
        Self::of_head(data).with_frames(min_attn).with_axis_labels().with_token_labels(Feature::Qk)
    }

    /// The panel with the data of a head, for hover texts and caption.
    pub(in crate::plot) fn with_data(self, data: PromptHeadData) -> Self {
        let shows = |feature: &Feature| {
            let values = data.feature(*feature);
            values == self.pattern || (*feature != Feature::Attn && unique_index_pattern(&values) == self.pattern)
        };
        let mut features = [Feature::Qk, Feature::Attn, Feature::Input, Feature::Q, Feature::K, Feature::V].into_iter();
        let feature = features.find(shows);
        Self { feature, data: Some(Arc::new(data)), ..self }
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

    /// Panels with the same space for the labels along their sides.
    pub(super) fn with_same_sides(mut panels: Vec<Self>) -> Vec<Self> {
        let widths = panels.iter().filter_map(|panel| panel.axis_labels.as_ref()).map(AxisLabels::widths);
        let widest = widths.fold([0; 4], |widest, widths| std::array::from_fn(|side| widest[side].max(widths[side])));
        panels.iter_mut().filter_map(|panel| panel.axis_labels.as_mut()).for_each(|labels| labels.least = widest);
        panels
    }

    /// The panel with a text in each cell with key ≤ query: its token, or the attention for [`Feature::Attn`].
    pub(crate) fn with_token_labels(self, feature: Feature) -> Self {
        let token_labels = self.data.as_deref().map_or(Vec::new(), |data| token_labels(data, feature));
        Self { token_labels, ..self }
    }

    /// The token of each cell, or another whole number of a pattern alone; `None` in a cell without a token. `None` for
    /// a panel of other numbers, such as the attention. Shape: `[query_pos, key_pos]`.
    pub(super) fn tokens(&self) -> Option<Array2<Option<u32>>> {
        match (self.feature, &self.data) {
            (Some(Feature::Attn), _) => None,
            (Some(feature), Some(data)) => {
                let tokens = data.feature(feature);
                Some(Array2::from_shape_fn(tokens.dim(), |(query, key)| {
                    (key <= query).then_some(tokens[[query, key]] as u32)
                }))
            }
            _ => {
                let numbers = self.numbers();
                let is_whole = |x: &f64| x.is_nan() || (x.fract() == 0.0 && (0.0..1e9).contains(x));
                let tokens = || numbers.mapv(|x| (!x.is_nan()).then_some(x as u32));
                numbers.iter().all(is_whole).then(tokens)
            }
        }
    }

    /// The pattern, with NaN above the diagonal where all cells have one value that no other cell has: that of cells
    /// without a token. Shape: `[query_pos, key_pos]`.
    pub(super) fn numbers(&self) -> Array2<f64> {
        let (rows, columns) = self.pattern.dim();
        let mut numbers = self.pattern.mapv(f64::from);
        if rows == columns && rows > 1 {
            let empty = self.pattern[[0, 1]];
            let is_empty = |((query, key), &value): ((usize, usize), &f32)| (value == empty) == (key > query);
            if self.pattern.indexed_iter().all(is_empty) {
                numbers.indexed_iter_mut().filter(|((query, key), _)| key > query).for_each(|(_, x)| *x = f64::NAN);
            }
        }
        numbers
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

    /// What the panel shows, with the head's caption; `None` for a pattern alone.
    pub(super) fn title(&self) -> Option<String> {
        let shown = match self.feature {
            None | Some(Feature::Qk) => "attention tokens",
            Some(Feature::Attn) => "attention",
            Some(Feature::Input) => "input tokens",
            Some(Feature::Q) => "query tokens",
            Some(Feature::K) => "key tokens",
            Some(Feature::V) => "value tokens",
        };
        let data = self.data.as_ref()?;
        Some(format!("{shown} of {}", data.caption()))
    }

    /// The title as the beginning of a sentence.
    pub(super) fn capitalized_title(&self) -> Option<String> {
        let title = self.title()?;
        let mut chars = title.chars();
        Some(chars.next()?.to_uppercase().chain(chars).collect())
    }

    /// The number of distinct tokens, or of distinct numbers; cells without a token do not count.
    pub(super) fn n_distinct(&self) -> usize {
        let mut distinct: Vec<u64> = self.numbers().iter().filter(|x| !x.is_nan()).map(|x| x.to_bits()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        distinct.len()
    }

    /// The panel in words.
    pub(super) fn describe(&self) -> String {
        let (rows, columns) = self.pattern.dim();
        let caption = self.title().map_or(String::new(), |title| format!(" of the {title}"));
        let is_of_tokens = self.data.is_some() && self.tokens().is_some();
        let (one, many) = if is_of_tokens { ("token", "tokens") } else { ("value", "values") };
        let distinct = self.n_distinct();
        let what = if distinct == 1 { one } else { many };
        let mut text = format!("heat map{caption}: {rows} × {columns} cells, {distinct} distinct {what}");
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
    /// The width of the longest label of each side in characters: left, right, top, bottom.
    pub(super) fn widths(&self) -> [usize; 4] {
        let sides = [&self.left, &self.right, &self.top, &self.bottom];
        sides.map(|labels| labels.iter().map(|label| fit::width(label)).max().unwrap_or(0))
    }

    /// Input tokens on the left, q tokens at the top, v tokens on the right, k tokens at the bottom.
    fn new(data: &PromptHeadData) -> Self {
        let best = |top: &TopTokens| top.tokens.column(0).iter().map(|&token| data.token_label(token)).collect();
        Self {
            least: [0; 4],
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
