//! The heads of a layer at a glance: small heat maps in rows, without labels.

use super::hover;
use super::layout::MARGINS;
use super::legend::{self, LegendPlace, legend};
use super::panel::HeadPanel;
use super::same_prompt::same_prompt;
use super::token_colors::TokenColors;
use crate::attention_tokens::HeadData;
use crate::error::Result;
use crate::plot::canvas::Axes;
use crate::plot::content::{Content, Drawn};
use crate::plot::marks::{CellBlock, Cells, Drawing, Hover, Mark, Paint, Precision};
use crate::plot::small_panels::SmallPanels;
use crate::plot::style::{FigureStyle, Look};

/// Number of colours of the original's look, whose heads have scales of their own.
const SCALE_STEPS: usize = 128;

/// Panels of one size, as one heat map with gaps.
pub(in crate::plot) struct Grid {
    panels: Vec<HeadPanel>,
    places: SmallPanels,
}

impl Grid {
    /// The panels of these heads, on one prompt of their batch.
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) if there are no heads or too many cells,
    /// [`Error::DifferentPrompts`](crate::Error::DifferentPrompts) if the heads ran on different prompts,
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) if there is no such prompt.
    pub(in crate::plot) fn new(heads: &[HeadData], prompt: usize) -> Result<Self> {
        let data = same_prompt(heads, prompt, "layer_grid")?;
        let panels: Vec<HeadPanel> = data.into_iter().map(HeadPanel::of_head).collect();
        let pos = panels.first().map_or(0, |panel| panel.pattern.nrows());
        let places = SmallPanels::new(panels.len(), pos, "layer_grid")?;
        Ok(Grid { panels, places })
    }

    /// Each panel, and the row and column of its first cell.
    fn placed(&self) -> impl Iterator<Item = (&HeadPanel, usize, usize)> {
        self.panels.iter().zip(self.places.places()).map(|(panel, (row, column))| (panel, row, column))
    }

    /// Each panel's colours: the same ones for all, or in the original's look its own scale.
    fn painted(&self, colors: &TokenColors, style: FigureStyle) -> (Vec<CellBlock>, Paint) {
        let placed = |(panel, row, column): (&HeadPanel, usize, usize)| {
            let (block, paint) = panel.painted(colors, style);
            let values = match paint {
                Paint::Scale(range) => {
                    let share = range.share(std::slice::from_ref(&block));
                    let step = |x: f64| 1.0 + (share(x) * (SCALE_STEPS - 1) as f64).round();
                    block.values.mapv(|x| if x.is_nan() { 0.0 } else { step(x) })
                }
                Paint::Indices(_) | Paint::Shades(_) => block.values,
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
        if !self.places.may_have_hover_texts() {
            return Hover::Skip;
        }
        let (height, width) = self.places.dim();
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

    /// The name of each head and the number of its tokens; the name alone where the panel is narrow.
    fn titles(&self) -> impl Iterator<Item = (String, String)> {
        self.panels.iter().map(|panel| {
            let n = panel.n_distinct();
            (format!("{}: {n} {}", panel.name(), if n == 1 { "token" } else { "tokens" }), panel.name())
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
}

impl Content for Grid {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let colors = TokenColors::new(&self.panels, style);
        let beside = if style.look == Look::Tokens { legend::WIDTH } else { 0.0 };
        let (size, title, area) = self.places.layout(&self.title(), beside, style);
        let axes = Axes { placed: true, ..Axes::of_cells(self.places.dim(), area) };
        let (blocks, paint) = self.painted(&colors, style);
        let cells = Cells {
            axes: 0,
            dim: self.places.dim(),
            blocks,
            paint,
            precision: Precision::Exact,
            hover: self.hover(),
            labels: None,
            color_bar: None,
        };
        let mut marks = vec![Mark::Cells(cells)];
        marks.extend(self.places.titles(self.titles(), axes.area).into_iter().map(Mark::Text));
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
