//! How a decoder spells tokens, as far as a token alone must be spelled otherwise than the decoder does.

use serde_json::Value;

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
