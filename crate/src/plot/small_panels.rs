//! Small panels of one size in rows, as one matrix of cells with gaps: plotly.rs has at most eight pairs of axes.

use super::canvas::Area;
use super::marks::{Coordinate, LABEL_SIZE, TOOL_BAR, Text, Title, Vertical, WIDTH};
use super::style::{Color, FigureStyle};
use crate::error::{Error, Result};

/// Maximum number of cells, including gaps; with more, a browser is slow, and the figure takes megabytes.
const MAX_CELLS: usize = 300_000;
/// Maximum number of cells with a hover text each.
const MAX_HOVER_TEXTS: usize = 10_000;

/// The places of the panels. A panel has `pos` rows and columns.
pub(super) struct SmallPanels {
    n: usize,
    rows: usize,
    columns: usize,
    pos: usize,
    /// Number of cells between two panels.
    gap: usize,
    /// Number of cells above each panel, for its title.
    above: usize,
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

impl SmallPanels {
    /// The places of `n` panels. `function` is the caller, for the error.
    ///
    /// # Errors
    /// [`Error::Count`] if there are too many cells.
    pub(super) fn new(n: usize, pos: usize, function: &'static str) -> Result<Self> {
        let (rows, columns) = shape(n);
        let gap = (pos / 8).max(2);
        // A title needs about a fiftieth of the width.
        let above = (columns * pos).div_ceil(50_usize.saturating_sub(columns).max(1)).max(gap);
        let panels = Self { n, rows, columns, pos, gap, above };
        let (height, width) = panels.dim();
        if height * width > MAX_CELLS {
            return Err(Error::Count {
                function,
                what: format!("cells of {n} heads with {pos} positions"),
                found: height * width,
                min: 1,
                max: Some(MAX_CELLS),
                hint: Some("take fewer heads or a shorter prompt"),
            });
        }
        Ok(panels)
    }

    /// Rows and columns of cells, gaps included.
    pub(super) fn dim(&self) -> (usize, usize) {
        let [down, right] = self.pitch();
        (self.rows * down, (self.columns * right).saturating_sub(self.gap))
    }

    /// Cells from one panel to the next one, down and to the right.
    fn pitch(&self) -> [usize; 2] {
        [self.pos + self.above, self.pos + self.gap]
    }

    /// The row and column of the first cell of each panel.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let ([down, right], columns, above) = (self.pitch(), self.columns, self.above);
        (0..self.n).map(move |index| (index / columns * down + above, index % columns * right))
    }

    /// Whether each cell may have a hover text.
    pub(super) fn may_have_hover_texts(&self) -> bool {
        let (height, width) = self.dim();
        height * width <= MAX_HOVER_TEXTS
    }

    /// A title above the middle of each panel: the long one where there is room for it. `area` is that of all cells.
    pub(super) fn titles(&self, titles: impl Iterator<Item = (String, String)>, area: Area) -> Vec<Text> {
        let side = self.pos as f64 * area.width / self.dim().1.max(1) as f64;
        let title = |((row, column), (long, short)): ((usize, usize), (String, String))| Text {
            x: Coordinate::Value(column as f64 + (self.pos as f64 - 1.0) / 2.0),
            y: Coordinate::Value(row as f64 - 0.5),
            vertical: Some(Vertical::Bottom),
            ..Text::new(if side > 110.0 { long } else { short }, if side > 40.0 { LABEL_SIZE } else { 9 }, Color::Text)
        };
        self.places().zip(titles).map(title).collect()
    }

    /// The size of the figure, its title, and the area of the cells with `beside` pixels on the right of it.
    pub(super) fn layout(&self, title: &str, beside: f64, style: FigureStyle) -> ([usize; 2], Option<Title>, Area) {
        let width = style.size.map_or(WIDTH, |[width, _]| width);
        let title = Title::of(Some(title), width);
        let top = title.as_ref().map_or(TOOL_BAR, Title::bottom);
        let (rows, columns) = self.dim();
        let inner = (width as f64 - 40.0 - beside).max(40.0);
        let given = style.size.map(|[_, height]| (height as f64 - top - 20.0).max(40.0));
        let height = given.unwrap_or((inner * rows as f64 / columns.max(1) as f64).clamp(160.0, 1000.0));
        let area = Area { x: 20.0, y: top, width: inner, height };
        ([width, (top + height + 20.0).round() as usize], title, area)
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
