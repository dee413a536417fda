//! The content of a figure as one list of marks on a canvas.
//!
//! Heads and charts build a [`Drawing`]; [`plotly_writer`](super::plotly_writer) and [`svg_writer`](super::svg_writer)
//! write it. Texts are plain: each writer escapes them. What plotly can do and a static picture cannot (hover texts,
//! linked zoom, the menu of heads) is data of the marks that the SVG writer ignores.

use ndarray::Array2;

use super::canvas::Axes;
use super::style::Color;

/// Font size of axis labels and legends.
pub(super) const LABEL_SIZE: usize = 12;
/// Font size of texts in cells, captions, and labels beside points.
pub(super) const TOKEN_SIZE: usize = 10;
/// Font size of titles: plotly's default.
pub(super) const TITLE_SIZE: usize = 17;

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
    /// The choices in the menu of a plotly figure, each in place of `marks`; empty for no menu.
    pub(super) menu: Vec<MenuChoice>,
}

/// The title, centred above the figure.
#[derive(Clone, Debug)]
pub(super) struct Title {
    pub(super) text: String,
    /// Font size; `None` for [`TITLE_SIZE`], plotly's default.
    pub(super) size: Option<usize>,
    /// Pixels from the top of a static picture to the middle of the title. (plotly centres it in the top margin.)
    pub(super) y: f64,
}

/// An entry of the menu: other marks for the same axes. plotly replaces only colours, hover texts, texts and frames, so
/// the texts must have the number and the places of those in [`Drawing::marks`].
#[derive(Clone, Debug)]
pub(super) struct MenuChoice {
    pub(super) name: String,
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
    pub(super) range: ColorRange,
    pub(super) precision: Precision,
    pub(super) hover: Hover,
    /// Whether NaN is an empty cell, without hover text.
    pub(super) gaps: bool,
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
    /// Three decimals.
    Decimals,
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
    /// The part of the text's box that is at the point; `None` for plotly's choice, the middle.
    pub(super) horizontal: Option<Horizontal>,
    pub(super) vertical: Option<Vertical>,
    /// Rotation, clockwise. The box is that of the turned text.
    pub(super) degrees: i32,
    pub(super) size: usize,
    pub(super) color: Color,
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
        Self { size, margins, description, title: None, axes, marks, legend: false, menu }
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
