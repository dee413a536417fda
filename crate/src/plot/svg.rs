//! A figure as a static picture, for where no script runs: GitHub, nbviewer, print.
//!
//! It is drawn from the same panels as the plotly figure, with the same sizes and places, and needs no browser.

use std::collections::BTreeMap;
use std::fmt::Write;

use ndarray::Array2;

use super::heads::hover;
use super::heads::panel::{CAPTION_DISTANCE, LABEL_DISTANCE, LABEL_SIZE, Panel, TOKEN_SIZE};
use super::style::Look;

const FONT: &str = "Open Sans, Verdana, Arial, sans-serif";

/// As many labels along a side as can be read.
pub(super) const MOST_LABELS: usize = 40;

/// A picture that things are added to, in pixels from the upper left corner.
pub(super) struct Picture {
    svg: String,
    look: Look,
}

/// How texts lie: each has its anchor at a point, and is turned around it.
#[derive(Clone, Copy)]
pub(super) struct Style<'a> {
    pub(super) size: usize,
    pub(super) color: &'a str,
    /// SVG's names: `start`, `middle`, `end`.
    pub(super) anchor: &'a str,
    pub(super) degrees: i32,
}

/// A part of the picture.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    /// From one share of the width to another.
    pub(super) fn columns(self, [from, to]: [f64; 2]) -> Self {
        Self { x: self.x + from * self.width, width: (to - from) * self.width, ..self }
    }

    /// As many square cells as fit, in the middle.
    pub(super) fn cells(self, (rows, columns): (usize, usize)) -> Self {
        let (rows, columns) = (rows.max(1) as f64, columns.max(1) as f64);
        let cell = (self.width / columns).min(self.height / rows);
        let (width, height) = (cell * columns, cell * rows);
        Self { x: self.x + (self.width - width) / 2.0, y: self.y + (self.height - height) / 2.0, width, height }
    }
}

impl Picture {
    /// An empty picture; `description` is for those who do not see it.
    pub(super) fn new([width, height]: [usize; 2], description: &str, look: Look) -> Self {
        let (description, background) = (escape(description), look.theme.background());
        let svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' \
             role='img' font-family='{FONT}'><title>{description}</title><rect width='100%' height='100%' fill='{background}'/>"
        );
        Self { svg, look }
    }

    pub(super) fn finish(self) -> String {
        self.svg + "</svg>"
    }

    /// A line of text whose middle is at `x`, `y`.
    pub(super) fn line(&mut self, x: f64, y: f64, size: usize, text: &str) {
        let style = Style { size, color: self.look.theme.text(), anchor: "middle", degrees: 0 };
        self.texts(style, [(x, y, text)].into_iter());
    }

    /// A panel as large as fits the area, in its middle.
    pub(super) fn panel(&mut self, panel: &Panel, area: Area) {
        let cells @ Area { x: left, y: top, width, height } = area.cells(panel.pattern.dim());
        let (right, bottom) = (left + width, top + height);
        let cell = width / panel.pattern.ncols().max(1) as f64;
        let middle = |index: usize| cell * (index as f64 + 0.5);
        self.cells(&panel.pattern, panel.color_share(), cells);
        self.frames(panel, cells);

        let color = self.look.theme.text();
        let side = |size, anchor, degrees| Style { size, color, anchor, degrees };
        fn down(texts: &[String], y: impl Fn(usize) -> f64, x: f64) -> impl Iterator<Item = (f64, f64, &str)> {
            thinned(texts, MOST_LABELS).map(move |(row, text)| (x, y(row), text))
        }
        fn along(texts: &[String], x: impl Fn(usize) -> f64, y: f64) -> impl Iterator<Item = (f64, f64, &str)> {
            thinned(texts, MOST_LABELS).map(move |(column, text)| (x(column), y, text))
        }
        let (x, y) = (|column| left + middle(column), |row| top + middle(row));
        match (&panel.axis_labels, &panel.data) {
            (_, Some(data)) if panel.light() => {
                let names: Vec<String> = (0..data.n_pos()).map(|position| hover::position(data, position)).collect();
                self.texts(side(TOKEN_SIZE, "end", 0), down(&names, y, left - 3.0));
                self.texts(side(TOKEN_SIZE, "end", -90), along(&names, x, bottom + 3.0));
            }
            (Some(labels), _) if !panel.light() => {
                self.texts(side(LABEL_SIZE, "end", 0), down(&labels.left, y, left - LABEL_DISTANCE));
                self.texts(side(LABEL_SIZE, "start", -90), along(&labels.top, x, top - LABEL_DISTANCE));
                self.texts(side(LABEL_SIZE, "start", 0), down(&labels.right, y, right + LABEL_DISTANCE));
                self.texts(side(LABEL_SIZE, "end", -90), along(&labels.bottom, x, bottom + LABEL_DISTANCE));
            }
            _ => {}
        }
        if !panel.light() {
            let tokens = panel.token_labels.iter().map(|(query, key, text)| (x(*key), y(*query), text.as_str()));
            self.white_texts(TOKEN_SIZE, -45, tokens);
        }
        if let Some(caption) = panel.caption() {
            let y = area.y + area.height + CAPTION_DISTANCE + TOKEN_SIZE as f64 / 2.0;
            let style = Style { size: TOKEN_SIZE, color: self.look.theme.faint(), anchor: "start", degrees: 0 };
            self.texts(style, [(area.x, y, caption.as_str())].into_iter());
        }
    }

    /// Texts in cells, with a dark edge: on light cells nobody could read them without one.
    pub(super) fn white_texts<'a>(
        &mut self,
        size: usize,
        degrees: i32,
        texts: impl Iterator<Item = (f64, f64, &'a str)>,
    ) {
        self.svg += "<g stroke='#000' stroke-opacity='.5' stroke-width='1.5' paint-order='stroke'>";
        self.texts(Style { size, color: "#fff", anchor: "middle", degrees }, texts);
        self.svg += "</g>";
    }

    /// Lines of one colour and width, each from point to point.
    pub(super) fn lines<L: AsRef<[[f64; 2]]>>(&mut self, lines: impl IntoIterator<Item = L>, color: &str, width: f64) {
        let mut path = String::new();
        for line in lines {
            for (index, [x, y]) in line.as_ref().iter().enumerate() {
                let _ = write!(path, "{}{} {}", if index == 0 { 'M' } else { 'L' }, px(*x), px(*y));
            }
        }
        if !path.is_empty() {
            let _ = write!(self.svg, "<path fill='none' stroke='{color}' stroke-width='{width}' d='{path}'/>");
        }
    }

    /// Small shapes of one colour around points: circle, square, diamond, triangle, plus, cross.
    pub(super) fn markers(&mut self, symbol: usize, width: f64, color: &str, points: impl Iterator<Item = [f64; 2]>) {
        let (r, arm) = (width / 2.0, width / 6.0);
        let shape = match symbol {
            0 => format!("m-{r} 0a{r} {r} 0 1 0 {width} 0a{r} {r} 0 1 0-{width} 0z"),
            1 => format!("m-{r}-{r}h{width}v{width}h-{width}z"),
            2 => format!("m0-{r}l{r} {r}l-{r} {r}l-{r}-{r}z"),
            3 => format!("m0-{r}l{r} {width}h-{width}z"),
            4 => format!("m-{arm}-{r}h{w}v{l}h{l}v{w}h-{l}v{l}h-{w}v-{l}h-{l}v-{w}h{l}z", w = 2.0 * arm, l = r - arm),
            _ => format!(
                "m-{r}-{r}h{w}l{d} {width}h-{w}zm{d} 0h{w}l-{d} {width}h-{w}z",
                w = 2.0 * arm,
                d = width - 2.0 * arm
            ),
        };
        let path: String = points.map(|[x, y]| format!("M{} {}{shape}", px(x), px(y))).collect();
        if !path.is_empty() {
            let _ = write!(self.svg, "<path fill='{color}' d='{path}'/>");
        }
    }

    /// How the picture looks.
    pub(super) fn look(&self) -> Look {
        self.look
    }

    /// The colours of values, filling an area; `share` says where on the colour scale a value lies. What is not a number
    /// is left out.
    pub(super) fn cells(&mut self, values: &Array2<f32>, share: impl Fn(f32) -> f64, area: Area) {
        let color = self.look.color_scale.colors();
        // Every colour is one path, and neighbours in a row are one rectangle of it.
        let mut paths: BTreeMap<[u8; 3], String> = BTreeMap::new();
        for (row, values) in values.outer_iter().enumerate() {
            let color = |&value: &f32| (!value.is_nan()).then(|| color(share(value)));
            let colors: Vec<Option<[u8; 3]>> = values.iter().map(color).collect();
            let mut column = 0;
            for run in colors.chunk_by(|a, b| a == b) {
                if let Some(color) = run[0] {
                    let path = paths.entry(color).or_default();
                    let _ = write!(path, "M{column} {row}h{n}v1h-{n}z", n = run.len());
                }
                column += run.len();
            }
        }
        let (rows, columns) = values.dim();
        let (x, y) = (px(area.x), px(area.y));
        let scale = match (area.width / columns.max(1) as f64, area.height / rows.max(1) as f64) {
            (width, height) if (width - height).abs() < 1e-9 * width => width.to_string(),
            (width, height) => format!("{width} {height}"),
        };
        let _ = write!(self.svg, "<g transform='translate({x} {y})scale({scale})' shape-rendering='crispEdges'>");
        for ([red, green, blue], path) in paths {
            let _ = write!(self.svg, "<path fill='#{red:02x}{green:02x}{blue:02x}' d='{path}'/>");
        }
        self.svg += "</g>";
    }

    fn frames(&mut self, panel: &Panel, area: Area) {
        let cell = area.width / panel.pattern.ncols().max(1) as f64;
        let width = if panel.light() { 1 } else { 2 };
        for &(query, key) in &panel.frames {
            let (x, y) = (px(area.x + cell * key as f64), px(area.y + cell * query as f64));
            let side = px(cell);
            let _ = write!(
                self.svg,
                "<rect x='{x}' y='{y}' width='{side}' height='{side}' fill='none' stroke='#fff' stroke-width='{width}'/>"
            );
        }
    }

    /// Texts of one style, each with its point.
    pub(super) fn texts<'a>(&mut self, style: Style, texts: impl Iterator<Item = (f64, f64, &'a str)>) {
        let Style { size, color, anchor, degrees } = style;
        let _ = write!(
            self.svg,
            "<g font-size='{size}' fill='{color}' text-anchor='{anchor}' dominant-baseline='central'>"
        );
        for (x, y, text) in texts {
            let (x, y, text) = (px(x), px(y), escape(text));
            let _ = match degrees {
                0 => write!(self.svg, "<text x='{x}' y='{y}'>{text}</text>"),
                _ => write!(self.svg, "<text transform='translate({x} {y})rotate({degrees})'>{text}</text>"),
            };
        }
        self.svg += "</g>";
    }
}

/// Each text with its position; of more than `most`, only every so many-th.
pub(super) fn thinned(texts: &[String], most: usize) -> impl Iterator<Item = (usize, &str)> {
    texts.iter().map(String::as_str).enumerate().step_by(texts.len().div_ceil(most).max(1))
}

/// Pixels, with as many decimals as one can see.
fn px(x: f64) -> f64 {
    (10.0 * x).round() / 10.0
}

/// Text between tags or quotes. What XML has no place for, control characters for instance, shows as a replacement.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\u{0}'..'\u{20}' | '\u{7f}'..'\u{a0}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_xml_does_not_take_is_escaped_or_replaced() {
        assert_eq!(super::escape("<a&'b'>\u{1}\n\u{ffff}é"), "&lt;a&amp;&#39;b&#39;&gt;\u{fffd} \u{fffd}é");
    }
}
