//! A head's attention tokens as a table, to read and to copy.

use std::fmt;

use super::svg::escape;
use crate::attention_tokens::PromptHeadData;
use crate::evcxr;

/// The attention tokens of a head on a prompt: a row for each query position, a column for each key position. It shows itself
/// as the last expression of a cell: as HTML, and as text.
#[derive(Clone, Debug)]
pub struct AttentionTable {
    /// Which head, and how its tokens were decoded.
    caption: String,
    /// The input tokens, by position.
    input: Vec<String>,
    /// The attention tokens of each query position, for key ≤ query.
    rows: Vec<Vec<String>>,
}

impl AttentionTable {
    pub(crate) fn new(data: &PromptHeadData) -> Self {
        let label = |token: u32| data.token_label(token);
        let rows = data.attention_tokens();
        Self {
            caption: data.caption(),
            input: data.input.iter().map(|&token| label(token)).collect(),
            rows: rows.outer_iter().map(|row| row.iter().flatten().map(|&token| label(token)).collect()).collect(),
        }
    }

    /// The table as text: columns in line, keys above, queries to the left.
    pub fn to_text(&self) -> String {
        let head = std::iter::once("query \\ key".to_owned()).chain(self.input.iter().cloned()).collect();
        let body = self.input.iter().zip(&self.rows).map(|(query, tokens)| {
            let row: Vec<String> = std::iter::once(query.clone()).chain(tokens.iter().cloned()).collect();
            row
        });
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(body).collect();
        let wide = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max();
        let widths: Vec<usize> = (0..=self.input.len()).map(|column| wide(column).unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(text, &width)| format!("{text:width$}")).collect();
            format!("{}\n", cells.join(" │ ").trim_end())
        };
        format!("{}\n{}", self.caption, rows.iter().map(line).collect::<String>())
    }

    /// The table as HTML; copied from a browser, it falls into the cells of a spreadsheet.
    pub fn to_html(&self) -> String {
        let cells = |tag: &str, texts: &[String]| -> String {
            texts.iter().map(|text| format!("<{tag} style='white-space:pre'>{}</{tag}>", escape(text))).collect()
        };
        let rows = self.input.iter().zip(&self.rows).map(|(query, tokens)| {
            format!("<tr>{}{}</tr>\n", cells("th", std::slice::from_ref(query)), cells("td", tokens))
        });
        format!(
            "<table class='dataframe'><caption>{}</caption>\n<thead><tr><th>query \\ key</th>{}</tr></thead>\n<tbody>{}</tbody></table>",
            escape(&self.caption),
            cells("th", &self.input),
            rows.collect::<String>()
        )
    }

    /// Shows the table in an evcxr notebook; evcxr calls this for a cell's last expression.
    pub fn evcxr_display(&self) {
        evcxr::show(&[("text/html", &self.to_html()), ("text/plain", &self.to_text())]);
    }
}

impl fmt::Display for AttentionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}
