//! The pairs of a head as a figure with a menu, and as a table.

use super::of_head::{SaidWrittenNeeded, WRITTEN, target_name};
use crate::error::{Error, Result};
use crate::experiments::source_of;
use crate::plot::{ChartAxis, Figure, LabelMenu, Labels, MatrixChart, Table, signed};

/// Maximum number of positions in a figure: it has three texts for each cell.
const MAX_POSITIONS: usize = 128;
/// Number of pairs in the table that stands for a figure that is too large.
const IN_TABLE: usize = 20;

impl SaidWrittenNeeded {
    /// The pairs as a triangle of queries and keys, with a menu that chooses the labels of the cells: what each pair says, what
    /// it writes, or how much it is needed. The colours stay: red is a pair without which the logit falls, blue one without
    /// which it rises. A hover text has all of a pair. Works without a kernel; a static picture shows what pairs say.
    ///
    /// # Errors
    /// [`Error::Count`] for more than 128 positions; [`top`](Self::top) has no limit.
    pub fn plot(&self) -> Result<Figure> {
        let pos = self.input.len();
        if pos > MAX_POSITIONS {
            return Err(Error::Count {
                function: "SaidWrittenNeeded::plot",
                what: "positions".into(),
                found: pos,
                min: 1,
                max: Some(MAX_POSITIONS),
                hint: Some("take a shorter prompt, or the table of top(n)"),
            });
        }
        let labels = self.model.token_labels();
        let word = |token: Option<u32>| token.map_or_else(String::new, |token| labels.label(token));
        let cells = || (0..pos).flat_map(|query| (0..pos).map(move |key| [query, key]));
        let positions = |title: &str| {
            let names = self.input.iter().enumerate().map(|(pos, &token)| format!("{pos} {}", labels.label(token)));
            ChartAxis::names(title, names)
        };
        let hover = |at: [usize; 2]| match self.said[at] {
            None => String::new(),
            said => format!(
                "needed {}\nsays {}\nwrites {}\nquery {} {}, key {} {}\nattention {:.4}",
                signed(self.needed[at], 4),
                word(said),
                word(self.written[at]),
                at[0],
                labels.label(self.input[at[0]]),
                at[1],
                labels.label(self.input[at[1]]),
                self.attn[at]
            ),
        };
        let largest = self.needed.iter().filter(|x| x.is_finite()).fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let choice = |name: &str, what: &str, texts: Vec<String>| Labels {
            name: name.into(),
            title: format!(
                "Head {}.{}{}: labels are {what}; colours are the {} that is lost without the pair",
                self.layer,
                self.head,
                self.source(),
                self.target()
            ),
            texts,
        };
        let number = |at: [usize; 2]| self.said[at].map_or_else(String::new, |_| signed(self.needed[at], 2));
        let said = choice("said", &format!("said ({})", self.reading), cells().map(|at| word(self.said[at])).collect());
        let written =
            choice("written", &format!("written ({WRITTEN})"), cells().map(|at| word(self.written[at])).collect());
        let needed = choice("needed", "needed (in logits)", cells().map(number).collect());
        let matrix = MatrixChart {
            title: String::new(),
            rows: positions("query"),
            columns: positions("key"),
            labels: Vec::new(),
            texts: cells().map(hover).collect(),
            scale: ("lost".into(), [-largest, largest]),
            values: self.needed.clone(),
        };
        Ok(LabelMenu { matrix, choices: vec![said, written, needed] }.diverging_figure())
    }

    /// The `n` pairs without which the logit changes most, with what they say and write.
    pub fn top(&self, n: usize) -> Table {
        let labels = self.model.token_labels();
        let mut pairs: Vec<((usize, usize), f32)> =
            self.needed.indexed_iter().filter(|(_, x)| !x.is_nan()).map(|(at, &x)| (at, x)).collect();
        pairs.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
        let row = |&((query, key), needed): &((usize, usize), f32)| {
            let word = |token: Option<u32>| token.map_or_else(String::new, |token| labels.label(token));
            vec![
                format!("{query} {}", labels.label(self.input[query])),
                format!("{key} {}", labels.label(self.input[key])),
                format!("{:.3}", self.attn[[query, key]]),
                word(self.said[[query, key]]),
                word(self.written[[query, key]]),
                signed(needed, 4),
            ]
        };
        let header = ["query", "key", "attention", "says", "writes", "needed"];
        let caption = format!(
            "The {} most needed of {} pairs of head {}.{}{}: {}, {} in the whole model; says: {}",
            n.min(pairs.len()),
            pairs.len(),
            self.layer,
            self.head,
            self.source(),
            self.target(),
            signed(self.unchanged, 3),
            self.reading
        );
        Table::new(caption, &header, pairs.iter().take(n).map(row).collect())
    }

    /// What is measured, in words.
    fn target(&self) -> String {
        target_name(&self.model.token_labels(), self.right, self.wrong)
    }

    /// The model and its interventions: the end of a caption.
    fn source(&self) -> String {
        source_of(&self.model)
    }

    /// Shows the figure in a notebook, or a table if the prompt is too long for one; evcxr calls this for a cell's last
    /// expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        match self.plot() {
            Ok(figure) => figure.evcxr_display(),
            Err(_) => self.top(IN_TABLE).evcxr_display(),
        }
    }
}
