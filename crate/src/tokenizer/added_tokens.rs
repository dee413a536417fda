//! Tokens that were added to a vocabulary: `added_tokens_decoder` in `tokenizer_config.json`, else `added_tokens.json`,
//! in the order of precedence of Hugging Face transformers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use super::files::{FilesBeside, format_error, read_json};
use crate::error::{Error, Result, shortened};

/// Added tokens with their ids, and the file that they are from.
pub(super) type AddedTokens<'a> = Option<(&'a Path, BTreeMap<u32, AddedToken>)>;

/// A token of `added_tokens_decoder`.
#[derive(Deserialize)]
struct Entry {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl From<Entry> for AddedToken {
    fn from(Entry { content, single_word, lstrip, rstrip, normalized, special }: Entry) -> Self {
        let normalized = normalized.unwrap_or(!special);
        Self { content, single_word, lstrip, rstrip, normalized, special }
    }
}

/// The added tokens of a vocabulary. `config` is `tokenizer_config.json`, with its content.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub(super) fn read<'a>(config: Option<(&'a Path, &Value)>, beside: &'a FilesBeside) -> Result<AddedTokens<'a>> {
    if let Some((path, config)) = config
        && let Some(decoder) = config.get("added_tokens_decoder").filter(|decoder| !decoder.is_null())
    {
        let entries = HashMap::<u32, Entry>::deserialize(decoder);
        let expected = "added_tokens_decoder from ids to tokens with a \"content\"";
        let entries = entries.map_err(format_error(path, expected))?;
        return unique(path, entries.into_iter().map(|(id, entry)| (id, entry.into())).collect()).map(Some);
    }
    let Some(path) = beside.added_tokens.as_deref() else {
        return Ok(None);
    };
    let mut special = BTreeSet::new();
    if let Some((_, config)) = config {
        special.extend(special_texts(config));
    }
    if let Some(path) = &beside.special_tokens {
        special.extend(special_texts(&read_json(path, "a JSON object of special tokens")?));
    }
    let ids: HashMap<String, u32> = read_json(path, "a JSON object from tokens to ids")?;
    let token = |(content, id): (String, u32)| {
        let special = special.contains(&content);
        (id, AddedToken::from(content, special))
    };
    unique(path, ids.into_iter().map(token).collect()).map(Some)
}

/// The tokens by their ids, each of which must be there once.
fn unique(path: &Path, tokens: Vec<(u32, AddedToken)>) -> Result<(&Path, BTreeMap<u32, AddedToken>)> {
    let mut by_id = BTreeMap::new();
    for (id, token) in tokens {
        if let Some(other) = by_id.insert(id, token) {
            let other = shortened(&other.content);
            let found = format!("{id} for {other:?} and {:?}", shortened(&by_id[&id].content));
            return Err(Error::Format { path: path.into(), expected: "each id once".into(), found, source: None });
        }
    }
    Ok((path, by_id))
}

/// The special tokens that a `tokenizer_config.json` or a `special_tokens_map.json` names.
fn special_texts(file: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().or(value["content"].as_str()).map(str::to_owned);
    let Some(object) = file.as_object() else {
        return Vec::new();
    };
    let named = object.iter().filter(|(key, _)| key.ends_with("_token")).filter_map(|(_, value)| text(value));
    let lists = ["additional_special_tokens", "extra_special_tokens"];
    let listed = lists.iter().filter_map(|key| object.get(*key)?.as_array()).flatten().filter_map(text);
    named.chain(listed).collect()
}
