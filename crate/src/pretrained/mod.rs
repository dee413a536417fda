//! A model's name or folder → its files on this machine: the demo model, a folder, the Hugging Face cache or Hub.

mod checkpoint;
mod hub;
mod processed;

use std::path::{Path, PathBuf};

use crate::backend::Device;

use crate::error::{Error, Result};
use crate::weights::Processing;
pub(crate) use checkpoint::Checkpoint;
pub(crate) use processed::ProcessedCheckpoint;

/// Enough for every head of GPT-2 small, in one projection.
const DECODE_CACHE_BYTES: usize = 2_000_000_000;

/// How to load a model: the keyword arguments of TransformerLens' `from_pretrained`.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let as_in_the_original = LoadOptions::default()
///     .fold_ln(true)
///     .center_writing_weights(true)
///     .center_unembed(true)
///     .refactor_factored_attn_matrices(true);
/// let as_hugging_face_has_it = LoadOptions::default().no_processing();
/// # let _ = (as_in_the_original, as_hugging_face_has_it);
/// ```
#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub(crate) processing: Processing,
    pub(crate) device: Device,
    pub(crate) decode_cache_bytes: usize,
    pub(crate) revision: Option<String>,
    pub(crate) cache_dir: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            processing: Processing::default(),
            device: Device::default(),
            decode_cache_bytes: DECODE_CACHE_BYTES,
            revision: None,
            cache_dir: None,
        }
    }
}

impl LoadOptions {
    /// See [`Processing::fold_ln`]. Default: on.
    pub fn fold_ln(mut self, on: bool) -> Self {
        self.processing.fold_ln = on;
        self
    }

    /// See [`Processing::center_writing_weights`]. Default: on.
    pub fn center_writing_weights(mut self, on: bool) -> Self {
        self.processing.center_writing_weights = on;
        self
    }

    /// See [`Processing::center_unembed`]. Default: on.
    pub fn center_unembed(mut self, on: bool) -> Self {
        self.processing.center_unembed = on;
        self
    }

    /// See [`Processing::fold_value_biases`]. Default: on.
    pub fn fold_value_biases(mut self, on: bool) -> Self {
        self.processing.fold_value_biases = on;
        self
    }

    /// See [`Processing::refactor_factored_attn_matrices`]. Default: on.
    pub fn refactor_factored_attn_matrices(mut self, on: bool) -> Self {
        self.processing.refactor_factored_attn_matrices = on;
        self
    }

    /// All five steps at once.
    pub fn processing(mut self, processing: Processing) -> Self {
        self.processing = processing;
        self
    }

    /// The weights as Hugging Face has them: TransformerLens' `from_pretrained_no_processing`.
    pub fn no_processing(self) -> Self {
        self.processing(Processing::none())
    }

    /// Where to compute. Default: [`Device::cpu`].
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// At most this much memory, in bytes, keeps what makes decoding a head fast that has decoded many vectors already (on
    /// the CPU, `4 d_head` of them: the second prompt of a dozen tokens): its projection times the unembedding, rounded to
    /// 8 bits, about `(d_head + 16) d_vocab` bytes, 4.2 MB for GPT-2 small. (Rounding tells which tokens can be among the
    /// best; their logits are computed without it.) What was used last is kept. With 0 nothing is, and decoding a head
    /// again takes as long as the first time. On a GPU nothing is rounded, and a head takes `4 d_head (d_model + d_vocab)` bytes
    /// of its memory, 13 MB for GPT-2 small, from the first vector on. Default: 2 GB, enough for every head of GPT-2 small
    /// and, on the CPU, medium.
    pub fn decode_cache_bytes(mut self, bytes: usize) -> Self {
        self.decode_cache_bytes = bytes;
        self
    }

    /// The branch, tag or commit of a model on the Hub. Default: `main`.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// The folder of the Hugging Face cache. Default: as in Python, `HF_HUB_CACHE`, else `HF_HOME/hub`, else
    /// `~/.cache/huggingface/hub`.
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }
}

/// A model's files on this machine.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    pub(crate) config: PathBuf,
    /// One file, or all shards.
    pub(crate) weights: Vec<PathBuf>,
    /// Where a tokenizer would lie.
    pub(crate) folder: PathBuf,
}

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const PICKLE: &str = "pytorch_model.bin";

/// Names that need no owner: TransformerLens' and the Hub's old ones → the repository, and what else its folder in
/// the cache may be called.
const KNOWN: [(&str, &str, &str); 6] = [
    ("gpt2-small", "openai-community/gpt2", "gpt2"),
    ("gpt2", "openai-community/gpt2", "gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium", "gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large", "gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl", "gpt2-xl"),
    ("distilgpt2", "distilbert/distilgpt2", "distilgpt2"),
];

/// Finds the files of a model; downloads what is missing.
pub(crate) fn find(name: &str, options: &LoadOptions) -> Result<ModelFiles> {
    let folder = Path::new(name);
    let known = KNOWN.iter().find(|&&(known, repo, _)| name == known || name == repo);
    let is_name = name == "demo" || known.is_some_and(|&(known, ..)| name == known);
    // As in Python, a folder of that name goes before the Hub; a known name must hold a model for that.
    if folder.join(CONFIG).is_file() || (folder.is_dir() && !is_name) {
        return in_folder(folder);
    }
    if name == "demo" {
        return demo();
    }
    if let Some(&(_, repo, alias)) = known {
        return hub::find(repo, &[alias], options);
    }
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.')
    };
    match name.split_once('/') {
        Some((owner, repo)) if part(owner) && part(repo) => hub::find(name, &[], options),
        // Something with the look of a path is one, and it is not there.
        _ if name.contains(['/', '\\']) => Err(Error::MissingFile {
            path: folder.join(CONFIG),
            hint: "a model folder holds config.json and model.safetensors".into(),
        }),
        _ => Err(Error::UnknownModel {
            name: name.into(),
            known: KNOWN.iter().map(|&(known, ..)| format!("\"{known}\"")).collect(),
        }),
    }
}

fn demo() -> Result<ModelFiles> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model");
    if folder.is_dir() {
        return in_folder(&folder);
    }
    Err(Error::MissingFile {
        path: folder,
        hint: "the demo model comes with the crate as a path or git dependency; a package registry's copy leaves out \
               its 16 MB"
            .into(),
    })
}

fn in_folder(folder: &Path) -> Result<ModelFiles> {
    let config = folder.join(CONFIG);
    if !config.is_file() {
        let hint = "a model folder holds config.json and model.safetensors".into();
        return Err(Error::MissingFile { path: config, hint });
    }
    let (whole, index) = (folder.join(WEIGHTS), folder.join(INDEX));
    let weights = if whole.is_file() {
        vec![whole]
    } else if index.is_file() {
        let shards: Vec<PathBuf> =
            checkpoint::shards_of_index(&index)?.into_iter().map(|shard| folder.join(shard)).collect();
        if let Some(missing) = shards.iter().find(|shard| !shard.is_file()) {
            let hint = format!("{INDEX} names it");
            return Err(Error::MissingFile { path: missing.clone(), hint });
        }
        shards
    } else if folder.join(PICKLE).is_file() {
        return Err(only_pickle(&folder.join(PICKLE)));
    } else {
        let hint = format!("a model folder holds {WEIGHTS}, or {INDEX} and its shards");
        return Err(Error::MissingFile { path: whole, hint });
    };
    Ok(ModelFiles { config, weights, folder: folder.into() })
}

/// A pickle can run any code when it is read, so it is not.
pub(crate) fn only_pickle(path: &Path) -> Error {
    Error::Format {
        path: path.into(),
        expected: format!("{WEIGHTS} beside it"),
        found: "only this pickle, which can run any code when it is read; convert it in Python: \
                transformers.GPT2LMHeadModel.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)"
            .into(),
        source: None,
    }
}
