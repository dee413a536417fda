//! Numbers in rows and columns as a heat map with named axes and a colour bar.

use ndarray::Array2;
use plotly::common::{Anchor, ColorBar, ColorScale, Font, HoverInfo, Title};
use plotly::{HeatMap, Plot, Trace};
use serde::Serialize;

use super::axis::{ChartAxis, Ruler, Side};
use super::chart::titled;
use crate::plot::figure::{Content, Figure};
use crate::plot::heads::heat_map::{TITLE_SIZE, between};
use crate::plot::heads::panel::{LABEL_SIZE, Panel, TOKEN_SIZE};
use crate::plot::heads::traces::label;
use crate::plot::style::Look;
use crate::plot::svg::{Area, Picture, Style};
use crate::plot::text::{escape, escaped, rounded};

/// Pixels on the right, for the colour bar, and above, for the title.
const RIGHT: usize = 120;
const ABOVE: usize = 70;
/// Up to this many cells, each has its number or text in it.
const MOST_TEXTS: usize = 400;
/// Up to this many cells, everything is said of each under the pointer; beyond, what the axes and the colours say.
const MOST_HOVER_TEXTS: usize = 5_000;

/// A matrix of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) title: String,
    pub(crate) rows: ChartAxis,
    pub(crate) columns: ChartAxis,
    /// Shape: `[row, column]`; NaN is an empty cell.
    pub(crate) values: Array2<f32>,
    /// What the colours mean, and the values at the two ends of the scale.
    pub(crate) scale: (String, [f32; 2]),
    /// What stands in each cell; empty for the numbers themselves.
    pub(crate) labels: Vec<String>,
    /// What is said of each cell under the pointer, row by row; none or one for each.
    pub(crate) texts: Vec<String>,
}

impl Matrix {
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

    pub(crate) fn figure(self) -> Figure {
        Figure::new(self)
    }

    /// Left, right, above, below.
    fn margins(&self) -> [usize; 4] {
        [self.rows.depth(), RIGHT, ABOVE, self.columns.depth()]
    }

    fn size(&self) -> [usize; 2] {
        let (rows, columns) = self.values.dim();
        let [left, right, top, bottom] = self.margins();
        // Cells are as high as wide, unless there would be too few or too many of them for a screen.
        let width = 700.0;
        let height = (width * rows as f64 / columns.max(1) as f64).clamp(200.0, 700.0);
        [left + width as usize + right, top + height as usize + bottom]
    }

    /// The texts in the cells that have room for them, as (row, column, text).
    fn labels(&self) -> Vec<(usize, usize, String)> {
        if self.values.len() > MOST_TEXTS {
            return Vec::new();
        }
        let cells = self.values.indexed_iter().enumerate().filter(|(_, (_, value))| value.is_finite());
        let text = |index: usize, value: f32| match self.labels.get(index) {
            Some(label) => label.clone(),
            None => format!("{value:.2}"),
        };
        cells.map(|(index, ((row, column), &value))| (row, column, text(index, value))).collect()
    }

    /// The colour of a text that can be read in a cell: white in dark ones, black in light ones.
    fn ink(&self, look: Look) -> impl Fn(f32) -> &'static str + use<> {
        let (share, colors) = (self.share(), look.color_scale.colors());
        move |value| {
            let [red, green, blue] = colors(share(value)).map(f64::from);
            // Luma of ITU-R BT.601.
            if 0.299 * red + 0.587 * green + 0.114 * blue > 140.0 { "black" } else { "white" }
        }
    }

    fn share(&self) -> impl Fn(f32) -> f64 + use<> {
        let [low, high] = self.scale.1.map(f64::from);
        move |value| (f64::from(value) - low) / (high - low).max(f64::MIN_POSITIVE)
    }
}

impl Matrix {
    fn heat_map<X, Z>(&self, heat_map: Box<HeatMap<X, X, Z>>, bar: ColorBar, look: Look) -> Box<dyn Trace>
    where
        X: Serialize + Clone + 'static,
        Z: Serialize + Clone + 'static,
    {
        let [low, high] = self.scale.1.map(f64::from);
        let colors = ColorScale::Palette(look.color_scale.palette());
        let heat_map = heat_map.color_scale(colors).zmin(low).zmax(high).color_bar(bar).hover_on_gaps(false);
        match self.texts.is_empty() || self.values.len() > MOST_HOVER_TEXTS {
            true => heat_map.hover_template("%{y}, %{x}: %{z}<extra></extra>"),
            false => {
                let rows = escaped(&self.texts).chunks(self.values.ncols().max(1)).map(<[String]>::to_vec).collect();
                heat_map.hover_text_matrix(rows).hover_info(HoverInfo::Text)
            }
        }
    }
}

impl Content for Matrix {
    fn plot(&self, look: Look) -> Plot {
        let z: Vec<Vec<f64>> =
            self.values.outer_iter().map(|row| row.iter().map(|&value| rounded(value.into())).collect()).collect();
        let font = || Font::new().size(LABEL_SIZE).color(look.theme.text());
        let bar = ColorBar::new().title(Title::with_text(escape(&self.scale.0)).font(font())).tick_font(font());
        // Where there are too many cells to say something of each, plotly has to know them by their names.
        let large = self.values.len() > MOST_HOVER_TEXTS;
        let names = if large { self.columns.distinct_names().zip(self.rows.distinct_names()) } else { None };
        let named = names.is_some();
        let mut plot = Plot::new();
        plot.add_trace(match names {
            Some((columns, rows)) => self.heat_map(HeatMap::new(columns, rows, z), bar, look),
            None => self.heat_map(HeatMap::new_z(z), bar, look),
        });
        let x = self.columns.ruler(Side::Bottom, std::iter::empty());
        let y = self.rows.ruler(Side::Left, std::iter::empty());
        let axis = |ruler: &Ruler| if named { ruler.plotly_of_names(look) } else { ruler.plotly(look) };
        let mut layout = titled(&self.title, self.size(), self.margins(), look).x_axis(axis(&x)).y_axis(axis(&y));
        let ink = self.ink(look);
        for (row, column, text) in self.labels() {
            let label = label(&text, TOKEN_SIZE, ink(self.values[[row, column]])).x_ref("x").y_ref("y");
            layout.add_annotation(label.x(column as f64).y(row as f64).y_anchor(Anchor::Middle));
        }
        plot.set_layout(layout);
        plot
    }

    fn svg(&self, look: Look) -> Option<String> {
        let size = self.size();
        let mut picture = Picture::new(size, &self.describe(), look);
        let area = between(self.margins(), size);
        let x = self.columns.ruler(Side::Bottom, std::iter::empty());
        let y = self.rows.ruler(Side::Left, std::iter::empty());
        picture.cells(&self.values, self.share(), area);
        x.svg(&mut picture, area, self.columns.depth());
        y.svg(&mut picture, area, self.rows.depth());
        let labels = self.labels();
        let at = |row: usize, column: usize| (x.pixel(column as f64, area), y.pixel(row as f64, area));
        let ink = self.ink(look);
        for color in ["black", "white"] {
            let own = labels.iter().filter(|(row, column, _)| ink(self.values[[*row, *column]]) == color);
            let texts = own.map(|(row, column, text)| {
                let (x, y) = at(*row, *column);
                (x, y, text.as_str())
            });
            picture.texts(Style { size: TOKEN_SIZE, color, anchor: "middle", degrees: 0 }, texts);
        }
        // The colours, the highest value on top.
        let bar = Area { x: area.x + area.width + 20.0, width: 16.0, ..area };
        let steps = Array2::from_shape_fn((64, 1), |(row, _)| 1.0 - row as f32 / 63.0);
        picture.cells(&steps, f64::from, bar);
        let [low, high] = self.scale.1;
        let (right, bottom) = (bar.x + bar.width + 6.0, bar.y + bar.height);
        let style = Style { size: LABEL_SIZE, color: look.theme.text(), anchor: "start", degrees: 0 };
        let [low_text, high_text] = [low, high].map(|end| rounded(end.into()).to_string());
        let texts = [
            (right, bar.y + 6.0, high_text.as_str()),
            (right, bottom - 6.0, &low_text),
            (bar.x, bar.y - 12.0, &self.scale.0),
        ];
        picture.texts(style, texts.into_iter());
        picture.line(size[0] as f64 / 2.0, ABOVE as f64 / 2.0 - 10.0, TITLE_SIZE, &self.title);
        Some(picture.finish())
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
        match low <= high {
            true => format!("matrix: {}; {size}, {} from {low:.3} to {high:.3}", self.title, self.scale.0),
            false => format!("matrix: {}; {size}, all empty", self.title),
        }
    }

    fn panel(&self) -> Result<&Panel, &'static str> {
        Err("a matrix")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_matrices_know_their_cells_by_name() {
        let matrix = |n: usize| {
            let names = || ChartAxis::names("head", (0..n).map(|head| format!("{}.{}", head / 12, head % 12)));
            Matrix {
                title: "overlap".into(),
                rows: names(),
                columns: names(),
                values: Array2::zeros((n, n)),
                scale: ("share".into(), [0.0, 1.0]),
                labels: Vec::new(),
                texts: vec!["said".into(); n * n],
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
            (&"said".into(), &serde_json::Value::Null)
        );
        // Names that come twice would be one row to plotly.
        let twice = Matrix { rows: ChartAxis::names("", vec!["a".to_owned(); 144]), ..matrix(144) };
        let twice: serde_json::Value = serde_json::from_str(&twice.figure().to_json()).unwrap();
        assert_eq!(twice["data"][0]["x"], serde_json::Value::Null);
    }
}
