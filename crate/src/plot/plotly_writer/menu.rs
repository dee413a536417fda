//! The menu of a figure: a button for each choice, which replaces the marks in the page, without a kernel.

use plotly::common::{Anchor, Font};
use plotly::layout::update_menu::{Button, ButtonMethod, UpdateMenu};
use serde_json::{Map, Value, json};

use super::{annotations, cell_labels, heat_map};
use crate::plot::marks::{Mark, MenuChoice, TOKEN_SIZE};
use crate::plot::style::{Color, FigureStyle};
use crate::plot::text::escape_lines;

/// A menu in the upper left corner.
pub(super) fn menu(choices: &[MenuChoice], style: FigureStyle) -> UpdateMenu {
    UpdateMenu::new()
        .buttons(choices.iter().map(|choice| button(choice, style)).collect())
        // In every theme, because plotly highlights the entry under the pointer in a light colour of its own.
        .background_color("white")
        .font(Font::new().size(TOKEN_SIZE + 2).color("black"))
        .x(0.0)
        .x_anchor(Anchor::Left)
        .y(1.0)
        .y_anchor(Anchor::Top)
}

/// New cells and texts for the figure's traces, new texts and colours for its annotations, and new frames for its shape.
fn button(choice: &MenuChoice, style: FigureStyle) -> Button {
    let (mut cells, mut layout) = (Map::new(), Map::<String, Value>::new());
    layout.insert("title.text".into(), escape_lines(&choice.title).into());
    let mut texts = 0;
    for mark in &choice.marks {
        match mark {
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
    Button::new().label(&choice.name).method(ButtonMethod::Update).args(json!([cells, layout]))
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
