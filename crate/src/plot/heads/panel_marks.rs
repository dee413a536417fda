//! The marks of a panel: in full form, or in the light form for many positions.

use super::hover;
use super::panel::HeadPanel;
use super::sides::Sides;
use super::token_colors::TokenColors;
use crate::attention_tokens::Feature;
use crate::plot::canvas::{Area, Axes, Axis, Ticks};
use crate::plot::fit;
use crate::plot::marks::{
    CellBlock, CellLabels, Cells, ColorRange, Coordinate, Frames, Horizontal, Hover, LABEL_SIZE, Mark, Paint,
    Precision, TOKEN_SIZE, Text, Vertical,
};
use crate::plot::style::{Color, FigureStyle, Look};

/// The value in the middle of the colour scale, as in the original notebook.
const COLOR_MIDPOINT: f64 = 0.5;
/// Pixels between the heat map and the names of positions, in the light form.
const NAME_DISTANCE: f64 = 3.0;
/// Pixels around a panel without labels.
const BORDER: f64 = 12.0;
/// Maximum width of the name of a position in characters.
const MAX_NAME: usize = 20;
/// plotly's template for cells without hover texts of their own: positions and value.
const POSITIONS_AND_VALUE: &str = "%{z}<br>query %{y}, key %{x}<extra></extra>";
/// The same for the indices of colours, which say nothing.
const POSITIONS: &str = "query %{y}, key %{x}<extra></extra>";
/// The same with a text in place of the value.
const POSITIONS_AND_TEXT: &str = "%{hovertext}<br>query %{y}, key %{x}<extra></extra>";

/// How a panel is drawn in its figure.
pub(super) struct Place<'a> {
    /// Index and area of the panel's axes.
    pub(super) axes: usize,
    pub(super) area: Area,
    pub(super) colors: &'a TokenColors,
    /// Whether all frames are one shape, even if there are none.
    pub(super) joined_frames: bool,
    /// Whether the panel has a colour bar, if its values are not tokens.
    pub(super) color_bar: bool,
}

impl HeadPanel {
    /// Pixels around the heat map for labels and names: left, right, top, bottom.
    pub(super) fn insets(&self, style: FigureStyle) -> [f64; 4] {
        if self.is_light() {
            let Some(names) = self.position_names() else { return [BORDER; 4] };
            let longest = names.iter().map(|name| fit::width(name)).max().unwrap_or(0) as f64;
            let names = longest * 0.6 * TOKEN_SIZE as f64 + NAME_DISTANCE + 24.0;
            return [names, BORDER, BORDER, names];
        }
        self.sides(style).map_or([BORDER; 4], |sides| sides.insets())
    }

    fn sides(&self, style: FigureStyle) -> Option<Sides<'_>> {
        let labels = self.axis_labels.as_ref().filter(|_| !self.is_light())?;
        Some(Sides::new(labels, style.look))
    }

    /// Axes of square cells in an area, in the light form with the names of the positions as ticks.
    pub(super) fn axes(&self, area: Area) -> Axes {
        let axes = Axes::of_cells(self.pattern.dim(), area);
        let named = |axis: Axis, title: &str| match self.position_names() {
            Some(names) => Axis {
                title: title.into(),
                ticks: Ticks::Categories(names),
                font_size: Some(TOKEN_SIZE),
                tick_distance: NAME_DISTANCE,
                ..axis
            },
            None => axis,
        };
        let (x, y) = (named(axes.x, "key: position, input token"), named(axes.y, "query: position, input token"));
        Axes { placed: true, x: Axis { tick_angle: Some(-90), ..x }, y, ..axes }
    }

    /// The marks of the panel.
    pub(super) fn marks(&self, place: &Place, style: FigureStyle) -> Vec<Mark> {
        let mut marks = vec![Mark::Cells(self.cells(place, style))];
        if place.joined_frames || !self.frames.is_empty() {
            marks.push(Mark::Frames(Frames {
                axes: place.axes,
                cells: self.frames.clone(),
                width: if self.is_light() { 1.0 } else { 2.0 },
                joined: place.joined_frames || self.is_light(),
            }));
        }
        let texts = self.sides(style).map_or(Vec::new(), |sides| sides.texts(place.area));
        marks.extend(texts.into_iter().map(|text| Mark::Text(Text { axes: place.axes, ..text })));
        marks
    }

    /// A text above the panel, for one of several.
    pub(super) fn heading(&self, place: &Place, style: FigureStyle) -> Option<Mark> {
        let above = self.insets(style)[2];
        let lines = fit::paragraph(&self.capitalized_title()?, place.area.width.max(260.0), LABEL_SIZE);
        Some(Mark::Text(Text {
            axes: place.axes,
            x: Coordinate::Axes(0.0),
            y: Coordinate::Axes(1.0),
            shift: [0.0, above],
            horizontal: Some(Horizontal::Left),
            vertical: Some(Vertical::Bottom),
            ..Text::new(lines.join("\n"), LABEL_SIZE, Color::Text)
        }))
    }

    /// The pattern as a heat map.
    fn cells(&self, place: &Place, style: FigureStyle) -> Cells {
        let (block, paint) = self.painted(place.colors, style);
        let bar = place.color_bar && style.look == Look::Tokens && matches!(paint, Paint::Scale(_));
        let title = if self.feature == Some(Feature::Attn) { "attention" } else { "value" };
        Cells {
            axes: place.axes,
            dim: self.pattern.dim(),
            blocks: vec![block],
            hover: self.hover(&paint),
            paint,
            precision: Precision::Exact,
            labels: self.labels(place.area),
            color_bar: bar.then(|| title.to_owned()),
        }
    }

    fn hover(&self, paint: &Paint) -> Hover {
        let light = self.is_light();
        let texts = self.data.as_ref().and_then(|data| hover::texts(data, self.feature, !light));
        // In the light form, the values of the axes are the positions.
        match (texts, paint) {
            (Some(texts), _) if light => Hover::Template(POSITIONS_AND_TEXT, texts),
            (Some(texts), _) => Hover::Texts(texts),
            (None, Paint::Indices(_)) if self.data.is_some() => Hover::Template(POSITIONS, Vec::new()),
            (None, _) => Hover::Template(POSITIONS_AND_VALUE, Vec::new()),
        }
    }

    /// What a reader of a long prompt's figure should know is left out.
    pub(super) fn left_out(&self) -> Option<String> {
        let pos = self.data.as_ref()?.n_pos();
        let full = hover::MAX_FULL;
        match pos {
            _ if pos > hover::MAX_TOKENS => {
                Some(format!("{pos} positions, more than {}: the pointer shows positions only", hover::MAX_TOKENS))
            }
            _ if pos > full => Some(format!("{pos} positions, more than {full}: the pointer shows no logits")),
            _ => None,
        }
    }

    /// The values to draw, and what they are.
    pub(super) fn painted(&self, colors: &TokenColors, style: FigureStyle) -> (CellBlock, Paint) {
        let block = |values| CellBlock { at: (0, 0), values };
        match (style.look, self.tokens()) {
            (Look::Original, _) => (block(self.numbers()), Paint::Scale(ColorRange::Midpoint(COLOR_MIDPOINT))),
            (Look::Tokens, Some(tokens)) => {
                (block(tokens.mapv(|token| colors.index(token) as f64)), Paint::Indices(colors.colors.clone()))
            }
            (Look::Tokens, None) => {
                let numbers = self.numbers();
                let finite = || numbers.iter().copied().filter(|x| x.is_finite());
                let ends = if self.feature == Some(Feature::Attn) {
                    [0.0, 1.0]
                } else {
                    [finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max)]
                };
                let ends = if ends[0] < ends[1] { ends } else { [0.0, 1.0] };
                (block(numbers), Paint::Scale(ColorRange::Ends(ends)))
            }
        }
    }

    /// The position and token of each row and column, in the light form.
    fn position_names(&self) -> Option<Vec<String>> {
        let data = self.data.as_ref().filter(|_| self.is_light())?;
        Some((0..data.n_pos()).map(|pos| fit::shortened(&hover::position(data, pos), MAX_NAME)).collect())
    }

    /// The texts in the cells, where they fit.
    fn labels(&self, area: Area) -> Option<CellLabels> {
        if self.is_light() || self.token_labels.is_empty() {
            return None;
        }
        let (rows, columns) = self.pattern.dim();
        let texts: Vec<String> = self.token_labels.iter().map(|(.., text)| text.clone()).collect();
        let fitted = fit::fit(&texts, [area.width / columns as f64, area.height / rows as f64]);
        let mut texts = vec![String::new(); rows * columns];
        for ((query, key, _), text) in self.token_labels.iter().zip(fitted.texts) {
            texts[query * columns + key] = text;
        }
        Some(CellLabels { texts, size: fitted.size })
    }
}
