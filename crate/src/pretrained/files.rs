//! The files that a model consists of: their names, and which of them are needed.
//!
//! The rule is the same for a folder, a snapshot in the Hugging Face cache and a repository on the Hub: `config.json`;
//! then `model.safetensors`, else `model.safetensors.index.json` and the shards that it names; then `tokenizer.json`,
//! else `vocab.json` with `merges.txt` and the files beside them that add tokens, else no tokenizer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::other_weights;
use super::processed_file::PROCESSED;
use crate::error::{Error, Result, shortened};
use crate::files::{self, Content, Limit};
use crate::tokenizer::{FilesBeside, TokenizerFiles, VocabularyFiles};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const VOCAB: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";
const ADDED_TOKENS: &str = "added_tokens.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// The files that can name a beginning-of-sequence token.
#[cfg(feature = "hub")]
pub(super) const BOS_FILES: [&str; 2] = [SPECIAL_TOKENS, TOKENIZER_CONFIG];
/// The names of everything that a tokenizer can consist of.
#[cfg(feature = "hub")]
pub(super) const TOKENIZER_FILES: [&str; 6] =
    [TOKENIZER, VOCAB, MERGES, ADDED_TOKENS, SPECIAL_TOKENS, TOKENIZER_CONFIG];

/// The largest size in bytes that a file may have on the Hub: that with which it is read, and 50 GB for weights, as in
/// Python.
#[cfg(feature = "hub")]
pub(super) fn max_bytes(name: &str) -> u64 {
    match name {
        CONFIG | INDEX => Limit::CONFIG.bytes,
        TOKENIZER | VOCAB | MERGES => Limit::TOKENIZER.bytes,
        ADDED_TOKENS | SPECIAL_TOKENS | TOKENIZER_CONFIG => Limit::BESIDE_TOKENIZER.bytes,
        _ => 50_000_000_000,
    }
}

/// The paths of a model's files.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    pub(crate) config: PathBuf,
    /// One file, or every shard.
    pub(crate) weights: Vec<PathBuf>,
    pub(crate) tokenizer: Option<TokenizerFiles>,
}

/// A file that every model needs, and that a folder or a repository lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Config,
    /// The weights in safetensors.
    Weights,
    /// A shard that the index names.
    Shard(String),
}

/// Why [`ModelFiles::collect`] did not return files.
#[derive(Debug)]
pub(super) enum CollectError {
    Missing(Missing),
    Failed(Error),
}

impl From<Error> for CollectError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl ModelFiles {
    /// Collects the files of a model from a folder or a repository. `has` tests whether there is a file of this name;
    /// `path` returns its path, after downloading it if necessary, and is called only for files that the model needs.
    pub(super) fn collect(
        has: impl Fn(&str) -> bool,
        path: impl Fn(&str) -> Result<PathBuf>,
    ) -> Result<Self, CollectError> {
        let require = |name: &str, missing: Missing| has(name).then_some(()).ok_or(CollectError::Missing(missing));
        require(CONFIG, Missing::Config)?;
        if !has(WEIGHTS) && !has(INDEX) {
            return Err(CollectError::Missing(Missing::Weights));
        }
        let config = path(CONFIG)?;
        let weights = if has(WEIGHTS) { vec![WEIGHTS.to_owned()] } else { shards_of_index(&path(INDEX)?)? };
        weights.iter().try_for_each(|shard| require(shard, Missing::Shard(shard.clone())))?;
        // Before the weights: a download that is interrupted must not leave a cached model without its tokenizer.
        let tokenizer = tokenizer_files(&has, &path)?;
        let weights = weights.iter().map(|name| path(name)).collect::<Result<_>>()?;
        Ok(Self { config, weights, tokenizer })
    }

    /// The files of a model in a folder.
    ///
    /// # Errors
    /// [`Error::MissingFile`]; [`Error::Format`] for a folder that has weights in another form only, or an index that is
    /// not one.
    pub(super) fn in_folder(folder: &Path) -> Result<Self> {
        let (has, path) = (|name: &str| folder.join(name).is_file(), |name: &str| Ok(folder.join(name)));
        if has(CONFIG) && has(PROCESSED) && !has(WEIGHTS) && !has(INDEX) {
            let tokenizer = tokenizer_files(&has, &path)?;
            return Ok(Self { config: folder.join(CONFIG), weights: vec![folder.join(PROCESSED)], tokenizer });
        }
        let files = Self::collect(has, path);
        files.map_err(|error| match error {
            CollectError::Failed(error) => error,
            CollectError::Missing(Missing::Config) => no_model(folder),
            CollectError::Missing(Missing::Weights) => match other_weights::find_in(folder) {
                Some(other) => other.error(folder),
                None => Error::MissingFile {
                    path: folder.join(WEIGHTS),
                    hint: format!("a model folder holds {WEIGHTS}, or {INDEX} and its shards"),
                },
            },
            CollectError::Missing(Missing::Shard(shard)) => {
                Error::MissingFile { path: folder.join(shard), hint: format!("{INDEX} names it") }
            }
        })
    }

    /// All files but the weights.
    pub(super) fn beside_weights(&self) -> Vec<&Path> {
        let mut files = vec![self.config.as_path()];
        if let Some(TokenizerFiles { vocabulary, beside }) = &self.tokenizer {
            match vocabulary {
                VocabularyFiles::Json(file) => files.push(file),
                VocabularyFiles::VocabAndMerges { vocab, merges } => files.extend([vocab.as_path(), merges]),
            }
            let FilesBeside { added_tokens, config, special_tokens } = beside;
            files.extend([added_tokens, config, special_tokens].into_iter().flatten().map(PathBuf::as_path));
        }
        files
    }

    /// Whether a folder has a `config.json`, as every model does.
    pub(super) fn is_model(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }
}

/// The error for a folder without a `config.json`.
pub(super) fn no_model(folder: &Path) -> Error {
    let has_weights = [WEIGHTS, INDEX].iter().any(|name| folder.join(name).is_file());
    let other = other_weights::find_in(folder).filter(|_| !has_weights);
    let beside = match other.map(|other| other.beside_missing(&Missing::Config, folder)) {
        Some(Err(error)) => return error,
        Some(Ok(found)) => format!("; this one has {found}"),
        None => String::new(),
    };
    let hint = format!("a model folder holds {CONFIG} and {WEIGHTS}{beside}");
    Error::MissingFile { path: folder.join(CONFIG), hint }
}

/// The files of the tokenizer, if there is one. Those that add tokens are read from the same folder.
pub(super) fn tokenizer_files(
    has: &impl Fn(&str) -> bool,
    path: &impl Fn(&str) -> Result<PathBuf>,
) -> Result<Option<TokenizerFiles>> {
    let optional = |name: &str| has(name).then(|| path(name)).transpose();
    let beside = FilesBeside {
        added_tokens: optional(ADDED_TOKENS)?,
        config: optional(TOKENIZER_CONFIG)?,
        special_tokens: optional(SPECIAL_TOKENS)?,
    };
    if has(TOKENIZER) {
        return Ok(Some(TokenizerFiles { vocabulary: VocabularyFiles::Json(path(TOKENIZER)?), beside }));
    }
    match (has(VOCAB), has(MERGES)) {
        (false, false) => Ok(None),
        (true, true) => {
            let vocabulary = VocabularyFiles::VocabAndMerges { vocab: path(VOCAB)?, merges: path(MERGES)? };
            Ok(Some(TokenizerFiles { vocabulary, beside }))
        }
        (has_vocab, _) => {
            let (found, missing) = if has_vocab { (VOCAB, MERGES) } else { (MERGES, VOCAB) };
            Err(Error::MissingFile {
                path: path(found)?.with_file_name(missing),
                hint: format!("{VOCAB} and {MERGES} only work together; {TOKENIZER} alone does too"),
            })
        }
    }
}

/// The shards that an index names, in its folder.
fn shards_of_index(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    const EXPECTED: &str = "a \"weight_map\" from tensor names to files of the same folder";
    let format_error =
        |found: String| Error::Format { path: index.into(), expected: EXPECTED.into(), found, source: None };
    let text = files::read_text(index, Content::Json, EXPECTED, Limit::CONFIG)?;
    let map: Index = serde_json::from_str(&text).map_err(|error| Error::format(index, EXPECTED, error))?;
    let mut files: Vec<String> = map.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(format_error("no file".into()));
    }
    if let Some(file) = files.iter().find(|file| !is_plain_name(file)) {
        return Err(format_error(format!("{:?}", shortened(file))));
    }
    Ok(files)
}

/// Whether a name from a foreign file or server is that of a file in a folder: a name with a folder in it could point
/// anywhere on the machine.
pub(super) fn is_plain_name(name: &str) -> bool {
    let is_one_part = Path::new(name).components().count() == 1 && !name.contains(['/', '\\', ':']);
    is_one_part && !name.starts_with('.') && !name.contains(char::is_control) && name.len() <= 255
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// The files that a model needs of those with these names, in the order in which they are downloaded.
    fn needed(names: &[&str]) -> Result<Vec<String>, CollectError> {
        let requested = RefCell::new(Vec::new());
        let path = |name: &str| {
            requested.borrow_mut().push(name.to_owned());
            Ok(PathBuf::from(name))
        };
        ModelFiles::collect(|name| names.contains(&name), path)?;
        Ok(requested.into_inner())
    }

    #[test]
    fn only_needed_files_are_collected() {
        let all = ["pytorch_model.bin", MERGES, VOCAB, TOKENIZER, INDEX, WEIGHTS, CONFIG, "README.md"];
        assert_eq!(needed(&all).unwrap(), [CONFIG, TOKENIZER, WEIGHTS]);
        assert_eq!(needed(&[CONFIG, WEIGHTS, VOCAB, MERGES]).unwrap(), [CONFIG, VOCAB, MERGES, WEIGHTS]);
        assert_eq!(needed(&[CONFIG, WEIGHTS]).unwrap(), [CONFIG, WEIGHTS]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = |names: &[&str]| match needed(names) {
            Err(CollectError::Missing(missing)) => missing,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(&[WEIGHTS]), Missing::Config);
        assert_eq!(missing(&[CONFIG, TOKENIZER]), Missing::Weights);
        assert_eq!(missing(&[CONFIG, "pytorch_model.bin"]), Missing::Weights);
        match needed(&[CONFIG, WEIGHTS, MERGES]) {
            Err(CollectError::Failed(Error::MissingFile { path, .. })) => assert_eq!(path, Path::new(VOCAB)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_index_names_its_shards() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(CONFIG, "");
        write(INDEX, r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#);
        write("1.safetensors", "");
        let error = ModelFiles::in_folder(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("2.safetensors: no such file; {INDEX} names it")), "{error}");
        write("2.safetensors", "");
        let files = ModelFiles::in_folder(folder.path()).unwrap();
        assert_eq!(files.weights, ["1.safetensors", "2.safetensors"].map(|name| folder.path().join(name)));
    }
}
