//! A receipt as a table, a figure and a file.

use std::path::Path;

use super::contributor::Contributor;
use super::lines::{Receipt, ReceiptLine};
use crate::analysis::bound_of;
use crate::error::Result;
use crate::experiments::source_of;
use crate::files::replace;
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, Series, Table, signed};

/// The columns of a CSV file.
const COLUMNS: [&str; 18] = [
    "contributor",
    "layer",
    "head",
    "key",
    "key_token",
    "attn",
    "said",
    "said_id",
    "written",
    "written_id",
    "lowest",
    "lowest_id",
    "logits",
    "right",
    "wrong",
    "position",
    "said_reading",
    "interventions",
];
/// The colours of bars that raise the right answer above the wrong one, and of the others: the ends of the scale `RdBu`.
const RAISES: Color = Color::Rgb([178, 24, 43]);
const LOWERS: Color = Color::Rgb([33, 102, 172]);

impl Receipt {
    /// The lines that are [`shown`](Self::shown), the sum of the others, and the check: the sum of all lines, the logit
    /// difference of the model, and a bound of the difference of the two.
    pub fn table(&self) -> Table {
        let label = |token: u32| self.model.token_labels().label(token);
        let row = |line: &ReceiptLine| {
            let words = match line.cell {
                Some(cell) => [
                    label(cell.key_token),
                    format!("{:.3}", cell.attention),
                    label(cell.said),
                    label(cell.written),
                    label(cell.lowest),
                ],
                None => Default::default(),
            };
            [line.contributor.to_string()].into_iter().chain(words).chain([signed(line.logits, 4)]).collect()
        };
        let last = |name: String, number: String| {
            let mut row = vec![String::new(); 7];
            (row[0], row[6]) = (name, number);
            row
        };
        let mut rows: Vec<Vec<String>> = self.shown().iter().map(row).collect();
        let further = self.further();
        if !further.is_empty() {
            let sum: f64 = further.iter().map(|line| line.logits).sum();
            rows.push(last(further_lines(further.len()), signed(sum, 4)));
        }
        rows.extend([
            last("sum of all lines".into(), signed(self.total(), 4)),
            last("logit difference of the model".into(), signed(self.logit_diff, 4)),
            last("difference of the two".into(), format!("within {}", bound_of(self.remainder().abs() as f32))),
        ]);
        let header = ["line", "key's token", "attention", "says", "writes", "writes against", "logits"];
        let share = 100.0 * self.options.share;
        let caption = format!("{}; lines with {share:.0}% of all sizes; says: {}", self.caption(), self.options.said);
        Table::new(caption, &header, rows)
    }

    /// The lines that are [`shown`](Self::shown) as bars, and one for the sum of the others; red raises the right answer above
    /// the wrong one, blue lowers it.
    pub fn plot(&self) -> Figure {
        let label = |token: u32| self.model.token_labels().label(token);
        let name = |line: &ReceiptLine| match (line.contributor, line.cell) {
            (Contributor::Cell { layer, head, key }, Some(cell)) => {
                format!("{layer}.{head} ← {key} {}", label(cell.key_token))
            }
            (contributor, _) => contributor.to_string(),
        };
        let text = |line: &ReceiptLine| {
            let mut text = format!("{}\n{}", signed(line.logits, 4), name(line));
            if let Some(cell) = line.cell {
                let (said, written, lowest) = (label(cell.said), label(cell.written), label(cell.lowest));
                text += &format!("\nsays {said}\nwrites {written}, against {lowest}\nattention {:.4}", cell.attention);
            }
            text
        };
        let mut bars: Vec<(String, f64, String)> =
            self.shown().iter().map(|line| (name(line), line.logits, text(line))).collect();
        let further = self.further();
        if !further.is_empty() {
            let (name, sum) = (further_lines(further.len()), further.iter().map(|line| line.logits).sum::<f64>());
            bars.push((name.clone(), sum, format!("{}\n{name}", signed(sum, 4))));
        }
        let series = |name: &str, color: Color, symbol: usize, is_of: fn(f64) -> bool| {
            let own = || bars.iter().enumerate().filter(|(_, (_, logits, _))| is_of(*logits));
            let points = own().map(|(row, (_, logits, _))| [*logits, row as f64]).collect();
            let texts = own().map(|(_, (.., text))| text.clone()).collect();
            Series { texts, symbol, ..Series::new(name, Form::Bars, color, points) }
        };
        let chart = Chart {
            title: format!("{}; the sum of all lines is {}", self.caption(), signed(self.total(), 3)),
            x: ChartAxis::linear("logits"),
            y: ChartAxis::names("line", bars.iter().map(|(name, ..)| name.clone())),
            series: vec![
                series("raises", RAISES, 0, |logits| logits >= 0.0),
                series("lowers", LOWERS, 1, |logits| logits < 0.0),
            ],
        };
        chart.figure()
    }

    /// Writes every line as CSV, the largest first, with names in the first row:
    ///
    /// | columns | |
    /// |---|---|
    /// | `contributor` | `cell`, `mlp`, `embed`, `pos_embed`, `b_O`, `interventions`, `ln_final_b`, `b_U` |
    /// | `layer`, `head`, `key`, `key_token`, `attn` | the source of the line; empty where it has none |
    /// | `said`, `said_id`, `written`, `written_id`, `lowest`, `lowest_id` | the words of a cell |
    /// | `logits` | what it writes; the sum of the column is the logit difference |
    /// | `right`, `wrong`, `position`, `said_reading`, `interventions` | the same in every row |
    ///
    /// In pandas: `pandas.read_csv(path, keep_default_na=False)`, because a token may be `NA` or `null`.
    ///
    /// A spreadsheet takes a text that begins with `=`, `+`, `-` or `@` for a formula: import the columns of texts as text, or use
    /// [`Table::write_csv_for_spreadsheets`](crate::Table::write_csv_for_spreadsheets).
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write), naming the file.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        replace(path.as_ref(), |path| self.csv(path))
    }

    fn csv(&self, path: &Path) -> Result<(), csv::Error> {
        let labels = self.model.token_labels();
        let mut csv = csv::Writer::from_path(path)?;
        csv.write_record(COLUMNS)?;
        let word = |token: Option<u32>| (token.map(|token| labels.text(token)), token);
        let [right, wrong] = self.answers.map(|token| labels.text(token));
        let interventions: Vec<String> = self.model.interventions().iter().map(ToString::to_string).collect();
        let (reading, interventions) = (self.options.said.to_string(), interventions.join("; "));
        for line in &self.lines {
            let cell = line.cell;
            let words = cell.map_or([None; 3], |cell| [cell.said, cell.written, cell.lowest].map(Some));
            csv.serialize((
                (line.contributor.kind(), line.contributor.place()),
                (cell.map(|cell| labels.text(cell.key_token)), cell.map(|cell| cell.attention)),
                words.map(word),
                line.logits,
                (&right, &wrong, self.position, &reading, &interventions),
            ))?;
        }
        Ok(csv.flush()?)
    }

    /// What the receipt is of, for captions.
    pub(super) fn caption(&self) -> String {
        let labels = self.model.token_labels();
        let [right, wrong] = self.answers.map(|token| labels.label(token));
        let (position, token) = (self.position, labels.label(self.input[self.position]));
        let model = source_of(&self.model);
        format!("Receipt{model}: logit of {right} minus {wrong}, at position {position} {token}")
    }

    /// Shows the table in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.table().evcxr_display();
    }
}

/// `1 further line`, `12 further lines`.
fn further_lines(n: usize) -> String {
    format!("{n} further {}", if n == 1 { "line" } else { "lines" })
}
