//! Tables of tokens and numbers, as HTML and as text.

use std::fmt;

use super::text::escape_xml;
use crate::attention_tokens::PromptHeadData;
use crate::evcxr;
use crate::terminal::without_controls;

/// Maximum number of rows that a table shows.
const MAX_ROWS: usize = 1_000;
/// Maximum number of positions of a prompt whose attention tokens are all in a table, and the number of first and of
/// last ones that are left of more.
const MAX_POSITIONS: usize = 128;
const KEPT_POSITIONS: usize = 48;
/// In place of the rows and columns that are left out.
const LEFT_OUT: &str = "…";

/// Classes at which MathJax 2 and 3 leave a `$` alone.
const NO_FORMULAS: &str = "tex2jax_ignore mathjax_ignore";
/// Style of the names of rows, which stay in view when one scrolls.
const ROW_NAME: &str = "position:sticky;left:0;background:var(--jp-layout-color0,Canvas);";
/// Style of the names of columns.
const COLUMN_NAME: &str = "position:sticky;top:0;background:var(--jp-layout-color0,Canvas);";

/// A table of texts, which a notebook shows as the last expression of a cell.
#[derive(Clone, Debug)]
pub struct Table {
    caption: String,
    header: Vec<String>,
    /// The first text of a row is its header. Rows may be shorter than the table's header.
    rows: Vec<Vec<String>>,
    /// Whether every column is text, even if it has digits alone.
    is_text: bool,
}

impl Table {
    pub(crate) fn new(caption: impl Into<String>, header: &[&str], rows: Vec<Vec<String>>) -> Self {
        let header = header.iter().map(|&name| name.into()).collect();
        Self { caption: caption.into(), header, rows, is_text: false }
    }

    /// The attention tokens of a head on a prompt: a row for each query position, a column for each key position. A cell
    /// has the best token, or all of them if there are more than two, and, after a minus sign, the token that it writes
    /// against, where the reading has one.
    pub(crate) fn of_attention_tokens(data: &PromptHeadData) -> Self {
        let pos = data.n_pos();
        let label = |token: u32| data.token_label(token);
        let shown: Vec<Option<usize>> = if pos <= MAX_POSITIONS {
            (0..pos).map(Some).collect()
        } else {
            (0..KEPT_POSITIONS).map(Some).chain([None]).chain((pos - KEPT_POSITIONS..pos).map(Some)).collect()
        };
        let cell = |query: usize, key: usize| {
            let row = data.cell(query, key)?;
            let tokens = data.qk.tokens.row(row);
            let n = if tokens.len() > 2 { tokens.len() } else { 1 };
            let written = tokens.iter().take(n).map(|&token| label(token));
            let against = data.lowest.iter().map(|lowest| format!("−{}", label(lowest.tokens[[row, 0]])));
            Some(written.chain(against).collect::<Vec<_>>().join(" ¦ "))
        };
        let row = |query: &Option<usize>| match query {
            None => vec![LEFT_OUT.to_owned()],
            Some(query) => {
                let cells = shown.iter().map_while(|key| match key {
                    Some(key) => cell(*query, *key),
                    None if *query >= KEPT_POSITIONS => Some(LEFT_OUT.to_owned()),
                    None => None,
                });
                std::iter::once(label(data.input[*query])).chain(cells).collect()
            }
        };
        let left_out = pos - shown.iter().flatten().count();
        let caption = data.caption();
        let keys = shown.iter().map(|key| key.map_or(LEFT_OUT.to_owned(), |key| label(data.input[key])));
        Self {
            caption: match left_out {
                0 => format!("Attention tokens of {caption}"),
                n => format!(
                    "Attention tokens of {caption}; the first and the last {KEPT_POSITIONS} of {pos} positions, {n} are \
                     left out (write_csv writes all)"
                ),
            },
            header: std::iter::once("query \\ key".to_owned()).chain(keys).collect(),
            rows: shown.iter().map(row).collect(),
            is_text: true,
        }
    }

    /// The texts row by row, without the table's header.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The names of the columns.
    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// The rows that are shown, and the caption, which says how many are not.
    fn shown(&self) -> (String, &[Vec<String>]) {
        let n = self.rows.len();
        match self.rows.get(..MAX_ROWS) {
            Some(shown) if n > MAX_ROWS => (format!("{}; the first {MAX_ROWS} of {n} rows", self.caption), shown),
            _ => (self.caption.clone(), &self.rows),
        }
    }

    /// Whether all texts of a column are numbers. The first column has names.
    fn is_of_numbers(&self, column: usize) -> bool {
        let mut texts = self.rows.iter().filter_map(|row| row.get(column)).filter(|text| !text.is_empty()).peekable();
        !self.is_text
            && column > 0
            && texts.peek().is_some()
            && texts.all(|text| text.trim_end_matches('%').replace('−', "-").parse::<f64>().is_ok())
    }

    /// The table as text, with aligned columns: numbers on the right, everything else on the left. Control characters are
    /// written out (`\n`, `\u{1b}`): no text can act on a terminal.
    pub fn to_text(&self) -> String {
        let (caption, shown) = self.shown();
        let row = |row: &Vec<String>| row.iter().map(|text| without_controls(text, &[])).collect::<Vec<String>>();
        let rows: Vec<Vec<String>> = std::iter::once(&self.header).chain(shown).map(row).collect();
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max();
        let columns: Vec<(usize, bool)> =
            (0..self.header.len()).map(|column| (width(column).unwrap_or(0), self.is_of_numbers(column))).collect();
        let line = |row: &Vec<String>| {
            let cell = |(text, &(width, right)): (&String, &(usize, bool))| {
                // A width of `format!` has at most 16 bits.
                let space = " ".repeat(width - text.chars().count());
                if right { space + text } else { format!("{text}{space}") }
            };
            let cells: Vec<String> = row.iter().zip(&columns).map(cell).collect();
            format!("{}\n", cells.join(" │ ").trim_end())
        };
        format!("{}\n{}", without_controls(&caption, &[]), rows.iter().map(line).collect::<String>())
    }

    /// The table as HTML. Pasted from a browser into a spreadsheet, it fills cells. No text in it becomes a formula. A wide
    /// or long table scrolls, with the names of its rows and columns in view.
    pub fn to_html(&self) -> String {
        let (caption, shown) = self.shown();
        let aligns: Vec<&str> =
            (0..self.header.len()).map(|column| if self.is_of_numbers(column) { "right" } else { "left" }).collect();
        let align = |column: usize| aligns.get(column).copied().unwrap_or("left");
        let cell = |tag: &str, style: &str, column: usize, text: &String| {
            format!("<{tag} style='{style}white-space:pre;text-align:{}'>{}</{tag}>", align(column), written(text))
        };
        let rows = shown.iter().map(|row| {
            let cells = row.iter().enumerate().map(|(column, text)| match column {
                0 => cell("th", ROW_NAME, column, text),
                _ => cell("td", "", column, text),
            });
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        });
        let header = self.header.iter().enumerate().map(|(column, text)| match column {
            0 => cell("th", &format!("{ROW_NAME}top:0;z-index:1;"), column, text),
            _ => cell("th", COLUMN_NAME, column, text),
        });
        let header: String = header.collect();
        format!(
            "<div class='{NO_FORMULAS}' style='overflow:auto;max-height:640px'>\
             <table class='dataframe {NO_FORMULAS}'><caption style='text-align:left'>{}</caption>\n\
             <thead><tr>{header}</tr></thead>\n<tbody>{}</tbody></table></div>",
            written(&caption),
            rows.collect::<String>()
        )
    }

    /// Shows the table in an evcxr notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        evcxr::show(&[("text/html", &self.to_html()), ("text/plain", &self.to_text())]);
    }
}

/// Text as HTML, in which a `$` cannot begin a formula: where a page knows none of the classes, it is in an element of
/// its own.
fn written(text: &str) -> String {
    escape_xml(text).replace('$', "<span>$</span>")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|&text| text.into()).collect()).collect()
    }

    #[test]
    fn numbers_are_on_the_right_and_texts_on_the_left() {
        let table =
            Table::new("$ caption", &["head", "n", "tokens"], rows(&[&["0.1", "3", "$x$"], &["0.2", "−12.5%", ""]]));
        let lines: Vec<String> = table.to_text().lines().map(str::to_owned).collect();
        assert_eq!(lines[2..], ["0.1  │      3 │ $x$", "0.2  │ −12.5% │"]);
        let html = table.to_html();
        assert!(html.contains("text-align:right'>3</td>") && html.contains("text-align:left'><span>$</span>x"));
        assert!(html.contains("position:sticky;left:0") && html.contains("position:sticky;top:0"));
        assert_eq!(html.matches('$').count(), html.matches("<span>$</span>").count());
        assert_eq!(html.matches("mathjax_ignore").count(), 2);
    }

    #[test]
    fn any_text_is_aligned_and_none_acts_on_a_terminal() {
        let long = "x".repeat(70_000);
        let table = Table::new(
            "a\u{1b}[2J caption",
            &["head", "token"],
            rows(&[&["0.1", &long], &["0.2", "\u{1b}[31m\n\u{7f}\u{9b}"]]),
        );
        let text = table.to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[2].len()), (4, 4 + " │ ".len() + 70_000));
        assert_eq!((lines[0], lines[3]), (r"a\u{1b}[2J caption", r"0.2  │ \u{1b}[31m\n\u{7f}\u{9b}"));
    }

    #[test]
    fn a_long_table_says_how_many_rows_it_leaves_out() {
        let table = Table::new("long", &["n"], (0..1_500).map(|n| vec![n.to_string()]).collect());
        assert_eq!((table.to_text().lines().count(), table.rows().len()), (1 + 1 + 1_000, 1_500));
        assert!(table.to_html().contains("long; the first 1000 of 1500 rows"));
    }
}
