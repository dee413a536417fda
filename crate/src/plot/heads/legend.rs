//! The legend of a figure of tokens: colour, token and number of cells, most frequent first.

use super::panel::HeadPanel;
use super::token_colors::{TokenColors, ranking};
use crate::plot::fit;
use crate::plot::marks::{Coordinate, Horizontal, LABEL_SIZE, Mark, Text, Vertical};
use crate::plot::style::Color;

/// Width of a legend and height of a row in pixels.
pub(super) const WIDTH: f64 = 150.0;
const ROW: f64 = 17.0;
/// Font size of the squares.
const SQUARE: usize = 16;
/// Maximum width of a token in characters.
const MAX_WIDTH: usize = 14;

/// Where a legend begins: to the right of the area of these axes, in pixels, and its height.
pub(super) struct LegendPlace {
    pub(super) axes: usize,
    pub(super) right: f64,
    pub(super) height: f64,
}

/// The legend of these panels; nothing for panels without tokens. `rows` is the number of rows, for legends that replace
/// each other; `None` for the number that is needed.
pub(super) fn legend(
    panels: &[&HeadPanel],
    colors: &TokenColors,
    place: &LegendPlace,
    rows: Option<usize>,
) -> Vec<Mark> {
    let Some(data) = panels.iter().find_map(|panel| panel.tokens().and(panel.data.as_ref())) else {
        return Vec::new();
    };
    let ranking = ranking(panels.iter().copied());
    let room = ((place.height / ROW).floor() as usize).saturating_sub(1).max(2);
    let shown = if ranking.len() > room { room - 1 } else { ranking.len() };
    let mut lines = vec![(None, "token ×cells".to_owned())];
    for &(token, count) in &ranking[..shown] {
        let label = fit::shortened(&data.token_label(token), MAX_WIDTH);
        lines.push((Some(colors.color(token)), format!("{label}  ×{count}")));
    }
    if shown < ranking.len() {
        let rest: usize = ranking[shown..].iter().map(|(_, count)| count).sum();
        lines.push((None, format!("{} more  ×{rest}", ranking.len() - shown)));
    }
    lines.resize(rows.unwrap_or(lines.len()), (None, String::new()));
    let text = |row: usize, right: f64, text: String, size: usize, color: Color| {
        Mark::Text(Text {
            axes: place.axes,
            x: Coordinate::Axes(1.0),
            y: Coordinate::Axes(1.0),
            shift: [place.right + right, -(row as f64 + 0.5) * ROW],
            horizontal: Some(Horizontal::Left),
            vertical: Some(Vertical::Middle),
            ..Text::new(text, size, color)
        })
    };
    let line = |(row, (color, label)): (usize, (Option<[u8; 3]>, String))| {
        let square = if color.is_some() { "■" } else { "" };
        let written = if color.is_some() { Color::Text } else { Color::Faint };
        [
            text(row, 0.0, square.into(), SQUARE, Color::Rgb(color.unwrap_or_default())),
            text(row, 18.0, label, LABEL_SIZE, written),
        ]
    };
    lines.into_iter().enumerate().flat_map(line).collect()
}
