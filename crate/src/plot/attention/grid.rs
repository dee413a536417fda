//! The attention patterns of all heads of a layer, as small heat maps in rows.

use ndarray::Axis;

use super::patterns::Patterns;
use crate::error::Result;
use crate::plot::canvas::{Area, Axes};
use crate::plot::content::{Content, Drawn};
use crate::plot::marks::{CellBlock, Cells, ColorRange, Drawing, Hover, Mark, Paint, Precision};
use crate::plot::small_panels::SmallPanels;
use crate::plot::style::FigureStyle;

/// Pixels for the colour bar, and for its title above it.
const COLOR_BAR: f64 = 100.0;
const BAR_TITLE: f64 = 22.0;

pub(super) struct PatternGrid {
    patterns: Patterns,
    places: SmallPanels,
}

impl PatternGrid {
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) if there are too many cells.
    pub(super) fn new(patterns: Patterns) -> Result<Self> {
        let places = SmallPanels::new(patterns.n_heads(), patterns.n_pos(), patterns.function)?;
        Ok(Self { patterns, places })
    }

    fn title(&self) -> String {
        let Patterns { layer, caption, .. } = &self.patterns;
        format!("Attention of the {} heads of layer {layer}{caption}", self.patterns.n_heads())
    }

    fn hover(&self) -> Hover {
        if !self.places.may_have_hover_texts() {
            return Hover::Template("attention %{z}<extra></extra>", Vec::new());
        }
        let (height, width) = self.places.dim();
        let mut texts = vec![String::new(); height * width];
        for (head, (row, column)) in self.places.places().enumerate() {
            for query in 0..self.patterns.n_pos() {
                for key in 0..=query {
                    texts[(row + query) * width + column + key] =
                        format!("{}\nhead {}", self.patterns.text(head, query, key), self.patterns.name(head));
                }
            }
        }
        Hover::Texts(texts)
    }
}

impl Content for PatternGrid {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let (size, title, area) = self.places.layout(&self.title(), COLOR_BAR, style);
        let area = Area { y: area.y + BAR_TITLE, height: area.height - BAR_TITLE, ..area };
        let axes = Axes { placed: true, ..Axes::of_cells(self.places.dim(), area) };
        let block =
            |(head, at)| CellBlock { at, values: self.patterns.pattern.index_axis(Axis(0), head).mapv(f64::from) };
        let cells = Cells {
            axes: 0,
            dim: self.places.dim(),
            blocks: self.places.places().enumerate().map(block).collect(),
            paint: Paint::Scale(ColorRange::Ends([0.0, 1.0])),
            precision: Precision::Significant,
            hover: self.hover(),
            labels: None,
            color_bar: Some("attention".into()),
        };
        let names = (0..self.patterns.n_heads()).map(|head| self.patterns.name(head));
        let titles = self.places.titles(names.map(|name| (format!("head {name}"), name)), axes.area);
        let marks = std::iter::once(Mark::Cells(cells)).chain(titles.into_iter().map(Mark::Text)).collect();
        // plotly's colour bar begins where the canvas ends, and is as high.
        let right = (size[0] as f64 - axes.area.right() - 10.0).max(0.0) as usize;
        let below = (size[1] as f64 - axes.area.bottom()).max(0.0) as usize;
        let margins = [10, right, axes.area.y as usize, below];
        Drawn::Marks(Drawing { title, axes: vec![axes], marks, ..Drawing::new(size, margins, self.describe()) })
    }

    fn describe(&self) -> String {
        let pos = self.patterns.n_pos();
        format!("grid of heat maps: {}; {pos} × {pos} cells each", self.title())
    }

    fn kind(&self) -> &'static str {
        "a grid of attention patterns"
    }
}
