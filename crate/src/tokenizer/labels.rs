//! The labels of tokens in figures, tables, hover texts and captions.

use super::Tokenizer;
use super::visible::{not_a_name, visible};

/// Maximum length of a label in characters, and the number of characters that a longer one keeps.
const MAX_CHARS: usize = 40;
const KEPT_CHARS: usize = 28;

/// The labels of tokens in figures, tables and hover texts. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct TokenLabels(Option<Tokenizer>);

/// How the vocabulary spells a token.
pub(super) enum Spelled {
    /// The text, or bytes that are only a part of a character.
    Bytes(Vec<u8>),
    /// The name of a byte.
    Name(String),
    /// A text that another token of the vocabulary has as well.
    Twice(String),
}

impl TokenLabels {
    /// The labels of a model's tokens; without a tokenizer, of token ids.
    pub(crate) fn new(tokenizer: Option<Tokenizer>) -> Self {
        Self(tokenizer)
    }

    /// The text of a token, or `#` and its id if it has none (no tokenizer, or an id beyond its vocabulary). This is
    /// for data; [`label`](Self::label) is for figures, tables and messages.
    pub(crate) fn text(&self, token: u32) -> String {
        let text = self.0.as_ref().and_then(|tokenizer| tokenizer.to_single_str_token(token).ok());
        text.unwrap_or_else(|| format!("#{token}"))
    }

    /// The text of a sequence of tokens. If the tokenizer does not know one of them, the texts of single tokens, as
    /// [`text`](Self::text) gives them, with a space in front of an id.
    pub(crate) fn joined(&self, tokens: &[u32]) -> String {
        let text = self.0.as_ref().and_then(|tokenizer| tokenizer.to_string(tokens).ok());
        text.unwrap_or_else(|| {
            let known = |token: u32| self.0.as_ref().and_then(|tokenizer| tokenizer.to_single_str_token(token).ok());
            tokens.iter().map(|&token| known(token).unwrap_or_else(|| format!(" #{token}"))).collect()
        })
    }

    /// The label of a token, wherever a person reads it. No two tokens of a vocabulary have the same label.
    ///
    /// It is the token's text with everything visible, as the table of [`visible`](super::visible()) has it; `<sp>` for a
    /// lone space, `EOS` for `<|endoftext|>`, `#` and the id for an id without text. Of a label with more than 40
    /// characters, the first 28 and the id are left.
    pub(crate) fn label(&self, token: u32) -> String {
        let Some(spelled) = self.0.as_ref().and_then(|tokenizer| tokenizer.spelled(token)) else {
            return format!("#{token}");
        };
        let label = match spelled {
            Spelled::Bytes(bytes) => match std::str::from_utf8(&bytes) {
                Ok("<|endoftext|>") => "EOS".into(),
                Ok(" ") => "<sp>".into(),
                Ok(text) if text == "EOS" || is_id(text) => not_a_name(text),
                _ => visible(&bytes),
            },
            Spelled::Name(name) => name,
            Spelled::Twice(text) => format!("{}<#{token}>", visible(text.as_bytes())),
        };
        if label.is_empty() {
            return format!("<#{token}>");
        }
        match label.char_indices().nth(KEPT_CHARS) {
            Some((end, _)) if label.chars().count() > MAX_CHARS => format!("{}…<#{token}>", &label[..end]),
            _ => label,
        }
    }

    /// The labels of a sequence of tokens, one after the other: a text in which everything is visible.
    pub(crate) fn labels(&self, tokens: &[u32]) -> String {
        tokens.iter().map(|&token| self.label(token)).collect()
    }
}

/// Whether a text looks like the label of an id without text: `#` and digits.
fn is_id(text: &str) -> bool {
    text.strip_prefix('#').is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}
