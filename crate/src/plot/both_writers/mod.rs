//! Draws figures of every kind with both writers, and compares each with the one list of marks: neither writer can
//! leave out or change a mark.

mod figures;
mod plotly;
mod svg;

use super::canvas::Ticks;
use super::content::Drawn;
use super::marks::{Drawing, Mark, Text};
use super::text::thinned;

#[test]
fn both_writers_draw_every_mark() {
    for (name, figure) in figures::all() {
        let Drawn::Marks(drawing) = figure.draw() else { panic!("{name} is not made of marks") };
        plotly::check(&name, &drawing, &figure);
        svg::check(&name, &drawing, &figure);
    }
}

/// The texts that both writers write, except those in cells, with the names along an axis thinned to at most `max_names`.
fn texts(drawing: &Drawing, max_names: impl Fn(&Ticks) -> usize) -> Vec<String> {
    let mut texts: Vec<String> = drawing.title.iter().map(|title| title.text.clone()).collect();
    for axis in drawing.axes.iter().flat_map(|axes| [&axes.x, &axes.y]) {
        texts.push(axis.title.clone());
        if let Ticks::Names(names) | Ticks::Categories(names) = &axis.ticks {
            texts.extend(thinned(names, max_names(&axis.ticks)).cloned());
        }
    }
    let layers = drawing.layers.iter().flat_map(|layers| layers.marks.iter().flatten());
    for mark in drawing.marks.iter().chain(layers) {
        match mark {
            Mark::Text(Text { text, .. }) => texts.push(text.clone()),
            Mark::Cells(cells) => texts.extend(cells.color_bar.clone()),
            Mark::Markers(markers) => texts.extend(markers.labels.clone()),
            Mark::Frames(_) | Mark::Line(_) | Mark::Strokes(_) => {}
        }
        texts.extend(mark.legend_entry().map(|entry| entry.name.clone()));
    }
    texts
}

/// The texts in sorted order, without the empty ones.
fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.retain(|text| !text.is_empty());
    texts.sort_unstable();
    texts
}

/// The row and column of each framed cell on a pair of axes, in sorted order.
fn frames(marks: &[Mark], on: usize) -> Vec<(usize, usize)> {
    let mut frames: Vec<(usize, usize)> = Vec::new();
    for mark in marks {
        match mark {
            Mark::Frames(own) if own.axes == on => frames.extend(&own.cells),
            _ => {}
        }
    }
    frames.sort_unstable();
    frames
}
