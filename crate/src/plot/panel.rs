//! One head on one prompt as a heat map with frames and labels: what to draw, and how plotly draws it.

use ndarray::Array2;
use plotly::common::{Anchor, ColorScale, ColorScalePalette, Font};
use plotly::layout::{Annotation, Axis, AxisConstrain, AxisRange, Shape, ShapeLine, ShapeType};
use plotly::{HeatMap, Layout, Plot};

use super::text::escape;

const LABEL_SIZE: usize = 12;
const TOKEN_SIZE: usize = 10;
/// Pixels between the heat map and its labels.
const LABEL_DISTANCE: f64 = 20.0;
/// The value in the middle of the colour scale.
const COLOR_MIDPOINT: f64 = 0.5;

/// What a panel shows.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// The colour of each cell. Shape: `[query_pos, key_pos]`.
    pub(crate) pattern: Array2<f32>,
    /// Cells with a white frame, as (query, key).
    pub(crate) frames: Vec<(usize, usize)>,
    /// The tokens along the four sides.
    pub(crate) axis_labels: Option<AxisLabels>,
    /// The tokens inside the cells, as (query, key, token).
    pub(crate) token_labels: Vec<(usize, usize, String)>,
    /// What the data is: the head and the projection.
    pub(crate) caption: Option<String>,
}

/// The tokens along the four sides of a panel, a label for each position.
#[derive(Clone, Debug)]
pub(crate) struct AxisLabels {
    pub(crate) left: Vec<String>,
    pub(crate) top: Vec<String>,
    pub(crate) right: Vec<String>,
    pub(crate) bottom: Vec<String>,
}

impl Panel {
    pub(crate) fn new(pattern: Array2<f32>) -> Self {
        Self { pattern, frames: Vec::new(), axis_labels: None, token_labels: Vec::new(), caption: None }
    }

    /// What the panel shows, in words.
    pub(crate) fn describe(&self) -> String {
        let (rows, columns) = self.pattern.dim();
        let mut distinct: Vec<u32> = self.pattern.iter().map(|value| value.to_bits()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let caption = self.caption.as_deref().map_or(String::new(), |caption| format!(" of {caption}"));
        let mut text = format!("heat map{caption}: {rows} × {columns} cells, {} distinct values", distinct.len());
        if !self.frames.is_empty() {
            text += &format!(", {} framed", self.frames.len());
        }
        if !self.token_labels.is_empty() {
            text += &format!(", {} labelled", self.token_labels.len());
        }
        text
    }

    /// Adds the panel to a plot, as its `index`-th of several side by side; `domain` is its share of the width.
    pub(crate) fn draw(&self, index: usize, domain: [f64; 2], plot: &mut Plot, layout: Layout) -> Layout {
        let suffix = if index == 0 { String::new() } else { (index + 1).to_string() };
        let (x, y) = (format!("x{suffix}"), format!("y{suffix}"));
        let (rows, columns) = self.pattern.dim();

        let z: Vec<Vec<f32>> = self.pattern.outer_iter().map(|row| row.to_vec()).collect();
        let heat_map = HeatMap::new_z(z)
            .color_scale(ColorScale::Palette(ColorScalePalette::Viridis))
            .zmid(COLOR_MIDPOINT)
            .show_scale(false)
            .x_axis(&x)
            .y_axis(&y);
        plot.add_trace(heat_map);

        let axis = || Axis::new().show_tick_labels(false).tick_length(0).show_grid(false).zero_line(false);
        let x_axis = axis()
            .domain(&domain)
            .anchor(&y)
            .range(AxisRange::new(-0.5, columns as f64 - 0.5))
            .constrain(AxisConstrain::Domain);
        let y_axis = axis()
            .anchor(&x)
            .range(AxisRange::new(rows as f64 - 0.5, -0.5)) // row 0 on top
            .scale_anchor(&x)
            .constrain(AxisConstrain::Domain);
        let mut layout = match index {
            0 => layout.x_axis(x_axis).y_axis(y_axis),
            _ => layout.x_axis2(x_axis).y_axis2(y_axis),
        };
        for &(query, key) in &self.frames {
            layout.add_shape(frame(query, key, &x, &y));
        }
        for annotation in self.annotations(&x, &y) {
            layout.add_annotation(annotation);
        }
        if let Some(caption) = &self.caption {
            let corner = label(caption, TOKEN_SIZE, "#555").x_ref("paper").y_ref("paper").x(domain[0]).y(0.0);
            let below = corner.x_anchor(Anchor::Left).y_anchor(Anchor::Top).y_shift(-95.0);
            layout.add_annotation(below);
        }
        layout
    }

    fn annotations(&self, x: &str, y: &str) -> Vec<Annotation> {
        let (rows, columns) = self.pattern.dim();
        let (right, bottom) = (columns as f64 - 0.5, rows as f64 - 0.5);
        let at = |label: Annotation, column: f64, row: f64| label.x_ref(x).y_ref(y).x(column).y(row);
        let side = |text: &str| label(text, LABEL_SIZE, "black");
        let mut annotations = Vec::new();
        if let Some(labels) = &self.axis_labels {
            for (row, text) in labels.left.iter().enumerate() {
                let label = at(side(text), -0.5, row as f64).x_anchor(Anchor::Right).x_shift(-LABEL_DISTANCE);
                annotations.push(label);
            }
            for (row, text) in labels.right.iter().enumerate() {
                let label = at(side(text), right, row as f64).x_anchor(Anchor::Left).x_shift(LABEL_DISTANCE);
                annotations.push(label);
            }
            for (column, text) in labels.top.iter().enumerate() {
                let label = at(side(text), column as f64, -0.5).y_anchor(Anchor::Bottom).y_shift(LABEL_DISTANCE);
                annotations.push(label.text_angle(-90.0));
            }
            for (column, text) in labels.bottom.iter().enumerate() {
                let label = at(side(text), column as f64, bottom).y_anchor(Anchor::Top).y_shift(-LABEL_DISTANCE);
                annotations.push(label.text_angle(-90.0));
            }
        }
        for (query, key, text) in &self.token_labels {
            let label = label(text, TOKEN_SIZE, "white").text_angle(-45.0);
            annotations.push(at(label, *key as f64, *query as f64));
        }
        annotations
    }
}

fn label(text: &str, size: usize, color: &'static str) -> Annotation {
    Annotation::new().text(escape(text)).show_arrow(false).font(Font::new().size(size).color(color))
}

/// A white frame, 2 pixels wide and without a fill, around a cell.
fn frame(query: usize, key: usize, x: &str, y: &str) -> Shape {
    let (query, key) = (query as f64, key as f64);
    Shape::new()
        .shape_type(ShapeType::Rect)
        .x_ref(x)
        .y_ref(y)
        .x0(key - 0.5)
        .x1(key + 0.5)
        .y0(query - 0.5)
        .y1(query + 0.5)
        .line(ShapeLine::new().color("white").width(2.0))
}
