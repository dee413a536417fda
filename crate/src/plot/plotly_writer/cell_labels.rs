//! Texts in the cells of a heat map: plotly clips them at the axes, and makes them larger when one zooms in.
//!
//! plotly chooses the font size from the distance of neighbouring texts and from the longest one in view, up to the
//! layout's font size. It has one colour for the texts of a trace and does not turn them, so that black and white texts
//! are in a trace each; texts of no width in the cells of the other colour give both the same size.

use std::borrow::Cow;

use plotly::{HeatMap, Trace};
use serde::Serialize;

use crate::plot::fit;
use crate::plot::marks::Cells;
use crate::plot::style::{Color, FigureStyle};
use crate::plot::text::escape_minimally;

/// A character without width, which plotly counts.
const NO_WIDTH: &str = "\u{200b}";

/// A heat map with texts, for which plotly.rs lacks two attributes.
#[derive(Clone, Serialize)]
pub(super) struct Labelled<X: Serialize + Clone, Z: Serialize + Clone> {
    #[serde(flatten)]
    heat_map: HeatMap<X, X, Vec<Z>>,
    texttemplate: &'static str,
    textfont: TextFont,
}

#[derive(Clone, Serialize)]
struct TextFont {
    color: String,
}

impl<X: Serialize + Clone, Z: Serialize + Clone> Labelled<X, Z> {
    pub(super) fn new(heat_map: HeatMap<X, X, Vec<Z>>, color: Cow<'static, str>) -> Self {
        Self { heat_map, texttemplate: "%{text}", textfont: TextFont { color: color.into_owned() } }
    }
}

impl<X: Serialize + Clone + 'static, Z: Serialize + Clone + 'static> Trace for Labelled<X, Z> {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a trace has only strings as keys")
    }
}

/// The texts in white and those in black, if there are texts. Shape: → `[2] [row] [column]`.
pub(super) fn matrices(cells: &Cells, style: FigureStyle) -> Option<[Vec<Vec<String>>; 2]> {
    let texts = &cells.labels.as_ref()?.texts;
    let colors = cells.label_colors(style);
    let lines = texts.iter().map(|text| text.lines().count()).max().unwrap_or(0).max(1);
    let columns = texts.iter().flat_map(|text| text.lines()).map(fit::width).max().unwrap_or(0).max(1);
    let filler = vec![NO_WIDTH.repeat(columns); lines].join("<br>");
    let of_color = |black: bool| {
        let text = |(text, color): (&String, &Option<Color>)| match color {
            None => String::new(),
            Some(color) if (*color == Color::Black) == black => written(text),
            Some(_) => filler.clone(),
        };
        let texts: Vec<String> = texts.iter().zip(&colors).map(text).collect();
        texts.chunks(cells.dim.1.max(1)).map(<[String]>::to_vec).collect()
    };
    Some([of_color(false), of_color(true)])
}

/// The lines of a text, as long as they are wide: plotly counts UTF-16 units.
fn written(text: &str) -> String {
    let line = |line: &str| {
        let missing = fit::width(line).saturating_sub(line.encode_utf16().count());
        escape_minimally(line) + &NO_WIDTH.repeat(missing)
    };
    text.lines().map(line).collect::<Vec<_>>().join("<br>")
}
