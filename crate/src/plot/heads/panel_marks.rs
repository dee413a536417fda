//! The marks of a panel: in full form, or in the light form for many positions.

use super::hover;
use super::panel::HeadPanel;
use crate::plot::canvas::{Area, Axes, Axis, Ticks};
use crate::plot::marks::{
    CellBlock, Cells, ColorRange, Coordinate, Frames, Horizontal, Hover, LABEL_SIZE, Mark, Precision, TOKEN_SIZE, Text,
    Vertical,
};
use crate::plot::style::Color;

/// The value in the middle of the colour scale, as in the original notebook.
pub(super) const COLOR_MIDPOINT: f64 = 0.5;
/// Pixels between the heat map and its labels.
const LABEL_DISTANCE: f64 = 20.0;
/// Pixels between the heat map and the names of positions, in the light form.
const NAME_DISTANCE: f64 = 3.0;
/// Pixels between the panel and its caption.
const CAPTION_DISTANCE: f64 = 95.0;
/// plotly's template for cells without hover texts of their own: positions and value.
const POSITIONS_AND_VALUE: &str = "query %{y}<br>key %{x}<br>%{z}<extra></extra>";
/// The same with a text in place of the value.
const POSITIONS_AND_TEXT: &str = "query %{y}<br>key %{x}<br>%{hovertext}<extra></extra>";

/// Place of a panel in its figure.
pub(super) struct Place {
    /// Index of the panel's axes.
    pub(super) axes: usize,
    /// Left edge of the panel's part of the figure, as a share of the width between the margins.
    pub(super) left: f64,
    /// Whether all frames are one shape, even if there are none.
    pub(super) joined_frames: bool,
}

impl Place {
    /// The place of the only panel of a figure.
    pub(super) const ALONE: Self = Self { axes: 0, left: 0.0, joined_frames: false };
}

impl HeadPanel {
    /// Axes of square cells in the middle of an area, in the light form with the names of the positions as ticks.
    pub(super) fn axes(&self, area: Area) -> Axes {
        let axes = Axes::of_cells(self.pattern.dim(), area);
        let named = |axis: Axis| match self.position_names() {
            Some(names) => Axis {
                ticks: Ticks::Categories(names),
                font_size: Some(TOKEN_SIZE),
                tick_distance: NAME_DISTANCE,
                ..axis
            },
            None => axis,
        };
        let (x, y) = (named(axes.x), named(axes.y));
        Axes { placed: true, x: Axis { tick_angle: Some(-90), ..x }, y, ..axes }
    }

    /// The marks of the panel.
    pub(super) fn marks(&self, place: &Place) -> Vec<Mark> {
        let mut marks = vec![Mark::Cells(self.cells(place.axes))];
        if place.joined_frames || !self.frames.is_empty() {
            marks.push(Mark::Frames(Frames {
                axes: place.axes,
                cells: self.frames.clone(),
                width: if self.is_light() { 1.0 } else { 2.0 },
                joined: place.joined_frames || self.is_light(),
            }));
        }
        let mut texts = if self.is_light() { Vec::new() } else { self.labels() };
        texts.extend(self.caption().map(|caption| Text {
            x: Coordinate::Canvas(place.left),
            y: Coordinate::Canvas(0.0),
            shift: [0.0, -CAPTION_DISTANCE],
            horizontal: Some(Horizontal::Left),
            vertical: Some(Vertical::Top),
            ..Text::new(caption, TOKEN_SIZE, Color::Faint)
        }));
        marks.extend(texts.into_iter().map(|text| Mark::Text(Text { axes: place.axes, ..text })));
        marks
    }

    /// The pattern as a heat map.
    fn cells(&self, axes: usize) -> Cells {
        let texts = |text: fn(&_, _, _) -> _| self.data.as_ref().and_then(|data| hover::texts(data, text));
        // In the light form, the values of the axes are the positions.
        let hover = if self.is_light() {
            texts(hover::without_positions).map(|texts| Hover::Template(POSITIONS_AND_TEXT, texts))
        } else {
            texts(hover::full).map(Hover::Texts)
        };
        Cells {
            axes,
            dim: self.pattern.dim(),
            blocks: vec![self.block((0, 0))],
            range: ColorRange::Midpoint(COLOR_MIDPOINT),
            precision: Precision::Exact,
            hover: hover.unwrap_or(Hover::Template(POSITIONS_AND_VALUE, Vec::new())),
            gaps: false,
            color_bar: None,
        }
    }

    /// The pattern, with its first cell in this row and column.
    pub(super) fn block(&self, at: (usize, usize)) -> CellBlock {
        CellBlock { at, values: self.pattern.mapv(f64::from) }
    }

    /// The position and token of each row and column, in the light form.
    fn position_names(&self) -> Option<Vec<String>> {
        let data = self.data.as_ref().filter(|_| self.is_light())?;
        Some((0..data.n_pos()).map(|position| hover::position(data, position)).collect())
    }

    /// The labels along the sides (left, right, top, bottom), then those in the cells.
    fn labels(&self) -> Vec<Text> {
        let side = |text: &String| Text::new(text, LABEL_SIZE, Color::Text);
        // At the edges of the area, which plotly does not zoom.
        let beside = |(row, text), edge, right, horizontal| Text {
            x: Coordinate::Axes(edge),
            y: Coordinate::Value(row as f64),
            shift: [right, 0.0],
            horizontal: Some(horizontal),
            ..side(text)
        };
        let beyond = |(column, text), edge, up, vertical| Text {
            x: Coordinate::Value(column as f64),
            y: Coordinate::Axes(edge),
            shift: [0.0, up],
            vertical: Some(vertical),
            degrees: -90,
            ..side(text)
        };
        let mut labels = Vec::new();
        if let Some(sides) = &self.axis_labels {
            let (left, right) = (sides.left.iter().enumerate(), sides.right.iter().enumerate());
            let (top, bottom) = (sides.top.iter().enumerate(), sides.bottom.iter().enumerate());
            labels.extend(left.map(|label| beside(label, 0.0, -LABEL_DISTANCE, Horizontal::Right)));
            labels.extend(right.map(|label| beside(label, 1.0, LABEL_DISTANCE, Horizontal::Left)));
            labels.extend(top.map(|label| beyond(label, 1.0, LABEL_DISTANCE, Vertical::Bottom)));
            labels.extend(bottom.map(|label| beyond(label, 0.0, -LABEL_DISTANCE, Vertical::Top)));
        }
        labels.extend(self.token_labels.iter().map(|(query, key, text)| Text {
            x: Coordinate::Value(*key as f64),
            y: Coordinate::Value(*query as f64),
            degrees: -45,
            ..Text::new(text, TOKEN_SIZE, Color::OnCells)
        }));
        labels
    }
}
