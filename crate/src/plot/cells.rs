//! Cells of a heat map: values, colours, texts in them.

use ndarray::{Array2, s};

use super::style::{Color, FigureStyle, evenly, gradient};
use super::text::rounded;

/// Coloured cells in rows and columns: a heat map.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    pub(super) axes: usize,
    /// Number of rows and of columns, including the gaps between blocks.
    pub(super) dim: (usize, usize),
    /// The values; one block, or several with gaps between them.
    pub(super) blocks: Vec<CellBlock>,
    pub(super) paint: Paint,
    pub(super) precision: Precision,
    pub(super) hover: Hover,
    /// The texts in the cells, horizontal; plotly makes them larger when one zooms in.
    pub(super) labels: Option<CellLabels>,
    /// Title of the colour bar, which is drawn on the right of the axes; `None` for no colour bar.
    pub(super) color_bar: Option<String>,
}

/// A block of adjacent cells.
#[derive(Clone, Debug)]
pub(super) struct CellBlock {
    /// Row and column of the first cell.
    pub(super) at: (usize, usize),
    /// Shape: `[row, column]`. NaN and infinite values are not drawn.
    pub(super) values: Array2<f64>,
}

/// What the values of cells are, and their colours. NaN and infinity, which no scale has, are empty cells, without a hover
/// text.
#[derive(Clone, Debug)]
pub(super) enum Paint {
    /// Numbers on the figure's colour scale.
    Scale(ColorRange),
    /// 0 for a cell without a token, then indices from 1 of these colours.
    Indices(Vec<[u8; 3]>),
    /// Numbers from 0 to 1 on a scale of these colours, which is not the figure's and follows no choice of one.
    Shades(Vec<[u8; 3]>),
}

/// Texts in cells, black or white, whichever has more contrast.
#[derive(Clone, Debug)]
pub(super) struct CellLabels {
    /// Row by row; empty for a cell without text. They may have several lines.
    pub(super) texts: Vec<String>,
    /// Font size.
    pub(super) size: usize,
}

/// The values at the ends of the colour scale.
#[derive(Clone, Copy, Debug)]
pub(super) enum ColorRange {
    /// The lowest and the highest.
    Ends([f64; 2]),
    /// The value in the middle; plotly makes the range wide enough for all values, and equally wide on both sides.
    Midpoint(f64),
}

/// Digits of a heat map's numbers in plotly's JSON; more would only make a notebook larger.
#[derive(Clone, Copy, Debug)]
pub(super) enum Precision {
    Exact,
    /// Four significant digits.
    Significant,
    /// Three decimals.
    Thousandths,
}

/// Hover texts of cells.
#[derive(Clone, Debug)]
pub(super) enum Hover {
    /// Nothing is shown.
    Skip,
    /// A text for each cell, row by row.
    Texts(Vec<String>),
    /// plotly's template, and a text for each cell for its `%{hovertext}`, or none.
    Template(&'static str, Vec<String>),
}

impl Precision {
    /// The number with these digits.
    pub(super) fn round(self, value: f64) -> f64 {
        match self {
            Self::Exact => value,
            Self::Significant => rounded(value),
            Self::Thousandths => (1e3 * value).round() / 1e3,
        }
    }
}

impl Cells {
    /// The colour of each value; `None` for an empty cell, and for a cell without a token, which has the theme's colour for
    /// it.
    pub(super) fn color(&self, style: FigureStyle) -> impl Fn(f64) -> Option<[u8; 3]> + use<> {
        let color: Box<dyn Fn(f64) -> Option<[u8; 3]>> = match &self.paint {
            Paint::Scale(range) => {
                let (share, scale) = (range.share(&self.blocks), style.scale().colors());
                Box::new(move |value| Some(scale(share(value))))
            }
            Paint::Indices(colors) => {
                let colors = colors.clone();
                Box::new(move |value| (value as usize).checked_sub(1).and_then(|index| colors.get(index).copied()))
            }
            Paint::Shades(colors) => {
                let shade = gradient(evenly(colors));
                Box::new(move |value| Some(shade(value)))
            }
        };
        move |value: f64| if value.is_finite() { color(value) } else { None }
    }

    /// The value of each cell, row by row; NaN between the blocks.
    pub(super) fn values(&self) -> Array2<f64> {
        let mut values = Array2::from_elem(self.dim, f64::NAN);
        for block in &self.blocks {
            let ((row, column), (rows, columns)) = (block.at, block.values.dim());
            values.slice_mut(s![row..row + rows, column..column + columns]).assign(&block.values);
        }
        values
    }

    /// The colour of each cell's label, row by row; `None` for a cell without one.
    pub(super) fn label_colors(&self, style: FigureStyle) -> Vec<Option<Color>> {
        let Some(labels) = &self.labels else { return Vec::new() };
        let color = self.color(style);
        let on = |rgb: Option<[u8; 3]>| rgb.map_or(Color::Text, Color::readable_on);
        let values = self.values();
        let cells = values.iter().zip(&labels.texts);
        cells.map(|(&value, text)| (!text.is_empty()).then(|| on(color(value)))).collect()
    }
}

impl ColorRange {
    /// A function from the values of these blocks to positions on the colour scale, whose ends are 0 and 1.
    pub(super) fn share(self, blocks: &[CellBlock]) -> impl Fn(f64) -> f64 + use<> {
        let (origin, at_origin, width) = match self {
            Self::Ends([low, high]) => (low, 0.0, (high - low).max(f64::MIN_POSITIVE)),
            Self::Midpoint(midpoint) => {
                let distances = blocks.iter().flat_map(|block| &block.values).map(|value| (value - midpoint).abs());
                (midpoint, 0.5, 2.0 * distances.filter(|distance| distance.is_finite()).fold(0.0, f64::max))
            }
        };
        move |value| if width > 0.0 { at_origin + (value - origin) / width } else { at_origin }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn a_midpoint_is_in_the_middle_of_the_scale() {
        let of = |values| {
            let share = ColorRange::Midpoint(0.5).share(&[CellBlock { at: (0, 0), values: arr2(&[values]) }]);
            values.map(share)
        };
        assert_eq!(of([-0.5, 0.5, 2.5]), [0.25, 0.5, 1.0]);
        assert_eq!(of([0.5, 0.5, 0.5]), [0.5; 3]);
        assert_eq!([1.0, 2.0, 5.0].map(ColorRange::Ends([1.0, 3.0]).share(&[])), [0.0, 0.5, 2.0]);
    }
    #[test]
    fn values_that_are_no_numbers_have_no_color() {
        let cells = |paint| Cells {
            axes: 0,
            dim: (1, 2),
            blocks: vec![CellBlock { at: (0, 0), values: arr2(&[[0.0, f64::INFINITY]]) }],
            paint,
            precision: Precision::Exact,
            hover: Hover::Skip,
            labels: None,
            color_bar: None,
        };
        let paints = [
            Paint::Scale(ColorRange::Ends([0.0, 1.0])),
            Paint::Scale(ColorRange::Midpoint(0.0)),
            Paint::Indices(vec![[1, 2, 3]; 4]),
            Paint::Shades(vec![[0, 0, 0], [200, 100, 50]]),
        ];
        for paint in paints {
            let color = cells(paint).color(FigureStyle::default());
            assert!(color(1.0).is_some());
            assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(color), [None; 3]);
        }
        let shade = cells(Paint::Shades(vec![[0, 0, 0], [200, 100, 50]])).color(FigureStyle::default());
        assert_eq!([0.0, 0.5, 2.0].map(shade), [Some([0, 0, 0]), Some([100, 50, 25]), Some([200, 100, 50])]);
    }
}
