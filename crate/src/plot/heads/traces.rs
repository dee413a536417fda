//! How plotly draws a panel: in full, or lighter where there are many positions.

use plotly::common::{Anchor, ColorScale, Font, HoverInfo};
use plotly::layout::{Annotation, Axis, AxisRange, AxisType, Shape, ShapeLine, ShapeType};
use plotly::{HeatMap, Layout, Plot, Trace};
use serde::Serialize;

use super::hover;
use super::panel::{CAPTION_DISTANCE, COLOR_MIDPOINT, LABEL_DISTANCE, LABEL_SIZE, Panel, TOKEN_SIZE};
use crate::plot::style::Look;
use crate::plot::text::escape;

/// Where a panel lies, in shares of what is between the figure's margins.
pub(in crate::plot) struct Place {
    /// From and to, exactly as wide and high as square cells need: axes that are linked to others must not be cut to size.
    pub(in crate::plot) x: [f64; 2],
    pub(in crate::plot) y: [f64; 2],
    /// Where the part of the figure begins that is the panel's.
    pub(in crate::plot) left: f64,
    /// Whether it is zoomed with the first panel.
    pub(in crate::plot) linked: bool,
}

impl Panel {
    /// Adds the panel to a plot, as its `index`-th of several side by side.
    pub(in crate::plot) fn draw(
        &self,
        index: usize,
        place: &Place,
        look: Look,
        plot: &mut Plot,
        layout: Layout,
    ) -> Layout {
        let suffix = if index == 0 { String::new() } else { (index + 1).to_string() };
        let (x, y) = (format!("x{suffix}"), format!("y{suffix}"));
        let (rows, columns) = self.pattern.dim();
        let z: Vec<Vec<f32>> = self.pattern.outer_iter().map(|row| row.to_vec()).collect();
        let names = self.names();
        let named = names.is_some();
        plot.add_trace(match names {
            None => self.heat_map(HeatMap::new_z(z), &x, &y, look),
            Some(names) => self.heat_map(HeatMap::new(names.clone(), names, z), &x, &y, look),
        });

        let axis = || Axis::new().tick_length(0).show_grid(false).zero_line(false);
        let axis = || match named {
            // plotly shows as many of the names as there is room for, more of them where one has zoomed in.
            true => axis().type_(AxisType::Category).tick_font(font(TOKEN_SIZE, look.theme.text())),
            false => axis().show_tick_labels(false),
        };
        let x_axis =
            axis().tick_angle(-90.0).anchor(&y).range(AxisRange::new(-0.5, columns as f64 - 0.5)).domain(&place.x);
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
        for shape in self.shapes(&x, &y) {
            layout.add_shape(shape);
        }
        for annotation in self.annotations(&x, &y, look) {
            layout.add_annotation(annotation);
        }
        if let Some(caption) = self.caption() {
            let corner = label(&caption, TOKEN_SIZE, look.theme.faint()).x_ref("paper").y_ref("paper");
            let below = corner.x(place.left).y(0.0).x_anchor(Anchor::Left).y_anchor(Anchor::Top);
            layout.add_annotation(below.y_shift(-CAPTION_DISTANCE));
        }
        layout
    }

    /// In the light form, what the positions are called: the axes say it in place of labels.
    fn names(&self) -> Option<Vec<String>> {
        let data = self.data.as_ref().filter(|_| self.light())?;
        Some((0..data.n_pos()).map(|position| escape(&hover::position(data, position))).collect())
    }

    fn heat_map<X, Z>(&self, heat_map: Box<HeatMap<X, X, Z>>, x: &str, y: &str, look: Look) -> Box<dyn Trace>
    where
        X: Serialize + Clone + 'static,
        Z: Serialize + Clone + 'static,
    {
        let colors = ColorScale::Palette(look.color_scale.palette());
        let heat_map = heat_map.color_scale(colors).zmid(COLOR_MIDPOINT).show_scale(false).x_axis(x).y_axis(y);
        match self.hover_texts() {
            None => heat_map.hover_template("query %{y}<br>key %{x}<br>%{z}<extra></extra>"),
            Some(texts) => match self.light() {
                true => {
                    let template = "query %{y}<br>key %{x}<br>%{hovertext}<extra></extra>";
                    heat_map.hover_text_matrix(texts).hover_template(template)
                }
                false => heat_map.hover_text_matrix(texts).hover_info(HoverInfo::Text),
            },
        }
    }

    /// What is said of each cell, row by row: without the positions where the axes know them.
    pub(in crate::plot) fn hover_texts(&self) -> Option<Vec<Vec<String>>> {
        let data = self.data.as_ref()?;
        let texts = hover::texts(data, if self.light() { hover::in_short } else { hover::in_full })?;
        Some(texts.outer_iter().map(|row| row.to_vec()).collect())
    }

    /// The white frames, 2 pixels wide and without a fill, one shape each; in the light form, where cells are small, 1 pixel
    /// wide and one shape for all of them.
    fn shapes(&self, x: &str, y: &str) -> Vec<Shape> {
        let width = if self.light() { 1.0 } else { 2.0 };
        let white = || Shape::new().x_ref(x).y_ref(y).line(ShapeLine::new().color("white").width(width));
        if self.light() {
            let path = (!self.frames.is_empty()).then(|| white().shape_type(ShapeType::Path).path(self.frame_path()));
            return path.into_iter().collect();
        }
        let frame = |&(query, key): &(usize, usize)| {
            let (query, key) = (query as f64, key as f64);
            let across = white().shape_type(ShapeType::Rect).x0(key - 0.5).x1(key + 0.5);
            across.y0(query - 0.5).y1(query + 0.5)
        };
        self.frames.iter().map(frame).collect()
    }

    /// All frames as one path in the axes' coordinates; a point where there are none.
    pub(in crate::plot) fn frame_path(&self) -> String {
        let frame = |&(query, key): &(usize, usize)| {
            let ([left, right], [top, bottom]) =
                ([key, key + 1].map(|x| x as f64 - 0.5), [query, query + 1].map(|y| y as f64 - 0.5));
            format!("M{left},{top}L{right},{top}L{right},{bottom}L{left},{bottom}Z")
        };
        match self.frames.is_empty() {
            true => "M0,0".into(),
            false => self.frames.iter().map(frame).collect(),
        }
    }

    /// The labels: first those along the sides (left, right, top, bottom), then those in the cells.
    pub(in crate::plot) fn annotations(&self, x: &str, y: &str, look: Look) -> Vec<Annotation> {
        let side = |text: &str| label(text, LABEL_SIZE, look.theme.text());
        // At the panel's edges, wherever one has zoomed to.
        let (x_domain, y_domain) = (format!("{x} domain"), format!("{y} domain"));
        let beside = |text: &str, edge: f64, row: usize| side(text).x_ref(&x_domain).x(edge).y_ref(y).y(row as f64);
        let beyond = |text: &str, edge: f64, column: usize| {
            side(text).y_ref(&y_domain).y(edge).x_ref(x).x(column as f64).text_angle(-90.0)
        };
        let mut annotations = Vec::new();
        if self.light() {
            return annotations;
        }
        if let Some(labels) = &self.axis_labels {
            for (row, text) in labels.left.iter().enumerate() {
                annotations.push(beside(text, 0.0, row).x_anchor(Anchor::Right).x_shift(-LABEL_DISTANCE));
            }
            for (row, text) in labels.right.iter().enumerate() {
                annotations.push(beside(text, 1.0, row).x_anchor(Anchor::Left).x_shift(LABEL_DISTANCE));
            }
            for (column, text) in labels.top.iter().enumerate() {
                annotations.push(beyond(text, 1.0, column).y_anchor(Anchor::Bottom).y_shift(LABEL_DISTANCE));
            }
            for (column, text) in labels.bottom.iter().enumerate() {
                annotations.push(beyond(text, 0.0, column).y_anchor(Anchor::Top).y_shift(-LABEL_DISTANCE));
            }
        }
        for (query, key, text) in &self.token_labels {
            let label = label(text, TOKEN_SIZE, "white").text_angle(-45.0);
            annotations.push(label.x_ref(x).y_ref(y).x(*key as f64).y(*query as f64));
        }
        annotations
    }

    /// The texts of [`annotations`](Self::annotations), in the same order, as plotly takes them.
    pub(in crate::plot) fn annotation_texts(&self) -> Vec<String> {
        let sides =
            self.axis_labels.iter().flat_map(|labels| [&labels.left, &labels.right, &labels.top, &labels.bottom]);
        let cells = self.token_labels.iter().map(|(_, _, text)| text);
        match self.light() {
            true => Vec::new(),
            false => sides.flatten().chain(cells).map(|text| escape(text)).collect(),
        }
    }
}

/// A text without an arrow.
pub(in crate::plot) fn label(text: &str, size: usize, color: &'static str) -> Annotation {
    Annotation::new().text(escape(text)).show_arrow(false).font(font(size, color))
}

fn font(size: usize, color: &'static str) -> Font {
    Font::new().size(size).color(color)
}
