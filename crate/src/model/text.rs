//! Text ↔ tokens, through the model's tokenizer.

use super::gpt2::Gpt2;
use super::prompts::Prompts;
use crate::error::{Error, Result, check_count};

/// Which of several equal tokens [`Gpt2::get_token_position`] finds: TransformerLens' `mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Occurrence {
    /// The first one.
    #[default]
    First,
    /// The last one.
    Last,
}

impl Gpt2 {
    /// See [`Tokenizer::to_tokens`](crate::Tokenizer::to_tokens).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::Tokenize`].
    pub fn to_tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.to_tokens(text)
    }

    /// See [`Tokenizer::to_tokens_without_bos`](crate::Tokenizer::to_tokens_without_bos).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::Tokenize`].
    pub fn to_tokens_without_bos(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.to_tokens_without_bos(text)
    }

    /// See [`Tokenizer::to_str_tokens`](crate::Tokenizer::to_str_tokens).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::Tokenize`].
    pub fn to_str_tokens(&self, text: &str) -> Result<Vec<String>> {
        self.tokenizer()?.to_str_tokens(text)
    }

    /// See [`Tokenizer::to_single_token`](crate::Tokenizer::to_single_token).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::Tokenize`],
    /// [`Error::NotOneToken`].
    pub fn to_single_token(&self, text: &str) -> Result<u32> {
        self.tokenizer()?.to_single_token(text)
    }

    /// See [`Tokenizer::to_single_str_token`](crate::Tokenizer::to_single_str_token).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::OutOfRange`],
    /// [`Error::Detokenize`].
    pub fn to_single_str_token(&self, token: u32) -> Result<String> {
        self.tokenizer()?.to_single_str_token(token)
    }

    /// The position of a token in a prompt, with its beginning-of-sequence token at position 0: TransformerLens'
    /// `get_token_position`. A token has its leading space: `" Mary"` and `"Mary"` are two tokens.
    ///
    /// ```
    /// use attention_tokens::{Occurrence, prelude::*};
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let prompt = "When Mary and John went to the store, John gave a drink to";
    /// assert_eq!(model.get_token_position(" John", prompt, Occurrence::First)?, 4);
    /// assert_eq!(model.get_token_position(" John", prompt, Occurrence::Last)?, 10);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOneToken`] for a text of several tokens, [`Error::TokenNotInPrompt`] with the prompt's tokens,
    /// [`Error::Count`] for several prompts, and those of [`forward`](Self::forward) about prompts.
    pub fn get_token_position(
        &self,
        single_token: &str,
        prompt: impl Into<Prompts>,
        mode: Occurrence,
    ) -> Result<usize> {
        self.token_position(self.to_single_token(single_token)?, prompt.into(), mode)
    }

    /// [`get_token_position`](Self::get_token_position) without the generic parameter.
    fn token_position(&self, token: u32, prompts: Prompts, mode: Occurrence) -> Result<usize> {
        let mut prompts = self.checked_prompts(prompts)?;
        check_count("get_token_position", "prompts", prompts.len(), 1, Some(1))?;
        let tokens = prompts.remove(0);
        let found = match mode {
            Occurrence::First => tokens.iter().position(|&other| other == token),
            Occurrence::Last => tokens.iter().rposition(|&other| other == token),
        };
        let label = |token: u32| self.token_labels().label(token);
        found.ok_or_else(|| Error::TokenNotInPrompt {
            token: label(token),
            prompt: tokens.into_iter().map(label).collect(),
        })
    }

    /// Each of some token ids as a string, as it stands within a text: `to_str_tokens(tokens)` in TransformerLens.
    /// Shape: `[pos]` → the same.
    ///
    /// # Errors
    /// As for [`to_single_str_token`](Self::to_single_str_token).
    pub fn to_str_tokens_of(&self, tokens: &[u32]) -> Result<Vec<String>> {
        tokens.iter().map(|&token| self.to_single_str_token(token)).collect()
    }

    /// See [`Tokenizer::to_string`](crate::Tokenizer::to_string).
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::OutOfRange`],
    /// [`Error::Detokenize`].
    pub fn to_string(&self, tokens: &[u32]) -> Result<String> {
        self.tokenizer()?.to_string(tokens)
    }
}
