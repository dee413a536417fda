//! The beginning-of-sequence token of a tokenizer, as transformers and TransformerLens find it in the files beside it.

use std::path::Path;

use serde_json::{Map, Value};

use super::files::{FilesBeside, read_json_beside};
use crate::error::{Error, Result, shortened};

/// The beginning-of-sequence token of GPT-2's tokenizer where no file names one, and TransformerLens' where a tokenizer
/// has neither a beginning nor an end.
const GPT2_BOS: &str = "<|endoftext|>";

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// The contents of the files beside a tokenizer that name special tokens, as far as they exist.
#[derive(Debug, Default)]
pub(super) struct Beside<'a> {
    /// `tokenizer_config.json`.
    pub(super) config: Option<(&'a Path, Map<String, Value>)>,
    /// `special_tokens_map.json`; transformers does not read it if `tokenizer_config.json` lists the added tokens.
    pub(super) special_tokens: Option<(&'a Path, Map<String, Value>)>,
}

/// The beginning-of-sequence token that the files beside a tokenizer name, by its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedBos {
    pub(super) text: String,
    /// The file that names it; `None` for a default.
    pub(super) file: Option<&'static str>,
    /// Whether there is a file that could name it.
    pub(super) has_files: bool,
}

/// The value of a special token.
enum Named {
    Absent,
    /// null: the tokenizer has none.
    Null,
    Text(String, &'static str),
}

impl<'a> Beside<'a> {
    /// Reads the files.
    ///
    /// # Errors
    /// Here and below: [`Error::Io`]; [`Error::Format`] with the name of the file.
    pub(super) fn read(files: &'a FilesBeside) -> Result<Self> {
        let read = |path: &'a Option<std::path::PathBuf>, expected: &str| {
            path.as_deref().map(|path| Ok((path, read_json_beside(path, expected)?))).transpose()
        };
        let mut beside = Self { config: read(&files.config, "a JSON object of settings")?, special_tokens: None };
        if beside.added_tokens_decoder().is_none() {
            beside.special_tokens = read(&files.special_tokens, "a JSON object of special tokens")?;
        }
        Ok(beside)
    }

    /// `added_tokens_decoder` of `tokenizer_config.json`, and the path of that file.
    pub(super) fn added_tokens_decoder(&self) -> Option<(&'a Path, &Value)> {
        let (path, config) = self.config.as_ref()?;
        Some((*path, config.get("added_tokens_decoder").filter(|decoder| !decoder.is_null())?))
    }

    /// The beginning-of-sequence token. Where the files name none, it is that of transformers' `GPT2Tokenizer`; for
    /// another class, or where they say that there is none, TransformerLens takes the end of a sequence.
    pub(super) fn bos(&self) -> Result<NamedBos> {
        let has_files = self.config.is_some() || self.special_tokens.is_some();
        let named = |text: String, file: Option<&'static str>| NamedBos { text, file, has_files };
        let class = self.config.as_ref().and_then(|(_, config)| config.get("tokenizer_class")?.as_str());
        let is_gpt2 = matches!(class, None | Some("GPT2Tokenizer" | "GPT2TokenizerFast"));
        Ok(match self.named("bos_token")? {
            Named::Text(text, file) => named(text, Some(file)),
            Named::Absent if is_gpt2 => named(GPT2_BOS.into(), None),
            Named::Absent | Named::Null => match self.named("eos_token")? {
                Named::Text(text, file) => named(text, Some(file)),
                Named::Absent | Named::Null => named(GPT2_BOS.into(), None),
            },
        })
    }

    /// A special token, by its key. `special_tokens_map.json` is preferred.
    fn named(&self, key: &str) -> Result<Named> {
        let files = [(SPECIAL_TOKENS, &self.special_tokens), (CONFIG, &self.config)];
        let value = files.into_iter().find_map(|(name, file)| {
            let (path, object) = file.as_ref()?;
            Some((name, *path, object.get(key)?))
        });
        let Some((name, path, value)) = value else { return Ok(Named::Absent) };
        if value.is_null() {
            return Ok(Named::Null);
        }
        match value.as_str().or_else(|| value.get("content")?.as_str()) {
            Some(text) => Ok(Named::Text(text.into(), name)),
            None => Err(Error::Format {
                path: path.into(),
                expected: format!("{key}: a text, or an object with its \"content\""),
                found: shortened(&value.to_string()),
                source: None,
            }),
        }
    }
}
