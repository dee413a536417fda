//! Two columns of tokens, with a line for each pair whose opacity is the attention.

use super::patterns::Patterns;
use crate::plot::canvas::{Area, Axes};
use crate::plot::content::{Content, Drawn};
use crate::plot::fit;
use crate::plot::marks::{
    Control, Coordinate, Drawing, Horizontal, LABEL_SIZE, LINE_WIDTH, Layers, LegendEntry, Mark, Markers, Strokes,
    Symbol, Text, Title, Vertical, WIDTH,
};
use crate::plot::style::{Color, FigureStyle};
use crate::plot::text::number;

/// Maximum number of lines, which all heads share equally.
const MAX_LINES: usize = 6_000;
/// The least attention that is drawn.
const MIN_ATTENTION: f32 = 0.01;
/// The opacities that lines have: the nearest one to the attention.
const OPACITIES: [f64; 9] = [1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1, 0.05, 0.02];
/// Margins in pixels: left, right, bottom.
const MARGINS: [usize; 3] = [20, 110, 20];
/// Pixels for the menu above.
const MENU: f64 = 44.0;
/// Pixels from one token to the next, and the maximum for all of them.
const ROW: f64 = 20.0;
const MAX_HEIGHT: f64 = 1_400.0;
/// Pixels from a token's dot to its label, and the least distance of two labels.
const LABEL_DISTANCE: f64 = 10.0;
const LABEL_ROW: f64 = 14.0;
/// Maximum width of a label in characters.
const MAX_LABEL: usize = 20;
/// Number of other tokens in a hover text, for each head.
const IN_HOVER: usize = 3;

pub(super) struct AttentionLines {
    patterns: Patterns,
    /// The lines of each head, strongest first.
    heads: Vec<Vec<Pair>>,
    /// How many pairs are left out: of little attention, and beyond the maximum.
    left_out: [usize; 2],
}

#[derive(Clone, Copy)]
struct Pair {
    attention: f32,
    query: usize,
    key: usize,
}

impl AttentionLines {
    pub(super) fn new(patterns: Patterns) -> Self {
        let most = MAX_LINES / patterns.n_heads().max(1);
        let mut left_out = [0; 2];
        let heads = patterns.pattern.outer_iter().map(|pattern| {
            let pairs = pattern.indexed_iter().filter(|((query, key), _)| key <= query);
            let pairs = pairs.map(|((query, key), &attention)| Pair { attention, query, key });
            let (mut strong, weak): (Vec<Pair>, Vec<Pair>) = pairs.partition(|pair| pair.attention >= MIN_ATTENTION);
            strong.sort_by(|a, b| b.attention.total_cmp(&a.attention));
            left_out[0] += weak.len();
            left_out[1] += strong.len().saturating_sub(most);
            strong.truncate(most);
            strong
        });
        let heads = heads.collect();
        Self { patterns, heads, left_out }
    }

    fn title(&self) -> String {
        let Patterns { layer, caption, .. } = &self.patterns;
        let mut title =
            format!("Attention of layer {layer}{caption}, from each token on the left to those on the right");
        let [weak, more] = self.left_out;
        let mut notes = Vec::new();
        if weak > 0 {
            notes.push(format!("{weak} below {MIN_ATTENTION}"));
        }
        if more > 0 {
            notes.push(format!(
                "{more} others, all but the strongest {} of a head",
                MAX_LINES / self.heads.len().max(1)
            ));
        }
        if !notes.is_empty() {
            title += &format!("\nLines that are left out: {}", notes.join(", and "));
        }
        title
    }

    /// The lines of a head: a mark for each opacity, and one for the legend.
    fn layer(&self, head: usize) -> Vec<Mark> {
        let (name, color) = (format!("head {}", self.patterns.name(head)), Color::of_series(head, self.heads.len()));
        let strokes = |name: &str, strokes: Vec<Vec<[f64; 2]>>, opacity: f64| {
            let entry = LegendEntry { name: name.into(), color, symbol: Symbol::Circle };
            Mark::Strokes(Strokes { entry, strokes, width: LINE_WIDTH, opacity, group: Some(self.patterns.name(head)) })
        };
        // A line without length, which is not seen: the entries of the others would be as faint as they are.
        let mut marks = vec![strokes(&name, vec![vec![[0.0, 0.0]; 2]], 1.0)];
        for opacity in OPACITIES {
            let own = self.heads[head].iter().filter(|pair| nearest(pair.attention) == opacity);
            let lines: Vec<_> = own.map(|pair| vec![[0.0, pair.query as f64], [1.0, pair.key as f64]]).collect();
            if !lines.is_empty() {
                marks.push(strokes("", lines, opacity));
            }
        }
        marks
    }

    /// A dot for each token of a column, with what it attends to or what attends to it.
    fn dots(&self, side: usize) -> Mark {
        let pos = self.patterns.n_pos();
        let text = |at: usize| {
            let (role, verb) = [("query", "attends to"), ("key", "gets from")][side];
            let mut lines = vec![format!("{role} {} {verb}", self.patterns.position(at))];
            for head in 0..self.heads.len() {
                let pairs = self.heads[head].iter().filter(|pair| [pair.query, pair.key][side] == at).take(IN_HOVER);
                let other = |pair: &Pair| {
                    let position = self.patterns.position([pair.key, pair.query][side]);
                    format!("{position} {}", number(f64::from(pair.attention)))
                };
                let others: Vec<String> = pairs.map(other).collect();
                if !others.is_empty() {
                    lines.push(format!("{}: {}", self.patterns.name(head), others.join(", ")));
                }
            }
            lines.join("\n")
        };
        Mark::Markers(Markers {
            entry: LegendEntry { name: String::new(), color: Color::Faint, symbol: Symbol::Circle },
            points: (0..pos).map(|at| [side as f64, at as f64]).collect(),
            intervals: Vec::new(),
            labels: Vec::new(),
            hover: (0..pos).map(text).collect(),
        })
    }

    /// The labels of a column; of many tokens, every second one, and so on.
    fn labels(&self, side: usize, row: f64) -> impl Iterator<Item = Mark> {
        let step = (LABEL_ROW / row).ceil().max(1.0) as usize;
        let of = [(Horizontal::Right, -LABEL_DISTANCE), (Horizontal::Left, LABEL_DISTANCE)];
        self.patterns.labels.iter().enumerate().step_by(step).map(move |(at, label)| {
            let (horizontal, shift) = of[side];
            Mark::Text(Text {
                x: Coordinate::Value(side as f64),
                y: Coordinate::Value(at as f64),
                shift: [shift, 0.0],
                horizontal: Some(horizontal),
                vertical: Some(Vertical::Middle),
                ..Text::new(fit::shortened(label, MAX_LABEL), LABEL_SIZE, Color::Text)
            })
        })
    }
}

/// The nearest opacity to an attention.
fn nearest(attention: f32) -> f64 {
    let distance = |opacity: &f64| (opacity - f64::from(attention)).abs();
    OPACITIES.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("there are opacities")
}

impl Content for AttentionLines {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let [left, right, bottom] = MARGINS;
        let width = style.size.map_or(WIDTH, |[width, _]| width);
        let title = Title::new(&self.title(), width);
        let top = (title.bottom() + MENU).round();
        let pos = self.patterns.n_pos().max(1) as f64;
        let given = style.size.map(|[_, height]| (height as f64 - top - bottom as f64).max(20.0));
        let inner = given.unwrap_or((ROW * pos).clamp(60.0, MAX_HEIGHT).round());
        let height = style.size.map_or(top as usize + inner as usize + bottom, |[_, height]| height);
        let margins = [left, right.min(width / 3), (top as usize).min(height / 2), bottom];
        let area = Area::between(margins, [width, height]);
        // Room for the labels at both ends of the axis.
        let longest = self.patterns.labels.iter().map(|label| fit::width(label).min(MAX_LABEL)).max().unwrap_or(0);
        let label = (longest as f64 * 0.62 * LABEL_SIZE as f64 + LABEL_DISTANCE + 4.0).min(area.width / 3.0);
        let beside = label / (area.width - 2.0 * label);
        let mut axes = Axes { area, square: false, ..Axes::of_cells((self.patterns.n_pos(), 1), area) };
        axes.x.range = [-beside, 1.0 + beside];
        let row = area.height / pos;

        let mut marks = vec![self.dots(0), self.dots(1)];
        marks.extend((0..2).flat_map(|side| self.labels(side, row)));
        let heads = 0..self.heads.len();
        let one = |head: usize| (format!("head {}", self.patterns.name(head)), vec![head]);
        let choices = std::iter::once(("all heads".to_owned(), heads.clone().collect())).chain(heads.clone().map(one));
        Drawn::Marks(Drawing {
            title: Some(title),
            axes: vec![axes],
            marks,
            legend: true,
            layers: Some(Box::new(Layers {
                marks: heads.map(|head| self.layer(head)).collect(),
                control: Control::Menu,
                choices: choices.collect(),
                first: 0,
            })),
            ..Drawing::new([width, height], margins, self.describe())
        })
    }

    fn describe(&self) -> String {
        let (heads, lines) = (self.heads.len(), self.heads.iter().map(Vec::len).sum::<usize>());
        format!("lines between tokens: {}; {heads} heads, {lines} lines", self.title())
    }

    fn kind(&self) -> &'static str {
        "lines between tokens"
    }
}
