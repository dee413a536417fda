//! Limits of a `tokenizer.json`, checked before the tokenizers library sees it.
//!
//! A panic of the library becomes an error ([`contain`](super::contain)). Running out of memory or of stack ends the
//! process instead, so parts that could are refused, with limits far above those of published tokenizers.

use base64::Engine;
use serde_json::{Map, Value};

use crate::error::shortened;

/// The longest token, in bytes. The longest of GPT-2 has 128. The library keeps a Unigram vocabulary in a tree with a
/// level for each byte, and drops it by recursion.
const MAX_TOKEN: usize = 1024;
/// The longest added token, in bytes. The library searches up to 100 of them with a table of 1 KB for each byte.
const MAX_ADDED_TOKEN: usize = 512;
/// The longest prefix or suffix of a part of a word, in bytes, which the library adds to each character.
const MAX_AFFIX: usize = 64;
/// The longest word, in characters, that WordPiece looks at; its time grows with the cube.
const MAX_WORD: u64 = 1000;
/// The deepest nesting of a normalizer, pre-tokenizer or decoder. Each level is parsed several times.
const MAX_DEPTH: usize = 12;
/// The largest number of objects in a normalizer, pre-tokenizer or decoder.
const MAX_OBJECTS: usize = 200;
/// The longest text in a normalizer, pre-tokenizer or decoder, in bytes, and the longest regular expressions together.
const MAX_TEXT: usize = 4096;
/// The largest number of counted repetitions, `x{1,3}`, in regular expressions, each of which can take 10 MB.
const MAX_REPETITIONS: usize = 16;
/// The largest factor by which a normalizer, pre-tokenizer or decoder may lengthen a text.
const MAX_GROWTH: f64 = 8192.0;

/// A value beyond a limit: what was expected, and what was found.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub(super) struct Beyond {
    pub(super) expected: String,
    pub(super) found: String,
}

/// Refuses a value beyond a limit.
fn refuse<T>(expected: impl Into<String>, found: impl std::fmt::Display) -> Result<T, Beyond> {
    Err(Beyond { expected: expected.into(), found: found.to_string() })
}

/// The largest factor by which a normalizer, pre-tokenizer or decoder (`null` if there is none) lengthens a text, in
/// bytes; or why it is refused.
pub(super) fn growth(part: &Value, name: &str) -> Result<f64, Beyond> {
    let mut tree = Tree { name, objects: 0, patterns: 0, repetitions: 0, growth: 1.0 };
    tree.visit(part, 0)?;
    if tree.growth > MAX_GROWTH {
        return refuse(
            format!("a {name} that makes a text at most {MAX_GROWTH} times as long"),
            format!("one that can make it {:.1e} times as long", tree.growth),
        );
    }
    Ok(tree.growth)
}

/// The sums over a normalizer, pre-tokenizer or decoder.
struct Tree<'a> {
    name: &'a str,
    objects: usize,
    patterns: usize,
    repetitions: usize,
    growth: f64,
}

impl Tree<'_> {
    fn visit(&mut self, value: &Value, depth: usize) -> Result<(), Beyond> {
        if depth > MAX_DEPTH {
            return refuse(format!("a {} of at most {MAX_DEPTH} levels", self.name), "more");
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.visit(item, depth + 1)),
            Value::Object(object) => {
                self.object(object)?;
                object.iter().filter(|(key, _)| *key != "precompiled_charsmap").try_for_each(|(key, value)| {
                    self.text(key)?;
                    self.visit(value, depth + 1)
                })
            }
            Value::String(text) => self.text(text),
            _ => Ok(()),
        }
    }

    fn text(&self, text: &str) -> Result<(), Beyond> {
        if text.len() <= MAX_TEXT {
            return Ok(());
        }
        refuse(format!("a {} with texts of at most {MAX_TEXT} bytes", self.name), format!("{} bytes", text.len()))
    }

    fn object(&mut self, object: &Map<String, Value>) -> Result<(), Beyond> {
        self.objects += 1;
        if self.objects > MAX_OBJECTS {
            return refuse(format!("a {} of at most {MAX_OBJECTS} parts", self.name), "more");
        }
        if let Some(pattern) = object.get("Regex").and_then(Value::as_str) {
            self.patterns += pattern.len();
            self.repetitions += repetitions(pattern);
        }
        if self.patterns > MAX_TEXT || self.repetitions > MAX_REPETITIONS {
            let expected = format!(
                "a {} with regular expressions of at most {MAX_TEXT} bytes and {MAX_REPETITIONS} counted repetitions",
                self.name
            );
            return refuse(expected, format!("{} bytes and {}", self.patterns, self.repetitions));
        }
        let len = |key: &str| object.get(key).and_then(Value::as_str).map(|text| text.len() as f64);
        let replaced = len("content").map(|content| match object.get("pattern").and_then(|p| p["String"].as_str()) {
            Some(pattern) if !pattern.is_empty() => (content / pattern.len() as f64).max(1.0),
            // A regular expression can match between any two characters.
            _ => 1.0 + content,
        });
        let charsmap =
            object.get("precompiled_charsmap").and_then(Value::as_str).map(longest_replacement).transpose()?;
        // A prefix is added to each piece between two added tokens, or of a pre-tokenizer.
        let prefixed = len("prepend").or(len("prefix")).map(|prefix| 1.0 + prefix);
        self.growth *= replaced.unwrap_or(1.0) * charsmap.unwrap_or(1.0) * prefixed.unwrap_or(1.0) * kind(object);
        Ok(())
    }
}

/// The factor by which a part of this `type` lengthens a text, without its settings.
fn kind(object: &Map<String, Value>) -> f64 {
    match object.get("type").and_then(Value::as_str) {
        // A byte becomes two, and each piece gets a space in front.
        Some("ByteLevel") => 4.0,
        // A space becomes a character of up to four bytes, and each piece gets one in front.
        Some("Metaspace") => 8.0,
        // U+FDFA, three bytes, becomes 18 characters of 33 bytes. Without a type it can be any of them.
        Some("NFKC" | "NFKD") => 11.0,
        None if object.contains_key("String") || object.contains_key("Regex") => 1.0,
        None => 11.0,
        Some("NFC" | "NFD" | "Lowercase") => 3.0,
        // Spaces around Chinese characters, decomposition and lower case.
        Some("BertNormalizer") => 6.0,
        Some("BPEDecoder" | "WordPiece" | "CTC") => 2.0,
        Some(_) => 1.0,
    }
}

/// The number of counted repetitions in a regular expression: braces that hold a number, except `\x{…}`.
fn repetitions(pattern: &str) -> usize {
    let bytes = pattern.as_bytes();
    let counted = |at: usize| {
        bytes[at] == b'{'
            && bytes.get(at + 1).is_some_and(|next| next.is_ascii_digit() || *next == b',')
            && !(at > 0 && matches!(bytes[at - 1], b'x' | b'u' | b'U'))
    };
    (0..bytes.len()).filter(|&at| counted(at)).count()
}

/// The longest replacement of a SentencePiece character map, in bytes. The map is a size in bytes, a trie of that size,
/// and replacements that end with a zero byte; the library allocates by the size before it looks at the rest.
fn longest_replacement(base64: &str) -> Result<f64, Beyond> {
    const EXPECTED: &str = "a precompiled_charsmap in base64: the size of a trie, the trie, texts";
    let Ok(map) = base64::engine::general_purpose::STANDARD.decode(base64) else {
        return refuse(EXPECTED, format!("{:?}", shortened(base64)));
    };
    let Some((size, rest)) = map.split_first_chunk::<4>() else {
        return refuse(EXPECTED, format!("{} bytes", map.len()));
    };
    let size = u32::from_le_bytes(*size) as usize;
    let Some(texts) = rest.get(size..) else {
        return refuse(EXPECTED, format!("a size of {size} bytes before {} bytes", rest.len()));
    };
    Ok(texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as f64)
}

/// Checks the model of a tokenizer: the lengths of its tokens and affixes, and of the words that it looks at.
pub(super) fn check_model(model: &Value) -> Result<(), Beyond> {
    let long = |text: &&str| text.len() > MAX_TOKEN;
    let token = match &model["vocab"] {
        Value::Object(tokens) => tokens.keys().map(String::as_str).find(long),
        Value::Array(tokens) => tokens.iter().filter_map(|token| token[0].as_str()).find(long),
        _ => None,
    };
    if let Some(token) = token {
        return refuse(
            format!("tokens of at most {MAX_TOKEN} bytes"),
            format!("one of {} bytes: {:?}", token.len(), shortened(token)),
        );
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix", "unk_token"] {
        let text = model[key].as_str().unwrap_or_default();
        if text.len() > MAX_AFFIX {
            return refuse(format!("a {key} of at most {MAX_AFFIX} bytes"), format!("{} bytes", text.len()));
        }
    }
    match model["max_input_chars_per_word"].as_f64() {
        Some(found) if found > MAX_WORD as f64 => refuse(format!("max_input_chars_per_word up to {MAX_WORD}"), found),
        _ => Ok(()),
    }
}

/// Checks the length of an added token.
pub(super) fn check_added_token(content: &str) -> Result<(), Beyond> {
    if content.len() <= MAX_ADDED_TOKEN {
        return Ok(());
    }
    refuse(format!("added tokens of at most {MAX_ADDED_TOKEN} bytes"), format!("one of {} bytes", content.len()))
}

/// Checks the lengths of added tokens after normalization, in bytes. The library builds a search with a state for each
/// byte, which takes long if a normalizer repeats a text.
pub(super) fn check_normalized_tokens(bytes: usize, normalized_bytes: usize) -> Result<(), Beyond> {
    let max = (8 * bytes).max(1 << 14);
    if normalized_bytes <= max {
        return Ok(());
    }
    refuse(format!("added tokens of at most {max} bytes after normalization"), format!("{normalized_bytes} bytes"))
}

/// Checks that a text of `len` bytes, lengthened by `growth`, fits into memory. Factors that published tokenizers have
/// are taken for any text.
pub(super) fn check_growth(len: usize, growth: f64) -> Result<(), Beyond> {
    const ORDINARY: f64 = 64.0;
    const MAX: f64 = (32 << 20) as f64;
    let grown = len as f64 * growth;
    if growth <= ORDINARY || grown <= MAX {
        return Ok(());
    }
    refuse(
        format!("a text that the tokenizer makes at most {MAX} bytes long"),
        format!("{len} bytes, which it can make {growth:.0} times as long"),
    )
}
