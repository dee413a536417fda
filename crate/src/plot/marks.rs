//! The content of a figure as one list of marks on a canvas.
//!
//! Heads and charts build a [`Drawing`]; [`plotly_writer`](super::plotly_writer) and [`svg_writer`](super::svg_writer)
//! write it. Texts are plain: each writer escapes them. What plotly can do and a static picture cannot (hover texts,
//! linked zoom, the menu of heads) is data of the marks that the SVG writer ignores.

use ndarray::{Array2, s};

use super::canvas::Axes;
use super::fit;
use super::style::{Color, FigureStyle};

/// Font size of axis labels and legends.
pub(super) const LABEL_SIZE: usize = 12;
/// Font size of texts in cells, captions, and labels beside points.
pub(super) const TOKEN_SIZE: usize = 10;
/// Font size of titles.
pub(super) const TITLE_SIZE: usize = 17;
/// Pixels at the top for plotly's tool bar, which a page shows all the time.
pub(super) const TOOL_BAR: f64 = 32.0;
/// Height of a line of text, in font sizes.
pub(super) const LINE_HEIGHT: f64 = 1.3;

/// Width of a marker in pixels.
pub(super) const MARKER_WIDTH: f64 = 7.0;
/// Width of a line in pixels.
pub(super) const LINE_WIDTH: f64 = 1.5;

/// A figure, laid out: its canvas, axes and marks.
#[derive(Clone, Debug)]
pub(super) struct Drawing {
    /// Width and height in pixels.
    pub(super) size: [usize; 2],
    /// Pixels on the left, on the right, at the top and at the bottom.
    pub(super) margins: [usize; 4],
    /// The static picture in words, for screen readers.
    pub(super) description: String,
    pub(super) title: Option<Title>,
    /// The pairs of axes, to which marks refer by index.
    pub(super) axes: Vec<Axes>,
    /// In the order in which they are drawn.
    pub(super) marks: Vec<Mark>,
    /// Whether there is a legend of the marks that have a [`LegendEntry`].
    pub(super) legend: bool,
    /// Whether the areas of the axes have the colour of cells without a token, for cells of NaN.
    pub(super) no_token_background: bool,
    /// The choices in the menu of a plotly figure, each in place of `marks`; empty for no menu.
    pub(super) menu: Vec<MenuChoice>,
}

/// The title, centred above the figure, below plotly's tool bar.
#[derive(Clone, Debug)]
pub(super) struct Title {
    /// One or more lines.
    pub(super) text: String,
    pub(super) size: usize,
}

/// An entry of the menu: other marks for the same axes. plotly replaces only colours, hover texts, texts and frames, so
/// the texts must have the number and the places of those in [`Drawing::marks`].
#[derive(Clone, Debug)]
pub(super) struct MenuChoice {
    pub(super) name: String,
    /// The title of the figure.
    pub(super) title: String,
    pub(super) marks: Vec<Mark>,
}

/// One element of a drawing.
#[derive(Clone, Debug)]
pub(super) enum Mark {
    Cells(Cells),
    Frames(Frames),
    Text(Text),
    Line(Line),
    Strokes(Strokes),
    Markers(Markers),
}

/// Coloured cells in rows and columns: a heat map.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    pub(super) axes: usize,
    /// Number of rows and of columns, including the gaps between blocks.
    pub(super) dim: (usize, usize),
    /// The values; one block, or several with gaps between them.
    pub(super) blocks: Vec<CellBlock>,
    pub(super) paint: Paint,
    pub(super) precision: Precision,
    pub(super) hover: Hover,
    /// The texts in the cells, horizontal; plotly makes them larger when one zooms in.
    pub(super) labels: Option<CellLabels>,
    /// Title of the colour bar, which is drawn on the right of the axes; `None` for no colour bar.
    pub(super) color_bar: Option<String>,
}

/// A block of adjacent cells.
#[derive(Clone, Debug)]
pub(super) struct CellBlock {
    /// Row and column of the first cell.
    pub(super) at: (usize, usize),
    /// Shape: `[row, column]`. NaN is not drawn.
    pub(super) values: Array2<f64>,
}

/// What the values of cells are, and their colours. NaN is an empty cell, without a hover text.
#[derive(Clone, Debug)]
pub(super) enum Paint {
    /// Numbers on the figure's colour scale.
    Scale(ColorRange),
    /// 0 for a cell without a token, then indices from 1 of these colours.
    Indices(Vec<[u8; 3]>),
}

/// Texts in cells, black or white, whichever has more contrast.
#[derive(Clone, Debug)]
pub(super) struct CellLabels {
    /// Row by row; empty for a cell without text. They may have several lines.
    pub(super) texts: Vec<String>,
    /// Font size.
    pub(super) size: usize,
}

/// The values at the ends of the colour scale.
#[derive(Clone, Copy, Debug)]
pub(super) enum ColorRange {
    /// The lowest and the highest.
    Ends([f64; 2]),
    /// The value in the middle; plotly makes the range wide enough for all values, and equally wide on both sides.
    Midpoint(f64),
}

/// Digits of a heat map's numbers in plotly's JSON; more would only make a notebook larger.
#[derive(Clone, Copy, Debug)]
pub(super) enum Precision {
    Exact,
    /// Four significant digits.
    Significant,
}

/// Hover texts of cells.
#[derive(Clone, Debug)]
pub(super) enum Hover {
    /// Nothing is shown.
    Skip,
    /// A text for each cell, row by row.
    Texts(Vec<String>),
    /// plotly's template, and a text for each cell for its `%{hovertext}`, or none.
    Template(&'static str, Vec<String>),
}

/// White frames around cells.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    pub(super) axes: usize,
    /// Row and column of each framed cell.
    pub(super) cells: Vec<(usize, usize)>,
    /// Width of the line in pixels.
    pub(super) width: f64,
    /// Whether all frames are one shape of plotly, which makes the JSON smaller and can be replaced as a whole.
    pub(super) joined: bool,
}

/// A line of text.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) axes: usize,
    pub(super) text: String,
    pub(super) x: Coordinate,
    pub(super) y: Coordinate,
    /// Pixels to the right and up.
    pub(super) shift: [f64; 2],
    /// The part of the text's box that is at the point; `None` for plotly's choice: the
    /// middle, except near the ends of an area.
    pub(super) horizontal: Option<Horizontal>,
    pub(super) vertical: Option<Vertical>,
    /// Rotation, clockwise. The box is that of the turned text.
    pub(super) degrees: i32,
    pub(super) size: usize,
    pub(super) color: Color,
    /// Whether the text is in a box with the colour of the background.
    pub(super) boxed: bool,
}

/// One coordinate of a text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Coordinate {
    /// A value on the axis.
    Value(f64),
    /// A share of the area of the axes, rightwards or upwards: the text stays there when one zooms.
    Axes(f64),
    /// A share of the canvas between the margins, rightwards or upwards.
    Canvas(f64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Horizontal {
    Left,
    Center,
    Right,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Vertical {
    Top,
    Middle,
    Bottom,
}

/// Name, colour and marker of a mark, in the figure and in the legend.
#[derive(Clone, Debug)]
pub(super) struct LegendEntry {
    /// Empty to be left out of the legend.
    pub(super) name: String,
    pub(super) color: Color,
    pub(super) symbol: Symbol,
}

/// A line from point to point. plotly has small markers on it, for the hover texts; a static picture needs none.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) entry: LegendEntry,
    pub(super) points: Vec<[f64; 2]>,
    /// A hover text for each point, or none for plotly's own.
    pub(super) hover: Vec<String>,
}

/// Several lines that belong together, without hover texts.
#[derive(Clone, Debug)]
pub(super) struct Strokes {
    pub(super) entry: LegendEntry,
    pub(super) strokes: Vec<Vec<[f64; 2]>>,
}

/// Markers at points.
#[derive(Clone, Debug)]
pub(super) struct Markers {
    pub(super) entry: LegendEntry,
    pub(super) points: Vec<[f64; 2]>,
    /// The ends of a vertical bar through each point, or none.
    pub(super) intervals: Vec<[f64; 2]>,
    /// A label above each point, or none.
    pub(super) labels: Vec<String>,
    /// A hover text for each point, or none for plotly's own.
    pub(super) hover: Vec<String>,
}

/// Shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    Circle,
    Square,
    Diamond,
    Triangle,
    Cross,
    X,
}

impl Drawing {
    /// An empty canvas with its margins: left, right, top, bottom.
    pub(super) fn new(size: [usize; 2], margins: [usize; 4], description: String) -> Self {
        let (axes, marks, menu) = (Vec::new(), Vec::new(), Vec::new());
        let (legend, no_token_background) = (false, false);
        Self { size, margins, description, title: None, axes, marks, legend, no_token_background, menu }
    }
}

impl Title {
    /// A title in as many lines as it needs in a figure of this width.
    pub(super) fn new(text: &str, width: usize) -> Self {
        let lines = fit::paragraph(text, width as f64 - 40.0, TITLE_SIZE);
        Self { text: lines.join("\n"), size: TITLE_SIZE }
    }

    /// Pixels from the top of the figure to the end of the title.
    pub(super) fn bottom(&self) -> f64 {
        TOOL_BAR + self.text.lines().count() as f64 * LINE_HEIGHT * self.size as f64
    }
}

impl Cells {
    /// The colour of each value; `None` for NaN, and for a cell without a token, which has the theme's colour for it.
    pub(super) fn color(&self, style: FigureStyle) -> impl Fn(f64) -> Option<[u8; 3]> + use<> {
        let share = match &self.paint {
            Paint::Scale(range) => Some(range.share(&self.blocks)),
            Paint::Indices(_) => None,
        };
        let colors = if let Paint::Indices(colors) = &self.paint { colors.clone() } else { Vec::new() };
        let scale = style.scale().colors();
        move |value: f64| match &share {
            _ if value.is_nan() => None,
            Some(share) => Some(scale(share(value))),
            None => (value as usize).checked_sub(1).and_then(|index| colors.get(index).copied()),
        }
    }

    /// The value of each cell, row by row; NaN between the blocks.
    pub(super) fn values(&self) -> Array2<f64> {
        let mut values = Array2::from_elem(self.dim, f64::NAN);
        for block in &self.blocks {
            let ((row, column), (rows, columns)) = (block.at, block.values.dim());
            values.slice_mut(s![row..row + rows, column..column + columns]).assign(&block.values);
        }
        values
    }

    /// The colour of each cell's label, row by row; `None` for a cell without one.
    pub(super) fn label_colors(&self, style: FigureStyle) -> Vec<Option<Color>> {
        let Some(labels) = &self.labels else { return Vec::new() };
        let color = self.color(style);
        let on = |rgb: Option<[u8; 3]>| rgb.map_or(Color::Text, Color::readable_on);
        let values = self.values();
        let cells = values.iter().zip(&labels.texts);
        cells.map(|(&value, text)| (!text.is_empty()).then(|| on(color(value)))).collect()
    }
}

impl Mark {
    /// The legend's entry, for the marks of charts.
    pub(super) fn legend_entry(&self) -> Option<&LegendEntry> {
        match self {
            Self::Line(Line { entry, .. })
            | Self::Strokes(Strokes { entry, .. })
            | Self::Markers(Markers { entry, .. }) => Some(entry),
            Self::Cells(_) | Self::Frames(_) | Self::Text(_) => None,
        }
    }
}

impl ColorRange {
    /// A function from the values of these blocks to positions on the colour scale, whose ends are 0 and 1.
    pub(super) fn share(self, blocks: &[CellBlock]) -> impl Fn(f64) -> f64 + use<> {
        let (origin, at_origin, width) = match self {
            Self::Ends([low, high]) => (low, 0.0, (high - low).max(f64::MIN_POSITIVE)),
            Self::Midpoint(midpoint) => {
                let distances = blocks.iter().flat_map(|block| &block.values).map(|value| (value - midpoint).abs());
                (midpoint, 0.5, 2.0 * distances.filter(|distance| distance.is_finite()).fold(0.0, f64::max))
            }
        };
        move |value| if width > 0.0 { at_origin + (value - origin) / width } else { at_origin }
    }
}

impl Text {
    /// A text at the origin of the figure's first axes; struct update syntax sets another place.
    pub(super) fn new(text: impl Into<String>, size: usize, color: Color) -> Self {
        Self {
            axes: 0,
            text: text.into(),
            x: Coordinate::Value(0.0),
            y: Coordinate::Value(0.0),
            shift: [0.0; 2],
            horizontal: None,
            vertical: None,
            degrees: 0,
            size,
            color,
            boxed: false,
        }
    }
}

impl Symbol {
    const ALL: [Self; 6] = [Self::Circle, Self::Square, Self::Diamond, Self::Triangle, Self::Cross, Self::X];

    /// The symbol of an index; symbols repeat.
    pub(super) fn nth(index: usize) -> Self {
        Self::ALL[index % Self::ALL.len()]
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::{CellBlock, ColorRange};

    #[test]
    fn a_midpoint_is_in_the_middle_of_the_scale() {
        let of = |values| {
            let share = ColorRange::Midpoint(0.5).share(&[CellBlock { at: (0, 0), values: arr2(&[values]) }]);
            values.map(share)
        };
        assert_eq!(of([-0.5, 0.5, 2.5]), [0.25, 0.5, 1.0]);
        assert_eq!(of([0.5, 0.5, 0.5]), [0.5; 3]);
        assert_eq!([1.0, 2.0, 5.0].map(ColorRange::Ends([1.0, 3.0]).share(&[])), [0.0, 0.5, 2.0]);
    }
}
