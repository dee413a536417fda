//! How a decoder spells tokens, as far as a token alone must be spelled otherwise than the decoder does.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::labels::Spelled;
use super::library::Library;

/// How a decoder spells tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each byte as a letter, GPT-2's way: `Ġ` is a space. Added tokens are not spelled so, but the library's decoder
    /// would turn the letters in `đem` into bytes.
    Bytes,
    /// A mark for a space, SentencePiece's way: `▁`. The decoder takes away the space at the beginning of a text, and
    /// with it that of a token alone.
    Marks(String),
    /// In another way.
    Other,
}

type DecodeError = Box<dyn std::error::Error + Send + Sync>;

impl Spelling {
    /// The spelling of a decoder in a `tokenizer.json`.
    pub(super) fn of_decoder(decoder: &Value) -> Self {
        let text = |key: &str| decoder[key].as_str();
        match decoder {
            Value::Array(parts) => {
                parts.iter().map(Self::of_decoder).find(|found| *found != Self::Other).unwrap_or(Self::Other)
            }
            Value::Object(_) => match (text("type"), text("replacement"), decoder["pattern"]["String"].as_str()) {
                (Some("ByteLevel"), ..) => Self::Bytes,
                (Some("Metaspace"), Some(mark), _) => Self::Marks(mark.into()),
                (Some("Replace"), _, Some(mark)) if text("content") == Some(" ") => Self::Marks(mark.into()),
                (Some("Sequence"), ..) => Self::of_decoder(&decoder["decoders"]),
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// The text of tokens, given with their ids.
    pub(super) fn text(&self, library: &Library, tokens: Vec<(u32, String)>) -> Result<String, DecodeError> {
        if *self != Self::Bytes || !tokens.iter().any(|(id, _)| library.is_added(*id)) {
            return library.decode(tokens.into_iter().map(|(_, token)| token).collect());
        }
        let mut text = String::new();
        for run in tokens.chunk_by(|(one, _), (other, _)| library.is_added(*one) == library.is_added(*other)) {
            let run_tokens = run.iter().map(|(_, token)| token.clone());
            if library.is_added(run[0].0) {
                text.extend(run_tokens);
            } else {
                text += &library.decode(run_tokens.collect())?;
            }
        }
        Ok(text)
    }

    /// The text of a token as it stands within a text.
    pub(super) fn single(&self, library: &Library, id: u32, token: String) -> Result<String, DecodeError> {
        /// Something in front of the token, which the decoder does not change.
        const BEFORE: &str = "x";
        if let Self::Marks(_) = self {
            let text = library.decode(vec![BEFORE.into(), token.clone()])?;
            if let Some(text) = text.strip_prefix(BEFORE) {
                return Ok(text.into());
            }
        }
        self.text(library, vec![(id, token)])
    }

    /// A token as its label shows it. Each token of a vocabulary has a spelling of its own, and here a result of its own.
    pub(super) fn spelled(&self, library: &Library, id: u32, token: String) -> Spelled {
        match self {
            Self::Bytes => match bytes_of_letters(&token) {
                Some(bytes) if !library.is_added(id) => Spelled::Bytes(bytes),
                // Its own text, for which the vocabulary may have a spelling in letters too.
                _ => match library.id(&letters_of_bytes(token.as_bytes())) {
                    Some(other) if other != id => Spelled::Twice(token),
                    _ => Spelled::Bytes(token.into_bytes()),
                },
            },
            Self::Marks(_) if is_byte_fallback(&token) => Spelled::Name(token),
            Self::Marks(_) if token.contains(' ') => Spelled::Twice(token),
            Self::Marks(mark) => Spelled::Bytes(token.replace(mark, " ").into_bytes()),
            Self::Other => Spelled::Bytes(token.into_bytes()),
        }
    }

    /// The token that is spelled like this text, for a spelling in which tokenizing the text does not find it.
    pub(super) fn token(&self, library: &Library, text: &str) -> Option<u32> {
        let Self::Marks(mark) = self else {
            return None;
        };
        let token = text.replace(' ', mark);
        let id = library.id(&token)?;
        (self.single(library, id, token).ok()? == text).then_some(id)
    }
}

/// The bytes that GPT-2 spells with their own character; the others have the code points from 256 on, in their order.
fn is_own_letter(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The letter with which GPT-2 spells each byte.
fn byte_letters() -> &'static [char; 256] {
    static LETTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
        let mut next = (256..).filter_map(char::from_u32);
        std::array::from_fn(|byte| match byte as u8 {
            byte if is_own_letter(byte) => char::from(byte),
            _ => next.next().expect("there are more code points than bytes"),
        })
    });
    &LETTERS
}

fn letters_of_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| byte_letters()[usize::from(byte)]).collect()
}

/// The bytes of a token that is spelled with GPT-2's letters; `None` if it has another character.
fn bytes_of_letters(token: &str) -> Option<Vec<u8>> {
    static BYTES: LazyLock<HashMap<char, u8>> =
        LazyLock::new(|| (0..=255).map(|byte| (byte_letters()[usize::from(byte)], byte)).collect());
    token.chars().map(|letter| BYTES.get(&letter).copied()).collect()
}

/// Whether a token is like `<0xF0>`, with which SentencePiece spells bytes that have no token of their own.
fn is_byte_fallback(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|token| token.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_stand_for_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes_of_letters(&letters_of_bytes(&all)), Some(all));
        assert_eq!(letters_of_bytes(" é\n".as_bytes()), "ĠÃ©Ċ");
        assert_eq!(bytes_of_letters("日"), None);
        assert!(is_byte_fallback("<0x0A>") && !is_byte_fallback("<0x0A"));
    }
}
