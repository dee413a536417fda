//! Numbers in rows and columns as a heat map with named axes and a colour bar.

use ndarray::Array2;

use super::axis::ChartAxis;
use crate::plot::canvas::{Area, Axes, Axis, Ticks};
use crate::plot::content::{Content, Drawn};
use crate::plot::fit;
use crate::plot::marks::{
    CellBlock, CellLabels, Cells, ColorRange, Coordinate, Drawing, Hover, Mark, Paint, Precision, Text, Title,
    Vertical, WIDTH,
};
use crate::plot::style::{Color, FigureStyle, palette};
use crate::plot::text::decimals;

/// The least and greatest height of all cells together, in pixels.
const HEIGHTS: [f64; 2] = [200.0, 700.0];
/// Greatest side of a cell in pixels.
const MAX_CELL: f64 = 90.0;
/// Pixels on the right, for the colour bar, and between the title and the cells, for the title of the colour bar.
const RIGHT: usize = 120;
pub(super) const ABOVE: f64 = 26.0;
/// Maximum number of cells with a number or a label in each.
const MAX_LABELS: usize = 1_500;
/// Maximum number of cells with a hover text each; with more, plotly shows the names of row and column, and the number.
pub(in crate::plot) const MAX_HOVER_TEXTS: usize = 5_000;

/// A matrix of numbers as a heat map.
#[derive(Clone, Debug)]
pub(crate) struct MatrixChart {
    pub(crate) title: String,
    pub(crate) rows: ChartAxis,
    pub(crate) columns: ChartAxis,
    /// Shape: `[row, column]`; NaN and infinity are empty cells, of a colour outside of every scale.
    pub(crate) values: Array2<f32>,
    /// Title of the colour bar, and the values at the two ends of the scale.
    pub(crate) scale: (String, [f32; 2]),
    /// Label of each cell, row by row; empty for the numbers themselves.
    pub(crate) labels: Vec<String>,
    /// Hover text of each cell, row by row; empty for names and number.
    pub(crate) texts: Vec<String>,
}

impl MatrixChart {
    /// One number for each head of a model. Shape: `[n_layers, n_heads]`.
    pub(crate) fn of_heads(title: String, values: Array2<f32>, scale: (String, [f32; 2])) -> Self {
        let (n_layers, n_heads) = values.dim();
        let names = |n: usize| (0..n).map(|index| index.to_string());
        let text =
            |((layer, head), value): ((usize, usize), &f32)| format!("{}\nhead {layer}.{head}", decimals(*value, 3));
        Self {
            title,
            rows: ChartAxis::names("layer", names(n_layers)),
            columns: ChartAxis::names("head", names(n_heads)),
            texts: values.indexed_iter().map(text).collect(),
            labels: Vec::new(),
            values,
            scale,
        }
    }

    /// The title, the size, and the margins: left, right, top, bottom. There are `above` pixels between the title and the
    /// cells.
    pub(super) fn layout(&self, above: f64, style: FigureStyle) -> (Title, [usize; 2], [usize; 4]) {
        let width = style.size.map_or(WIDTH, |[width, _]| width);
        let title = Title::new(&self.title, width);
        let top = (title.bottom() + above).round() as usize;
        let (rows, columns) = self.values.dim();
        let room = |margin: usize, of: usize| margin.min(of / 3);
        let (left, bottom) = (room(self.rows.margin(), width), self.columns.margin());
        let inner = (width - left - RIGHT.min(width / 3)) as f64;
        // Square cells, unless there are too few or too many of them for a screen.
        let cell = (inner / columns.max(1) as f64).min(MAX_CELL);
        let (height, bottom) = match style.size {
            Some([_, height]) => (height, room(bottom, height)),
            None => (top + (cell * rows as f64).clamp(HEIGHTS[0], HEIGHTS[1]) as usize + bottom, bottom),
        };
        (title, [width, height], [left, RIGHT.min(width / 3), top.min(height / 3), bottom])
    }

    pub(super) fn axes(&self, area: Area) -> Axes {
        let (x, y) = (self.columns.x(std::iter::empty()), self.rows.y(std::iter::empty()));
        // By itself, plotly turns crowded names by 30°, where they run under their neighbours.
        let x = if self.columns.is_crowded(area.width) { Axis { tick_angle: Some(-90), ..x } } else { x };
        // Without hover texts, plotly shows the names of row and column, so they must be the values of the axes.
        let distinct = self.columns.has_distinct_names() && self.rows.has_distinct_names();
        let [x, y] = if self.has_too_many_hover_texts() && distinct { [x, y].map(as_categories) } else { [x, y] };
        Axes { area, placed: false, square: false, linked: false, x, y }
    }

    fn has_too_many_hover_texts(&self) -> bool {
        self.values.len() > MAX_HOVER_TEXTS
    }

    pub(super) fn cells(&self, paint: Paint, values: Array2<f64>, color_bar: bool) -> Cells {
        let hover = if self.texts.is_empty() || self.has_too_many_hover_texts() {
            Hover::Template("%{z}<br>%{y}, %{x}<extra></extra>", Vec::new())
        } else {
            Hover::Texts(self.texts.clone())
        };
        Cells {
            axes: 0,
            dim: self.values.dim(),
            blocks: vec![CellBlock { at: (0, 0), values }],
            paint,
            precision: self.precision(),
            hover,
            labels: None,
            color_bar: color_bar.then(|| self.scale.0.clone()),
        }
    }

    /// Four significant digits are too few for values that differ little from each other.
    fn precision(&self) -> Precision {
        let [low, high] = self.scale.1;
        if low.abs().max(high.abs()) > 10.0 * (high - low) { Precision::Exact } else { Precision::Significant }
    }

    /// The label or the number of each cell, row by row; empty for an empty cell.
    fn label_texts(&self) -> Vec<String> {
        if self.values.len() > MAX_LABELS {
            return Vec::new();
        }
        let text = |(index, value): (usize, &f32)| match self.labels.get(index) {
            _ if !value.is_finite() => String::new(),
            Some(label) => label.clone(),
            None => decimals(*value, 2),
        };
        self.values.iter().enumerate().map(text).collect()
    }

    /// The marks: cells, and the labels in them, horizontal, or turned where more of them fit so.
    fn marks(&self, mut cells: Cells, area: Area, style: FigureStyle) -> Vec<Mark> {
        let (rows, columns) = self.values.dim();
        let texts = self.label_texts();
        let [width, height] = [area.width / columns.max(1) as f64, area.height / rows.max(1) as f64];
        if fit::n_fitting(&texts, [width, height]) >= fit::n_fitting(&texts, [height, width]) {
            let fitted = fit::fit(&texts, [width, height]);
            let is_labelled = fitted.texts.iter().any(|text| !text.is_empty());
            cells.labels = is_labelled.then_some(CellLabels { texts: fitted.texts, size: fitted.size });
            return vec![Mark::Cells(cells)];
        }
        let fitted = fit::fit(&texts, [height, width]);
        let color = cells.color(style);
        let turned: Vec<Mark> = (0..texts.len())
            .filter(|&index| !fitted.texts[index].is_empty() && !fitted.texts[index].contains('\n'))
            .map(|index| {
                let (row, column) = (index / columns, index % columns);
                let on = color(cells.blocks[0].values[[row, column]]).map_or(Color::Text, Color::readable_on);
                Mark::Text(Text {
                    x: Coordinate::Value(column as f64),
                    y: Coordinate::Value(row as f64),
                    vertical: Some(Vertical::Middle),
                    degrees: -90,
                    ..Text::new(&fitted.texts[index], fitted.size, on)
                })
            })
            .collect();
        std::iter::once(Mark::Cells(cells)).chain(turned).collect()
    }

    fn drawing(&self, paint: Paint, values: Array2<f64>, color_bar: bool, style: FigureStyle) -> Drawing {
        let (title, size, margins) = self.layout(ABOVE, style);
        let area = Area::between(margins, size);
        Drawing {
            title: Some(title),
            axes: vec![self.axes(area)],
            marks: self.marks(self.cells(paint, values, color_bar), area, style),
            no_token_background: self.values.iter().any(|value| !value.is_finite()),
            ..Drawing::new(size, margins, self.describe())
        }
    }
}

/// A matrix whose values are indices of names: each has a colour of its own, and there is no colour bar.
pub(in crate::plot) struct Names(pub(in crate::plot) MatrixChart);

impl Content for Names {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let n = self.0.scale.1[1] as usize + 1;
        let palette = palette();
        let colors: Vec<[u8; 3]> = if n <= palette.len() && style.color_scale.is_none() {
            palette[..n].to_vec()
        } else {
            let (scale, [low, high]) = (style.scale().colors(), style.scale().token_range(style.theme()));
            let share = |index: usize| index as f64 / n.saturating_sub(1).max(1) as f64;
            (0..n).map(|index| scale(low + (high - low) * share(index))).collect()
        };
        let indices = self.0.values.mapv(|x| if x.is_nan() { f64::NAN } else { f64::from(x) + 1.0 });
        Drawn::Marks(self.0.drawing(Paint::Indices(colors), indices, false, style))
    }

    fn describe(&self) -> String {
        let (rows, columns) = self.0.values.dim();
        let (rows_of, columns_of) = (self.0.rows.title(), self.0.columns.title());
        format!("matrix of names: {}; {rows} × {columns} cells, {rows_of} by {columns_of}", self.0.title)
    }

    fn kind(&self) -> &'static str {
        "a matrix"
    }
}

/// The axis with its names as the values.
fn as_categories(axis: Axis) -> Axis {
    let ticks = match axis.ticks {
        Ticks::Names(names) => Ticks::Categories(names),
        ticks => ticks,
    };
    Axis { ticks, ..axis }
}

impl Content for MatrixChart {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let paint = Paint::Scale(ColorRange::Ends(self.scale.1.map(f64::from)));
        Drawn::Marks(self.drawing(paint, self.values.mapv(f64::from), true, style))
    }

    fn describe(&self) -> String {
        let (rows, columns) = self.values.dim();
        let (low, high) = self
            .values
            .iter()
            .filter(|value| value.is_finite())
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)));
        let (rows_of, columns_of) = (self.rows.title(), self.columns.title());
        let size = format!("{rows} × {columns} cells, {rows_of} by {columns_of}");
        if low <= high {
            let [low, high] = [low, high].map(|value| decimals(value, 3));
            format!("matrix: {}; {size}, {} from {low} to {high}", self.title, self.scale.0)
        } else {
            format!("matrix: {}; {size}, all empty", self.title)
        }
    }

    fn kind(&self) -> &'static str {
        "a matrix"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_large_matrices_are_named_by_their_axes() {
        let matrix = |n: usize| {
            let names = || ChartAxis::names("head", (0..n).map(|head| format!("{}.{}", head / 12, head % 12)));
            MatrixChart {
                title: "overlap".into(),
                rows: names(),
                columns: names(),
                values: Array2::zeros((n, n)),
                scale: ("share".into(), [0.0, 1.0]),
                labels: Vec::new(),
                texts: vec!["text".into(); n * n],
            }
        };
        let json = |n| serde_json::from_str::<serde_json::Value>(&matrix(n).figure().to_json()).unwrap();
        let (large, small) = (json(144), json(30));
        assert_eq!(
            (&large["data"][0]["x"][143], &large["layout"]["xaxis"]["type"]),
            (&"11.11".into(), &"category".into())
        );
        assert_eq!(large["data"][0]["hovertemplate"], "%{z}<br>%{y}, %{x}<extra></extra>");
        assert_eq!(
            (&small["data"][0]["hovertext"][3][4], &small["data"][0]["x"]),
            (&"text".into(), &serde_json::Value::Null)
        );
        // To plotly, rows with the same name would be one row.
        let twice = MatrixChart { rows: ChartAxis::names("", vec!["a".to_owned(); 144]), ..matrix(144) };
        let twice: serde_json::Value = serde_json::from_str(&twice.figure().to_json()).unwrap();
        assert_eq!(twice["data"][0]["x"], serde_json::Value::Null);
    }
}
