//! Texts as annotations, and frames as shapes.

use plotly::common::Anchor;
use plotly::layout::{Annotation, Shape, ShapeLine, ShapeType};

use super::{AxisNames, font};
use crate::plot::marks::{Coordinate, Frames, Horizontal, Text, Vertical};
use crate::plot::style::FigureStyle;
use crate::plot::text::escape_lines;

/// A text without an arrow.
pub(super) fn annotation(text: &Text, names: &AxisNames, style: FigureStyle) -> Annotation {
    let (x_ref, x) = coordinate(text.x, &names.x);
    let (y_ref, y) = coordinate(text.y, &names.y);
    let mut annotation = Annotation::new()
        .text(escape_lines(&text.text))
        .show_arrow(false)
        .font(font(text.size, text.color, style))
        .x_ref(x_ref)
        .x(x)
        .y_ref(y_ref)
        .y(y);
    if let Some(horizontal) = text.horizontal {
        annotation = annotation.x_anchor(match horizontal {
            Horizontal::Left => Anchor::Left,
            Horizontal::Center => Anchor::Center,
            Horizontal::Right => Anchor::Right,
        });
    }
    if let Some(vertical) = text.vertical {
        annotation = annotation.y_anchor(match vertical {
            Vertical::Top => Anchor::Top,
            Vertical::Middle => Anchor::Middle,
            Vertical::Bottom => Anchor::Bottom,
        });
    }
    let [right, up] = text.shift;
    if right != 0.0 {
        annotation = annotation.x_shift(right);
    }
    if up != 0.0 {
        annotation = annotation.y_shift(up);
    }
    if text.boxed {
        let (line, background) = (style.theme().line(), style.theme().box_background());
        annotation = annotation.background_color(background).border_color(line).border_pad(3.0);
    }
    if text.degrees != 0 {
        annotation = annotation.text_angle(text.degrees.into());
    }
    annotation
}

/// plotly's reference for a coordinate (an axis, its domain, or the paper), and the value.
fn coordinate(coordinate: Coordinate, axis: &str) -> (String, f64) {
    match coordinate {
        Coordinate::Value(value) => (axis.into(), value),
        Coordinate::Axes(share) => (format!("{axis} domain"), share),
        Coordinate::Canvas(share) => ("paper".into(), share),
    }
}

/// Frames without a fill, one shape each, or one for all of them.
pub(super) fn shapes(frames: &Frames, names: &AxisNames) -> Vec<Shape> {
    let white = || {
        let line = ShapeLine::new().color("white").width(frames.width);
        Shape::new().x_ref(&names.x).y_ref(&names.y).line(line)
    };
    if frames.joined {
        return vec![white().shape_type(ShapeType::Path).path(path(frames))];
    }
    let frame = |&(row, column): &(usize, usize)| {
        let (x, y) = (column as f64, row as f64);
        white().shape_type(ShapeType::Rect).x0(x - 0.5).x1(x + 0.5).y0(y - 0.5).y1(y + 0.5)
    };
    frames.cells.iter().map(frame).collect()
}

/// All frames as one path in the coordinates of the axes; a point if there are none, as a shape must have a path.
pub(super) fn path(frames: &Frames) -> String {
    let frame = |&(row, column): &(usize, usize)| {
        let [left, right] = [column, column + 1].map(|x| x as f64 - 0.5);
        let [top, bottom] = [row, row + 1].map(|y| y as f64 - 0.5);
        format!("M{left},{top}L{right},{top}L{right},{bottom}L{left},{bottom}Z")
    };
    if frames.cells.is_empty() { "M0,0".into() } else { frames.cells.iter().map(frame).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plot::style::Color;

    #[test]
    fn a_text_is_an_annotation() {
        let text = Text {
            x: Coordinate::Axes(1.0),
            y: Coordinate::Value(3.0),
            shift: [20.0, 0.0],
            horizontal: Some(Horizontal::Left),
            ..Text::new("<sp>", 12, Color::Text)
        };
        let annotation = annotation(&text, &AxisNames::nth(1), FigureStyle::default());
        assert_eq!(
            serde_json::to_value(annotation).unwrap(),
            json!({
                "text": "&lt;sp&gt;", "showarrow": false, "font": {"size": 12, "color": "black"},
                "xref": "x2 domain", "x": 1.0, "yref": "y2", "y": 3.0, "xanchor": "left", "xshift": 20.0
            })
        );
    }

    #[test]
    fn frames_are_shapes_around_cells() {
        let frames = Frames { axes: 0, cells: vec![(2, 0)], width: 2.0, joined: false };
        let shapes = serde_json::to_value(shapes(&frames, &AxisNames::nth(0))).unwrap();
        assert_eq!(
            shapes,
            json!([{
                "type": "rect", "xref": "x", "yref": "y", "x0": -0.5, "x1": 0.5, "y0": 1.5, "y1": 2.5,
                "line": {"color": "white", "width": 2.0}
            }])
        );
        assert_eq!(path(&frames), "M-0.5,1.5L0.5,1.5L0.5,2.5L-0.5,2.5Z");
        assert_eq!(path(&Frames { cells: Vec::new(), ..frames }), "M0,0");
    }
}
