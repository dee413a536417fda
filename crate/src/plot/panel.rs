//! One head on one prompt as a heat map with frames and labels: what to draw, and how plotly draws it.

use ndarray::Array2;
use plotly::common::{Anchor, ColorScale, ColorScalePalette, Font, HoverInfo};
use plotly::layout::{Annotation, Axis, AxisRange, Shape, ShapeLine, ShapeType};
use plotly::{HeatMap, Layout, Plot};

use super::text::escape;

pub(super) const LABEL_SIZE: usize = 12;
pub(super) const TOKEN_SIZE: usize = 10;
/// Pixels between the heat map and its labels.
pub(super) const LABEL_DISTANCE: f64 = 20.0;
/// Pixels between the part of the figure that is the panel's and its caption.
pub(super) const CAPTION_DISTANCE: f64 = 95.0;
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
    /// What is said of a cell under the pointer, line by line; nothing of a cell without lines. Shape: `[query_pos, key_pos]`.
    pub(crate) hover: Option<Array2<Vec<String>>>,
    /// What the data is: the head and the projection.
    pub(crate) caption: Option<String>,
}

/// Where a panel lies, in shares of what is between the figure's margins.
pub(super) struct Place {
    /// From and to, exactly as wide and high as square cells need: axes that are linked to others must not be cut to size.
    pub(super) x: [f64; 2],
    pub(super) y: [f64; 2],
    /// Where the part of the figure begins that is the panel's.
    pub(super) left: f64,
    /// Whether it is zoomed with the first panel.
    pub(super) linked: bool,
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
        Self { pattern, frames: Vec::new(), axis_labels: None, token_labels: Vec::new(), hover: None, caption: None }
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

    /// Where on the colour scale a value lies, from 0 to 1. plotly makes the scale as wide on one side of its midpoint as it
    /// must be on the other.
    pub(super) fn color_share(&self) -> impl Fn(f32) -> f64 {
        let off = self.pattern.iter().map(|&value| (f64::from(value) - COLOR_MIDPOINT).abs());
        let widest = off.filter(|off| off.is_finite()).fold(0.0, f64::max);
        move |value| match widest > 0.0 {
            true => 0.5 + (f64::from(value) - COLOR_MIDPOINT) / (2.0 * widest),
            false => 0.5,
        }
    }

    /// Adds the panel to a plot, as its `index`-th of several side by side.
    pub(super) fn draw(&self, index: usize, place: &Place, plot: &mut Plot, layout: Layout) -> Layout {
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
        plot.add_trace(match &self.hover {
            None => heat_map.hover_template("query %{y}, key %{x}: %{z}<extra></extra>"),
            Some(hover) => {
                let lines =
                    |lines: &Vec<String>| lines.iter().map(|line| escape(line)).collect::<Vec<_>>().join("<br>");
                let texts = hover.outer_iter().map(|row| row.iter().map(lines).collect()).collect();
                heat_map.hover_text_matrix(texts).hover_info(HoverInfo::Text)
            }
        });

        let axis = || Axis::new().show_tick_labels(false).tick_length(0).show_grid(false).zero_line(false);
        let x_axis = axis().anchor(&y).range(AxisRange::new(-0.5, columns as f64 - 0.5)).domain(&place.x);
        let y_axis = axis().anchor(&x).range(AxisRange::new(rows as f64 - 0.5, -0.5)).domain(&place.y); // row 0 on top
        // Square cells. Of matching axes, plotly wants that said once.
        let (x_axis, y_axis) = match place.linked {
            true => (x_axis.matches("x"), y_axis.matches("y")),
            false => (x_axis, y_axis.scale_anchor(&x)),
        };
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
            let corner = label(caption, TOKEN_SIZE, "#555").x_ref("paper").y_ref("paper").x(place.left).y(0.0);
            let below = corner.x_anchor(Anchor::Left).y_anchor(Anchor::Top).y_shift(-CAPTION_DISTANCE);
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
