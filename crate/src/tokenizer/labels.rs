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
