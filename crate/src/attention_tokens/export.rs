//! Export of head data: CSV for pandas, `.npz` for numpy.

use std::fs::File;
use std::path::Path;

use ndarray::{Array1, Array4, s};
use ndarray_npy::{NpzWriter, WriteNpzError};

use super::{HeadData, PromptHeadData};
use crate::decode::TopTokens;
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

    /// Writes numpy arrays, one file for all:
    ///
    /// | name | dtype, shape | |
    /// |---|---|---|
    /// | `data` | float32 `[batch, query, key, feature]` | [`to_array`](Self::to_array): −1 where key > query, and behind shorter prompts |
    /// | `tokens` | int64 `[batch, query, key, top_k]` | the attention tokens, best first; −1 as above |
    /// | `logits` | float32 `[batch, query, key, top_k]` | their logits; NaN as above |
    /// | `lowest_tokens`, `lowest_logits` | as `tokens` and `logits` | the tokens with the lowest logits; missing unless the projection is `written` |
    /// | `reading` | uint8 `[n]` | the [`Reading`](crate::Reading) in words, as UTF-8: `ov, without b_U` |
    /// | `interventions` | uint8 `[n]` | what changed the run, in words, as UTF-8; missing for a run as the model is |
    ///
    /// In numpy: `numpy.load(path)["data"]`.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write), naming the file.
    pub fn write_npz(&self, path: impl AsRef<Path>) -> Result<()> {
        replace(path.as_ref(), |path| self.npz(path))
    }

    fn npz(&self, path: &Path) -> Result<(), WriteNpzError> {
        let array = self.to_array();
        let (_, pos, _, _) = array.dim();
        let (tokens, logits) = self.ranked(pos, |data| Some(&data.qk));
        let mut npz = NpzWriter::new(File::create(path).map_err(ndarray_npy::WriteNpyError::Io)?);
        npz.add_array("data", &array)?;
        npz.add_array("tokens", &tokens)?;
        npz.add_array("logits", &logits)?;
        if self.prompts().iter().any(|data| data.lowest.is_some()) {
            let (tokens, logits) = self.ranked(pos, |data| data.lowest.as_ref());
            npz.add_array("lowest_tokens", &tokens)?;
            npz.add_array("lowest_logits", &logits)?;
        }
        npz.add_array("reading", &Array1::from(self.reading.to_string().into_bytes()))?;
        if let Some(first) = self.prompts().first().filter(|data| !data.interventions.is_empty()) {
            npz.add_array("interventions", &Array1::from(first.interventions.join("; ").into_bytes()))?;
        }
        npz.finish().map(drop)
    }

    /// The ranked tokens of cells and their logits, −1 and NaN where a prompt has none.
    /// Shape: → each `[batch, query, key, top_k]`.
    fn ranked(&self, pos: usize, of: impl Fn(&PromptHeadData) -> Option<&TopTokens>) -> (Array4<i64>, Array4<f32>) {
        let top_k = self.prompts().iter().filter_map(&of).map(|top| top.tokens.ncols()).max().unwrap_or(0);
        let shape = (self.prompts().len(), pos, pos, top_k);
        let (mut tokens, mut logits) = (Array4::from_elem(shape, -1_i64), Array4::from_elem(shape, f32::NAN));
        for (prompt, data) in self.prompts().iter().enumerate() {
            let Some(top) = of(data) else { continue };
            for (query, key) in data.cells() {
                let cell = data.cell(query, key).expect("key ≤ query");
                tokens.slice_mut(s![prompt, query, key, ..]).assign(&top.tokens.row(cell).mapv(i64::from));
                logits.slice_mut(s![prompt, query, key, ..]).assign(&top.logits.row(cell));
            }
        }
        (tokens, logits)
    }
}
