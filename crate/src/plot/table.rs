//! Tables of tokens and numbers, as HTML and as text.

use std::fmt;

use super::text::escape_xml;
use crate::attention_tokens::PromptHeadData;
use crate::evcxr;

/// A table of texts, which a notebook shows as the last expression of a cell.
#[derive(Clone, Debug)]
pub struct Table {
    caption: String,
    header: Vec<String>,
    /// The first text of a row is its header. Rows may be shorter than the table's header.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(caption: impl Into<String>, header: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { caption: caption.into(), header: header.iter().map(|&name| name.into()).collect(), rows }
    }

    /// The attention tokens of a head on a prompt: a row for each query position, a column for each key position.
    pub(crate) fn of_attention_tokens(data: &PromptHeadData) -> Self {
        let label = |token: u32| data.token_label(token);
        let input: Vec<String> = data.input.iter().map(|&token| label(token)).collect();
        let tokens = data.attention_tokens();
        let row = |(query, tokens): (&String, ndarray::ArrayView1<Option<u32>>)| {
            std::iter::once(query.clone()).chain(tokens.iter().flatten().map(|&token| label(token))).collect()
        };
        Self {
            caption: data.caption(),
            rows: input.iter().zip(tokens.outer_iter()).map(row).collect(),
            header: std::iter::once("query \\ key".to_owned()).chain(input).collect(),
        }
    }

    /// The texts row by row, without the table's header.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The table as text, with aligned columns.
    pub fn to_text(&self) -> String {
        let rows: Vec<&Vec<String>> = std::iter::once(&self.header).chain(&self.rows).collect();
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max();
        let widths: Vec<usize> = (0..self.header.len()).map(|column| width(column).unwrap_or(0)).collect();
        let line = |row: &&Vec<String>| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(text, &width)| format!("{text:width$}")).collect();
            format!("{}\n", cells.join(" │ ").trim_end())
        };
        format!("{}\n{}", self.caption, rows.iter().map(line).collect::<String>())
    }

    /// The table as HTML. Pasted from a browser into a spreadsheet, it fills cells.
    pub fn to_html(&self) -> String {
        let cell = |tag: &str, text: &String| format!("<{tag} style='white-space:pre'>{}</{tag}>", escape_xml(text));
        let rows = self.rows.iter().map(|row| {
            let tag = |column: usize| if column == 0 { "th" } else { "td" };
            let cells = row.iter().enumerate().map(|(column, text)| cell(tag(column), text));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        });
        format!(
            "<table class='dataframe'><caption>{}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>{}</tbody></table>",
            escape_xml(&self.caption),
            self.header.iter().map(|text| cell("th", text)).collect::<String>(),
            rows.collect::<String>()
        )
    }

    /// Shows the table in an evcxr notebook; evcxr calls this for a cell's last expression.
    pub fn evcxr_display(&self) {
        evcxr::show(&[("text/html", &self.to_html()), ("text/plain", &self.to_text())]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}
