//! The heads of a layer at a glance: small heat maps in rows, without labels.

use ndarray::{Array2, s};
use plotly::common::{Anchor, ColorScale, HoverInfo};
use plotly::layout::{Axis, AxisRange};
use plotly::{HeatMap, Plot};

use super::heat_map::{between, layout};
use super::hover;
use super::panel::Panel;
use super::traces::label;
use crate::error::{Error, Result};
use crate::plot::figure::{Content, Figure};
use crate::plot::style::Look;
use crate::plot::svg::{Area, Picture};

const WIDTH: usize = 1200;
const MARGIN: usize = 40;
const TITLE_SIZE: usize = 12;
/// Beyond this many cells, gaps included, a browser has trouble, and the figure takes megabytes.
const MOST_CELLS: usize = 300_000;
/// Up to this many cells, everything is said of each under the pointer.
const MOST_TEXTS: usize = 10_000;

/// Panels of the same size, as one heat map with gaps: plotly.rs has axes for eight panels, and one map is lighter than twelve.
pub(in crate::plot) struct Grid {
    panels: Vec<Panel>,
    rows: usize,
    columns: usize,
    /// Positions of each panel.
    pos: usize,
    /// Cells between two panels; above each is room for its title.
    gap: usize,
}

impl Figure {
    /// Small panels in rows, one for each head.
    pub(crate) fn grid(panels: Vec<Panel>) -> Result<Self> {
        let pos = panels.first().map_or(0, |panel| panel.pattern.nrows());
        let (rows, columns) = shape(panels.len());
        let grid = Grid { panels, rows, columns, pos, gap: (pos / 8).max(2) };
        let (height, width) = grid.size();
        match height * width <= MOST_CELLS {
            true => Ok(Self::new(grid)),
            false => Err(Error::Count {
                function: "layer_grid",
                what: format!("cells of {} heads with {pos} positions", grid.panels.len()),
                found: height * width,
                min: 1,
                max: Some(MOST_CELLS),
                hint: Some("take fewer heads or a shorter prompt"),
            }),
        }
    }
}

/// Rows and columns, as near to 3:4 as the number of panels allows: of shapes that are equally near, the one with fewer gaps.
fn shape(panels: usize) -> (usize, usize) {
    let off = |columns: usize| {
        let rows = panels.div_ceil(columns);
        let ratio = (rows as f64 / columns as f64 / 0.75).ln().abs();
        (ratio + (rows * columns - panels) as f64 / panels as f64, rows, columns)
    };
    let best = (1..=panels).map(off).min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or((0, 0), |(_, rows, columns)| (rows, columns))
}

impl Grid {
    /// Height and width in cells.
    fn size(&self) -> (usize, usize) {
        let pitch = self.pos + self.gap;
        (self.rows * pitch, (self.columns * pitch).saturating_sub(self.gap))
    }

    /// Each panel with the row and column of its first cell.
    fn places(&self) -> impl Iterator<Item = (&Panel, usize, usize)> {
        let pitch = self.pos + self.gap;
        let place =
            move |(index, panel)| (panel, index / self.columns * pitch + self.gap, index % self.columns * pitch);
        self.panels.iter().enumerate().map(place)
    }

    /// Pixels, in the shape of the grid.
    fn pixels(&self) -> [usize; 2] {
        let (height, width) = self.size();
        let inner = (WIDTH - 2 * MARGIN) as f64 * height as f64 / width.max(1) as f64;
        [WIDTH, (inner.round() as usize).clamp(200, 1000) + 2 * MARGIN]
    }

    fn texts(&self) -> Option<Vec<Vec<String>>> {
        let (height, width) = self.size();
        if height * width > MOST_TEXTS {
            return None;
        }
        let mut texts = vec![vec![String::new(); width]; height];
        for (panel, row, column) in self.places() {
            let Some(data) = &panel.data else { continue };
            for (query, key) in data.cells() {
                texts[row + query][column + key] =
                    format!("head {}<br>{}", panel.name(), hover::in_two_lines(data, query, key));
            }
        }
        Some(texts)
    }
}

impl Content for Grid {
    fn plot(&self, look: Look) -> Plot {
        let (height, width) = self.size();
        let mut shares = Array2::from_elem((height, width), f32::NAN);
        for (panel, row, column) in self.places() {
            let share = panel.color_share();
            let rounded = panel.pattern.mapv(|value| (1000.0 * share(value)).round() as f32 / 1000.0);
            shares.slice_mut(s![row..row + self.pos, column..column + self.pos]).assign(&rounded);
        }
        let z: Vec<Vec<f32>> = shares.outer_iter().map(|row| row.to_vec()).collect();
        let colors = ColorScale::Palette(look.color_scale.palette());
        let heat_map = HeatMap::new_z(z).color_scale(colors).zmin(0.0).zmax(1.0).show_scale(false).hover_on_gaps(false);
        let mut plot = Plot::new();
        plot.add_trace(match self.texts() {
            Some(texts) => heat_map.hover_text_matrix(texts).hover_info(HoverInfo::Text),
            None => heat_map.hover_info(HoverInfo::Skip),
        });
        let axis = || Axis::new().show_tick_labels(false).tick_length(0).show_grid(false).zero_line(false);
        let range = |from: usize, to: usize| AxisRange::new(from as f64 - 0.5, to as f64 - 0.5);
        let mut layout = layout(self.pixels(), [MARGIN; 4], look)
            .x_axis(axis().range(range(0, width)))
            .y_axis(axis().range(range(height, 0)).scale_anchor("x"));
        for (panel, row, column) in self.places() {
            let middle = column as f64 + (self.pos as f64 - 1.0) / 2.0;
            let title = label(&panel.name(), TITLE_SIZE, look.theme.text()).x_ref("x").y_ref("y");
            layout.add_annotation(title.x(middle).y(row as f64 - 0.5).y_anchor(Anchor::Bottom));
        }
        plot.set_layout(layout);
        plot
    }

    fn svg(&self, look: Look) -> Option<String> {
        let pixels = self.pixels();
        let mut picture = Picture::new(pixels, &self.describe(), look);
        let (height, width) = self.size();
        let area = between([MARGIN; 4], pixels).cells((height, width));
        let cell = area.width / width.max(1) as f64;
        for (panel, row, column) in self.places() {
            let (x, y) = (area.x + cell * column as f64, area.y + cell * row as f64);
            let side = cell * self.pos as f64;
            picture.cells(&panel.pattern, panel.color_share(), Area { x, y, width: side, height: side });
            picture.line(x + side / 2.0, y - TITLE_SIZE as f64, TITLE_SIZE, &panel.name());
        }
        Some(picture.finish())
    }

    fn describe(&self) -> String {
        let panels: Vec<String> = self.panels.iter().map(Panel::describe).collect();
        format!("grid of {} heat maps: {}", panels.len(), panels.join("; "))
    }

    fn panel(&self) -> std::result::Result<&Panel, &'static str> {
        Err("a grid of heads")
    }
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn grids_are_as_near_to_three_by_four_as_they_can_be() {
        let heads = [1, 2, 6, 8, 12, 16, 20, 25, 144];
        let shapes = [(1, 1), (1, 2), (2, 3), (2, 4), (3, 4), (4, 4), (4, 5), (5, 5), (11, 14)];
        assert_eq!(heads.map(shape), shapes);
        for heads in 1..200 {
            let (rows, columns) = shape(heads);
            assert!(rows * columns >= heads && (rows - 1) * columns < heads, "{heads}: {rows} × {columns}");
        }
    }
}
