//! The menu of a figure: a button for each choice, which replaces the marks in the page, without a kernel.

use plotly::common::{Anchor, Font, Pad};
use plotly::layout::update_menu::{Button, ButtonMethod, UpdateMenu};
use serde_json::{Map, Value, json};

use super::{annotations, cell_labels, heat_map, layers};
use crate::plot::marks::{Drawing, Mark, MenuChoice, TOKEN_SIZE};
use crate::plot::style::{Color, FigureStyle};
use crate::plot::text::{escape, escape_lines};

/// The menu of a figure: in the upper left corner, or above the canvas.
pub(super) fn menu(drawing: &Drawing, style: FigureStyle) -> UpdateMenu {
    let indices = drawing.layers.as_ref().map(|layers| {
        // The traces of the cells, of which several are replaced one by one.
        let marks = drawing.marks.iter().chain(layers.marks.iter().flatten());
        let mut next = 0;
        let traces = marks.filter_map(|mark| {
            let index = next;
            next += layers::n_traces(mark);
            matches!(mark, Mark::Cells(_)).then_some(index)
        });
        traces.collect::<Vec<usize>>()
    });
    let buttons = drawing.menu.iter().map(|choice| button(choice, indices.as_deref(), style)).collect();
    if indices.is_some() || drawing.menu_above { above(buttons) } else { of(buttons).y_anchor(Anchor::Top) }
}

/// A menu above the left end of the canvas.
pub(super) fn above(buttons: Vec<Button>) -> UpdateMenu {
    of(buttons).y_anchor(Anchor::Bottom).pad(Pad::new(0, 6, 0))
}

fn of(buttons: Vec<Button>) -> UpdateMenu {
    UpdateMenu::new()
        .buttons(buttons)
        // In every theme, because plotly highlights the entry under the pointer in a light colour of its own.
        .background_color("white")
        .font(Font::new().size(TOKEN_SIZE + 2).color("black"))
        .x(0.0)
        .x_anchor(Anchor::Left)
        .y(1.0)
}

/// New cells and texts for the figure's traces, new texts and colours for its annotations, and new frames for its shape.
/// `indices` are the traces of the cells, if there may be several.
fn button(choice: &MenuChoice, indices: Option<&[usize]>, style: FigureStyle) -> Button {
    let (mut cells, mut layout) = (Map::new(), Map::<String, Value>::new());
    let mut several = Vec::new();
    layout.insert("title.text".into(), escape_lines(&choice.title).into());
    let mut texts = 0;
    for mark in &choice.marks {
        match mark {
            Mark::Cells(own) if indices.is_some() => several.push(heat_map::z(own)),
            Mark::Cells(own) => {
                cells.insert("z".into(), json!([heat_map::z(own)]));
                if let Some(texts) = heat_map::hover_texts(own) {
                    cells.insert("hovertext".into(), json!([texts]));
                }
                if let Some(texts) = cell_labels::matrices(own, style) {
                    cells.insert("text".into(), json!(texts));
                }
            }
            Mark::Text(text) => {
                layout.insert(format!("annotations[{texts}].text"), escape_lines(&text.text).into());
                if let Color::Rgb(_) = text.color {
                    layout.insert(format!("annotations[{texts}].font.color"), text.color.css(style).into());
                }
                texts += 1;
            }
            Mark::Frames(frames) => {
                layout.insert("shapes[0].path".into(), annotations::path(frames).into());
            }
            Mark::Line(_) | Mark::Strokes(_) | Mark::Markers(_) => {}
        }
    }
    let args = match indices {
        Some(indices) => json!([{ "z": several }, layout, indices]),
        None => json!([cells, layout]),
    };
    Button::new().label(escape(&choice.name)).method(ButtonMethod::Update).args(args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::marks::{Frames, Text};

    #[test]
    fn a_button_replaces_texts_and_frames() {
        let marks = vec![
            Mark::Frames(Frames { axes: 0, cells: vec![(0, 0)], width: 2.0, joined: true }),
            Mark::Text(Text::new("a", 10, Color::Text)),
            Mark::Text(Text::new("<b>", 10, Color::Rgb([1, 2, 3]))),
        ];
        let button = serde_json::to_value(button(
            &MenuChoice { name: "0.1".into(), title: "T".into(), marks },
            None,
            FigureStyle::default(),
        ))
        .unwrap();
        assert_eq!((&button["label"], &button["method"]), (&json!("0.1"), &json!("update")));
        assert_eq!(
            button["args"],
            json!([{}, {
                "title.text": "T",
                "annotations[0].text": "a", "annotations[1].text": "&lt;b&gt;",
                "annotations[1].font.color": "#010203",
                "shapes[0].path": "M-0.5,-0.5L0.5,-0.5L0.5,0.5L-0.5,0.5Z"
            }])
        );
    }
}
