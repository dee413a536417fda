//! The files of a tokenizer, and how they are read.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::contain::contain;
use super::limits::Beyond;
use crate::error::{Error, Result, shortened};
use crate::files::{self, Content, Limit};

/// The paths of a tokenizer's files.
#[derive(Debug)]
pub(crate) struct TokenizerFiles {
    pub(crate) vocabulary: VocabularyFiles,
    pub(crate) beside: FilesBeside,
}

/// The files of a tokenizer that have its vocabulary.
#[derive(Debug)]
pub(crate) enum VocabularyFiles {
    /// `tokenizer.json`.
    Json(PathBuf),
    /// `vocab.json` and `merges.txt`.
    VocabAndMerges { vocab: PathBuf, merges: PathBuf },
}

/// The files beside a vocabulary that name its special tokens or add tokens, as far as they exist.
#[derive(Debug, Default)]
pub(crate) struct FilesBeside {
    /// `added_tokens.json`.
    pub(crate) added_tokens: Option<PathBuf>,
    /// `tokenizer_config.json`.
    pub(crate) config: Option<PathBuf>,
    /// `special_tokens_map.json`.
    pub(crate) special_tokens: Option<PathBuf>,
}

/// The bytes of a file; `content` and `expected` describe it for an error that names a file of another kind.
pub(super) fn read(path: &Path, content: Content, expected: &str) -> Result<Vec<u8>> {
    files::read(path, content, expected, Limit::TOKENIZER)
}

/// The content of a JSON file beside a tokenizer; `expected` describes it for an error.
pub(super) fn read_json_beside<T: DeserializeOwned>(path: &Path, expected: &str) -> Result<T> {
    let bytes = files::read(path, Content::Json, expected, Limit::BESIDE_TOKENIZER)?;
    serde_json::from_slice(&bytes).map_err(format_error(path, expected))
}

/// The content of a JSON file of a tokenizer; `expected` describes it for an error.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, expected: &str) -> Result<T> {
    serde_json::from_slice(&read(path, Content::Json, expected)?).map_err(format_error(path, expected))
}

/// [`Error::Format`] for a file of the tokenizer, with the beginning of a long message.
pub(super) fn format_error<E>(path: &Path, expected: impl Into<String>) -> impl FnOnce(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| {
        let source = source.into();
        let found = shortened(&source.to_string());
        Error::Format { path: path.into(), expected: expected.into(), found, source: Some(source) }
    }
}

/// The result of a call of the tokenizers library; its errors and its panics are [`Error::Format`].
pub(super) fn contained<T, E>(path: &Path, expected: &str, call: impl FnOnce() -> Result<T, E>) -> Result<T>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    contain(call).map_err(format_error(path, expected))?.map_err(format_error(path, expected))
}

/// [`Error::Format`] for a value beyond a limit.
pub(super) fn beyond(path: &Path) -> impl FnOnce(Beyond) -> Error {
    move |Beyond { expected, found }| Error::Format { path: path.into(), expected, found, source: None }
}
