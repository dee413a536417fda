//! Text ↔ tokens, through the model's tokenizer.

use super::gpt2::Gpt2;
use crate::error::Result;

impl Gpt2 {
    /// See [`Tokenizer::to_tokens`](crate::Tokenizer::to_tokens).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`](crate::Error::NoTokenizer), [`Error::Tokenize`](crate::Error::Tokenize).
    pub fn to_tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.to_tokens(text)
    }

    /// See [`Tokenizer::to_tokens_without_bos`](crate::Tokenizer::to_tokens_without_bos).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`](crate::Error::NoTokenizer), [`Error::Tokenize`](crate::Error::Tokenize).
    pub fn to_tokens_without_bos(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.to_tokens_without_bos(text)
    }

    /// See [`Tokenizer::to_str_tokens`](crate::Tokenizer::to_str_tokens).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`](crate::Error::NoTokenizer), [`Error::Tokenize`](crate::Error::Tokenize).
    pub fn to_str_tokens(&self, text: &str) -> Result<Vec<String>> {
        self.tokenizer()?.to_str_tokens(text)
    }

    /// See [`Tokenizer::to_single_token`](crate::Tokenizer::to_single_token).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`](crate::Error::NoTokenizer), [`Error::Tokenize`](crate::Error::Tokenize),
    /// [`Error::NotOneToken`](crate::Error::NotOneToken).
    pub fn to_single_token(&self, text: &str) -> Result<u32> {
        self.tokenizer()?.to_single_token(text)
    }

    /// See [`Tokenizer::to_single_str_token`](crate::Tokenizer::to_single_str_token).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`](crate::Error::NoTokenizer), [`Error::OutOfRange`](crate::Error::OutOfRange),
    /// [`Error::Detokenize`](crate::Error::Detokenize).
    pub fn to_single_str_token(&self, token: u32) -> Result<String> {
        self.tokenizer()?.to_single_str_token(token)
    }

    /// See [`Tokenizer::to_string`](crate::Tokenizer::to_string).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`](crate::Error::NoTokenizer), [`Error::OutOfRange`](crate::Error::OutOfRange),
    /// [`Error::Detokenize`](crate::Error::Detokenize).
    pub fn to_string(&self, tokens: &[u32]) -> Result<String> {
        self.tokenizer()?.to_string(tokens)
    }
}
