//! The axes of charts and matrices, alike for plotly and for static pictures.

use std::collections::HashSet;

use plotly::common::{Font, Title};
use plotly::layout::{Axis, AxisRange, AxisType};

use crate::plot::heads::panel::LABEL_SIZE;
use crate::plot::style::Look;
use crate::plot::svg::{Area, MOST_LABELS, Picture, Style, thinned};
use crate::plot::text::escape;

/// Pixels between an axis and the names of its values.
const TICK_DISTANCE: f64 = 6.0;
/// As many names as plotly is given to write along an axis; the pointer knows the others.
const MOST_NAMES: usize = 60;
/// So much of an axis is left free at either end.
const FREE: f64 = 0.04;

/// What an axis is of.
#[derive(Clone, Debug)]
pub(crate) struct ChartAxis {
    title: String,
    scale: Scale,
}

/// How the values of an axis are laid out.
#[derive(Clone, Debug)]
enum Scale {
    Linear,
    /// Powers of ten are equally far apart; values must be positive.
    Log,
    /// The values are positions in a list of names, which begins left or on top.
    Names(Vec<String>),
    /// Places without a meaning of their own.
    Hidden,
}

/// Which way an axis goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plot) enum Side {
    Bottom,
    Left,
}

/// An axis that knows the values on it.
pub(in crate::plot) struct Ruler<'a> {
    axis: &'a ChartAxis,
    side: Side,
    /// Where it begins and ends; on a logarithmic axis, as powers of ten.
    range: [f64; 2],
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

    /// The names along the axis, if it has names, and each of them once.
    pub(in crate::plot) fn distinct_names(&self) -> Option<Vec<String>> {
        let Scale::Names(names) = &self.scale else { return None };
        let distinct: HashSet<&String> = names.iter().collect();
        (distinct.len() == names.len()).then(|| names.iter().map(|name| escape(name)).collect())
    }

    /// Pixels that names and title take beside the axis, on the left or, turned, at the bottom.
    pub(in crate::plot) fn depth(&self) -> usize {
        let longest = match &self.scale {
            Scale::Names(names) => names.iter().map(|name| name.chars().count()).max().unwrap_or(0),
            _ => 0,
        };
        // As wide as letters are on average, and no more than a third of a figure.
        (60 + longest * LABEL_SIZE * 11 / 20).clamp(90, 300)
    }

    /// The axis with a range that holds all values.
    pub(in crate::plot) fn ruler(&self, side: Side, values: impl Iterator<Item = f64>) -> Ruler<'_> {
        let log = matches!(self.scale, Scale::Log);
        let place = |value: f64| if log { value.log10() } else { value };
        let (low, high) = values
            .map(place)
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let free = match high - low {
            width if width > 0.0 => FREE * width,
            _ => 0.5,
        };
        let range = match &self.scale {
            Scale::Names(names) => match side {
                Side::Bottom => [-0.5, names.len() as f64 - 0.5],
                Side::Left => [names.len() as f64 - 0.5, -0.5],
            },
            _ if low > high => [0.0, 1.0],
            _ => [low - free, high + free],
        };
        Ruler { axis: self, side, range }
    }
}

impl Ruler<'_> {
    /// Where a value lies between the beginning of the axis and its end, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let value = if matches!(self.axis.scale, Scale::Log) { value.log10() } else { value };
        (value - self.range[0]) / (self.range[1] - self.range[0])
    }

    /// Where a value lies in a picture.
    pub(in crate::plot) fn pixel(&self, value: f64, area: Area) -> f64 {
        match self.side {
            Side::Bottom => area.x + self.share(value) * area.width,
            Side::Left => area.y + (1.0 - self.share(value)) * area.height,
        }
    }

    /// Values to name, with their names.
    fn ticks(&self) -> Vec<(f64, String)> {
        match &self.axis.scale {
            Scale::Linear => round_values(self.range),
            Scale::Log => powers(self.range),
            Scale::Names(names) => names.iter().enumerate().map(|(at, name)| (at as f64, name.clone())).collect(),
            Scale::Hidden => Vec::new(),
        }
    }

    /// The axis of values that are themselves called by the names along it: plotly writes as many as there is room for.
    pub(in crate::plot) fn plotly_of_names(&self, look: Look) -> Axis {
        self.without_ticks(look).type_(AxisType::Category).auto_margin(true).show_grid(false).tick_length(0)
    }

    pub(in crate::plot) fn plotly(&self, look: Look) -> Axis {
        let axis = self.without_ticks(look);
        let shown = axis.clone().show_line(true).line_color(look.theme.faint()).grid_color(look.theme.line());
        match &self.axis.scale {
            Scale::Linear => shown,
            Scale::Log => shown.type_(AxisType::Log),
            Scale::Names(names) => {
                let (at, names): (Vec<f64>, Vec<String>) =
                    thinned(names, MOST_NAMES).map(|(at, name)| (at as f64, escape(name))).unzip();
                let axis = axis.auto_margin(true).tick_values(at).tick_text(names);
                axis.show_grid(false).tick_length(0)
            }
            Scale::Hidden => axis.show_tick_labels(false).show_grid(false),
        }
    }

    /// Range and title, and how names are written.
    fn without_ticks(&self, look: Look) -> Axis {
        let font = || Font::new().size(LABEL_SIZE).color(look.theme.text());
        let axis = Axis::new().range(AxisRange::new(self.range[0], self.range[1])).zero_line(false).tick_font(font());
        match self.axis.title.as_str() {
            "" => axis,
            title => axis.title(Title::with_text(escape(title)).font(font())),
        }
    }

    pub(in crate::plot) fn svg(&self, picture: &mut Picture, area: Area, depth: usize) {
        let theme = picture.look().theme;
        let ticks = self.ticks();
        if matches!(self.axis.scale, Scale::Linear | Scale::Log) {
            let lines = ticks.iter().map(|&(value, _)| {
                let at = self.pixel(value, area);
                match self.side {
                    Side::Bottom => [[at, area.y], [at, area.y + area.height]],
                    Side::Left => [[area.x, at], [area.x + area.width, at]],
                }
            });
            picture.lines(lines, theme.line(), 1.0);
        }
        let names: Vec<String> = ticks.iter().map(|(_, name)| name.clone()).collect();
        // Long names along the bottom are turned, as plotly turns them.
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64;
        let turned = longest * 0.65 * LABEL_SIZE as f64 > area.width / names.len().max(1) as f64;
        let (anchor, degrees) = match self.side {
            Side::Left => ("end", 0),
            Side::Bottom if turned => ("end", -90),
            Side::Bottom => ("middle", 0),
        };
        let style = Style { size: LABEL_SIZE, color: theme.text(), anchor, degrees };
        let down = if turned { TICK_DISTANCE } else { TICK_DISTANCE + LABEL_SIZE as f64 / 2.0 };
        let texts = thinned(&names, MOST_LABELS).map(|(index, name)| {
            let at = self.pixel(ticks[index].0, area);
            match self.side {
                Side::Bottom => (at, area.y + area.height + down, name),
                Side::Left => (area.x - TICK_DISTANCE, at, name),
            }
        });
        picture.texts(style, texts);
        let middle = (area.x + area.width / 2.0, area.y + area.height / 2.0);
        let style = |degrees| Style { size: LABEL_SIZE, color: theme.text(), anchor: "middle", degrees };
        let (style, x, y) = match self.side {
            Side::Bottom => (style(0), middle.0, area.y + area.height + depth as f64 - 16.0),
            Side::Left => (style(-90), area.x - depth as f64 + 16.0, middle.1),
        };
        picture.texts(style, [(x, y, self.axis.title.as_str())].into_iter());
    }
}

/// Some five round values within a range.
fn round_values([low, high]: [f64; 2]) -> Vec<(f64, String)> {
    let rough = (high - low) / 5.0;
    let power = rough.log10().floor();
    let unit = 10.0_f64.powf(power);
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * unit >= rough).unwrap_or(10.0) * unit;
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    let name = |value: f64| format!("{:.decimals$}", value + 0.0); // no −0
    (first..=last).map(|index| index as f64 * step).map(|value| (value, name(value))).collect()
}

/// The powers of ten within a range of exponents.
fn powers([low, high]: [f64; 2]) -> Vec<(f64, String)> {
    let name = |exponent: i32| match exponent {
        0.. => 10_u64.checked_pow(exponent as u32).map_or(format!("1e{exponent}"), |value| value.to_string()),
        _ => format!("{:.*}", exponent.unsigned_abs() as usize, 10.0_f64.powi(exponent)),
    };
    (low.ceil() as i32..=high.floor() as i32).map(|exponent| (10.0_f64.powi(exponent), name(exponent))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let names = |range| round_values(range).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names([-0.1, 1.04]), ["0.0", "0.5", "1.0"]);
        assert_eq!(names([0.0, 1.0]), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(names([-12.0, 31.0]), ["-10", "0", "10", "20", "30"]);
        assert_eq!(
            powers([-1.2, 3.0]).into_iter().map(|(_, name)| name).collect::<Vec<_>>(),
            ["0.1", "1", "10", "100", "1000"]
        );
    }

    #[test]
    fn values_lie_where_they_should() {
        let area = Area { x: 10.0, y: 20.0, width: 100.0, height: 50.0 };
        let log = ChartAxis::log("count");
        let ruler = log.ruler(Side::Bottom, [1.0, 100.0].into_iter());
        assert!((ruler.pixel(10.0, area) - 60.0).abs() < 1e-9);
        let names = ChartAxis::names("head", ["a".to_owned(), "b".to_owned()]);
        let ruler = names.ruler(Side::Left, std::iter::empty());
        assert_eq!((ruler.pixel(0.0, area), ruler.pixel(1.0, area)), (32.5, 57.5), "the first name is on top");
        let one = ChartAxis::linear("x");
        assert_eq!(one.ruler(Side::Bottom, [3.0].into_iter()).pixel(3.0, area), 60.0);
    }
}
