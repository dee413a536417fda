//! Head data as CSV, for pandas.

use std::path::Path;

use super::HeadData;
use crate::error::Result;
use crate::files::replace;

/// The columns of a CSV file.
const COLUMNS: [&str; 26] = [
    "layer",
    "head",
    "projection",
    "unembed_bias",
    "basis",
    "signs",
    "normalized",
    "interventions",
    "prompt",
    "query",
    "key",
    "query_token",
    "key_token",
    "attn",
    "token",
    "token_id",
    "logit",
    "margin",
    "runner_up",
    "runner_up_id",
    "lowest",
    "lowest_id",
    "lowest_logit",
    "q_token",
    "k_token",
    "v_token",
];

impl HeadData {
    /// Writes a row for each cell with key ≤ query of every prompt, with names in the first row:
    ///
    /// | columns | |
    /// |---|---|
    /// | `layer`, `head`, `prompt` | the source of the cell |
    /// | `projection`, `unembed_bias`, `basis`, `signs`, `normalized` | the [`Reading`](crate::Reading) |
    /// | `interventions` | what changed the run, in words, separated by `; `; empty for a run as the model is |
    /// | `query`, `key`, `query_token`, `key_token` | its positions, and the input there |
    /// | `attn` | the attention |
    /// | `token`, `token_id`, `logit`, `margin` | the attention token, its logit, and how far that is above the runner-up's |
    /// | `runner_up`, `runner_up_id` | the runner-up; empty if the data was made with `top_k` 1 |
    /// | `lowest`, `lowest_id`, `lowest_logit` | the token with the lowest logit; empty unless the projection is `written` |
    /// | `q_token`, `k_token`, `v_token` | the tokens of the key position's query, key and value vectors |
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
        let mut csv = csv::Writer::from_path(path)?;
        csv.write_record(COLUMNS)?;
        let reading = self.reading;
        let (basis, signs) = (reading.basis.to_string(), reading.signs.to_string());
        for (prompt, data) in self.prompts().iter().enumerate() {
            let text = |token: u32| data.token_text(token);
            let interventions = data.interventions.join("; ");
            for (query, key) in data.cells() {
                let cell = data.cell(query, key).expect("key ≤ query");
                let (tokens, logits) = (data.qk.tokens.row(cell), data.qk.logits.row(cell));
                let runner_up = tokens.get(1).copied();
                let lowest = data.lowest.as_ref().map(|top| (top.tokens[[cell, 0]], top.logits[[cell, 0]]));
                csv.serialize((
                    (self.layer, self.head, reading.projection.name(), reading.unembed_bias),
                    (&basis, &signs, reading.normalized, &interventions, prompt),
                    (query, key, text(data.input[query]), text(data.input[key])),
                    data.attn[[query, key]],
                    (text(tokens[0]), tokens[0], logits[0], data.qk.margin[cell]),
                    (runner_up.map(text), runner_up),
                    (
                        lowest.map(|(token, _)| text(token)),
                        lowest.map(|(token, _)| token),
                        lowest.map(|(_, logit)| logit),
                    ),
                    [&data.q, &data.k, &data.v].map(|top| text(top.tokens[[key, 0]])),
                ))?;
            }
        }
        Ok(csv.flush()?)
    }
}
