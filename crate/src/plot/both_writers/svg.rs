//! The static picture against the marks.

use roxmltree::{Document, Node};

use super::{frames, sorted, texts};
use crate::plot::Figure;
use crate::plot::canvas::{Area, Ticks};
use crate::plot::marks::{Cells, ColorRange, Coordinate, Drawing, Mark, Paint, Text};
use crate::plot::style::{FigureStyle, hex};
use crate::plot::svg::MAX_RECTANGLES;
use crate::plot::text::rounded;

/// A line or a marker: its colour, and its points in tenths of a pixel.
type Stroke = (String, Vec<[i64; 2]>);

pub(super) fn check(name: &str, drawing: &Drawing, figure: &Figure) {
    let svg = figure.to_svg().unwrap();
    let picture = Document::parse(&svg).unwrap();
    let style = figure.style();
    let nodes = |tag: &'static str| picture.descendants().filter(move |node| node.has_tag_name(tag));

    let written = nodes("text").map(text_of).collect();
    let mut want = texts(drawing, |_| 40);
    for axis in drawing.axes.iter().flat_map(|axes| [&axes.x, &axes.y]) {
        if matches!(axis.ticks, Ticks::Linear | Ticks::Log) {
            want.extend(axis.labelled_values().into_iter().map(|(_, label)| label));
        }
    }
    for mark in drawing.shown() {
        let Mark::Cells(cells) = mark else { continue };
        want.extend(cells.labels.iter().flat_map(|labels| labels.texts.iter().cloned()));
        if let (Some(_), Paint::Scale(ColorRange::Ends(ends))) = (&cells.color_bar, &cells.paint) {
            want.extend(ends.map(|end| rounded(end).to_string()));
        }
    }
    assert_eq!(sorted(written), sorted(want), "{name}: texts in the picture");

    let mut places: Vec<(String, [f64; 2])> = nodes("text").map(|node| (text_of(node), place(node))).collect();
    for mark in &drawing.marks {
        let Mark::Text(text) = mark else { continue };
        if text.text.is_empty() {
            continue;
        }
        // The alignment moves a text up or down by no more than its size.
        let [x, y] = point(text, drawing);
        let distance = |(_, at): &(String, [f64; 2])| (at[0] - x).abs() + (at[1] - y).abs();
        let same = places.iter().enumerate().filter(|(_, (written, _))| *written == text.text);
        let nearest = same.min_by(|(_, a), (_, b)| distance(a).total_cmp(&distance(b))).map(|(index, _)| index);
        let (_, at) = places.swap_remove(nearest.expect("the text was found above"));
        let lines = text.text.split('\n').count() as f64;
        let close = (at[0] - x).abs() < 0.11 && (at[1] - y).abs() < 1.3 * lines * text.size as f64 + 0.11;
        assert!(close, "{name}: {:?} is at {at:?} in the picture, not at {:?}", text.text, [x, y]);
    }

    let groups: Vec<Node> = nodes("g").filter(|node| node.has_attribute("shape-rendering")).collect();
    let blocks = drawing.shown().filter_map(|mark| if let Mark::Cells(cells) = mark { Some(cells) } else { None });
    let mut own_groups = groups.iter();
    let mut n_images = 0;
    for cells in blocks {
        for block in 0..cells.blocks.len() {
            if cells.blocks[block].values.len() > MAX_RECTANGLES {
                n_images += 1;
                continue;
            }
            check_block(name, cells, block, *own_groups.next().expect("a group for each block"), style);
        }
        if cells.color_bar.is_some() {
            let steps =
                own_groups.next().expect("a colour bar").children().flat_map(|path| runs(path.attribute("d").unwrap()));
            assert_eq!(steps.count(), 64, "{name}");
        }
    }
    assert!(own_groups.next().is_none(), "{name}: no other cells");
    assert_eq!(nodes("image").count(), n_images, "{name}: images of many cells");

    let rects = nodes("rect").filter(|node| node.attribute("stroke") == Some("#fff"));
    let mut rects: Vec<[i64; 2]> = rects.map(|node| ["x", "y"].map(|at| tenths(number(node, at)))).collect();
    let mut want: Vec<[i64; 2]> = Vec::new();
    for (index, axes) in drawing.axes.iter().enumerate() {
        let corner = |(row, column)| axes.pixel([column as f64 - 0.5, row as f64 - 0.5]).map(tenths);
        want.extend(frames(&drawing.marks, index).into_iter().map(corner));
    }
    rects.sort_unstable();
    want.sort_unstable();
    assert_same(name, "frames", &rects, &want);

    let (lines, markers) = strokes(drawing, style);
    let paths = || nodes("path").filter(|node| !node.parent().unwrap().has_attribute("shape-rendering"));
    let mut written_lines: Vec<Stroke> = Vec::new();
    let mut written_markers: Vec<Stroke> = Vec::new();
    for path in paths() {
        let d = path.attribute("d").unwrap();
        if let Some(color) = path.attribute("stroke") {
            let lines = d.split('M').skip(1).map(|line| line.split('L').map(pair).collect());
            written_lines.extend(lines.map(|points| (color.to_owned(), points)));
        } else {
            let color = path.attribute("fill").unwrap();
            written_markers.extend(
                d.split('M').skip(1).map(|marker| (color.to_owned(), vec![pair(marker.split('m').next().unwrap())])),
            );
        }
    }
    assert_strokes(name, "lines", written_lines, lines);
    assert_strokes(name, "markers", written_markers, markers);
}

/// Lines and markers of the marks, of the grid and of the legend.
fn strokes(drawing: &Drawing, style: FigureStyle) -> (Vec<Stroke>, Vec<Stroke>) {
    let (mut lines, mut markers) = (Vec::new(), Vec::new());
    for axes in &drawing.axes {
        let Area { x, y, width, height } = axes.area;
        let is_number = |ticks: &Ticks| matches!(ticks, Ticks::Linear | Ticks::Log);
        let mut grid = |ends: [[f64; 2]; 2]| {
            lines.push((style.theme().line().to_owned(), ends.map(|end| end.map(tenths)).to_vec()))
        };
        for (value, _) in axes.x.labelled_values().into_iter().filter(|_| is_number(&axes.x.ticks)) {
            let at = axes.pixel([value, 0.0])[0];
            grid([[at, y], [at, y + height]]);
        }
        for (value, _) in axes.y.labelled_values().into_iter().filter(|_| is_number(&axes.y.ticks)) {
            let at = axes.pixel([0.0, value])[1];
            grid([[x, at], [x + width, at]]);
        }
    }
    let pixels = |points: &[[f64; 2]]| points.iter().map(|&point| drawing.axes[0].pixel(point).map(tenths)).collect();
    let mut row = 0;
    for mark in drawing.shown() {
        let Some(entry) = mark.legend_entry() else { continue };
        let color = entry.color.css(style).into_owned();
        let area = drawing.axes[0].area;
        let key = [area.x + area.width + 20.0, area.y + 10.0 + 18.0 * f64::from(row)];
        let ends = [-6.0, 6.0].map(|off| [key[0] + off, key[1]].map(tenths)).to_vec();
        let named = drawing.legend && !entry.name.is_empty();
        row += i32::from(named);
        match mark {
            Mark::Line(line) => {
                let is_number = |point: &[f64; 2]| point.iter().all(|x| x.is_finite());
                let parts = line.points.split(|point| !is_number(point)).filter(|part| !part.is_empty());
                lines.extend(parts.map(|part| (color.clone(), pixels(part))));
                lines.extend(named.then_some((color, ends)));
            }
            Mark::Strokes(strokes) => {
                lines.extend(strokes.strokes.iter().map(|stroke| (color.clone(), pixels(stroke))));
                lines.extend(named.then_some((color, ends)));
            }
            Mark::Markers(own) => {
                let bars = own.points.iter().zip(&own.intervals);
                lines.extend(bars.map(|(&[x, _], ends)| (color.clone(), pixels(&ends.map(|end| [x, end])))));
                markers.extend(own.points.iter().map(|&point| (color.clone(), pixels(&[point]))));
                markers.extend(named.then(|| (color, vec![key.map(tenths)])));
            }
            Mark::Cells(_) | Mark::Frames(_) | Mark::Text(_) => {}
        }
    }
    (lines, markers)
}

fn assert_strokes(name: &str, what: &str, mut written: Vec<Stroke>, mut want: Vec<Stroke>) {
    written.sort_unstable();
    want.sort_unstable();
    assert_eq!(written.len(), want.len(), "{name}: {what} in the picture");
    for (written, want) in written.iter().zip(&want) {
        assert_eq!(written.0, want.0, "{name}: colours of {what}");
        assert_same(name, what, &written.1, &want.1);
    }
}

/// Asserts that points agree within a tenth of a pixel.
fn assert_same(name: &str, what: &str, written: &[[i64; 2]], want: &[[i64; 2]]) {
    assert_eq!(written.len(), want.len(), "{name}: {what} in the picture");
    let close = |(a, b): (&[i64; 2], &[i64; 2])| a[0].abs_diff(b[0]) <= 1 && a[1].abs_diff(b[1]) <= 1;
    assert!(written.iter().zip(want).all(close), "{name}: {what} in the picture: {written:?}, {want:?}");
}

/// Asserts that each cell of a block has the colour of its value.
fn check_block(name: &str, cells: &Cells, block: usize, group: Node, style: FigureStyle) {
    let (values, color) = (&cells.blocks[block].values, cells.color(style));
    let mut written = vec![None; values.len()];
    for path in group.children() {
        for (row, column, n) in runs(path.attribute("d").unwrap()) {
            let from = row * values.ncols() + column;
            written[from..from + n].fill(path.attribute("fill").map(str::to_owned));
        }
    }
    let want = values.iter().map(|&value| color(value).map(hex));
    assert!(written.into_iter().eq(want), "{name}: colours of the cells");
}

/// Row, column and length of each run of cells in a path.
fn runs(path: &str) -> impl Iterator<Item = (usize, usize, usize)> {
    path.split('M').skip(1).map(|run| {
        let (place, rest) = run.split_once('h').unwrap();
        let (column, row) = place.split_once(' ').unwrap();
        let [row, column, n] = [row, column, rest.split('v').next().unwrap()].map(|number| number.parse().unwrap());
        (row, column, n)
    })
}

/// The point of a text, without the offset of its alignment.
fn point(text: &Text, drawing: &Drawing) -> [f64; 2] {
    let (axes, canvas) = (&drawing.axes[text.axes], Area::between(drawing.margins, drawing.size));
    let x = match text.x {
        Coordinate::Value(value) => axes.pixel([value, 0.0])[0],
        Coordinate::Axes(share) => axes.area.x + share * axes.area.width,
        Coordinate::Canvas(share) => canvas.x + share * canvas.width,
    };
    let y = match text.y {
        Coordinate::Value(value) => axes.pixel([0.0, value])[1],
        Coordinate::Axes(share) => axes.area.y + (1.0 - share) * axes.area.height,
        Coordinate::Canvas(share) => canvas.y + (1.0 - share) * canvas.height,
    };
    [x + text.shift[0], y - text.shift[1]]
}

/// The lines of a text element.
fn text_of(node: Node) -> String {
    let lines: Vec<&str> = node.children().filter_map(|line| line.text()).collect();
    lines.join("\n")
}

/// The point of a text element, in pixels.
fn place(node: Node) -> [f64; 2] {
    match node.attribute("transform") {
        None => [number(node, "x"), number(node, "y")],
        Some(transform) => {
            let translated = transform.strip_prefix("translate(").unwrap().split(')').next().unwrap();
            pair(translated).map(|tenths| tenths as f64 / 10.0)
        }
    }
}

fn number(node: Node, name: &str) -> f64 {
    node.attribute(name).unwrap().parse().unwrap()
}

/// Two numbers as tenths.
fn pair(numbers: &str) -> [i64; 2] {
    let (x, y) = numbers.split_once(' ').unwrap();
    [x, y].map(|number| tenths(number.parse().unwrap()))
}

fn tenths(pixels: f64) -> i64 {
    (10.0 * pixels).round() as i64
}
