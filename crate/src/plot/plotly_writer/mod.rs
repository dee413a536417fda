//! Writes a [`Drawing`] as a plotly figure.
//!
//! | mark | in plotly |
//! |---|---|
//! | `Cells` | a heat map, with its colour bar; a second one over it for texts in black |
//! | `Line`, `Strokes`, `Markers` | a scatter trace, named in the legend |
//! | `Text` | an annotation |
//! | `Frames` | shapes |
//! | menu | an update menu, whose buttons replace the marks of the figure |
//! | layers | traces, of which an update menu or a slider shows some |

mod annotations;
mod axes;
mod cell_labels;
mod heat_map;
mod json;
mod layers;
mod menu;
mod scatter;

use plotly::common::{Anchor, Font, Title};
use plotly::layout::{HoverMode, Legend, Margin};
use plotly::{Layout, Plot, Trace};

pub(super) use self::json::json;
use super::canvas::Area;
use super::fit;
use super::marks::{Control, Drawing, LABEL_SIZE, Mark, TOOL_BAR};
use super::style::{Color, FigureStyle};
use super::text::{escape_lines, rounded};

/// The figure as a [`Plot`].
pub(super) fn plot(drawing: &Drawing, style: FigureStyle) -> Plot {
    let mut plot = Plot::new();
    let mut layout = layout(drawing, style);
    let canvas = Area::between(drawing.margins, drawing.size);
    for (index, axes) in drawing.axes.iter().enumerate() {
        let [x, y] = axes::axes(axes, canvas, &AxisNames::nth(index), style);
        layout = if index == 0 { layout.x_axis(x).y_axis(y) } else { layout.x_axis2(x).y_axis2(y) };
    }
    for mark in &drawing.marks {
        match mark {
            Mark::Frames(frames) => {
                for shape in annotations::shapes(frames, &AxisNames::nth(frames.axes)) {
                    layout.add_shape(shape);
                }
            }
            Mark::Text(text) => layout.add_annotation(annotations::annotation(text, &AxisNames::nth(text.axes), style)),
            mark => plot.add_traces(traces(mark, drawing, style)),
        }
    }
    let mut menus = Vec::new();
    if !drawing.menu.is_empty() {
        menus.push(menu::menu(drawing, style));
    }
    if let Some(layers) = &drawing.layers {
        for (mark, shown) in layers.are_shown(layers.first) {
            let traces = traces(mark, drawing, style);
            plot.add_traces(if shown { traces } else { traces.into_iter().map(layers::hidden).collect() });
        }
        match layers.control {
            Control::Menu => menus.push(layers::menu(drawing, layers)),
            Control::Slider(prefix) => layout = layout.sliders(vec![layers::slider(drawing, layers, prefix, style)]),
        }
    }
    plot.set_layout(if menus.is_empty() { layout } else { layout.update_menus(menus) });
    plot
}

/// The traces of a mark; none for texts and frames, which are parts of the layout.
fn traces(mark: &Mark, drawing: &Drawing, style: FigureStyle) -> Vec<Box<dyn Trace>> {
    match mark {
        Mark::Cells(cells) => heat_map::traces(cells, &drawing.axes[cells.axes], &AxisNames::nth(cells.axes), style),
        Mark::Frames(_) | Mark::Text(_) => Vec::new(),
        Mark::Line(line) => vec![scatter::line(line, style)],
        Mark::Strokes(strokes) => vec![scatter::strokes(strokes, style)],
        Mark::Markers(markers) => vec![scatter::markers(markers, style)],
    }
}

/// Size, margins, background, title and legend.
fn layout(drawing: &Drawing, style: FigureStyle) -> Layout {
    let ([width, height], [left, right, top, bottom]) = (drawing.size, drawing.margins);
    let background = style.theme().background();
    let no_token = style.theme().no_token();
    let mut layout = Layout::new()
        .width(width)
        .height(height)
        .margin(Margin::new().left(left).right(right).top(top).bottom(bottom))
        // The greatest size of texts in cells; every other text has a size of its own.
        .font(Font::new().size(fit::MAX_SIZE))
        .plot_background_color(if drawing.no_token_background { no_token } else { background })
        .paper_background_color(background);
    if let Some(title) = &drawing.title {
        let middle = (TOOL_BAR + title.bottom()) / 2.0;
        let title = Title::with_text(escape_lines(&title.text)).font(font(title.size, Color::Text, style));
        let y = rounded(1.0 - middle / height as f64);
        layout = layout.title(title.x(0.5).x_anchor(Anchor::Center).y(y).y_anchor(Anchor::Middle));
    }
    if drawing.legend {
        // Shows the hover text of the point nearest to the pointer.
        layout = layout.hover_mode(HoverMode::Closest).legend(Legend::new().font(font(LABEL_SIZE, Color::Text, style)));
    }
    layout
}

fn font(size: usize, color: Color, style: FigureStyle) -> Font {
    Font::new().size(size).color(color.css(style).into_owned())
}

/// plotly's names of a pair of axes: `x` and `y`, then `x2` and `y2`.
struct AxisNames {
    x: String,
    y: String,
}

impl AxisNames {
    fn nth(index: usize) -> Self {
        let suffix = if index == 0 { String::new() } else { (index + 1).to_string() };
        Self { x: format!("x{suffix}"), y: format!("y{suffix}") }
    }
}
