//! Layers of a figure: a menu or a slider shows the traces of some and hides the others, without a kernel.

use plotly::Trace;
use plotly::common::{Anchor, Pad};
use plotly::layout::update_menu::{Button, ButtonMethod, UpdateMenu};
use plotly::layout::{Slider, SliderCurrentValue, SliderMethod, SliderStep};
use serde::Serialize;
use serde_json::{Value, json};

use super::{font, menu};
use crate::plot::marks::{Drawing, Layers, Mark, TOKEN_SIZE};
use crate::plot::style::{Color, FigureStyle};
use crate::plot::text::escape;

/// A trace that is not shown.
#[derive(Clone, Serialize)]
struct Hidden {
    visible: bool,
    #[serde(flatten)]
    trace: Box<dyn Trace>,
}

impl Trace for Hidden {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a trace has only strings as keys")
    }
}

/// The trace, hidden until a control shows it.
pub(super) fn hidden(trace: Box<dyn Trace>) -> Box<dyn Trace> {
    Box::new(Hidden { visible: false, trace })
}

/// The number of traces that a mark is written as.
pub(super) fn n_traces(mark: &Mark) -> usize {
    match mark {
        Mark::Cells(cells) => 1 + usize::from(cells.labels.is_some()),
        Mark::Line(_) | Mark::Strokes(_) | Mark::Markers(_) => 1,
        Mark::Frames(_) | Mark::Text(_) => 0,
    }
}

/// A menu of the choices, above the canvas.
pub(super) fn menu(drawing: &Drawing, layers: &Layers) -> UpdateMenu {
    let button = |(choice, (name, _)): (usize, &(String, Vec<usize>))| {
        Button::new().label(escape(name)).method(ButtonMethod::Restyle).args(shown(drawing, layers, choice))
    };
    menu::above(layers.choices.iter().enumerate().map(button).collect()).active(layers.first as i32)
}

/// A slider with a step for each choice, below the canvas. Its ends are a little within it, as the names of the steps are
/// centred below them.
pub(super) fn slider(drawing: &Drawing, layers: &Layers, prefix: &'static str, style: FigureStyle) -> Slider {
    let step = |(choice, (name, _)): (usize, &(String, Vec<usize>))| {
        SliderStep::new().label(escape(name)).method(SliderMethod::Restyle).args(shown(drawing, layers, choice))
    };
    let font = || font(TOKEN_SIZE + 2, Color::Text, style);
    Slider::new()
        .steps(layers.choices.iter().enumerate().map(step).collect())
        .active(layers.first as i32)
        .current_value(SliderCurrentValue::new().prefix(prefix).font(font()))
        .font(font())
        .x(0.04)
        .y(0.0)
        .x_anchor(Anchor::Left)
        .y_anchor(Anchor::Top)
        .length(0.92)
        .pad(Pad::new(10, 0, 10))
}

/// The arguments of plotly's `restyle`: whether each trace is visible.
fn shown(drawing: &Drawing, layers: &Layers, choice: usize) -> Value {
    let always = drawing.marks.iter().map(n_traces).sum();
    let layers = layers.are_shown(choice).flat_map(|(mark, shown)| std::iter::repeat_n(shown, n_traces(mark)));
    let visible: Vec<bool> = std::iter::repeat_n(true, always).chain(layers).collect();
    json!([{ "visible": visible }])
}
