//! The axes of charts and matrices.

use std::collections::HashSet;

use crate::plot::canvas::{Axis, Ticks};
use crate::plot::fit;
use crate::plot::marks::LABEL_SIZE;

/// Pixels between an axis and its tick labels.
const TICK_DISTANCE: f64 = 6.0;
/// Free space at either end of an axis, as a share of the range of the values.
const PADDING: f64 = 0.04;

/// Title and scale of an axis.
#[derive(Clone, Debug)]
pub(crate) struct ChartAxis {
    title: String,
    scale: Scale,
}

#[derive(Clone, Debug)]
enum Scale {
    Linear,
    /// Logarithmic, for positive values.
    Log,
    /// Values are indices of these names; the first name is on the left or at the top.
    Names(Vec<String>),
    /// Coordinates without a meaning: no ticks.
    Hidden,
}

impl ChartAxis {
    pub(crate) fn linear(title: &str) -> Self {
        Self { title: title.into(), scale: Scale::Linear }
    }

    pub(crate) fn log(title: &str) -> Self {
        Self { title: title.into(), scale: Scale::Log }
    }

    pub(crate) fn names(title: &str, names: impl IntoIterator<Item = String>) -> Self {
        Self { title: title.into(), scale: Scale::Names(names.into_iter().collect()) }
    }

    pub(crate) fn hidden() -> Self {
        Self { title: String::new(), scale: Scale::Hidden }
    }

    pub(in crate::plot) fn title(&self) -> &str {
        &self.title
    }

    /// Whether the axis has names that are all different.
    pub(in crate::plot) fn has_distinct_names(&self) -> bool {
        let Scale::Names(names) = &self.scale else { return false };
        names.iter().collect::<HashSet<_>>().len() == names.len()
    }

    /// Whether names side by side need more than `width` pixels.
    pub(in crate::plot) fn is_crowded(&self, width: f64) -> bool {
        let Scale::Names(names) = &self.scale else { return false };
        fit::is_crowded(names.iter().map(String::as_str), LABEL_SIZE, width)
    }

    /// Pixels for names and title: the width of the left margin, or the height of the bottom margin, where names are
    /// rotated.
    pub(in crate::plot) fn margin(&self) -> usize {
        let longest = match &self.scale {
            Scale::Names(names) => names.iter().map(|name| name.chars().count()).max().unwrap_or(0),
            _ => 0,
        };
        // A letter is on average 0.55 times as wide as the font is high. No more than a third of a figure.
        (60 + longest * LABEL_SIZE * 11 / 20).clamp(90, 300)
    }

    /// The axis at the bottom, with a range that contains all values.
    pub(in crate::plot) fn x(&self, values: impl Iterator<Item = f64>) -> Axis {
        let range = match &self.scale {
            Scale::Names(names) => [-0.5, names.len() as f64 - 0.5],
            _ => self.range(values),
        };
        self.axis(range)
    }

    /// The axis on the left, with a range that contains all values.
    pub(in crate::plot) fn y(&self, values: impl Iterator<Item = f64>) -> Axis {
        let range = match &self.scale {
            Scale::Names(names) => [names.len() as f64 - 0.5, -0.5],
            _ => self.range(values),
        };
        self.axis(range)
    }

    /// The finite values, or their exponents of ten, with some space at either end.
    fn range(&self, values: impl Iterator<Item = f64>) -> [f64; 2] {
        let log = matches!(self.scale, Scale::Log);
        let (low, high) = values
            .map(|value| if log { value.log10() } else { value })
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return [0.0, 1.0];
        }
        let padding = if low < high { PADDING * (high - low) } else { 0.5 };
        [low - padding, high + padding]
    }

    fn axis(&self, range: [f64; 2]) -> Axis {
        let ticks = match &self.scale {
            Scale::Linear => Ticks::Linear,
            Scale::Log => Ticks::Log,
            Scale::Names(names) => Ticks::Names(names.clone()),
            Scale::Hidden => Ticks::None,
        };
        Axis {
            title: self.title.clone(),
            ticks,
            range,
            font_size: Some(LABEL_SIZE),
            tick_angle: None,
            tick_distance: TICK_DISTANCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_all_values() {
        let none = || std::iter::empty();
        let close = |[low, high]: [f64; 2], want: [f64; 2]| {
            assert!((low - want[0]).abs() < 1e-9 && (high - want[1]).abs() < 1e-9, "{low} to {high}");
        };
        close(ChartAxis::linear("x").x([2.0, f64::NAN, 12.0].into_iter()).range, [1.6, 12.4]);
        close(ChartAxis::linear("x").x([3.0].into_iter()).range, [2.5, 3.5]);
        close(ChartAxis::linear("x").x(none()).range, [0.0, 1.0]);
        close(ChartAxis::log("count").x([1.0, 0.0, 100.0].into_iter()).range, [-0.08, 2.08]);
        let names = ChartAxis::names("head", ["a".to_owned(), "b".to_owned()]);
        close(names.x(none()).range, [-0.5, 1.5]);
        close(names.y(none()).range, [1.5, -0.5]);
    }
}
