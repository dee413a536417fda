//! The content of a figure as one list of marks on a canvas.
//!
//! Heads and charts build a [`Drawing`]; [`plotly_writer`](super::plotly_writer) and [`svg_writer`](super::svg_writer)
//! write it. Texts are plain: each writer escapes them. What plotly can do and a static picture cannot (hover texts,
//! linked zoom, the menu of heads) is data of the marks that the SVG writer ignores.

use super::canvas::Axes;
pub(super) use super::cells::{CellBlock, CellLabels, Cells, ColorRange, Hover, Paint, Precision};
use super::fit;
use super::style::Color;

/// Width of a figure in pixels unless another was chosen: that of an output of JupyterLab with its side bar open.
pub(super) const WIDTH: usize = 940;
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
    /// The choices in the menu of a plotly figure, each in place of `marks` and of those of `layers`; empty for no menu.
    pub(super) menu: Vec<MenuChoice>,
    /// Whether the menu is above the canvas, and not in its upper left corner. One of a figure with layers always is.
    pub(super) menu_above: bool,
    /// More marks, of which a part is shown.
    pub(super) layers: Option<Box<Layers>>,
}

/// Marks over the others, of which a reader of a plotly figure chooses a part to see. A static picture shows the first
/// choice's.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    /// The marks of each layer: no texts and no frames, which plotly cannot hide.
    pub(super) marks: Vec<Vec<Mark>>,
    pub(super) control: Control,
    /// The name of each choice, and the layers that it shows.
    pub(super) choices: Vec<(String, Vec<usize>)>,
    /// The choice at the beginning.
    pub(super) first: usize,
}

/// How a reader chooses among layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Menu,
    /// A slider below the figure, with this text before the name of the choice.
    Slider(&'static str),
}

/// The title, centred above the figure, below plotly's tool bar.
#[derive(Clone, Debug)]
pub(super) struct Title {
    /// One or more lines.
    pub(super) text: String,
    pub(super) size: usize,
}

/// An entry of the menu: other marks for the same axes, those of the layers after the others. plotly replaces only colours,
/// hover texts, texts and frames, so the texts must have the number and the places of those in [`Drawing::marks`], and
/// several cells the order of theirs.
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
    /// Width of the lines in pixels.
    pub(super) width: f64,
    /// From 0, which cannot be seen, to 1.
    pub(super) opacity: f64,
    /// What plotly's legend shows and hides together; `None` for this mark alone.
    pub(super) group: Option<String>,
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
        Self {
            size,
            margins,
            description,
            title: None,
            axes,
            marks,
            legend: false,
            no_token_background: false,
            menu,
            menu_above: false,
            layers: None,
        }
    }

    /// The marks that are shown at the beginning, in the order in which they are drawn: over layers are texts and frames, as
    /// in plotly.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Mark> {
        let is_over = |mark: &&Mark| self.layers.is_some() && matches!(mark, Mark::Text(_) | Mark::Frames(_));
        let layers = self.layers.iter();
        let layers = layers.flat_map(|layers| layers.choices[layers.first].1.iter().flat_map(|&at| &layers.marks[at]));
        self.marks.iter().filter(move |mark| !is_over(mark)).chain(layers).chain(self.marks.iter().filter(is_over))
    }
}

impl Layers {
    /// Whether each mark of all layers is shown by a choice.
    pub(super) fn are_shown(&self, choice: usize) -> impl Iterator<Item = (&Mark, bool)> {
        let shown = &self.choices[choice].1;
        let layers = self.marks.iter().enumerate();
        layers.flat_map(move |(layer, marks)| marks.iter().map(move |mark| (mark, shown.contains(&layer))))
    }
}

impl Title {
    /// The title of a figure of this width, if it has one.
    pub(super) fn of(text: Option<&str>, width: usize) -> Option<Self> {
        text.filter(|text| !text.is_empty()).map(|text| Self::new(text, width))
    }

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
