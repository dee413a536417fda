//! Axes as plotly draws them.

use plotly::common::Title;
use plotly::layout::{Axis as PlotlyAxis, AxisRange, AxisType};

use super::{AxisNames, font};
use crate::plot::canvas::{Area, Axes, Axis, Ticks};
use crate::plot::style::{Color, FigureStyle};
use crate::plot::text::{escape, thinned};

/// Maximum number of names along an axis; hover texts have the others.
const MAX_NAMES: usize = 60;

/// A pair of axes: x, then y. `canvas` is the part of the figure between its margins.
pub(super) fn axes(axes: &Axes, canvas: Area, names: &AxisNames, style: FigureStyle) -> [PlotlyAxis; 2] {
    let [mut x, mut y] = [&axes.x, &axes.y].map(|axis| self::axis(axis, axes, style));
    if axes.placed {
        let [x_domain, y_domain] = domains(axes.area, canvas);
        (x, y) = (x.anchor(&names.y).domain(&x_domain), y.anchor(&names.x).domain(&y_domain));
    }
    if axes.linked {
        // Among matching axes, only the first pair may be constrained to square cells.
        (x, y) = (x.matches("x"), y.matches("y"));
    } else if axes.square {
        y = y.scale_anchor(&names.x);
    }
    [x, y]
}

fn axis(axis: &Axis, axes: &Axes, style: FigureStyle) -> PlotlyAxis {
    let mut written = PlotlyAxis::new().range(AxisRange::new(axis.range[0], axis.range[1])).zero_line(false);
    if let Some(size) = axis.font_size {
        written = written.tick_font(font(size, Color::Text, style));
        if !axis.title.is_empty() {
            written = written.title(Title::with_text(escape(&axis.title)).font(font(size, Color::Text, style)));
        }
    }
    if let Some(degrees) = axis.tick_angle {
        written = written.tick_angle(degrees.into());
    }
    // The margins of an area beside another one must not grow with its names.
    let of_names = |written: PlotlyAxis| if axes.placed { written } else { written.auto_margin(true) };
    let of_numbers = |written: PlotlyAxis| {
        written.show_line(true).line_color(style.theme().faint()).grid_color(style.theme().line())
    };
    match &axis.ticks {
        Ticks::None => {
            let hidden = written.show_tick_labels(false).show_grid(false);
            if axis.font_size.is_none() { hidden.tick_length(0) } else { hidden }
        }
        Ticks::Linear => of_numbers(written),
        Ticks::Log => of_numbers(written).type_(AxisType::Log),
        Ticks::Names(names) => {
            let names: Vec<(f64, String)> =
                names.iter().enumerate().map(|(at, name)| (at as f64, escape(name))).collect();
            let (values, texts) = thinned(&names, MAX_NAMES).cloned().unzip();
            of_names(written).tick_values(values).tick_text(texts).show_grid(false).tick_length(0)
        }
        Ticks::Categories(_) => of_names(written).type_(AxisType::Category).show_grid(false).tick_length(0),
    }
}

/// An area as shares of the canvas: rightwards, then upwards. Both are exact, because plotly does not shrink linked
/// axes to square cells.
fn domains(area: Area, canvas: Area) -> [[f64; 2]; 2] {
    // plotly rejects domains that rounding has put outside 0 to 1.
    let shares = |from: f64, size: f64, of: f64| [from / of, (from + size) / of].map(|share| share.clamp(0.0, 1.0));
    let x = shares(area.x - canvas.x, area.width, canvas.width);
    [x, shares(canvas.bottom() - area.bottom(), area.height, canvas.height)]
}
