//! plotly's JSON against the marks.

use serde_json::{Value, json};

use super::{frames, sorted, texts};
use crate::plot::Figure;
use crate::plot::canvas::Ticks;
use crate::plot::marks::{CellLabels, Cells, Control, Coordinate, Drawing, Hover, LegendEntry, Mark, Text};

pub(super) fn check(name: &str, drawing: &Drawing, figure: &Figure) {
    let json: Value = serde_json::from_str(&figure.to_json()).unwrap();
    let (layout, mut traces) = (&json["layout"], list(&json["data"]).iter());
    assert_eq!((&layout["width"], &layout["height"]), (&drawing.size[0].into(), &drawing.size[1].into()), "{name}");

    let max_names = |ticks: &Ticks| if matches!(ticks, Ticks::Names(_)) { 60 } else { usize::MAX };
    assert_eq!(sorted(written_texts(&json)), sorted(texts(drawing, max_names)), "{name}: texts in plotly");

    let mut annotations = list(&layout["annotations"]).iter();
    let layers = drawing.layers.iter().flat_map(|layers| layers.are_shown(layers.first));
    for (mark, shown) in drawing.marks.iter().map(|mark| (mark, true)).chain(layers) {
        let n_traces = traces.len();
        let next = traces.clone();
        match mark {
            Mark::Text(text) => check_text(name, text, annotations.next().expect("an annotation for each text")),
            Mark::Cells(cells) => {
                let trace = traces.next().expect("a trace for the cells");
                check_cells(name, cells, trace);
                if let Some(labels) = &cells.labels {
                    check_labels(name, labels, [trace, traces.next().expect("a trace for texts in black")]);
                }
            }
            Mark::Frames(_) => {}
            Mark::Line(line) => {
                let trace = traces.next().expect("a trace for the line");
                check_points(name, &line.entry, &line.points, trace, "lines+markers");
                check_hover_texts(name, &line.hover, trace);
            }
            Mark::Strokes(strokes) => {
                let gap = [f64::NAN; 2];
                let points: Vec<_> =
                    strokes.strokes.iter().flat_map(|stroke| stroke.iter().copied().chain([gap])).collect();
                let trace = traces.next().expect("a trace for the strokes");
                check_points(name, &strokes.entry, &points, trace, "lines");
                assert_eq!(trace["opacity"].as_f64().unwrap_or(1.0), strokes.opacity, "{name}");
                assert_eq!(trace["line"]["width"], strokes.width, "{name}");
                assert_eq!(trace["legendgroup"].as_str(), strokes.group.as_deref(), "{name}");
            }
            Mark::Markers(markers) => {
                let trace = traces.next().expect("a trace for the markers");
                let mode = if markers.labels.is_empty() { "markers" } else { "markers+text" };
                check_points(name, &markers.entry, &markers.points, trace, mode);
                check_hover_texts(name, &markers.hover, trace);
                let (above, below) = (list(&trace["error_y"]["array"]), list(&trace["error_y"]["arrayminus"]));
                assert_eq!((above.len(), below.len()), (markers.intervals.len(), markers.intervals.len()), "{name}");
                for (index, [low, high]) in markers.intervals.iter().enumerate() {
                    let y = markers.points[index][1];
                    assert_close(name, &above[index], high - y);
                    assert_close(name, &below[index], y - low);
                }
            }
        }
        for trace in next.take(n_traces - traces.len()) {
            assert_eq!(trace["visible"] != false, shown, "{name}: a layer is shown or hidden");
        }
    }
    assert!(traces.next().is_none() && annotations.next().is_none(), "{name}: nothing but the marks");

    let written: Vec<(usize, usize, usize)> = list(&layout["shapes"]).iter().flat_map(framed).collect();
    for on in 0..drawing.axes.len() {
        let mut own: Vec<_> =
            written.iter().filter(|frame| frame.0 == on).map(|&(_, row, column)| (row, column)).collect();
        own.sort_unstable();
        assert_eq!(own, frames(&drawing.marks, on), "{name}: frames in plotly");
    }

    check_areas(name, drawing, layout);

    check_menu(name, drawing, &json);
    check_layers(name, drawing, &json);
}

/// Asserts that each button of the menu has the marks of its choice.
fn check_menu(name: &str, drawing: &Drawing, json: &Value) {
    if drawing.menu.is_empty() {
        return;
    }
    let buttons = list(&json["layout"]["updatemenus"][0]["buttons"]);
    assert_eq!(buttons.len(), drawing.menu.len(), "{name}: entries of the menu");
    for (choice, button) in drawing.menu.iter().zip(buttons) {
        assert_eq!(unescaped(button["label"].as_str().unwrap()), choice.name, "{name}");
        let (data, layout, traces) = (&button["args"][0], &button["args"][1], &button["args"][2]);
        assert_eq!(unescaped(layout["title.text"].as_str().unwrap()), choice.title, "{name}");
        let (mut texts, mut n_cells) = (0, 0);
        for mark in &choice.marks {
            match mark {
                Mark::Text(text) => {
                    let written = layout[format!("annotations[{texts}].text")].as_str().unwrap();
                    assert_eq!(unescaped(written), text.text, "{name}: text {texts} of a button");
                    texts += 1;
                }
                Mark::Cells(cells) => {
                    check_values(name, cells, &data["z"][n_cells]);
                    if let Some(labels) = &cells.labels {
                        let written = [0, 1].map(|of| json!({"text": data["text"][of]}));
                        check_labels(name, labels, written.each_ref());
                    }
                    if drawing.layers.is_some() {
                        let trace = &json["data"][traces[n_cells].as_u64().unwrap() as usize];
                        assert_eq!(trace["type"], "heatmap", "{name}: trace of the cells");
                    }
                    n_cells += 1;
                }
                _ => {}
            }
        }
        if drawing.layers.is_some() {
            assert_eq!((texts, list(&data["z"]).len(), list(traces).len()), (0, n_cells, n_cells), "{name}");
            continue;
        }
        assert_eq!(texts, list(&json["layout"]["annotations"]).len(), "{name}: every text is replaced");
        let mut framed: Vec<_> = path_frames(layout["shapes[0].path"].as_str().unwrap_or_default()).collect();
        framed.sort_unstable();
        assert_eq!(framed, frames(&choice.marks, 0), "{name}: frames of a button");
    }
}

/// Asserts that each choice of the control shows the traces of its layers and those that are always shown, and no others.
fn check_layers(name: &str, drawing: &Drawing, json: &Value) {
    let Some(layers) = &drawing.layers else { return };
    let layout = &json["layout"];
    let control = match layers.control {
        Control::Menu => &layout["updatemenus"][usize::from(!drawing.menu.is_empty())],
        Control::Slider(_) => &layout["sliders"][0],
    };
    let steps = list(&control[if layers.control == Control::Menu { "buttons" } else { "steps" }]);
    assert_eq!((steps.len(), &control["active"]), (layers.choices.len(), &layers.first.into()), "{name}");
    // A mark without texts in its cells is one trace.
    let always = list(&json["data"]).len() - layers.marks.iter().map(Vec::len).sum::<usize>();
    for (choice, step) in steps.iter().enumerate() {
        assert_eq!(unescaped(step["label"].as_str().unwrap()), layers.choices[choice].0, "{name}");
        let shown: Vec<bool> =
            std::iter::repeat_n(true, always).chain(layers.are_shown(choice).map(|(_, shown)| shown)).collect();
        assert_eq!(step["args"], json!([{ "visible": shown }]), "{name}: choice {choice}");
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Asserts that axes which are only a part of the canvas are where the drawing has them.
fn check_areas(name: &str, drawing: &Drawing, layout: &Value) {
    let [left, right, top, bottom] = drawing.margins.map(|margin| margin as f64);
    let [width, height] = drawing.size.map(|side| side as f64);
    for (index, axes) in drawing.axes.iter().enumerate().filter(|(_, axes)| axes.placed) {
        let suffix = if index == 0 { "" } else { "2" };
        let domain =
            |letter: &str| [0, 1].map(|end| layout[format!("{letter}axis{suffix}")]["domain"][end].as_f64().unwrap());
        let [x, y] = [domain("x"), domain("y")];
        let (inner_width, inner_height) = (width - left - right, height - top - bottom);
        let found = [left + x[0] * inner_width, left + x[1] * inner_width, height - bottom - y[1] * inner_height];
        let want = [axes.area.x, axes.area.right(), axes.area.y];
        assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 0.01), "{name}: {found:?}, {want:?}");
    }
}

/// Asserts that each text is in one of two traces, and is not seen in the other.
fn check_labels(name: &str, labels: &CellLabels, traces: [&Value; 2]) {
    let texts = |trace: &Value| -> Vec<String> {
        let rows = list(&trace["text"]).iter();
        rows.flat_map(|row| list(row).iter().map(|text| unescaped(&text.as_str().unwrap().replace('\u{200b}', ""))))
            .collect()
    };
    let [white, black] = traces.map(texts);
    assert_eq!((white.len(), black.len()), (labels.texts.len(), labels.texts.len()), "{name}");
    for ((white, black), text) in white.iter().zip(&black).zip(&labels.texts) {
        let (white, black) = (white.trim_matches('\n'), black.trim_matches('\n'));
        assert_eq!((white.to_owned() + black, white.is_empty() || black.is_empty()), (text.clone(), true), "{name}");
    }
}

fn unescaped(text: &str) -> String {
    text.replace("<br>", "\n").replace("&lt;", "<").replace("&gt;", ">").replace("&#36;", "$").replace("&amp;", "&")
}

/// Every text in the JSON, except hover texts and the texts of the menu.
fn written_texts(json: &Value) -> Vec<String> {
    let layout = &json["layout"];
    let mut texts = vec![layout["title"]["text"].clone()];
    texts.extend(list(&layout["annotations"]).iter().map(|annotation| annotation["text"].clone()));
    for axis in ["xaxis", "yaxis", "xaxis2", "yaxis2"].map(|axis| &layout[axis]) {
        texts.push(axis["title"]["text"].clone());
        texts.extend_from_slice(list(&axis["ticktext"]));
    }
    for trace in list(&json["data"]) {
        texts.extend([trace["name"].clone(), trace["colorbar"]["title"]["text"].clone()]);
        assert_eq!(trace["showlegend"].as_bool(), trace["name"].as_str().map(|name| !name.is_empty()));
        texts.extend(["x", "y", "text"].iter().flat_map(|of| list(&trace[of]).iter().cloned()));
    }
    texts.iter().filter_map(Value::as_str).map(unescaped).collect()
}

fn check_text(name: &str, text: &Text, annotation: &Value) {
    assert_eq!(unescaped(annotation["text"].as_str().unwrap()), text.text, "{name}");
    assert_eq!(annotation["textangle"].as_f64().unwrap_or(0.0), f64::from(text.degrees), "{name}: {}", text.text);
    assert_eq!(annotation["font"]["size"], text.size, "{name}: {}", text.text);
    let axis = if text.axes == 0 { "" } else { "2" };
    for (letter, coordinate) in [("x", text.x), ("y", text.y)] {
        let (of, value) = match coordinate {
            Coordinate::Value(value) => (format!("{letter}{axis}"), value),
            Coordinate::Axes(share) => (format!("{letter}{axis} domain"), share),
            Coordinate::Canvas(share) => ("paper".into(), share),
        };
        assert_eq!((&annotation[format!("{letter}ref")], &annotation[letter]), (&of.into(), &value.into()), "{name}");
    }
    let shift = ["xshift", "yshift"].map(|shift| annotation[shift].as_f64().unwrap_or(0.0));
    assert_eq!(shift, text.shift, "{name}: {}", text.text);
}

fn check_cells(name: &str, cells: &Cells, trace: &Value) {
    check_values(name, cells, &trace["z"]);
    let (Hover::Texts(texts) | Hover::Template(_, texts)) = &cells.hover else {
        assert_eq!(trace["hoverinfo"], "skip", "{name}");
        return;
    };
    let written = list(&trace["hovertext"]).iter().flat_map(list).map(|text| unescaped(text.as_str().unwrap()));
    assert!(written.eq(texts.iter().cloned()), "{name}: hover texts");
}

fn check_values(name: &str, cells: &Cells, z: &Value) {
    let rows = list(z);
    assert_eq!((rows.len(), list(&rows[0]).len()), cells.dim, "{name}");
    let mut in_blocks = 0;
    for block in &cells.blocks {
        for ((row, column), &value) in block.values.indexed_iter() {
            assert_close(name, &z[block.at.0 + row][block.at.1 + column], value);
            in_blocks += usize::from(value.is_finite());
        }
    }
    let written = rows.iter().flat_map(list).filter(|value| !value.is_null()).count();
    assert_eq!(written, in_blocks, "{name}: cells in plotly");
}

/// Asserts that JSON holds a number with four digits or three decimals, or null for NaN and infinity.
fn assert_close(name: &str, written: &Value, value: f64) {
    assert_eq!(written.is_null(), !value.is_finite(), "{name}: {written} for {value}");
    let tolerance = 5.1e-4 * value.abs().max(1.0);
    assert!(
        written.as_f64().is_none_or(|written| (written - value).abs() <= tolerance),
        "{name}: {written} for {value}"
    );
}

/// Asserts that a trace has these points, name and mode. Shape: `points [n, 2]`.
fn check_points(name: &str, entry: &LegendEntry, points: &[[f64; 2]], trace: &Value, mode: &str) {
    assert_eq!(unescaped(trace["name"].as_str().unwrap()), entry.name, "{name}");
    assert_eq!(trace["mode"], mode, "{name}");
    let (x, y) = (list(&trace["x"]), list(&trace["y"]));
    assert_eq!((x.len(), y.len()), (points.len(), points.len()), "{name}: points in plotly");
    for ((x, y), point) in x.iter().zip(y).zip(points) {
        assert_close(name, x, point[0]);
        assert_close(name, y, point[1]);
    }
}

fn check_hover_texts(name: &str, texts: &[String], trace: &Value) {
    let written = list(&trace["hovertext"]).iter().map(|text| unescaped(text.as_str().unwrap()));
    assert!(written.eq(texts.iter().cloned()), "{name}: hover texts");
}

/// Axes, row and column of each cell that a shape frames.
fn framed(shape: &Value) -> Vec<(usize, usize, usize)> {
    let on = usize::from(shape["xref"] == "x2");
    let edge = |name: &str| (shape[name].as_f64().unwrap() + 0.5) as usize;
    match shape["path"].as_str() {
        Some(path) => path_frames(path).map(|(row, column)| (on, row, column)).collect(),
        None => vec![(on, edge("y0"), edge("x0"))],
    }
}

/// Row and column of each cell that a path frames, from the first corner of each frame.
fn path_frames(path: &str) -> impl Iterator<Item = (usize, usize)> {
    path.split('M').filter(|frame| frame.ends_with('Z')).map(|frame| {
        let (x, y) = frame.split('L').next().unwrap().split_once(',').unwrap();
        let [column, row] = [x, y].map(|edge| (edge.parse::<f64>().unwrap() + 0.5) as usize);
        (row, column)
    })
}
