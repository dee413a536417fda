//! The tensors that the headers of a checkpoint's files list, which the parts of the model take one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::tensor_entry::{TensorEntry, read_header};
use super::tensor_names::{self, Keys, is_buffer, is_further_head, layer_and_part};
use crate::error::{Error, Result};

/// The parts of a block, each with a weight and a bias.
const PARTS_OF_BLOCK: [&str; 6] = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"];

/// The tensors of all files that no part of the model has taken yet.
pub(super) struct Headers {
    /// The file to name in the error for a tensor that no file has.
    first_path: PathBuf,
    /// Tensors by their keys in Hugging Face's `GPT2Model`.
    tensors: BTreeMap<String, TensorEntry>,
    n_layers: usize,
    /// What was taken off the tensors' names.
    note: Option<String>,
}

/// The tensors that every GPT-2 of this depth has under one prefix. The embedding can be stored as `lm_head.weight`.
fn required(n_layers: usize) -> impl Iterator<Item = String> + Clone {
    let block = |layer| PARTS_OF_BLOCK.into_iter().map(move |part| format!("h.{layer}.{part}"));
    let modules = (0..n_layers).flat_map(block).chain(["ln_f".to_owned()]);
    let tensors = modules.flat_map(|module| [format!("{module}.weight"), format!("{module}.bias")]);
    std::iter::once("wpe.weight".to_owned()).chain(tensors)
}

impl Headers {
    /// Reads the headers of all files.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a broken file, or for several models; [`Error::Tensor`] for a tensor that is
    /// there twice, or that no plain GPT-2 has.
    pub(super) fn read(paths: &[PathBuf], n_layers: usize) -> Result<Self> {
        let first_path = paths.first().cloned().unwrap_or_default();
        let mut entries = Vec::new();
        for path in paths {
            entries.append(&mut read_header(path)?.tensors);
        }
        // In an order that does not depend on the file's, for messages.
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        for entry in &entries {
            if let Some(found) = tensor_names::contradiction(&entry.name) {
                return Err(entry.error("only tensors of a GPT-2".into(), found.into()));
            }
        }
        let names = entries.iter().map(|entry| entry.name.as_str());
        let keys = tensor_names::keys(names, required(n_layers)).map_err(|several| {
            let prefixes = several.prefixes.iter().map(|prefix| if prefix.is_empty() { "no prefix" } else { prefix });
            let prefixes = tensor_names::list(prefixes, " and ");
            let found = if several.complete {
                format!("those of several, under {prefixes}: save one of them alone")
            } else {
                format!("parts of several, under {prefixes}, and none with the n_layer = {n_layers} of config.json")
            };
            Error::Format { path: first_path.clone(), expected: "the tensors of one GPT-2".into(), found, source: None }
        })?;
        let note = keys.note();
        let mut headers = Self { first_path, tensors: BTreeMap::new(), n_layers, note };
        let Keys { keys, .. } = keys;
        entries.into_iter().zip(keys).try_for_each(|(entry, key)| headers.add(key, entry))?;
        Ok(headers)
    }

    fn add(&mut self, key: String, entry: TensorEntry) -> Result<()> {
        if let Some(other) = self.tensors.get(&key) {
            let found = format!("it again, as {}", crate::error::shown(&other.name));
            return Err(entry.error("each tensor once".into(), found));
        }
        self.tensors.insert(key, entry);
        Ok(())
    }

    /// Reports what was taken off the tensors' names.
    pub(super) fn report_prefixes(&self) {
        if let Some(note) = &self.note {
            eprintln!("{}: {note}", self.first_path.display());
        }
    }

    /// Whether a tensor is there, and not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// Takes a tensor as it is.
    pub(super) fn take_unchecked(&mut self, key: &str) -> Option<TensorEntry> {
        self.tensors.remove(key)
    }

    /// Takes a tensor, and checks its shape and dtype.
    pub(super) fn take(&mut self, key: &str, shape: &[usize]) -> Result<TensorEntry> {
        let Some(entry) = self.tensors.remove(key) else {
            return Err(self.missing(key, shape));
        };
        if entry.shape != shape {
            // A square weight (c_proj, and c_fc with n_inner = n_embd) cannot be told from its transpose. c_attn is never
            // square, and a program that transposes the others transposes it too.
            let is_transposed = key.starts_with("h.") && shape.len() == 2 && entry.shape.iter().rev().eq(shape);
            let remedy = if is_transposed {
                ": its transpose, as torch.nn.Linear stores it (nanoGPT does); transpose the weights of attn.c_attn, \
                 attn.c_proj, mlp.c_fc and mlp.c_proj in every layer"
            } else {
                ""
            };
            let expected = format!("shape {shape:?}, as config.json says");
            return Err(entry.error(expected, format!("shape {:?}{remedy}", entry.shape)));
        }
        if !entry.has_floats() {
            let found = format!(
                "{:?}: save the weights in one of these, in Python with model.float().save_pretrained(FOLDER)",
                entry.dtype
            );
            return Err(entry.error("dtype F32, F16, BF16 or F64".into(), found));
        }
        Ok(entry)
    }

    /// [`Error::Tensor`] for a tensor that no file has.
    fn missing(&self, key: &str, shape: &[usize]) -> Error {
        let is_of = |layer| move |key: &String| layer_and_part(key).is_some_and(|(other, _)| other == layer);
        let layer = layer_and_part(key).map(|(layer, _)| layer).filter(|&layer| !self.tensors.keys().any(is_of(layer)));
        let found = match layer {
            Some(layer) => format!(
                "no tensor of layer {layer}, and config.json has n_layer = {}: take both files from the same model",
                self.n_layers
            ),
            None => "no such tensor (with or without a prefix such as transformer.)".into(),
        };
        let expected = format!("F32, F16, BF16 or F64 of shape {shape:?}");
        Error::Tensor { path: self.first_path.clone(), tensor: key.into(), expected, found }
    }

    /// Rejects tensors that were not taken and that a GPT-2 does not have: the files are then not the model of
    /// `config.json`. Buffers that some checkpoints hold are ignored, and further heads too, with a line.
    pub(super) fn reject_or_ignore_rest(&self) -> Result<()> {
        let rest = self.tensors.iter().filter(|(key, _)| !is_buffer(key));
        let (heads, others): (Vec<_>, Vec<_>) = rest.partition(|(key, _)| is_further_head(key));
        if let Some((key, entry)) = others.first() {
            let n_layers = self.n_layers;
            let found = match layer_and_part(key) {
                Some((layer, _)) if layer >= n_layers => format!(
                    "one of layer {layer}, and config.json has n_layer = {n_layers}: take both files from the same model"
                ),
                Some(_) => format!("{:?} of shape {:?}, which GPT-2's layers do not have", entry.dtype, entry.shape),
                None => format!(
                    "{:?} of shape {:?}, which GPT-2 does not have: is this another kind of model?",
                    entry.dtype, entry.shape
                ),
            };
            let expected = "only tensors of a GPT-2 with the layers that config.json says";
            return Err(entry.error(expected.into(), found));
        }
        if let Some((_, first)) = heads.first() {
            let names = tensor_names::list(heads.iter().map(|(_, entry)| entry.name.as_str()), ", ");
            eprintln!("{}: ignored {names}: no part of the language model", first.path.display());
        }
        Ok(())
    }
}
