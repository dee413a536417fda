//! Writes a [`Drawing`] as SVG, for places where no script runs: GitHub, nbviewer, print. It needs no browser.

use ndarray::Array2;

use super::canvas::{Area, Axes, Axis, Ticks};
use super::fit;
use super::marks::{
    Cells, ColorRange, Coordinate, Drawing, Frames, Horizontal, LABEL_SIZE, LINE_HEIGHT, LINE_WIDTH, Line,
    MARKER_WIDTH, Mark, Markers, Paint, Strokes, TOKEN_SIZE, TOOL_BAR, Text, Vertical,
};
use super::style::{Color, FigureStyle};
use super::svg::{Svg, TextStyle};
use super::text::{rounded, thinned};

/// Maximum number of tick labels along an axis; more would not be readable.
const MAX_TICK_LABELS: usize = 40;
/// Pixels between the edge of the canvas and the middle of an axis title.
const AXIS_TITLE_DISTANCE: f64 = 16.0;
/// Number of colours in a colour bar.
const BAR_STEPS: usize = 64;

/// The figure as SVG.
pub(super) fn svg(drawing: &Drawing, style: FigureStyle) -> String {
    let mut writer = SvgWriter { svg: Svg::new(drawing.size, &drawing.description, style), drawing, style };
    writer.title();
    if drawing.no_token_background {
        drawing.axes.iter().for_each(|axes| writer.svg.area(axes.area, style.theme().no_token()));
    }
    drawing.axes.iter().for_each(|axes| writer.axes(axes));
    let is_text = |mark: &Mark| matches!(mark, Mark::Text(_));
    let shown: Vec<&Mark> = drawing.shown().collect();
    for marks in shown.chunk_by(|a, b| is_text(a) && is_text(b)) {
        writer.marks(marks);
    }
    if drawing.legend {
        writer.legend();
    }
    writer.svg.finish()
}

/// A text and the point of its anchor.
type PlacedText<'a> = ([f64; 2], &'a str);

struct SvgWriter<'a> {
    svg: Svg,
    drawing: &'a Drawing,
    style: FigureStyle,
}

impl SvgWriter<'_> {
    fn text_style(&self, size: usize, color: Color, anchor: &'static str, degrees: i32) -> TextStyle {
        TextStyle { size, color: color.css(self.style).into_owned(), anchor, degrees }
    }

    fn title(&mut self) {
        let Some(title) = &self.drawing.title else { return };
        let style = self.text_style(title.size, Color::Text, "middle", 0);
        let point = [self.drawing.size[0] as f64 / 2.0, (TOOL_BAR + title.bottom()) / 2.0];
        self.svg.texts(&style, [(point, title.text.as_str())]);
    }

    /// Writes one mark, or consecutive texts, grouped by style.
    fn marks(&mut self, marks: &[&Mark]) {
        match marks[0] {
            Mark::Cells(cells) => self.cells(cells),
            Mark::Frames(frames) => self.frames(frames),
            Mark::Text(_) => self.texts(marks),
            Mark::Line(Line { entry, points, .. }) => {
                let is_number = |point: &[f64; 2]| point.iter().all(|x| x.is_finite());
                let parts = points.chunk_by(|a, b| is_number(a) && is_number(b)).filter(|part| is_number(&part[0]));
                let parts = parts.map(|part| self.pixels(part)).collect::<Vec<_>>();
                self.svg.lines(parts, &entry.color.css(self.style), LINE_WIDTH);
            }
            Mark::Strokes(Strokes { entry, strokes, width, opacity, .. }) => {
                let strokes = strokes.iter().map(|stroke| self.pixels(stroke)).collect::<Vec<_>>();
                self.svg.translucent(*opacity, |svg| svg.lines(strokes, &entry.color.css(self.style), *width));
            }
            Mark::Markers(markers) => self.markers(markers),
        }
    }

    /// Converts points on the chart's axes to pixels. Shape: `[n, 2]` → the same.
    fn pixels(&self, points: &[[f64; 2]]) -> Vec<[f64; 2]> {
        points.iter().map(|&point| self.drawing.axes[0].pixel(point)).collect()
    }

    fn cells(&mut self, cells: &Cells) {
        let axes = &self.drawing.axes[cells.axes];
        let (area, color) = (axes.area, cells.color(self.style));
        let (rows, columns) = cells.dim;
        let [width, height] = [area.width / columns.max(1) as f64, area.height / rows.max(1) as f64];
        for block in &cells.blocks {
            let ((row, column), (rows, columns)) = (block.at, block.values.dim());
            let place = Area {
                x: area.x + width * column as f64,
                y: area.y + height * row as f64,
                width: width * columns as f64,
                height: height * rows as f64,
            };
            if let Paint::Indices(_) = cells.paint {
                self.svg.area(place, self.style.theme().no_token());
            }
            self.svg.cells(&block.values.mapv(&color), place);
        }
        if let (Some(title), Paint::Scale(ColorRange::Ends(ends))) = (&cells.color_bar, &cells.paint) {
            self.color_bar(title, *ends, area);
        }
        let Some(labels) = &cells.labels else { return };
        let colors = cells.label_colors(self.style);
        for color in [Color::White, Color::Black, Color::Text] {
            let own = (0..labels.texts.len()).filter(|&index| colors[index] == Some(color));
            let middle = |index| axes.pixel([(index % columns) as f64, (index / columns) as f64]);
            let texts = own.map(|index| (middle(index), labels.texts[index].as_str()));
            self.svg.texts(&self.text_style(labels.size, color, "middle", 0), texts);
        }
    }

    fn frames(&mut self, frames: &Frames) {
        let axes = &self.drawing.axes[frames.axes];
        let [left, right] = [-0.5, 0.5].map(|x| axes.pixel([x, 0.0])[0]);
        for &(row, column) in &frames.cells {
            let corner = axes.pixel([column as f64 - 0.5, row as f64 - 0.5]);
            self.svg.frame(corner, right - left, frames.width);
        }
    }

    fn texts(&mut self, marks: &[&Mark]) {
        let mut groups: Vec<(TextStyle, Vec<PlacedText>)> = Vec::new();
        for mark in marks {
            let Mark::Text(text) = mark else { continue };
            let (anchor, point) = self.anchored(text);
            if text.boxed {
                let width = fit::width(&text.text) as f64 * 0.6 * text.size as f64 + 8.0;
                let height = LINE_HEIGHT * text.size as f64 + 6.0;
                let area = Area { x: point[0] - width / 2.0, y: point[1] - height / 2.0, width, height };
                self.svg.area(area, self.style.theme().box_background());
            }
            let style = self.text_style(text.size, text.color, anchor, text.degrees);
            let text = (point, text.text.as_str());
            match groups.iter_mut().find(|(group_style, _)| *group_style == style) {
                Some((_, texts)) => texts.push(text),
                None => groups.push((style, vec![text])),
            }
        }
        for (style, texts) in groups {
            self.svg.texts(&style, texts);
        }
    }

    /// A text's `text-anchor`, and the point of the middle of its line.
    fn anchored(&self, text: &Text) -> (&'static str, [f64; 2]) {
        let axes = &self.drawing.axes[text.axes];
        let canvas = Area::between(self.drawing.margins, self.drawing.size);
        let x = match text.x {
            Coordinate::Value(value) => axes.pixel([value, 0.0])[0],
            Coordinate::Axes(share) => axes.area.x + share * axes.area.width,
            Coordinate::Canvas(share) => canvas.x + share * canvas.width,
        };
        let y = match text.y {
            Coordinate::Value(value) => axes.pixel([0.0, value])[1],
            Coordinate::Axes(share) => axes.area.y + (1.0 - share) * axes.area.height,
            Coordinate::Canvas(share) => canvas.y + (1.0 - share) * canvas.height,
        };
        let [x, y] = [x + text.shift[0], y - text.shift[1]];
        if text.degrees == -90 {
            let anchor = match text.vertical {
                Some(Vertical::Bottom) => "start",
                Some(Vertical::Top) => "end",
                Some(Vertical::Middle) | None => "middle",
            };
            return (anchor, [x, y]);
        }
        let anchor = match text.horizontal {
            Some(Horizontal::Left) => "start",
            Some(Horizontal::Right) => "end",
            Some(Horizontal::Center) | None => "middle",
        };
        // plotly leaves some space below a text.
        let more_lines = (text.text.split('\n').count() - 1) as f64 * LINE_HEIGHT * text.size as f64 / 2.0;
        let down = match text.vertical {
            Some(Vertical::Top) => text.size as f64 / 2.0 + more_lines,
            Some(Vertical::Bottom) => -(text.size as f64) - more_lines,
            Some(Vertical::Middle) | None => 0.0,
        };
        (anchor, [x, y + down])
    }

    fn markers(&mut self, markers: &Markers) {
        let axes = &self.drawing.axes[0];
        let color = markers.entry.color.css(self.style);
        let bars = markers.points.iter().zip(&markers.intervals);
        self.svg.lines(bars.map(|(&[x, _], ends)| ends.map(|end| axes.pixel([x, end]))), &color, 1.0);
        let points = self.pixels(&markers.points);
        self.svg.markers(markers.entry.symbol, MARKER_WIDTH, &color, points.iter().copied());
        let style = self.text_style(TOKEN_SIZE, Color::Text, "middle", 0);
        let above = points.iter().map(|&[x, y]| [x, y - TOKEN_SIZE as f64]);
        self.svg.texts(&style, above.zip(markers.labels.iter().map(String::as_str)));
    }

    /// The colour scale on the right of the axes, the highest value at the top.
    fn color_bar(&mut self, title: &str, [low, high]: [f64; 2], area: Area) {
        let bar = Area { x: area.right() + 20.0, width: 16.0, ..area };
        let colors = self.style.scale().colors();
        let step = |(row, _)| Some(colors(1.0 - row as f64 / (BAR_STEPS - 1) as f64));
        self.svg.cells(&Array2::from_shape_fn((BAR_STEPS, 1), step), bar);
        let beside = bar.right() + 6.0;
        let [low, high] = [low, high].map(|end| rounded(end).to_string());
        let texts = [
            ([beside, bar.y + 6.0], high.as_str()),
            ([beside, bar.bottom() - 6.0], &low),
            ([bar.x, bar.y - 12.0], title),
        ];
        self.svg.texts(&self.text_style(LABEL_SIZE, Color::Text, "start", 0), texts);
    }

    /// The named marks of a chart, one below the other on the right of its axes.
    fn legend(&mut self) {
        let area = self.drawing.axes[0].area;
        let left = area.right() + 20.0;
        let entries = self.drawing.shown().filter_map(|mark| Some((mark, mark.legend_entry()?)));
        for (row, (mark, entry)) in entries.filter(|(_, entry)| !entry.name.is_empty()).enumerate() {
            let y = area.y + 10.0 + 18.0 * row as f64;
            let color = entry.color.css(self.style);
            if let Mark::Markers(_) = mark {
                self.svg.markers(entry.symbol, MARKER_WIDTH, &color, [[left, y]]);
            } else {
                self.svg.lines([[[left - 6.0, y], [left + 6.0, y]]], &color, LINE_WIDTH);
            }
            let style = self.text_style(LABEL_SIZE, Color::Text, "start", 0);
            self.svg.texts(&style, [([left + 12.0, y], entry.name.as_str())]);
        }
    }

    /// Grid lines, tick labels and titles.
    fn axes(&mut self, axes: &Axes) {
        let Area { x: left, y: top, width, height } = axes.area;
        let (right, bottom) = (axes.area.right(), axes.area.bottom());
        let [left_margin, _, _, bottom_margin] = self.drawing.margins.map(|margin| margin as f64);

        let ticks = ticks(&axes.x, |value| axes.pixel([value, 0.0])[0]);
        self.grid(&axes.x, ticks.iter().map(|&(x, _)| [[x, top], [x, bottom]]));
        let size = axes.x.font_size.unwrap_or(LABEL_SIZE);
        // Long labels are turned, as plotly turns them.
        let crowded = fit::is_crowded(ticks.iter().map(|(_, label)| label.as_str()), size, width);
        let degrees = axes.x.tick_angle.unwrap_or(if crowded { -90 } else { 0 });
        let (anchor, down) = if degrees == 0 { ("middle", size as f64 / 2.0) } else { ("end", 0.0) };
        let y = bottom + axes.x.tick_distance + down;
        let labels = thinned(&ticks, MAX_TICK_LABELS).map(|(x, label)| ([*x, y], label.as_str()));
        self.svg.texts(&self.text_style(size, Color::Text, anchor, degrees), labels);
        let title = ([left + width / 2.0, bottom + bottom_margin - AXIS_TITLE_DISTANCE], axes.x.title.as_str());
        self.svg.texts(&self.text_style(size, Color::Text, "middle", 0), [title]);

        let ticks = self::ticks(&axes.y, |value| axes.pixel([0.0, value])[1]);
        self.grid(&axes.y, ticks.iter().map(|&(y, _)| [[left, y], [right, y]]));
        let size = axes.y.font_size.unwrap_or(LABEL_SIZE);
        let x = left - axes.y.tick_distance;
        let labels = thinned(&ticks, MAX_TICK_LABELS).map(|(y, label)| ([x, *y], label.as_str()));
        self.svg.texts(&self.text_style(size, Color::Text, "end", 0), labels);
        let title = ([left - left_margin + AXIS_TITLE_DISTANCE, top + height / 2.0], axes.y.title.as_str());
        self.svg.texts(&self.text_style(size, Color::Text, "middle", -90), [title]);
    }

    /// The grid lines of an axis with numbers.
    fn grid(&mut self, axis: &Axis, lines: impl Iterator<Item = [[f64; 2]; 2]>) {
        if matches!(axis.ticks, Ticks::Linear | Ticks::Log) {
            self.svg.lines(lines, self.style.theme().line(), 1.0);
        }
    }
}

/// The ticks of an axis as pixels along it, and their labels.
fn ticks(axis: &Axis, pixel: impl Fn(f64) -> f64) -> Vec<(f64, String)> {
    axis.labelled_values().into_iter().map(|(value, label)| (pixel(value), label)).collect()
}
