//! Head data as `.npz`, for numpy.

use std::fs::File;
use std::path::Path;

use ndarray::{Array1, Array4, s};
use ndarray_npy::{NpzWriter, WriteNpzError};

use super::{HeadData, PromptHeadData};
use crate::decode::TopTokens;
use crate::error::Result;
use crate::files::replace;

impl HeadData {
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
