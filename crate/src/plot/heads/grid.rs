//! The heads of a layer at a glance: small heat maps in rows, without labels.

use super::hover;
use super::layout::{MARGINS, width};
use super::legend::{self, LegendPlace, legend};
use super::panel::HeadPanel;
use super::same_prompt::same_prompt;
use super::token_colors::TokenColors;
use crate::attention_tokens::HeadData;
use crate::error::{Error, Result};
use crate::plot::canvas::{Area, Axes};
use crate::plot::content::{Content, Drawn};
use crate::plot::marks::{
    CellBlock, Cells, Coordinate, Drawing, Hover, LABEL_SIZE, Mark, Paint, Precision, TOOL_BAR, Text, Title, Vertical,
};
use crate::plot::style::{Color, FigureStyle, Look};

/// Number of colours of the original's look, whose heads have scales of their own.
const SCALE_STEPS: usize = 128;
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
        let gap = (pos / 8).max(2);
        // A title needs about a fiftieth of the width.
        let above = (columns * pos).div_ceil(50_usize.saturating_sub(columns).max(1)).max(gap);
        let grid = Grid { panels, rows, columns, pos, gap, above };
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
        let [down, right] = self.pitch();
        (self.rows * down, (self.columns * right).saturating_sub(self.gap))
    }

    /// Cells from one panel to the next one, down and to the right.
    fn pitch(&self) -> [usize; 2] {
        [self.pos + self.above, self.pos + self.gap]
    }

    /// Each panel, and the row and column of its first cell.
    fn placed(&self) -> impl Iterator<Item = (&HeadPanel, usize, usize)> {
        let [down, right] = self.pitch();
        let place =
            move |(index, panel)| (panel, index / self.columns * down + self.above, index % self.columns * right);
        self.panels.iter().enumerate().map(place)
    }

    /// Each panel's colours: the same ones for all, or in the original's look its own scale.
    fn painted(&self, colors: &TokenColors, style: FigureStyle) -> (Vec<CellBlock>, Paint) {
        let placed = |(panel, row, column): (&HeadPanel, usize, usize)| {
            let (block, paint) = panel.painted(colors, style);
            let values = match paint {
                Paint::Indices(_) => block.values,
                Paint::Scale(range) => {
                    let share = range.share(std::slice::from_ref(&block));
                    let step = |x: f64| 1.0 + (share(x) * (SCALE_STEPS - 1) as f64).round();
                    block.values.mapv(|x| if x.is_nan() { 0.0 } else { step(x) })
                }
            };
            CellBlock { at: (row, column), values }
        };
        let colors = match style.look {
            Look::Tokens => colors.colors.clone(),
            Look::Original => {
                let scale = style.scale().colors();
                (0..SCALE_STEPS).map(|step| scale(step as f64 / (SCALE_STEPS - 1) as f64)).collect()
            }
        };
        (self.placed().map(placed).collect(), Paint::Indices(colors))
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
                    format!("{}\nhead {}", hover::full(data, panel.feature, query, key), panel.name());
            }
        }
        Hover::Texts(texts)
    }

    /// The name of each head and the number of its tokens, above the middle of its panel; the name alone where the panel
    /// is narrow.
    fn titles(&self, cell: f64) -> impl Iterator<Item = Text> {
        let is_wide = self.pos as f64 * cell > 110.0;
        self.placed().map(move |(panel, row, column)| {
            let title = match panel.n_distinct() {
                n if is_wide => format!("{}: {n} {}", panel.name(), if n == 1 { "token" } else { "tokens" }),
                _ => panel.name(),
            };
            Text {
                x: Coordinate::Value(column as f64 + (self.pos as f64 - 1.0) / 2.0),
                y: Coordinate::Value(row as f64 - 0.5),
                vertical: Some(Vertical::Bottom),
                ..Text::new(title, if self.pos as f64 * cell > 40.0 { LABEL_SIZE } else { 9 }, Color::Text)
            }
        })
    }

    /// What all heads have in common.
    fn title(&self) -> String {
        let data = self.panels.first().and_then(|panel| panel.data.as_ref());
        data.map_or_else(String::new, |data| {
            let n = self.panels.len();
            format!("Attention tokens of {n} {}{}", if n == 1 { "head" } else { "heads" }, data.decoded())
        })
    }

    fn layout(&self, style: FigureStyle) -> ([usize; 2], Option<Title>, Area) {
        let width = width(style);
        let title = Title::of(Some(&self.title()), width);
        let top = title.as_ref().map_or(TOOL_BAR, Title::bottom);
        let legend = if style.look == Look::Tokens { legend::WIDTH } else { 0.0 };
        let (rows, columns) = self.dim();
        let inner = (width as f64 - 40.0 - legend).max(40.0);
        let given = style.size.map(|[_, height]| (height as f64 - top - 20.0).max(40.0));
        let height = given.unwrap_or((inner * rows as f64 / columns.max(1) as f64).clamp(160.0, 1000.0));
        let area = Area { x: 20.0, y: top, width: inner, height };
        ([width, (top + height + 20.0).round() as usize], title, area)
    }
}

impl Content for Grid {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let colors = TokenColors::new(&self.panels, style);
        let (size, title, area) = self.layout(style);
        let axes = Axes { placed: true, ..Axes::of_cells(self.dim(), area) };
        let (blocks, paint) = self.painted(&colors, style);
        let cells = Cells {
            axes: 0,
            dim: self.dim(),
            blocks,
            paint,
            precision: Precision::Exact,
            hover: self.hover(),
            labels: None,
            color_bar: None,
        };
        let cell = axes.area.width / self.dim().1.max(1) as f64;
        let mut marks = vec![Mark::Cells(cells)];
        marks.extend(self.titles(cell).map(Mark::Text));
        if style.look == Look::Tokens {
            let place = LegendPlace { axes: 0, right: 16.0, height: axes.area.height };
            marks.extend(legend(&self.panels.iter().collect::<Vec<_>>(), &colors, &place, None));
        }
        Drawn::Marks(Drawing { title, axes: vec![axes], marks, ..Drawing::new(size, MARGINS, self.describe()) })
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
