//! The heads of a layer at a glance: small heat maps in rows, without labels.

use super::hover;
use super::panel::HeadPanel;
use super::panel_marks::COLOR_MIDPOINT;
use super::same_prompt::same_prompt;
use crate::attention_tokens::HeadData;
use crate::error::{Error, Result};
use crate::plot::canvas::{Area, Axes};
use crate::plot::content::{Content, Drawn};
use crate::plot::marks::{
    CellBlock, Cells, ColorRange, Coordinate, Drawing, Hover, LABEL_SIZE, Mark, Precision, Text, Vertical,
};
use crate::plot::style::{Color, FigureStyle};

/// Width of the figure, and its margin on all sides, in pixels.
const WIDTH: usize = 1200;
const MARGIN: usize = 40;
/// Maximum number of cells, including gaps; with more, a browser is slow, and the figure takes megabytes.
const MAX_CELLS: usize = 300_000;
/// Maximum number of cells with a hover text each.
const MAX_HOVER_TEXTS: usize = 10_000;

/// Panels of one size, as one heat map with gaps.
pub(in crate::plot) struct Grid {
    panels: Vec<HeadPanel>,
    rows: usize,
    columns: usize,
    /// Number of positions of each panel.
    pos: usize,
    /// Number of cells between two panels, and above each panel for its title.
    gap: usize,
}

/// Rows and columns, as close to 3:4 as the number of panels allows; empty places count against a shape.
fn shape(panels: usize) -> (usize, usize) {
    let mismatch = |columns: usize| {
        let rows = panels.div_ceil(columns);
        let ratio = (rows as f64 / columns as f64 / 0.75).ln().abs();
        (ratio + (rows * columns - panels) as f64 / panels as f64, rows, columns)
    };
    let best = (1..=panels).map(mismatch).min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or((0, 0), |(_, rows, columns)| (rows, columns))
}

impl Grid {
    /// The panels of these heads, on one prompt of their batch.
    ///
    /// # Errors
    /// [`Error::Count`] if there are no heads or too many cells, [`Error::DifferentPrompts`] if the heads ran on
    /// different prompts, [`Error::OutOfRange`] if there is no such prompt.
    pub(in crate::plot) fn new(heads: &[HeadData], prompt: usize) -> Result<Self> {
        let data = same_prompt(heads, prompt, "layer_grid")?;
        let panels: Vec<HeadPanel> = data.into_iter().map(HeadPanel::of_head).collect();
        let pos = panels.first().map_or(0, |panel| panel.pattern.nrows());
        let (rows, columns) = shape(panels.len());
        let grid = Grid { panels, rows, columns, pos, gap: (pos / 8).max(2) };
        let (height, width) = grid.dim();
        if height * width > MAX_CELLS {
            return Err(Error::Count {
                function: "layer_grid",
                what: format!("cells of {} heads with {pos} positions", grid.panels.len()),
                found: height * width,
                min: 1,
                max: Some(MAX_CELLS),
                hint: Some("take fewer heads or a shorter prompt"),
            });
        }
        Ok(grid)
    }

    /// Rows and columns of cells, gaps included.
    fn dim(&self) -> (usize, usize) {
        let pitch = self.pos + self.gap;
        (self.rows * pitch, (self.columns * pitch).saturating_sub(self.gap))
    }

    /// Each panel, and the row and column of its first cell.
    fn placed(&self) -> impl Iterator<Item = (&HeadPanel, usize, usize)> {
        let pitch = self.pos + self.gap;
        let place =
            move |(index, panel)| (panel, index / self.columns * pitch + self.gap, index % self.columns * pitch);
        self.panels.iter().enumerate().map(place)
    }

    /// Width and height in pixels, in the proportions of the grid.
    fn size(&self) -> [usize; 2] {
        let (height, width) = self.dim();
        let inner = (WIDTH - 2 * MARGIN) as f64 * height as f64 / width.max(1) as f64;
        [WIDTH, (inner.round() as usize).clamp(200, 1000) + 2 * MARGIN]
    }

    /// All panels as one heat map.
    fn cells(&self) -> Cells {
        // Each panel has a colour range of its own, so the heat map is of positions on the colour scale.
        let block = |(panel, row, column): (&HeadPanel, usize, usize)| {
            let pattern = panel.block((row, column));
            let share = ColorRange::Midpoint(COLOR_MIDPOINT).share(std::slice::from_ref(&pattern));
            CellBlock { values: pattern.values.mapv(share), ..pattern }
        };
        Cells {
            axes: 0,
            dim: self.dim(),
            blocks: self.placed().map(block).collect(),
            range: ColorRange::Ends([0.0, 1.0]),
            precision: Precision::Decimals,
            hover: self.hover(),
            gaps: true,
            color_bar: None,
        }
    }

    /// A hover text for each cell with key ≤ query, unless there are too many cells.
    fn hover(&self) -> Hover {
        let (height, width) = self.dim();
        if height * width > MAX_HOVER_TEXTS {
            return Hover::Skip;
        }
        let mut texts = vec![String::new(); height * width];
        for (panel, row, column) in self.placed() {
            let Some(data) = &panel.data else { continue };
            for (query, key) in data.cells() {
                texts[(row + query) * width + column + key] =
                    format!("head {}\n{}", panel.name(), hover::two_lines(data, query, key));
            }
        }
        Hover::Texts(texts)
    }

    /// The name of each head, above the middle of its panel.
    fn titles(&self) -> impl Iterator<Item = Text> {
        self.placed().map(|(panel, row, column)| Text {
            x: Coordinate::Value(column as f64 + (self.pos as f64 - 1.0) / 2.0),
            y: Coordinate::Value(row as f64 - 0.5),
            vertical: Some(Vertical::Bottom),
            ..Text::new(panel.name(), LABEL_SIZE, Color::Text)
        })
    }
}

impl Content for Grid {
    fn draw(&self, _: FigureStyle) -> Drawn {
        let (size, margins) = (self.size(), [MARGIN; 4]);
        Drawn::Marks(Drawing {
            axes: vec![Axes::of_cells(self.dim(), Area::between(margins, size))],
            marks: std::iter::once(Mark::Cells(self.cells())).chain(self.titles().map(Mark::Text)).collect(),
            ..Drawing::new(size, margins, self.describe())
        })
    }

    fn describe(&self) -> String {
        let panels: Vec<String> = self.panels.iter().map(HeadPanel::describe).collect();
        format!("grid of {} heat maps: {}", panels.len(), panels.join("; "))
    }

    fn kind(&self) -> &'static str {
        "a grid of heads"
    }
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn grids_are_as_close_to_three_by_four_as_they_can_be() {
        let heads = [1, 2, 6, 8, 12, 16, 20, 25, 144];
        let shapes = [(1, 1), (1, 2), (2, 3), (2, 4), (3, 4), (4, 4), (4, 5), (5, 5), (11, 14)];
        assert_eq!(heads.map(shape), shapes);
        for heads in 1..200 {
            let (rows, columns) = shape(heads);
            assert!(rows * columns >= heads && (rows - 1) * columns < heads, "{heads}: {rows} × {columns}");
        }
    }
}
