//! The tokens of a prompt, shaded by the attention that one of them pays to the others.

use ndarray::Array2;

use super::patterns::Patterns;
use crate::error::{Error, Result};
use crate::plot::canvas::{Area, Axes};
use crate::plot::content::{Content, Drawn};
use crate::plot::fit;
use crate::plot::marks::{
    CellBlock, Cells, Control, Coordinate, Drawing, Hover, LABEL_SIZE, LINE_WIDTH, Layers, LegendEntry, Mark,
    MenuChoice, Paint, Precision, Strokes, Symbol, Text, Title, Vertical, WIDTH,
};
use crate::plot::style::{Color, FigureStyle, Theme, evenly, gradient};

/// Maximum number of pairs of positions in all heads together; each takes about 7 bytes of a notebook.
const MAX_PAIRS: usize = 150_000;
/// The margins on both sides in pixels.
const SIDE: usize = 20;
/// Height of a line of tokens, and the least and greatest width of a column.
const LINE: f64 = 34.0;
const COLUMN: [f64; 2] = [34.0, 120.0];
/// Width of a token in characters beyond which it is broken into lines, and of a character in font sizes.
const MAX_LABEL: usize = 14;
const CHARACTER: f64 = 0.65;
/// Pixels for the menu above the tokens, and for the slider below.
const MENU: f64 = 44.0;
const SLIDER: usize = 100;
/// Maximum width of the name of a step of the slider in characters.
const MAX_STEP: usize = 16;
/// Number of steps between which shades are interpolated.
const SHADES: usize = 20;
/// The pointer's text on a token.
const TEMPLATE: &str = "attention %{z}<br>%{hovertext}<extra></extra>";

pub(super) struct OverTokens {
    patterns: Patterns,
}

/// Where the tokens are.
struct Lines {
    columns: usize,
    n: usize,
    /// Width and height of a token in pixels.
    cell: [f64; 2],
}

impl OverTokens {
    /// # Errors
    /// [`Error::Count`] for too many pairs of positions.
    pub(super) fn new(patterns: Patterns) -> Result<Self> {
        let (heads, pos) = (patterns.n_heads(), patterns.n_pos());
        if heads * pos * pos > MAX_PAIRS {
            return Err(Error::Count {
                function: patterns.function,
                what: format!("pairs of positions of {heads} heads with {pos} positions"),
                found: heads * pos * pos,
                min: 1,
                max: Some(MAX_PAIRS),
                hint: Some("take a shorter prompt; plot_attention and plot_attention_lines draw longer ones"),
            });
        }
        Ok(Self { patterns })
    }

    fn title(&self, head: usize) -> String {
        let (name, caption) = (self.patterns.name(head), &self.patterns.caption);
        format!("Attention of head {name}{caption}: the framed token attends to the shaded ones")
    }

    /// The name of a step of the slider, which is centred below it.
    fn step(&self, query: usize) -> String {
        fit::shortened(&self.patterns.position(query), MAX_STEP)
    }

    /// The tokens in lines of a figure of this width, and of this height if it was chosen.
    fn lines(&self, width: f64, height: Option<f64>) -> Lines {
        let longest = self.patterns.labels.iter().map(|label| fit::width(label).min(MAX_LABEL)).max().unwrap_or(1);
        let column = (longest as f64 * CHARACTER * LABEL_SIZE as f64 + 10.0).clamp(COLUMN[0], COLUMN[1]);
        let pos = self.patterns.n_pos().max(1);
        let columns = ((width / column).floor() as usize).clamp(1, pos);
        let n = pos.div_ceil(columns);
        let line = height.map_or(LINE, |height| height / n as f64);
        Lines { columns, n, cell: [column.min(width / columns as f64), line] }
    }

    /// The theme's shades from no attention to all of it, on which its texts have a contrast of at least 5, and the shade of
    /// tokens after the framed one. They grow with the square root of the attention: most of it is small.
    fn shades(style: FigureStyle) -> (Vec<[u8; 3]>, [u8; 3]) {
        let (from_none, after) = match style.theme() {
            Theme::Dark => (vec![[0x11, 0x11, 0x11], [0, 0x48, 0x70], [0, 0x72, 0xb2]], [0x33; 3]),
            Theme::Light | Theme::Transparent => {
                (vec![[0xff, 0xff, 0xff], [0xf3, 0xb0, 0x4d], [0xd5, 0x5e, 0]], [0xe4; 3])
            }
        };
        let shade = gradient(evenly(&from_none));
        ((0..=SHADES).map(|step| shade((step as f64 / SHADES as f64).sqrt())).collect(), after)
    }

    fn cells(&self, values: Array2<f64>, paint: Paint, hover: Hover) -> Mark {
        Mark::Cells(Cells {
            axes: 0,
            dim: values.dim(),
            blocks: vec![CellBlock { at: (0, 0), values }],
            paint,
            precision: Precision::Thousandths,
            hover,
            labels: None,
            color_bar: None,
        })
    }

    /// A value for each token in its place, NaN beyond the last one.
    fn in_lines(&self, lines: &Lines, value: impl Fn(usize) -> f64) -> Array2<f64> {
        Array2::from_shape_fn((lines.n, lines.columns), |(line, column)| {
            let pos = line * lines.columns + column;
            if pos < self.patterns.n_pos() { value(pos) } else { f64::NAN }
        })
    }

    /// The tokens shaded by the attention that one of them pays to those before it.
    fn shaded(&self, head: usize, query: usize, lines: &Lines, shades: &[[u8; 3]], hover: Hover) -> Mark {
        let attention = |key| f64::from(self.patterns.pattern[[head, query, key]]);
        self.cells(self.in_lines(lines, attention), Paint::Shades(shades.to_vec()), hover)
    }

    /// The label of each token in its place, in one line or more; one that does not fit is cut.
    fn texts(&self, lines: &Lines, style: FigureStyle) -> impl Iterator<Item = Mark> {
        let labels = &self.patterns.labels;
        let fitted = fit::fit(labels, lines.cell);
        let size = fitted.size.min(LABEL_SIZE + 2);
        let room = (lines.cell[0] / CHARACTER / size as f64).floor() as usize;
        let text = move |(fitted, label): (String, &String)| {
            if fitted.is_empty() { fit::shortened(label, room.max(2)) } else { fitted }
        };
        let texts: Vec<String> = fitted.texts.into_iter().zip(labels).map(text).collect();
        let color = if style.theme() == Theme::Dark { Color::White } else { Color::Black };
        let columns = lines.columns;
        texts.into_iter().enumerate().map(move |(pos, text)| {
            Mark::Text(Text {
                x: Coordinate::Value((pos % columns) as f64),
                y: Coordinate::Value((pos / columns) as f64),
                vertical: Some(Vertical::Middle),
                ..Text::new(text, size, color)
            })
        })
    }

    /// A frame around a token.
    fn frame(pos: usize, lines: &Lines) -> Mark {
        let (x, y) = ((pos % lines.columns) as f64, (pos / lines.columns) as f64);
        let [left, right, top, bottom] = [x - 0.47, x + 0.47, y - 0.44, y + 0.44];
        let stroke = vec![[left, top], [right, top], [right, bottom], [left, bottom], [left, top]];
        let entry = LegendEntry { name: String::new(), color: Color::Text, symbol: Symbol::Circle };
        Mark::Strokes(Strokes { entry, strokes: vec![stroke], width: LINE_WIDTH, opacity: 1.0, group: None })
    }
}

impl Content for OverTokens {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let width = style.size.map_or(WIDTH, |[width, _]| width);
        // All titles have the same length, up to the digits of the head.
        let title = Title::new(&self.title(self.patterns.n_heads() - 1), width);
        let top = (title.bottom() + MENU).round();
        // In a small figure, each of them has its share of the height.
        let [top, below] = match style.size {
            Some([_, height]) => [top.min((height / 2) as f64), SLIDER.min(height / 4) as f64],
            None => [top, SLIDER as f64],
        };
        let inner = (width - 2 * SIDE) as f64;
        let lines = self.lines(inner, style.size.map(|[_, height]| height as f64 - top - below));
        let area = Area {
            x: SIDE as f64,
            y: top,
            width: lines.columns as f64 * lines.cell[0],
            height: lines.n as f64 * lines.cell[1],
        };
        let height = style.size.map_or((area.bottom() + below).round() as usize, |[_, height]| height);
        let right = width - SIDE - area.width.round() as usize;
        let margins = [SIDE, right, top as usize, height - area.bottom().round() as usize];
        let axes = Axes { area, square: false, ..Axes::of_cells((lines.n, lines.columns), area) };
        let (shades, after) = Self::shades(style);

        let background = self.cells(self.in_lines(&lines, |_| 0.0), Paint::Shades(vec![after; 2]), Hover::Skip);
        let pos = self.patterns.n_pos();
        let layer = |query: usize| {
            let text =
                |key: usize| if key > query { String::new() } else { format!("key {}", self.patterns.position(key)) };
            let texts = (0..lines.n * lines.columns).map(|key| if key < pos { text(key) } else { String::new() });
            let hover = Hover::Template(TEMPLATE, texts.collect());
            vec![self.shaded(0, query, &lines, &shades, hover), Self::frame(query, &lines)]
        };
        let choice = |head: usize| MenuChoice {
            name: format!("head {}", self.patterns.name(head)),
            title: Title::new(&self.title(head), width).text,
            marks: std::iter::once(background.clone())
                .chain((0..pos).map(|query| self.shaded(head, query, &lines, &shades, Hover::Skip)))
                .collect(),
        };
        Drawn::Marks(Drawing {
            title: Some(Title::new(&self.title(0), width)),
            axes: vec![axes],
            marks: std::iter::once(background.clone()).chain(self.texts(&lines, style)).collect(),
            menu: (0..self.patterns.n_heads()).map(choice).collect(),
            layers: Some(Box::new(Layers {
                marks: (0..pos).map(layer).collect(),
                control: Control::Slider("the framed token: "),
                choices: (0..pos).map(|query| (self.step(query), vec![query])).collect(),
                first: pos - 1,
            })),
            ..Drawing::new([width, height], margins, self.describe())
        })
    }

    fn describe(&self) -> String {
        let (heads, pos) = (self.patterns.n_heads(), self.patterns.n_pos());
        let last = self.patterns.position(pos - 1);
        format!(
            "text of {pos} tokens with a menu of {heads} heads and a slider of tokens; shown first: {}, from {last}",
            self.title(0)
        )
    }

    fn kind(&self) -> &'static str {
        "a text shaded by attention"
    }
}
