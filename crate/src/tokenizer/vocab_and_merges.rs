//! `vocab.json` and `merges.txt`, the files of GPT-2's own tokenizer, with the tokens that files beside them add.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper};

use super::added_tokens::AddedTokens;
use super::bos::{Bos, ConfigBos};
use super::files::{contained, format_error, read, read_json};
use super::library::{Library, Parts};
use super::patterns::Patterns;
use super::special_tokens::Beside;
use crate::error::{Error, Result, shortened};
use crate::files::Content;

/// Reads a byte-level tokenizer from its vocabulary and merges.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`].
pub(super) fn read_tokenizer(
    vocab: &Path,
    merges: &Path,
    beside: &Beside,
    added: AddedTokens,
    config: ConfigBos,
) -> Result<(Library, Bos)> {
    let mut tokens: Vocab = read_json(vocab, "a JSON object from tokens to ids")?;
    let merges = read_merges(merges, &tokens)?;
    let mut added = match added {
        Some((path, added)) => add_to_vocabulary(path, added, &mut tokens)?,
        None => Vec::new(),
    };
    let text_of = |id: u32| tokens.iter().find(|&(_, &other)| other == id).map(|(text, _)| text.clone());
    let own = beside.bos()?;
    let bos = config.choose(&own, |text| tokens.get(text).copied(), text_of);
    // In a text, the tokenizer's own is one token also where the model does not have it.
    let own = Some(own).filter(|own| own.has_files || bos.token.is_none()).map(|own| own.text);
    for text in bos.token.and_then(text_of).into_iter().chain(own.filter(|own| tokens.contains_key(own))) {
        if !added.iter().any(|token| token.content == text) {
            added.push(AddedToken::from(text, true));
        }
    }
    let build = || BPE::builder().vocab_and_merges(tokens, merges).build();
    let bpe = contained(vocab, "a BPE vocabulary", build)?;
    let add_prefix_space =
        beside.config.as_ref().is_some_and(|(_, config)| config.get("add_prefix_space") == Some(&Value::Bool(true)));
    let split = ByteLevel::default().add_prefix_space(add_prefix_space);
    let parts = Parts {
        model: bpe.into(),
        normalizer: None,
        pre_tokenizer: Some(PreTokenizerWrapper::ByteLevel(split)),
        decoder: Some(DecoderWrapper::ByteLevel(ByteLevel::default())),
        patterns: Patterns::gpt2(add_prefix_space),
        encode_growth: 4.0,
        decode_growth: 4.0,
    };
    Ok((Library::new(vocab, parts, &added)?, bos))
}

/// Puts added tokens into the vocabulary, so that each gets its own id: the library gives the next free one to tokens
/// that are not in it. Returns them in the order of their ids.
fn add_to_vocabulary(path: &Path, added: BTreeMap<u32, AddedToken>, tokens: &mut Vocab) -> Result<Vec<AddedToken>> {
    let by_id: BTreeMap<u32, String> = tokens.iter().map(|(token, &id)| (id, token.clone())).collect();
    for (id, token) in &added {
        let other = by_id.get(id).filter(|other| **other != token.content);
        let own = tokens.get(&token.content).filter(|own| *own != id);
        let found = match (other, own) {
            (None, None) => {
                tokens.insert(token.content.clone(), *id);
                continue;
            }
            (Some(other), _) => format!("{id} for {:?}, which is {:?}", shortened(&token.content), shortened(other)),
            (None, Some(own)) => format!("{id} for {:?}, which has {own}", shortened(&token.content)),
        };
        let expected = "ids that agree with vocab.json".into();
        return Err(Error::Format { path: path.into(), expected, found, source: None });
    }
    Ok(added.into_values().collect())
}

/// Reads `merges.txt`: a line for each merge, with the two tokens that it joins, in order of priority.
fn read_merges(path: &Path, tokens: &Vocab) -> Result<Merges> {
    const EXPECTED: &str = "merges in UTF-8";
    let text = String::from_utf8(read(path, Content::Text, EXPECTED)?).map_err(format_error(path, EXPECTED))?;
    let mut merges = Merges::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let error = |expected: String, found: String| {
            let found = format!("{:?} in line {number}", shortened(&found));
            Err(Error::Format { path: path.into(), expected, found, source: None })
        };
        if line.starts_with("#version") || line.trim_ascii().is_empty() {
            continue;
        }
        let parts: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[left, right] = &parts[..] else {
            return error("two tokens in each line, with a space between them".into(), line.into());
        };
        if let Some(unknown) = [left.to_owned(), right.to_owned(), format!("{left}{right}")]
            .into_iter()
            .find(|token| !tokens.contains_key(token))
        {
            return error("tokens of vocab.json that join to another of its tokens".into(), unknown);
        }
        merges.push((left.into(), right.into()));
    }
    Ok(merges)
}
