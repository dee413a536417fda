//! Tokens that were added to a vocabulary: `added_tokens_decoder` in `tokenizer_config.json`, else `added_tokens.json`,
//! in the order of precedence of Hugging Face transformers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::files::{format_error, read_json_beside};
use super::library::Library;
use super::special_tokens::Beside;
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

/// The added tokens of a vocabulary. `added_tokens` is the path of `added_tokens.json`, if it exists.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub(super) fn read<'a>(beside: &Beside<'a>, added_tokens: Option<&'a Path>) -> Result<AddedTokens<'a>> {
    if let Some((path, decoder)) = beside.added_tokens_decoder() {
        return unique(path, of_decoder(path, decoder)?).map(Some);
    }
    let Some(path) = added_tokens else {
        return Ok(None);
    };
    let files = [&beside.config, &beside.special_tokens].into_iter().flatten();
    let special: BTreeSet<String> = files.flat_map(|(_, file)| special_texts(file)).collect();
    let ids: HashMap<String, u32> = read_json_beside(path, "a JSON object from tokens to ids")?;
    let token = |(content, id): (String, u32)| {
        let special = special.contains(&content);
        (id, AddedToken::from(content, special))
    };
    unique(path, ids.into_iter().map(token).collect()).map(Some)
}

/// The tokens of an `added_tokens_decoder`.
fn of_decoder(path: &Path, decoder: &Value) -> Result<Vec<(u32, AddedToken)>> {
    let expected = "added_tokens_decoder from ids to tokens with a \"content\"";
    let entries = HashMap::<u32, Entry>::deserialize(decoder).map_err(format_error(path, expected))?;
    Ok(entries.into_iter().map(|(id, entry)| (id, entry.into())).collect())
}

/// Adds a token that a `tokenizer.json` lacks and `added_tokens_decoder` has, if its id is the next one, as the library
/// gives it.
///
/// # Errors
/// [`Error::Format`].
pub(super) fn add_missing(library: &mut Library, text: &str, beside: &Beside) -> Result<()> {
    if library.id(text).is_some() {
        return Ok(());
    }
    let Some((path, decoder)) = beside.added_tokens_decoder() else { return Ok(()) };
    let added = of_decoder(path, decoder)?;
    let is_next = added.iter().any(|(id, token)| token.content == text && *id as usize == library.n_tokens());
    if is_next { library.add_special(text) } else { Ok(()) }
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
fn special_texts(object: &Map<String, Value>) -> Vec<String> {
    let text = |value: &Value| value.as_str().or(value["content"].as_str()).map(str::to_owned);
    let named = object.iter().filter(|(key, _)| key.ends_with("_token")).filter_map(|(_, value)| text(value));
    let lists = ["additional_special_tokens", "extra_special_tokens"];
    let listed = lists.iter().filter_map(|key| object.get(*key)?.as_array()).flatten().filter_map(text);
    named.chain(listed).collect()
}
