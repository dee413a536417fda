//! Charts of experiments: points, lines, intervals and arrows between two axes.

use plotly::common::{ErrorData, ErrorType, Font, HoverInfo, Line, Marker, MarkerSymbol, Mode, Position, Title};
use plotly::layout::{HoverMode, Legend};
use plotly::{Layout, Plot, Scatter};

use super::axis::{ChartAxis, Ruler, Side};
use crate::plot::figure::{Content, Figure};
use crate::plot::heads::heat_map::{TITLE_SIZE, between, layout};
use crate::plot::heads::panel::{LABEL_SIZE, Panel, TOKEN_SIZE};
use crate::plot::style::Look;
use crate::plot::svg::{Area, Picture, Style};
use crate::plot::text::{escape, escaped, rounded};

const SIZE: [usize; 2] = [1000, 600];
/// Left, right, above, below.
const MARGINS: [usize; 4] = [90, 150, 70, 100];
/// Width of a marker in pixels.
const MARKER: f64 = 7.0;
/// Length of an arrow's head, as a share of the width of the chart.
const ARROW_HEAD: f64 = 0.012;

/// Pixels between arrows that would lie on each other.
const ARROW_DISTANCE: f64 = 3.0;

/// Marks between two axes.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: ChartAxis,
    pub(crate) y: ChartAxis,
    pub(crate) series: Vec<Series>,
}

/// Marks that belong together: one entry of the legend, if they have a name.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) form: Form,
    pub(crate) color: Shade,
    /// Which of the symbols: what has another colour has another symbol as well.
    pub(crate) symbol: usize,
    pub(crate) points: Vec<[f64; 2]>,
    /// What is said of each point under the pointer; none or one for each point.
    pub(crate) texts: Vec<String>,
    /// What stands beside each point; none or one for each point.
    pub(crate) labels: Vec<String>,
}

/// How the points of a series are drawn.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Points,
    /// From point to point.
    Line,
    /// Points, each with an interval along y: from and to.
    Intervals(Vec<[f64; 2]>),
    /// From the first point of each pair to the second, with a head.
    Arrows,
}

/// A colour that fits the theme and the colour scale of the figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shade {
    /// That of texts.
    Text,
    /// That of what is said in passing.
    Faint,
    /// A share of the colour scale, from 0 to 1.
    Share(f64),
}

const SYMBOLS: [MarkerSymbol; 6] = [
    MarkerSymbol::Circle,
    MarkerSymbol::Square,
    MarkerSymbol::Diamond,
    MarkerSymbol::TriangleUp,
    MarkerSymbol::Cross,
    MarkerSymbol::X,
];

impl Series {
    pub(crate) fn new(name: impl Into<String>, form: Form, color: Shade, points: Vec<[f64; 2]>) -> Self {
        let (texts, labels) = (Vec::new(), Vec::new());
        Self { name: name.into(), form, color, symbol: 0, points, texts, labels }
    }

    /// The values along an axis, ends of intervals included.
    fn values(&self, side: Side) -> impl Iterator<Item = f64> {
        let along = if side == Side::Bottom { 0 } else { 1 };
        let ends: &[[f64; 2]] = match &self.form {
            Form::Intervals(ends) if side == Side::Left => ends,
            _ => &[],
        };
        self.points.iter().map(move |point| point[along]).chain(ends.iter().flatten().copied())
    }

    fn trace(&self, look: Look, arrows: &[Vec<[f64; 2]>]) -> Box<Scatter<f64, f64>> {
        let color = self.color.hex(look);
        // An arrow is one stroke; between two of them is a gap.
        let gap = [f64::NAN; 2];
        let strokes: Vec<[f64; 2]> = arrows.iter().flat_map(|arrow| arrow.iter().copied().chain([gap])).collect();
        let points = if matches!(self.form, Form::Arrows) { &strokes } else { &self.points };
        let along = |axis: usize| points.iter().map(|point| rounded(point[axis])).collect::<Vec<f64>>();
        let (x, y) = (along(0), along(1));
        let scatter = Scatter::new(x, y).name(escape(&self.name)).show_legend(!self.name.is_empty());
        let labelled = !self.labels.is_empty();
        let marker = || {
            Marker::new()
                .color(color.clone())
                .size(MARKER as usize)
                .symbol(SYMBOLS[self.symbol % SYMBOLS.len()].clone())
        };
        let line = || Line::new().color(color.clone()).width(1.5);
        let scatter = match &self.form {
            Form::Points if labelled => scatter.mode(Mode::MarkersText).marker(marker()),
            Form::Points => scatter.mode(Mode::Markers).marker(marker()),
            Form::Line => scatter.mode(Mode::LinesMarkers).marker(marker().size(4)).line(line()),
            Form::Arrows => scatter.mode(Mode::Lines).line(line()),
            Form::Intervals(ends) => {
                let off = |end: usize, sign: f64| -> Vec<f64> {
                    let off = |(point, ends): (&[f64; 2], &[f64; 2])| rounded(sign * (ends[end] - point[1]));
                    self.points.iter().zip(ends).map(off).collect()
                };
                let bars =
                    ErrorData::new(ErrorType::Data).symmetric(false).array(off(1, 1.0)).array_minus(off(0, -1.0));
                let mode = if labelled { Mode::MarkersText } else { Mode::Markers };
                scatter.mode(mode).marker(marker()).error_y(bars.color(color.clone()).thickness(1.0).width(2))
            }
        };
        let scatter = match labelled {
            true => {
                let font = Font::new().size(TOKEN_SIZE).color(look.theme.text());
                scatter.text_array(escaped(&self.labels)).text_position(Position::TopCenter).text_font(font)
            }
            false => scatter,
        };
        match self.texts.is_empty() {
            true if matches!(self.form, Form::Arrows) => scatter.hover_info(HoverInfo::Skip),
            true => scatter,
            false => scatter.hover_text_array(escaped(&self.texts)).hover_info(HoverInfo::Text),
        }
    }

    fn svg(&self, picture: &mut Picture, area: Area, [x, y]: [&Ruler; 2], arrows: &[Vec<[f64; 2]>]) {
        let color = self.color.hex(picture.look());
        let at = |&[along, up]: &[f64; 2]| [x.pixel(along, area), y.pixel(up, area)];
        match &self.form {
            Form::Line => picture.lines([self.points.iter().map(at).collect::<Vec<_>>()], &color, 1.5),
            Form::Arrows => {
                let strokes = arrows.iter().map(|arrow| arrow.iter().map(at).collect::<Vec<_>>());
                picture.lines(strokes, &color, 1.5);
            }
            Form::Intervals(ends) => {
                let bars = self.points.iter().zip(ends);
                picture.lines(bars.map(|(point, ends)| ends.map(|end| at(&[point[0], end]))), &color, 1.0);
            }
            Form::Points => {}
        }
        if matches!(self.form, Form::Points | Form::Intervals(_)) {
            picture.markers(self.symbol % SYMBOLS.len(), MARKER, &color, self.points.iter().map(at));
        }
        let style = Style { size: TOKEN_SIZE, color: picture.look().theme.text(), anchor: "middle", degrees: 0 };
        let beside = self.points.iter().zip(&self.labels).map(|(point, label)| {
            let [x, y] = at(point);
            (x, y - TOKEN_SIZE as f64, label.as_str())
        });
        picture.texts(style, beside);
    }

    /// Arrows as strokes, with heads of one size in the shape of the chart.
    fn arrows(&self, [x, y]: [&Ruler; 2]) -> Vec<Vec<[f64; 2]>> {
        if !matches!(self.form, Form::Arrows) {
            return Vec::new();
        }
        let area = between(MARGINS, SIZE);
        // A pixel in each axis' units.
        let unit = |ruler: &Ruler| 1.0 / (ruler.pixel(1.0, area) - ruler.pixel(0.0, area)).abs();
        let (across, up) = (unit(x), unit(y));
        let head = ARROW_HEAD * area.width;
        let arrow = |pair: &[[f64; 2]]| {
            let [from, to] = [pair[0], pair[1]];
            let (dx, dy) = ((to[0] - from[0]) / across, (to[1] - from[1]) / up);
            let length = dx.hypot(dy);
            if length == 0.0 {
                return vec![from, to];
            }
            let (dx, dy) = (dx / length, dy / length);
            // Beside those of other series, and beside those that go back.
            let side = ARROW_DISTANCE * (1 + self.symbol) as f64;
            let beside = |[x, y]: [f64; 2]| [x + side * dy * across, y - side * dx * up];
            let (from, to) = (beside(from), beside(to));
            // Short of the marker that it points to.
            let tip = [to[0] - MARKER * dx * across, to[1] - MARKER * dy * up];
            let barb = |turn: f64| {
                let (sin, cos) = turn.sin_cos();
                let (bx, by) = (dx * cos - dy * sin, dx * sin + dy * cos);
                [tip[0] - head * bx * across, tip[1] - head * by * up]
            };
            vec![from, tip, barb(0.4), tip, barb(-0.4)]
        };
        self.points.chunks_exact(2).map(arrow).collect()
    }
}

impl Shade {
    /// As CSS has it.
    pub(in crate::plot) fn hex(self, look: Look) -> String {
        match self {
            Self::Text => look.theme.text().into(),
            Self::Faint => look.theme.faint().into(),
            Self::Share(share) => {
                let [red, green, blue] = look.color_scale.colors()(share);
                format!("#{red:02x}{green:02x}{blue:02x}")
            }
        }
    }

    /// The colour of one of several layers. Neither end of the scale is used: one of them is hardly seen on white or black.
    pub(crate) fn of_layer(layer: usize, n_layers: usize) -> Self {
        let step = layer as f64 / n_layers.saturating_sub(1).max(1) as f64;
        Self::Share(0.06 + 0.82 * step)
    }
}

impl Chart {
    fn rulers(&self) -> [Ruler<'_>; 2] {
        [(&self.x, Side::Bottom), (&self.y, Side::Left)]
            .map(|(axis, side)| axis.ruler(side, self.series.iter().flat_map(move |series| series.values(side))))
    }

    pub(crate) fn figure(self) -> Figure {
        Figure::new(self)
    }
}

impl Content for Chart {
    fn plot(&self, look: Look) -> Plot {
        let [x, y] = self.rulers();
        let mut plot = Plot::new();
        for series in &self.series {
            plot.add_trace(series.trace(look, &series.arrows([&x, &y])));
        }
        let legend = Legend::new().font(Font::new().size(LABEL_SIZE).color(look.theme.text()));
        let layout = titled(&self.title, SIZE, MARGINS, look).hover_mode(HoverMode::Closest).legend(legend);
        plot.set_layout(layout.x_axis(x.plotly(look)).y_axis(y.plotly(look)));
        plot
    }

    fn svg(&self, look: Look) -> Option<String> {
        let mut picture = Picture::new(SIZE, &self.describe(), look);
        let area = between(MARGINS, SIZE);
        let [x, y] = self.rulers();
        x.svg(&mut picture, area, MARGINS[3]);
        y.svg(&mut picture, area, MARGINS[0]);
        for series in &self.series {
            series.svg(&mut picture, area, [&x, &y], &series.arrows([&x, &y]));
        }
        picture.line(SIZE[0] as f64 / 2.0, MARGINS[2] as f64 / 2.0, TITLE_SIZE, &self.title);
        let left = area.x + area.width + 20.0;
        for (row, series) in self.series.iter().filter(|series| !series.name.is_empty()).enumerate() {
            let at = area.y + 10.0 + 18.0 * row as f64;
            let color = series.color.hex(look);
            match series.form {
                Form::Line | Form::Arrows => picture.lines([[[left - 6.0, at], [left + 6.0, at]]], &color, 1.5),
                _ => picture.markers(series.symbol % SYMBOLS.len(), MARKER, &color, [[left, at]].into_iter()),
            }
            let style = Style { size: LABEL_SIZE, color: look.theme.text(), anchor: "start", degrees: 0 };
            picture.texts(style, [(left + 12.0, at, series.name.as_str())].into_iter());
        }
        Some(picture.finish())
    }

    fn describe(&self) -> String {
        let marks: usize = self.series.iter().map(|series| series.points.len()).sum();
        let axes = match (self.x.title(), self.y.title()) {
            ("", "") => String::new(),
            (x, y) => format!(", {y} over {x}"),
        };
        format!("chart: {}{axes}; {} series, {marks} points", self.title, self.series.len())
    }

    fn panel(&self) -> Result<&Panel, &'static str> {
        Err("a chart")
    }
}

/// A layout with a title.
pub(in crate::plot) fn titled(title: &str, size: [usize; 2], margins: [usize; 4], look: Look) -> Layout {
    let font = Font::new().size(TITLE_SIZE).color(look.theme.text());
    layout(size, margins, look).title(Title::with_text(escape(title)).font(font))
}
