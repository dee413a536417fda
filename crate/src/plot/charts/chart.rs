//! Charts of experiments: points, lines, intervals and arrows between two axes.

use super::axis::ChartAxis;
use super::label_places::with_room;
use crate::plot::canvas::{Area, Axes};
use crate::plot::content::{Content, Drawn};
use crate::plot::fit;
use crate::plot::marks::{
    Coordinate, Drawing, LABEL_SIZE, LINE_WIDTH, LegendEntry, Line, MARKER_WIDTH, Mark, Markers, Strokes, Symbol, Text,
    Title, Vertical, WIDTH,
};
use crate::plot::style::{Color, FigureStyle};

/// Width and height in pixels, unless others were chosen.
const SIZE: [usize; 2] = [WIDTH, 600];
/// Pixels at the bottom, for the axis.
const BOTTOM: usize = 100;
/// Height of a bar in pixels, and of a bar with the space around it.
const BAR: f64 = 11.0;
const BAR_ROW: usize = 20;
/// Length of the two lines of an arrow's head in pixels.
const ARROW_HEAD: f64 = 8.0;
/// Radius of the loop of an arrow from a node to itself, and how much larger the next one is.
const LOOP: f64 = 7.0;
const LOOP_DISTANCE: f64 = 4.0;
/// Maximum width of a node's label in characters.
const MAX_LABEL: usize = 16;
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
    /// An arrow from the first to the second point of each pair, a loop if they are the same. The points are those of
    /// the chart's [`Nodes`](Self::Nodes), if there are any.
    Arrows,
    /// Labels in boxes, at which arrows end.
    Nodes,
    /// A horizontal bar from 0 to each point, which has the marker. The y axis has names.
    Bars,
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

    /// `boxes` are the nodes of the chart, `taken` the places of labels of points.
    fn marks(&self, axes: &Axes, boxes: &[NodeBox], taken: &mut Vec<([f64; 2], f64)>) -> Vec<Mark> {
        let entry = LegendEntry { name: self.name.clone(), color: self.color, symbol: Symbol::nth(self.symbol) };
        let markers = |labels: &[String]| {
            Mark::Markers(Markers {
                entry: entry.clone(),
                points: self.points.clone(),
                intervals: self.ends().to_vec(),
                labels: labels.to_vec(),
                hover: self.texts.clone(),
            })
        };
        match &self.form {
            Form::Line => vec![Mark::Line(Line { entry, points: self.points.clone(), hover: self.texts.clone() })],
            Form::Arrows => {
                let strokes = self.arrows(axes, boxes);
                vec![Mark::Strokes(Strokes { entry, strokes, width: LINE_WIDTH, opacity: 1.0, group: None })]
            }
            Form::Points => {
                let points = self.points.iter().map(|&point| axes.pixel(point));
                let labels = with_room(points, &self.labels, taken);
                vec![markers(if labels.iter().all(String::is_empty) { &[] } else { &labels })]
            }
            Form::Intervals(_) => vec![markers(&self.labels)],
            Form::Bars => {
                let strokes = self.points.iter().map(|&[x, y]| vec![[0.0, y], [x, y]]).collect();
                let named = LegendEntry { name: String::new(), ..entry.clone() };
                let bars = Strokes { entry: entry.clone(), strokes, width: BAR, opacity: 1.0, group: None };
                let ends = Markers {
                    entry: named,
                    points: self.points.clone(),
                    intervals: Vec::new(),
                    labels: Vec::new(),
                    hover: self.texts.clone(),
                };
                vec![Mark::Strokes(bars), Mark::Markers(ends)]
            }
            Form::Nodes => {
                let label = |(point, label): (&[f64; 2], &String)| {
                    Mark::Text(Text {
                        x: Coordinate::Value(point[0]),
                        y: Coordinate::Value(point[1]),
                        vertical: Some(Vertical::Middle),
                        boxed: true,
                        ..Text::new(fit::shortened(label, MAX_LABEL), LABEL_SIZE, Color::Text)
                    })
                };
                // The markers are for the hover texts; the boxes cover them.
                std::iter::once(markers(&[])).chain(self.points.iter().zip(&self.labels).map(label)).collect()
            }
        }
    }

    /// The boxes of the nodes of this series.
    fn boxes(&self) -> impl Iterator<Item = NodeBox> {
        let is_nodes = matches!(self.form, Form::Nodes);
        self.points.iter().zip(&self.labels).filter(move |_| is_nodes).map(|(&point, label)| {
            let width = fit::width(&fit::shortened(label, MAX_LABEL)) as f64 * 0.6 * LABEL_SIZE as f64;
            NodeBox { point, half: [width / 2.0 + 5.0, LABEL_SIZE as f64 * 0.7 + 4.0] }
        })
    }

    /// Each arrow as one line, with a head whose size and shape on the canvas do not depend on the axes.
    /// Shape: → `[arrow] [point, 2]`.
    fn arrows(&self, axes: &Axes, boxes: &[NodeBox]) -> Vec<Vec<[f64; 2]>> {
        let arrow = |pair: &[[f64; 2]]| {
            let half = |point: [f64; 2]| boxes.iter().find(|node| node.point == point).map(|node| node.half);
            let [from, to] = [axes.pixel(pair[0]), axes.pixel(pair[1])];
            let line = if pair[0] == pair[1] {
                self.looped(from, half(pair[0]))
            } else {
                self.straight(from, to, half(pair[0]), half(pair[1]))
            };
            line.into_iter().map(|pixel| axes.value(pixel)).collect()
        };
        self.points.chunks_exact(2).map(arrow).collect()
    }

    /// An arrow between two points, or from the edge of one box to that of another, in pixels.
    fn straight(
        &self,
        from: [f64; 2],
        to: [f64; 2],
        from_box: Option<[f64; 2]>,
        to_box: Option<[f64; 2]>,
    ) -> Vec<[f64; 2]> {
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let length = dx.hypot(dy);
        if length == 0.0 {
            return vec![from, to];
        }
        let (dx, dy) = (dx / length, dy / length);
        // Moved to one side, so that arrows of other series and in the opposite direction do not cover each other.
        let side = ARROW_DISTANCE * (1 + self.symbol) as f64;
        let beside = |[x, y]: [f64; 2]| [x - side * dy, y + side * dx];
        // The pixels along the arrow from the middle of a box to its edge.
        let inside = |half: Option<[f64; 2]>, otherwise: f64| {
            half.map_or(otherwise, |[width, height]| (width / dx.abs()).min(height / dy.abs()))
        };
        let (start, end) = (inside(from_box, 0.0), inside(to_box, MARKER_WIDTH));
        let (from, to) = (beside(from), beside(to));
        let start = [from[0] + start * dx, from[1] + start * dy];
        let tip = [to[0] - end * dx, to[1] - end * dy];
        with_head(vec![start], tip, [dx, dy])
    }

    /// A loop at the right edge of a box, around those of the series before, in pixels.
    fn looped(&self, at: [f64; 2], half: Option<[f64; 2]>) -> Vec<[f64; 2]> {
        let [width, _] = half.unwrap_or([MARKER_WIDTH / 2.0; 2]);
        let radius = LOOP + LOOP_DISTANCE * self.symbol as f64;
        let point = |degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            [at[0] + width + radius * (0.8 + cos), at[1] + radius * sin]
        };
        // Clockwise, from above the middle of the edge to below it.
        let line: Vec<[f64; 2]> = (0..=12).map(|step| point(217.0 + 22.0 * f64::from(step))).collect();
        with_head(line, point(503.0), [-0.6, -0.8])
    }
}

/// The label of a node: its point, and half of its width and height in pixels.
struct NodeBox {
    point: [f64; 2],
    half: [f64; 2],
}

/// A line that goes on to a tip and ends with the two lines of an arrow's head, in pixels.
fn with_head(mut line: Vec<[f64; 2]>, tip: [f64; 2], [dx, dy]: [f64; 2]) -> Vec<[f64; 2]> {
    let barb = |turn: f64| {
        let (sin, cos) = turn.sin_cos();
        let (bx, by) = (dx * cos - dy * sin, dx * sin + dy * cos);
        [tip[0] - ARROW_HEAD * bx, tip[1] - ARROW_HEAD * by]
    };
    line.extend([tip, barb(0.4), tip, barb(-0.4)]);
    line
}

impl Chart {
    /// The title, the size, and the margins: left, right, top, bottom.
    fn layout(&self, style: FigureStyle) -> (Title, [usize; 2], [usize; 4]) {
        let [width, _] = style.size.unwrap_or(SIZE);
        let title = Title::new(&self.title, width);
        let longest = self.series.iter().map(|series| fit::width(&series.name)).max().unwrap_or(0);
        let legend = (70.0 + longest as f64 * 0.6 * LABEL_SIZE as f64).clamp(110.0, 320.0) as usize;
        let top = (title.bottom() + 10.0).round() as usize;
        let size =
            style.size.unwrap_or_else(|| [width, self.height_of_bars().map_or(SIZE[1], |bars| top + bars + BOTTOM)]);
        let margins = [self.y.margin(), if longest == 0 { 30 } else { legend }, top, BOTTOM];
        let most = [size[0] / 4, size[0] / 3, size[1] / 3, size[1] / 4];
        (title, size, [0, 1, 2, 3].map(|side| margins[side].min(most[side])))
    }

    /// Height of all bars, if the chart has bars.
    fn height_of_bars(&self) -> Option<usize> {
        let bars = self.series.iter().filter(|series| matches!(series.form, Form::Bars));
        bars.map(|series| series.points.len()).reduce(|a, b| a + b).map(|n| n * BAR_ROW)
    }

    fn axes(&self, area: Area) -> Axes {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let ends = self.series.iter().flat_map(|series| series.ends().iter().flatten().copied());
        let zero = self.height_of_bars().map(|_| 0.0);
        let mut x = self.x.x(points().map(|point| point[0]).chain(zero));
        let mut y = self.y.y(points().map(|point| point[1]).chain(ends));
        // Room for the boxes and loops of nodes at the edges.
        let widest = self.series.iter().flat_map(Series::boxes).fold(0.0, |most, node| f64::max(most, node.half[0]));
        if widest > 0.0 {
            let widened = |[from, to]: [f64; 2], share: f64| {
                let more = share.min(0.4) / (1.0 - 2.0 * share.min(0.4)) * (to - from);
                [from - more, to + more]
            };
            x.range = widened(x.range, (widest + 30.0) / area.width);
            y.range = widened(y.range, 30.0 / area.height);
        }
        Axes { area, placed: false, square: false, linked: false, x, y }
    }
}

impl Content for Chart {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let (title, size, margins) = self.layout(style);
        let axes = self.axes(Area::between(margins, size));
        let boxes: Vec<NodeBox> = self.series.iter().flat_map(Series::boxes).collect();
        let mut taken = Vec::new();
        Drawn::Marks(Drawing {
            title: Some(title),
            marks: self.series.iter().flat_map(|series| series.marks(&axes, &boxes, &mut taken)).collect(),
            axes: vec![axes],
            legend: true,
            ..Drawing::new(size, margins, self.describe())
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
        let axes = chart.axes(Area { x: 0.0, y: 0.0, width: 500.0, height: 300.0 });
        let [arrow] = &chart.series[0].arrows(&axes, &[])[..] else { panic!("one pair is one arrow") };
        let [from, to] = [[0.0, 0.0], [10.0, 0.0]].map(|point| axes.pixel(point));
        let [start, tip] = [arrow[0], arrow[1]].map(|point| axes.pixel(point));
        assert!((start[0] - from[0]).abs() < 1e-9 && (start[1] - from[1] - ARROW_DISTANCE).abs() < 1e-9);
        assert!((to[0] - tip[0] - MARKER_WIDTH).abs() < 1e-9);
        assert_eq!((arrow[1], arrow.len()), (arrow[3], 5));
    }

    #[test]
    fn arrows_of_nodes_end_at_their_boxes_and_a_fixed_point_has_a_loop() {
        let points = vec![[0.0, 0.0], [10.0, 0.0]];
        let nodes =
            Series { labels: vec!["a".into(), "b".into()], ..Series::new("", Form::Nodes, Color::Text, points) };
        let pairs = vec![[0.0, 0.0], [10.0, 0.0], [10.0, 0.0], [10.0, 0.0]];
        let arrows = Series::new("x", Form::Arrows, Color::Text, pairs);
        let chart =
            Chart { title: "".into(), x: ChartAxis::hidden(), y: ChartAxis::hidden(), series: vec![arrows, nodes] };
        let axes = chart.axes(Area { x: 0.0, y: 0.0, width: 500.0, height: 300.0 });
        let boxes: Vec<NodeBox> = chart.series[1].boxes().collect();
        let [arrow, looped] = &chart.series[0].arrows(&axes, &boxes)[..] else { panic!("two pairs are two arrows") };
        let [from, to] = [[0.0, 0.0], [10.0, 0.0]].map(|point| axes.pixel(point));
        let [start, tip] = [arrow[0], arrow[1]].map(|point| axes.pixel(point));
        assert!(
            (start[0] - from[0] - boxes[0].half[0]).abs() < 1e-9 && (to[0] - tip[0] - boxes[1].half[0]).abs() < 1e-9
        );
        assert!(from[0] > boxes[0].half[0] && to[0] + boxes[1].half[0] < 500.0, "the boxes are not cut");
        let looped: Vec<[f64; 2]> = looped.iter().map(|&point| axes.pixel(point)).collect();
        assert!(looped.len() > 10 && looped.iter().all(|at| at[0] > to[0] + boxes[1].half[0] - 1.0 && at[0] < 500.0));
    }
}
