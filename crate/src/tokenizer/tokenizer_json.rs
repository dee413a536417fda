//! `tokenizer.json`, part by part.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::contain::contain;
use super::files::{beyond, contained, format_error, read_json};
use super::library::{Library, Parts};
use super::limits;
use super::patterns::Patterns;
use super::spelling::Spelling;
use crate::error::{Error, Result, shortened};

/// Reads a `tokenizer.json`, and how its decoder spells tokens.
///
/// The library gets only the parts that turn text into tokens and back, each after a check of its limits. The file may
/// have the truncation and padding of a training run, which would cut or fill prompts, and a post-processor, which adds
/// special tokens; the beginning-of-sequence token is the only one that a prompt gets here.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub(super) fn read(path: &Path) -> Result<(Library, Spelling)> {
    let mut file: Map<String, Value> = read_json(path, "a tokenizer")?;
    let mut take = |key: &str| file.remove(key).unwrap_or_default();
    match take("version") {
        Value::Null => {}
        Value::String(version) if version == "1.0" => {}
        other => {
            let (expected, found) = ("a tokenizer of version \"1.0\"".into(), shortened(&other.to_string()));
            return Err(Error::Format { path: path.into(), expected, found, source: None });
        }
    }
    let [model, normalizer, pre_tokenizer, decoder, added] =
        ["model", "normalizer", "pre_tokenizer", "decoder", "added_tokens"].map(&mut take);
    limits::check_model(&model).map_err(beyond(path))?;
    let growth = |value: &Value, name: &str| limits::growth(value, name).map_err(beyond(path));
    let encode_growth = growth(&normalizer, "normalizer")? * growth(&pre_tokenizer, "pre_tokenizer")?;
    let decode_growth = growth(&decoder, "decoder")?;
    let patterns = contain(|| Patterns::new(&normalizer, &pre_tokenizer))
        .map_err(format_error(path, "valid regular expressions"))?;
    let spelling = Spelling::of_decoder(&decoder);
    let parts = Parts {
        model: part(path, "model", model)?,
        normalizer: part(path, "normalizer", normalizer)?,
        pre_tokenizer: part(path, "pre_tokenizer", pre_tokenizer)?,
        decoder: part(path, "decoder", decoder)?,
        patterns,
        encode_growth,
        decode_growth,
    };
    #[derive(Deserialize)]
    struct Added {
        /// The library, in Python too, gives a token that is not in the model's vocabulary the next free id instead.
        #[serde(rename = "id")]
        _id: u32,
        #[serde(flatten)]
        token: AddedToken,
    }
    let added: Option<Vec<Added>> = part(path, "added_tokens", added)?;
    let added: Vec<AddedToken> = added.unwrap_or_default().into_iter().map(|added| added.token).collect();
    Ok((Library::new(path, parts, &added)?, spelling))
}

/// Turns a part of the file into one of the library's types.
fn part<T: DeserializeOwned>(path: &Path, name: &str, value: Value) -> Result<T> {
    contained(path, &format!("a tokenizer with a valid {name}"), || serde_json::from_value(value))
}
