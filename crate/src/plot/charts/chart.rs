//! Charts of experiments: points, lines, intervals and arrows between two axes.

use super::axis::ChartAxis;
use crate::plot::canvas::{Area, Axes};
use crate::plot::content::{Content, Drawn};
use crate::plot::marks::{Drawing, LegendEntry, Line, MARKER_WIDTH, Mark, Markers, Strokes, Symbol, TITLE_SIZE, Title};
use crate::plot::style::{Color, FigureStyle};

/// Width and height in pixels.
const SIZE: [usize; 2] = [1000, 600];
/// Left, right, top, bottom.
const MARGINS: [usize; 4] = [90, 150, 70, 100];
/// Length of the two lines of an arrow's head, as a share of the width of the chart.
const ARROW_HEAD: f64 = 0.012;
/// Pixels between parallel arrows of different series.
const ARROW_DISTANCE: f64 = 3.0;

/// Series on one pair of axes.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: ChartAxis,
    pub(crate) y: ChartAxis,
    pub(crate) series: Vec<Series>,
}

/// Points of one colour: one entry of the legend, if it has a name.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) form: Form,
    pub(crate) color: Color,
    /// Index of the marker's shape, so that series differ even without colours. Arrows of a larger index are drawn
    /// further from the straight line between their points.
    pub(crate) symbol: usize,
    pub(crate) points: Vec<[f64; 2]>,
    /// Hover text of each point, or none; arrows have none.
    pub(crate) texts: Vec<String>,
    /// Label of each point, or none; lines and arrows have none.
    pub(crate) labels: Vec<String>,
}

/// How the points of a series are drawn.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Points,
    /// From point to point.
    Line,
    /// Points, and an interval on the y axis for each: its two ends.
    Intervals(Vec<[f64; 2]>),
    /// An arrow from the first to the second point of each pair.
    Arrows,
}

impl Series {
    /// A series with circles as markers, without hover texts and labels. Shape: `points [n, 2]`.
    pub(crate) fn new(name: impl Into<String>, form: Form, color: Color, points: Vec<[f64; 2]>) -> Self {
        let (texts, labels) = (Vec::new(), Vec::new());
        Self { name: name.into(), form, color, symbol: 0, points, texts, labels }
    }

    /// The ends of all intervals. Shape: → `[n, 2]`.
    fn ends(&self) -> &[[f64; 2]] {
        if let Form::Intervals(ends) = &self.form { ends } else { &[] }
    }

    fn mark(&self, axes: &Axes) -> Mark {
        let entry = LegendEntry { name: self.name.clone(), color: self.color, symbol: Symbol::nth(self.symbol) };
        match &self.form {
            Form::Line => Mark::Line(Line { entry, points: self.points.clone(), hover: self.texts.clone() }),
            Form::Arrows => Mark::Strokes(Strokes { entry, strokes: self.arrows(axes) }),
            Form::Points | Form::Intervals(_) => Mark::Markers(Markers {
                entry,
                points: self.points.clone(),
                intervals: self.ends().to_vec(),
                labels: self.labels.clone(),
                hover: self.texts.clone(),
            }),
        }
    }

    /// Each arrow as one line, with a head whose size and shape on the canvas do not depend on the axes.
    /// Shape: → `[arrow] [point, 2]`.
    fn arrows(&self, axes: &Axes) -> Vec<Vec<[f64; 2]>> {
        // A pixel in units of the axes.
        let [origin, unit] = [axes.pixel([0.0, 0.0]), axes.pixel([1.0, 1.0])];
        let [across, up] = [0, 1].map(|axis| 1.0 / (unit[axis] - origin[axis]).abs());
        let head = ARROW_HEAD * axes.area.width;
        let arrow = |pair: &[[f64; 2]]| {
            let [from, to] = [pair[0], pair[1]];
            let (dx, dy) = ((to[0] - from[0]) / across, (to[1] - from[1]) / up);
            let length = dx.hypot(dy);
            if length == 0.0 {
                return vec![from, to];
            }
            let (dx, dy) = (dx / length, dy / length);
            // Moved to one side, so that arrows of other series and in the opposite direction do not cover each other.
            let side = ARROW_DISTANCE * (1 + self.symbol) as f64;
            let beside = |[x, y]: [f64; 2]| [x + side * dy * across, y - side * dx * up];
            let (from, to) = (beside(from), beside(to));
            // The tip ends before the marker.
            let tip = [to[0] - MARKER_WIDTH * dx * across, to[1] - MARKER_WIDTH * dy * up];
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

impl Chart {
    fn axes(&self) -> Axes {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let ends = self.series.iter().flat_map(|series| series.ends().iter().flatten().copied());
        let x = self.x.x(points().map(|point| point[0]));
        let y = self.y.y(points().map(|point| point[1]).chain(ends));
        Axes { area: Area::between(MARGINS, SIZE), placed: false, square: false, linked: false, x, y }
    }
}

impl Content for Chart {
    fn draw(&self, _: FigureStyle) -> Drawn {
        let axes = self.axes();
        Drawn::Marks(Drawing {
            title: Some(Title { text: self.title.clone(), size: Some(TITLE_SIZE), y: MARGINS[2] as f64 / 2.0 }),
            marks: self.series.iter().map(|series| series.mark(&axes)).collect(),
            axes: vec![axes],
            legend: true,
            ..Drawing::new(SIZE, MARGINS, self.describe())
        })
    }

    fn describe(&self) -> String {
        let points: usize = self.series.iter().map(|series| series.points.len()).sum();
        let axes = match (self.x.title(), self.y.title()) {
            ("", "") => String::new(),
            (x, y) => format!(", {y} over {x}"),
        };
        format!("chart: {}{axes}; {} series, {points} points", self.title, self.series.len())
    }

    fn kind(&self) -> &'static str {
        "a chart"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_ends_short_of_its_marker() {
        let series = Series::new("", Form::Arrows, Color::Text, vec![[0.0, 0.0], [10.0, 0.0]]);
        let chart =
            Chart { title: "".into(), x: ChartAxis::linear("x"), y: ChartAxis::linear("y"), series: vec![series] };
        let axes = chart.axes();
        let [arrow] = &chart.series[0].arrows(&axes)[..] else { panic!("one pair is one arrow") };
        let [from, to] = [[0.0, 0.0], [10.0, 0.0]].map(|point| axes.pixel(point));
        let [start, tip] = [arrow[0], arrow[1]].map(|point| axes.pixel(point));
        assert!((start[0] - from[0]).abs() < 1e-9 && (start[1] - from[1] - ARROW_DISTANCE).abs() < 1e-9);
        assert!((to[0] - tip[0] - MARKER_WIDTH).abs() < 1e-9);
        assert_eq!((arrow[1], arrow.len()), (arrow[3], 5));
    }
}
