//! SVG elements. Coordinates are pixels from the upper left corner.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ndarray::Array2;

use super::canvas::Area;
use super::marks::{LINE_HEIGHT, Symbol};
use super::png::png;
use super::style::{FigureStyle, hex};
use super::text::escape_xml;

/// Maximum number of cells that are drawn as rectangles; more of them are an image with a pixel for each.
pub(super) const MAX_RECTANGLES: usize = 20_000;
const FONT: &str = "Open Sans, Verdana, Arial, sans-serif";

/// An SVG document to which elements are added.
pub(super) struct Svg {
    xml: String,
}

/// The attributes of a text.
#[derive(Clone, PartialEq)]
pub(super) struct TextStyle {
    pub(super) size: usize,
    pub(super) color: String,
    /// `text-anchor`: the end of the text that is at its point.
    pub(super) anchor: &'static str,
    /// Rotation around the point, clockwise.
    pub(super) degrees: i32,
}

impl Svg {
    /// An empty picture. `description` is its `<title>`, which screen readers read.
    pub(super) fn new([width, height]: [usize; 2], description: &str, style: FigureStyle) -> Self {
        let (description, background) = (escape_xml(description), style.theme().background());
        let xml = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' \
             role='img' font-family='{FONT}'><title>{description}</title><rect width='100%' height='100%' fill='{background}'/>"
        );
        Self { xml }
    }

    pub(super) fn finish(self) -> String {
        self.xml + "</svg>"
    }

    /// Texts of one style, each at its point, the middle of its lines; empty ones are left out.
    pub(super) fn texts<'a>(&mut self, style: &TextStyle, texts: impl IntoIterator<Item = ([f64; 2], &'a str)>) {
        let TextStyle { size, color, anchor, degrees } = style;
        let mut written = String::new();
        for ([x, y], text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            let lines: Vec<String> = text.split('\n').map(escape_xml).collect();
            let height = LINE_HEIGHT * *size as f64;
            let (x, y) = (px(x), px(y - height * (lines.len() - 1) as f64 / 2.0));
            let place = match degrees {
                0 => format!("x='{x}' y='{y}'"),
                _ => format!("transform='translate({x} {y})rotate({degrees})'"),
            };
            let text = match &lines[..] {
                [line] => line.clone(),
                // Lines of a turned text are not needed anywhere.
                lines => {
                    let line = |(index, line): (usize, &String)| {
                        let down = if index == 0 { 0.0 } else { px(height) };
                        format!("<tspan x='{x}' dy='{down}'>{line}</tspan>")
                    };
                    lines.iter().enumerate().map(line).collect()
                }
            };
            let _ = write!(written, "<text {place}>{text}</text>");
        }
        if !written.is_empty() {
            let _ = write!(
                self.xml,
                "<g font-size='{size}' fill='{color}' text-anchor='{anchor}' dominant-baseline='central'>{written}</g>"
            );
        }
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
            let _ = write!(self.xml, "<path fill='none' stroke='{color}' stroke-width='{width}' d='{path}'/>");
        }
    }

    /// What `draw` adds, of this opacity.
    pub(super) fn translucent(&mut self, opacity: f64, draw: impl FnOnce(&mut Self)) {
        if opacity < 1.0 {
            let _ = write!(self.xml, "<g opacity='{opacity}'>");
        }
        draw(self);
        if opacity < 1.0 {
            self.xml += "</g>";
        }
    }

    /// The outline of a square in white.
    pub(super) fn frame(&mut self, [x, y]: [f64; 2], side: f64, line_width: f64) {
        let (x, y, side) = (px(x), px(y), px(side));
        let _ = write!(
            self.xml,
            "<rect x='{x}' y='{y}' width='{side}' height='{side}' fill='none' stroke='#fff' stroke-width='{line_width}'/>"
        );
    }

    /// Markers of one shape, width and colour.
    pub(super) fn markers(
        &mut self,
        symbol: Symbol,
        width: f64,
        color: &str,
        points: impl IntoIterator<Item = [f64; 2]>,
    ) {
        let (r, arm) = (width / 2.0, width / 6.0);
        let shape = match symbol {
            Symbol::Circle => format!("m-{r} 0a{r} {r} 0 1 0 {width} 0a{r} {r} 0 1 0-{width} 0z"),
            Symbol::Square => format!("m-{r}-{r}h{width}v{width}h-{width}z"),
            Symbol::Diamond => format!("m0-{r}l{r} {r}l-{r} {r}l-{r}-{r}z"),
            Symbol::Triangle => format!("m0-{r}l{r} {width}h-{width}z"),
            Symbol::Cross => {
                let (w, l) = (2.0 * arm, r - arm);
                format!("m-{arm}-{r}h{w}v{l}h{l}v{w}h-{l}v{l}h-{w}v-{l}h-{l}v-{w}h{l}z")
            }
            Symbol::X => {
                let (w, d) = (2.0 * arm, width - 2.0 * arm);
                format!("m-{r}-{r}h{w}l{d} {width}h-{w}zm{d} 0h{w}l-{d} {width}h-{w}z")
            }
        };
        let path: String = points.into_iter().map(|[x, y]| format!("M{} {}{shape}", px(x), px(y))).collect();
        if !path.is_empty() {
            let _ = write!(self.xml, "<path fill='{color}' d='{path}'/>");
        }
    }

    /// An area of one colour.
    pub(super) fn area(&mut self, Area { x, y, width, height }: Area, color: &str) {
        let [x, y, width, height] = [x, y, width, height].map(px);
        let _ = write!(self.xml, "<rect x='{x}' y='{y}' width='{width}' height='{height}' fill='{color}'/>");
    }

    /// Cells that fill an area, each of its colour; `None` is left out. Shape: `[rows, columns]`.
    pub(super) fn cells(&mut self, colors: &Array2<Option<[u8; 3]>>, area: Area) {
        let (rows, columns) = colors.dim();
        let (x, y) = (px(area.x), px(area.y));
        if colors.len() > MAX_RECTANGLES {
            let pixel = |color: &Option<[u8; 3]>| color.map_or([0; 4], |[red, green, blue]| [red, green, blue, 255]);
            let png = png([rows, columns], &colors.iter().map(pixel).collect::<Vec<_>>());
            let (width, height) = (px(area.width), px(area.height));
            let _ = write!(
                self.xml,
                "<image x='{x}' y='{y}' width='{width}' height='{height}' preserveAspectRatio='none' \
                 style='image-rendering:pixelated' href='data:image/png;base64,{}'/>",
                BASE64_STANDARD.encode(png)
            );
            return;
        }
        // Every colour is one path, and neighbours in a row are one rectangle of it.
        let mut paths: BTreeMap<[u8; 3], String> = BTreeMap::new();
        for (row, colors) in colors.outer_iter().enumerate() {
            let mut column = 0;
            for run in colors.to_vec().chunk_by(|a, b| a == b) {
                if let Some(color) = run[0] {
                    let path = paths.entry(color).or_default();
                    let _ = write!(path, "M{column} {row}h{n}v1h-{n}z", n = run.len());
                }
                column += run.len();
            }
        }
        let scale = match (area.width / columns.max(1) as f64, area.height / rows.max(1) as f64) {
            (width, height) if (width - height).abs() < 1e-9 * width => width.to_string(),
            (width, height) => format!("{width} {height}"),
        };
        let _ = write!(self.xml, "<g transform='translate({x} {y})scale({scale})' shape-rendering='crispEdges'>");
        for (color, path) in paths {
            let _ = write!(self.xml, "<path fill='{}' d='{path}'/>", hex(color));
        }
        self.xml += "</g>";
    }
}

/// Rounds pixels to one decimal; finer differences are not visible.
fn px(x: f64) -> f64 {
    (10.0 * x).round() / 10.0
}

/// Pictures that [`Svg::finish`] returned, one below the other.
pub(super) fn stacked(pictures: &[String]) -> String {
    let size = |svg: &String| ["width", "height"].map(|name| attribute(svg, name));
    let sizes: Vec<[usize; 2]> = pictures.iter().map(size).collect();
    let width = sizes.iter().map(|&[width, _]| width).max().unwrap_or(0);
    let height: usize = sizes.iter().map(|&[_, height]| height).sum();
    let head = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>"
    );
    let mut y = 0;
    let placed = pictures.iter().zip(&sizes).map(|(svg, [_, height])| {
        let placed = svg.replacen("<svg ", &format!("<svg y='{y}' "), 1);
        y += height;
        placed
    });
    head + &placed.collect::<String>() + "</svg>"
}

/// The first attribute of this name, as a number of pixels.
fn attribute(svg: &str, name: &str) -> usize {
    let value = svg.split_once(&format!(" {name}='")).and_then(|(_, rest)| rest.split('\'').next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    fn drawn(draw: impl FnOnce(&mut Svg)) -> String {
        let mut svg = Svg::new([10, 10], "", FigureStyle::default());
        let empty = svg.xml.len();
        draw(&mut svg);
        svg.xml[empty..].to_owned()
    }

    #[test]
    fn neighbours_of_one_colour_are_one_rectangle() {
        let (a, b) = (Some([0x44, 1, 0x54]), Some([0xfd, 0xe7, 0x25]));
        let colors = arr2(&[[b, b, a], [None, a, a]]);
        let cells = drawn(|svg| svg.cells(&colors, Area { x: 1.0, y: 2.0, width: 6.0, height: 4.0 }));
        assert_eq!(
            cells,
            "<g transform='translate(1 2)scale(2)' shape-rendering='crispEdges'>\
             <path fill='#440154' d='M2 0h1v1h-1zM1 1h2v1h-2z'/><path fill='#fde725' d='M0 0h2v1h-2z'/></g>"
        );
    }

    #[test]
    fn texts_of_a_style_share_a_group() {
        let style = TextStyle { size: 10, color: "black".into(), anchor: "end", degrees: -90 };
        let texts = drawn(|svg| svg.texts(&style, [([1.0, 2.04], "<a>"), ([3.0, 4.0], "")]));
        assert_eq!(
            texts,
            "<g font-size='10' fill='black' text-anchor='end' dominant-baseline='central'>\
             <text transform='translate(1 2)rotate(-90)'>&lt;a&gt;</text></g>"
        );
        assert_eq!(drawn(|svg| svg.texts(&style, [([1.0, 2.0], "")])), "");
    }

    #[test]
    fn lines_of_a_text_are_around_its_point() {
        let style = TextStyle { size: 10, color: "black".into(), anchor: "middle", degrees: 0 };
        let texts = drawn(|svg| svg.texts(&style, [([5.0, 50.0], "a\nb")]));
        assert!(texts.contains("<text x='5' y='43.5'><tspan x='5' dy='0'>a</tspan><tspan x='5' dy='13'>b</tspan>"));
    }

    #[test]
    fn many_cells_are_an_image() {
        let area = Area { x: 1.0, y: 2.0, width: 300.0, height: 300.0 };
        let cells = |n: usize| drawn(|svg| svg.cells(&Array2::from_elem((n, n), Some([1, 2, 3])), area));
        assert!(cells(100).starts_with("<g") && cells(1_000).starts_with("<image x='1' y='2' width='300'"));
        assert!(cells(1_000).len() < 20_000);
    }

    #[test]
    fn stacked_pictures_are_below_each_other() {
        let picture = |size| Svg::new(size, "a", FigureStyle::default()).finish();
        let stacked = stacked(&[picture([30, 10]), picture([20, 40])]);
        let document = roxmltree::Document::parse(&stacked).unwrap();
        let root = document.root_element();
        let numbers =
            |node: roxmltree::Node| ["y", "width", "height"].map(|name| node.attribute(name).map(str::to_owned));
        assert_eq!(numbers(root), [None, Some("30".into()), Some("50".into())]);
        let inner: Vec<_> = root.children().map(numbers).collect();
        let texts = |texts: [&str; 3]| texts.map(|text| Some(text.to_owned()));
        assert_eq!(inner, [texts(["0", "30", "10"]), texts(["10", "20", "40"])]);
    }

    #[test]
    fn lines_of_a_colour_share_a_path() {
        let lines = drawn(|svg| svg.lines([[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]], "#ddd", 1.5));
        assert_eq!(lines, "<path fill='none' stroke='#ddd' stroke-width='1.5' d='M0 1L2 3M4 5L6 7'/>");
    }
}
