//! The tokens along the four sides of a panel, and the names of the sides.

use super::panel::AxisLabels;
use crate::plot::canvas::Area;
use crate::plot::fit;
use crate::plot::marks::{Coordinate, Horizontal, LABEL_SIZE, Text, Vertical};
use crate::plot::style::{Color, Look};

/// Maximum width of a label in characters.
const MAX_WIDTH: usize = 14;
/// Pixels for the name of a side.
const NAME: f64 = 18.0;
/// Estimated width of a character, in font sizes.
const CHARACTER: f64 = 0.6;

/// The labels of the four sides: left, right, top, bottom.
pub(super) struct Sides<'a> {
    labels: [&'a [String]; 4],
    /// The width of each side in characters.
    widths: [usize; 4],
    /// Pixels between the heat map and its labels.
    distance: f64,
}

impl<'a> Sides<'a> {
    pub(super) fn new(labels: &'a AxisLabels, look: Look) -> Self {
        let AxisLabels { least, left, right, top, bottom } = labels;
        let own = labels.widths();
        let widths = std::array::from_fn(|side| own[side].max(least[side]).min(MAX_WIDTH));
        // The original has 20.
        let distance = if look == Look::Original { 20.0 } else { 8.0 };
        Self { labels: [left, right, top, bottom], widths, distance }
    }

    /// Pixels beyond the heat map that labels and names take.
    pub(super) fn insets(&self) -> [f64; 4] {
        self.extents().map(|extent| self.distance + extent + NAME)
    }

    /// Estimated widths of the longest labels in pixels.
    fn extents(&self) -> [f64; 4] {
        self.widths.map(|width| (width as f64 * CHARACTER * LABEL_SIZE as f64 + 4.0).round())
    }

    /// The labels and names. With many positions, every second or third label, and so on, is left out.
    pub(super) fn texts(&self, area: Area) -> Vec<Text> {
        let distance = self.distance;
        let side = |text: &str| Text::new(fit::shortened(text, MAX_WIDTH), LABEL_SIZE, Color::Text);
        // At the edges of the area, which plotly does not zoom.
        let beside = |(row, text): (usize, &str), edge, right, horizontal| Text {
            x: Coordinate::Axes(edge),
            y: Coordinate::Value(row as f64),
            shift: [right, 0.0],
            horizontal: Some(horizontal),
            ..side(text)
        };
        let beyond = |(column, text): (usize, &str), edge, up, vertical| Text {
            x: Coordinate::Value(column as f64),
            y: Coordinate::Axes(edge),
            shift: [0.0, up],
            vertical: Some(vertical),
            degrees: -90,
            ..side(text)
        };
        let [left, right, top, bottom] = self.labels.map(|labels| {
            let cell = area.height / labels.len().max(1) as f64;
            let step = (LABEL_SIZE as f64 / cell).ceil().max(1.0) as usize;
            labels.iter().map(String::as_str).enumerate().step_by(step)
        });
        let mut texts: Vec<Text> = left.map(|label| beside(label, 0.0, -distance, Horizontal::Right)).collect();
        texts.extend(right.map(|label| beside(label, 1.0, distance, Horizontal::Left)));
        texts.extend(top.map(|label| beyond(label, 1.0, distance, Vertical::Bottom)));
        texts.extend(bottom.map(|label| beyond(label, 0.0, -distance, Vertical::Top)));
        texts.extend(self.names());
        texts
    }

    fn names(&self) -> [Text; 4] {
        let [left, right, top, bottom] = self.extents().map(|extent| self.distance + extent + NAME / 2.0);
        let name = |text: &str, [x, y]: [f64; 2], shift, degrees| Text {
            x: Coordinate::Axes(x),
            y: Coordinate::Axes(y),
            shift,
            horizontal: Some(Horizontal::Center),
            vertical: Some(Vertical::Middle),
            degrees,
            ..Text::new(text, LABEL_SIZE, Color::Faint)
        };
        [
            name("query position: input token", [0.0, 0.5], [-left, 0.0], -90),
            name("value token", [1.0, 0.5], [right, 0.0], -90),
            name("query token", [0.5, 1.0], [0.0, top], 0),
            name("key position: key token", [0.5, 0.0], [0.0, -bottom], 0),
        ]
    }
}
