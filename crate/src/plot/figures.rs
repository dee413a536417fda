//! Several figures that a notebook shows as one output.

use super::figure::Figure;
use super::{mime, svg};

/// Figures that a notebook shows together, one below the other, as the last expression of a cell.
///
/// evcxr shows one value of each cell, so of several figures that a cell shows by themselves only the last appears.
#[derive(Clone, Debug)]
pub struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn new(figures: &[&Figure]) -> Self {
        Self(figures.iter().map(|&figure| figure.clone()).collect())
    }

    /// The figures in words, a line for each.
    pub fn describe(&self) -> String {
        self.0.iter().map(Figure::describe).collect::<Vec<_>>().join("\n")
    }

    /// The figures as one static picture, made without a browser; `None` if one of them was made from a plot, which
    /// only plotly can draw.
    pub fn to_svg(&self) -> Option<String> {
        stacked(self.0.iter().map(Figure::to_svg))
    }

    /// Shows the figures in an evcxr notebook; evcxr calls this for a cell's last expression.
    ///
    /// There is no plotly JSON among the MIME types, because that is of one figure: each figure is a static picture in
    /// the page until plotly.js is loaded.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        let (html, pictures): (Vec<String>, Vec<Option<String>>) =
            self.0.iter().map(Figure::formats).map(|formats| (formats.html, formats.svg)).unzip();
        mime::show(None, &html.join("\n"), stacked(pictures.into_iter()).as_deref(), &self.describe());
    }
}

/// The pictures, one below the other; `None` if one is missing.
fn stacked(pictures: impl Iterator<Item = Option<String>>) -> Option<String> {
    Some(svg::stacked(&pictures.collect::<Option<Vec<String>>>()?))
}
