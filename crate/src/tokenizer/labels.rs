//! The labels of tokens in figures, tables and hover texts.

use super::Tokenizer;

/// The labels of tokens in figures, tables and hover texts. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct TokenLabels(Option<Tokenizer>);

impl TokenLabels {
    /// The labels of a model's tokens; without a tokenizer, of token ids.
    pub(crate) fn new(tokenizer: Option<Tokenizer>) -> Self {
        Self(tokenizer)
    }

    /// The text of a token, or `#` and its id if it has none (no tokenizer, or an id beyond its vocabulary).
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

    /// The text of a token with white space made visible: `<nl>` for a newline, `<sp>` for a lone space, `<tab>` for a
    /// tab; `EOS` for `<|endoftext|>`.
    pub(crate) fn label(&self, token: u32) -> String {
        match &*self.text(token) {
            "<|endoftext|>" => "EOS".into(),
            " " => "<sp>".into(),
            text => text.replace('\n', "<nl>").replace('\t', "<tab>"),
        }
    }
}
