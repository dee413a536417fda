//! Numbers in rows and columns as a heat map with named axes and a colour bar.

use ndarray::Array2;

use super::axis::ChartAxis;
use crate::plot::canvas::{Area, Axes, Axis, Ticks};
use crate::plot::content::{Content, Drawn};
use crate::plot::marks::{
    CellBlock, Cells, ColorRange, Coordinate, Drawing, Hover, Mark, Precision, TITLE_SIZE, TOKEN_SIZE, Text, Title,
    Vertical,
};
use crate::plot::style::{Color, FigureStyle};

/// Width of all cells together, and the least and greatest height of all together, in pixels.
const WIDTH: f64 = 700.0;
const HEIGHTS: [f64; 2] = [200.0, 700.0];
/// Pixels on the right, for the colour bar, and at the top, for the title.
const RIGHT: usize = 120;
const TOP: usize = 70;
/// Maximum number of cells with a number or a label in each.
const MAX_LABELS: usize = 400;
/// Maximum number of cells with a hover text each; with more, plotly shows the names of row and column, and the number.
const MAX_HOVER_TEXTS: usize = 5_000;

/// A matrix of numbers as a heat map.
#[derive(Clone, Debug)]
pub(crate) struct MatrixChart {
    pub(crate) title: String,
    pub(crate) rows: ChartAxis,
    pub(crate) columns: ChartAxis,
    /// Shape: `[row, column]`; NaN is an empty cell.
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
        let text = |((layer, head), value): ((usize, usize), &f32)| format!("head {layer}.{head}\n{value:.3}");
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

    /// Left, right, top, bottom.
    fn margins(&self) -> [usize; 4] {
        [self.rows.margin(), RIGHT, TOP, self.columns.margin()]
    }

    /// Width and height in pixels.
    fn size(&self) -> [usize; 2] {
        let (rows, columns) = self.values.dim();
        let [left, right, top, bottom] = self.margins();
        // Square cells, unless there are too few or too many of them for a screen.
        let height = (WIDTH * rows as f64 / columns.max(1) as f64).clamp(HEIGHTS[0], HEIGHTS[1]);
        [left + WIDTH as usize + right, top + height as usize + bottom]
    }

    fn axes(&self) -> Axes {
        let (x, y) = (self.columns.x(std::iter::empty()), self.rows.y(std::iter::empty()));
        // Without hover texts, plotly shows the names of row and column, so they must be the values of the axes.
        let distinct = self.columns.has_distinct_names() && self.rows.has_distinct_names();
        let [x, y] = if self.has_too_many_hover_texts() && distinct { [x, y].map(as_categories) } else { [x, y] };
        let area = Area::between(self.margins(), self.size());
        Axes { area, placed: false, square: false, linked: false, x, y }
    }

    fn has_too_many_hover_texts(&self) -> bool {
        self.values.len() > MAX_HOVER_TEXTS
    }

    fn cells(&self) -> Cells {
        let hover = if self.texts.is_empty() || self.has_too_many_hover_texts() {
            Hover::Template("%{y}, %{x}: %{z}<extra></extra>", Vec::new())
        } else {
            Hover::Texts(self.texts.clone())
        };
        Cells {
            axes: 0,
            dim: self.values.dim(),
            blocks: vec![CellBlock { at: (0, 0), values: self.values.mapv(f64::from) }],
            range: ColorRange::Ends(self.scale.1.map(f64::from)),
            precision: Precision::Significant,
            hover,
            gaps: true,
            color_bar: Some(self.scale.0.clone()),
        }
    }

    /// A label or a number in each cell that is not empty, in a colour that is readable there.
    fn labels<'a>(&'a self, cells: &'a Cells, style: FigureStyle) -> impl Iterator<Item = Text> + 'a {
        let (share, colors) = (cells.range.share(&cells.blocks), style.color_scale.colors());
        let values = self.values.indexed_iter().enumerate().filter(|(_, (_, value))| value.is_finite());
        let shown = if self.values.len() > MAX_LABELS { 0 } else { usize::MAX };
        values.take(shown).map(move |(index, ((row, column), &value))| {
            let label = self.labels.get(index).map_or_else(|| format!("{value:.2}"), String::clone);
            Text {
                x: Coordinate::Value(column as f64),
                y: Coordinate::Value(row as f64),
                vertical: Some(Vertical::Middle),
                ..Text::new(label, TOKEN_SIZE, Color::readable_on(colors(share(value.into()))))
            }
        })
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
        let cells = self.cells();
        let labels: Vec<Mark> = self.labels(&cells, style).map(Mark::Text).collect();
        Drawn::Marks(Drawing {
            // Nearer to the top edge than to the title of the colour bar.
            title: Some(Title { text: self.title.clone(), size: Some(TITLE_SIZE), y: TOP as f64 / 2.0 - 10.0 }),
            axes: vec![self.axes()],
            marks: std::iter::once(Mark::Cells(cells)).chain(labels).collect(),
            ..Drawing::new(self.size(), self.margins(), self.describe())
        })
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
            format!("matrix: {}; {size}, {} from {low:.3} to {high:.3}", self.title, self.scale.0)
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
        assert_eq!(large["data"][0]["hovertemplate"], "%{y}, %{x}: %{z}<extra></extra>");
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
