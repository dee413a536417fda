//! The canvas of a figure: areas in pixels, and pairs of axes that map values to pixels.

/// A rectangle of the canvas, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    /// The part of a canvas between its margins, which are given as left, right, top, bottom.
    pub(super) fn between([left, right, top, bottom]: [usize; 4], [width, height]: [usize; 2]) -> Self {
        let (width, height) = ((width - left - right) as f64, (height - top - bottom) as f64);
        Self { x: left as f64, y: top as f64, width, height }
    }

    /// The largest centred part that consists of `rows × columns` square cells.
    pub(super) fn square_cells(self, (rows, columns): (usize, usize)) -> Self {
        let (rows, columns) = (rows.max(1) as f64, columns.max(1) as f64);
        let cell = (self.width / columns).min(self.height / rows);
        let (width, height) = (cell * columns, cell * rows);
        Self { x: self.x + (self.width - width) / 2.0, y: self.y + (self.height - height) / 2.0, width, height }
    }

    pub(super) fn right(self) -> f64 {
        self.x + self.width
    }

    pub(super) fn bottom(self) -> f64 {
        self.y + self.height
    }
}

/// A pair of axes and the area that they span.
#[derive(Clone, Debug)]
pub(super) struct Axes {
    pub(super) area: Area,
    /// Whether the area is only a part of the canvas between the margins, so that plotly needs its domain.
    pub(super) placed: bool,
    /// Whether a unit is as long on both axes, also after zooming.
    pub(super) square: bool,
    /// Whether plotly zooms these axes together with the figure's first ones.
    pub(super) linked: bool,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

/// An axis. The x axis is drawn at the bottom of its area, the y axis on the left.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) title: String,
    pub(super) ticks: Ticks,
    /// Values at the two ends, of y at the bottom and at the top; exponents of ten on a logarithmic axis.
    pub(super) range: [f64; 2],
    /// Font size of tick labels and title; `None` for an axis without either.
    pub(super) font_size: Option<usize>,
    /// Rotation of the tick labels in degrees; `None` to turn them where they would overlap.
    pub(super) tick_angle: Option<i32>,
    /// Pixels between the area and the tick labels of a static picture. (plotly chooses the distance itself.)
    pub(super) tick_distance: f64,
}

/// The ticks of an axis.
#[derive(Clone, Debug)]
pub(super) enum Ticks {
    None,
    Linear,
    Log,
    /// A name at each of 0, 1, 2, …
    Names(Vec<String>),
    /// Distinct names at 0, 1, 2, …: plotly uses them as the values of the axis, in hover texts too, and shows more of
    /// them after zooming in.
    Categories(Vec<String>),
}

impl Axes {
    /// Axes of `rows × columns` cells with their centres at whole numbers and row 0 at the top, without ticks.
    pub(super) fn of_cells((rows, columns): (usize, usize), area: Area) -> Self {
        let axis = |range| Axis {
            title: String::new(),
            ticks: Ticks::None,
            range,
            font_size: None,
            tick_angle: None,
            tick_distance: 0.0,
        };
        let (x, y) = (axis([-0.5, columns as f64 - 0.5]), axis([rows as f64 - 0.5, -0.5]));
        Self { area: area.square_cells((rows, columns)), placed: false, square: true, linked: false, x, y }
    }

    /// The pixel of a point given by its values on both axes.
    pub(super) fn pixel(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let Area { x: left, y: top, width, height } = self.area;
        [left + self.x.fraction(x) * width, top + self.y.fraction_from_end(y) * height]
    }

    /// The values of a pixel on both axes: the inverse of [`pixel`](Self::pixel).
    pub(super) fn value(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let Area { x: left, y: top, width, height } = self.area;
        let at = |axis: &Axis, share: f64| {
            let [from, to] = axis.range;
            let scaled = from + share * (to - from);
            if matches!(axis.ticks, Ticks::Log) { 10.0_f64.powf(scaled) } else { scaled }
        };
        [at(&self.x, (x - left) / width), at(&self.y, 1.0 - (y - top) / height)]
    }
}

impl Axis {
    /// The position of a value between the ends of the axis: 0 at the first end, 1 at the second.
    fn fraction(&self, value: f64) -> f64 {
        let [from, to] = self.range;
        (self.scaled(value) - from) / (to - from)
    }

    /// The position of a value between the ends of the axis: 0 at the second end, 1 at the first.
    fn fraction_from_end(&self, value: f64) -> f64 {
        let [from, to] = self.range;
        (self.scaled(value) - to) / (from - to)
    }

    /// The value in units of the range.
    fn scaled(&self, value: f64) -> f64 {
        if matches!(self.ticks, Ticks::Log) { value.log10() } else { value }
    }

    /// The values with a tick, and their labels.
    pub(super) fn labelled_values(&self) -> Vec<(f64, String)> {
        match &self.ticks {
            Ticks::None => Vec::new(),
            Ticks::Linear => round_values(self.range),
            Ticks::Log => powers_of_ten(self.range),
            Ticks::Names(names) | Ticks::Categories(names) => {
                names.iter().enumerate().map(|(at, name)| (at as f64, name.clone())).collect()
            }
        }
    }
}

/// About five round values within a range, with their labels.
fn round_values([low, high]: [f64; 2]) -> Vec<(f64, String)> {
    let rough = (high - low) / 5.0;
    let power = rough.log10().floor();
    let unit = 10.0_f64.powf(power);
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * unit >= rough).unwrap_or(10.0) * unit;
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    let label = |value: f64| format!("{:.decimals$}", value + 0.0); // no −0
    (first..=last).map(|index| index as f64 * step).map(|value| (value, label(value))).collect()
}

/// The powers of ten within a range of exponents, with their labels.
fn powers_of_ten([low, high]: [f64; 2]) -> Vec<(f64, String)> {
    let label = |exponent: i32| match exponent {
        0.. => 10_u64.checked_pow(exponent as u32).map_or(format!("1e{exponent}"), |value| value.to_string()),
        _ => format!("{:.*}", exponent.unsigned_abs() as usize, 10.0_f64.powi(exponent)),
    };
    (low.ceil() as i32..=high.floor() as i32).map(|exponent| (10.0_f64.powi(exponent), label(exponent))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let labels = |range| round_values(range).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels([-0.1, 1.04]), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels([0.0, 1.0]), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels([-12.0, 31.0]), ["-10", "0", "10", "20", "30"]);
        assert_eq!(
            powers_of_ten([-1.2, 3.0]).into_iter().map(|(_, label)| label).collect::<Vec<_>>(),
            ["0.1", "1", "10", "100", "1000"]
        );
    }

    #[test]
    fn square_cells_are_centred_in_an_area() {
        let area = Area { x: 10.0, y: 20.0, width: 100.0, height: 50.0 };
        let axes = Axes::of_cells((5, 5), area);
        assert_eq!((axes.area.x, axes.area.y, axes.area.width, axes.area.height), (35.0, 20.0, 50.0, 50.0));
        assert_eq!((axes.pixel([-0.5, -0.5]), axes.pixel([0.0, 4.0])), ([35.0, 20.0], [40.0, 65.0]));
    }

    #[test]
    fn a_power_of_ten_is_a_unit_of_a_logarithmic_axis() {
        let area = Area { x: 10.0, y: 20.0, width: 100.0, height: 50.0 };
        let mut axes = Axes::of_cells((1, 1), area);
        axes.area = area;
        axes.x = Axis { ticks: Ticks::Log, range: [0.0, 2.0], ..axes.x };
        assert!((axes.pixel([10.0, 0.0])[0] - 60.0).abs() < 1e-9);
    }
}
