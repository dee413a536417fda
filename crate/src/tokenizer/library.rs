//! A tokenizer of the tokenizers library: its panics are errors, and what could use up the memory is refused.

use std::path::{Path, PathBuf};

use tokenizers::{AddedToken, Decoder, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper};
use tokenizers::{DecoderWrapper, PreTokenizerWrapper};

use super::contain::contain;
use super::files::{beyond, contained, format_error};
use super::limits;
use super::patterns::Patterns;
use crate::error::{Error, Result};

/// The parts of a tokenizer, with its regular expressions, and the factors by which it can lengthen a text.
pub(super) struct Parts {
    pub(super) model: ModelWrapper,
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: Option<PreTokenizerWrapper>,
    pub(super) decoder: Option<DecoderWrapper>,
    pub(super) patterns: Patterns,
    pub(super) encode_growth: f64,
    pub(super) decode_growth: f64,
}

/// A tokenizer of the library, and the file that it is from.
pub(super) struct Library {
    tokenizer: tokenizers::Tokenizer,
    file: PathBuf,
    patterns: Patterns,
    encode_growth: f64,
    decode_growth: f64,
    n_tokens: usize,
}

/// A failure of the library, with the name of the tokenizer's file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
struct InFile {
    file: PathBuf,
    problem: String,
}

impl Library {
    /// A tokenizer of these parts. Truncation, padding and post-processing are left out.
    ///
    /// # Errors
    /// [`Error::Format`] with the name of the file.
    pub(super) fn new(file: &Path, parts: Parts, added: &[AddedToken]) -> Result<Self> {
        let Parts { model, normalizer, pre_tokenizer, decoder, patterns, encode_growth, decode_growth } = parts;
        added.iter().try_for_each(|token| limits::check_added_token(&token.content)).map_err(beyond(file))?;
        check_normalized_tokens(file, added, normalizer.as_ref())?;
        let build = || {
            let mut tokenizer = tokenizers::Tokenizer::new(model);
            tokenizer.with_normalizer(normalizer).with_pre_tokenizer(pre_tokenizer).with_decoder(decoder);
            tokenizer.add_tokens(added);
            let n_tokens = tokenizer.get_vocab_size(true);
            (tokenizer, n_tokens)
        };
        let (tokenizer, n_tokens) = contain(build).map_err(format_error(file, "a tokenizer"))?;
        Ok(Self { tokenizer, file: file.into(), patterns, encode_growth, decode_growth, n_tokens })
    }

    /// Adds a special token, which gets the next free id.
    ///
    /// # Errors
    /// [`Error::Format`] with the name of the file.
    pub(super) fn add_special(&mut self, content: &str) -> Result<()> {
        limits::check_added_token(content).map_err(beyond(&self.file))?;
        let token = AddedToken::from(content, true);
        let add = || {
            self.tokenizer.add_special_tokens(&[token]);
            self.tokenizer.get_vocab_size(true)
        };
        self.n_tokens = contain(add).map_err(format_error(&self.file, "a tokenizer"))?;
        Ok(())
    }

    /// Number of tokens, added ones included.
    pub(super) fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// The tokenizer in the format of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Format`] with the name of the file.
    pub(super) fn to_json(&self) -> Result<String> {
        contained(&self.file, "a tokenizer that can be written as JSON", || self.tokenizer.to_string(false))
    }

    /// The token ids of a text, without special tokens around it. Shape: → `[pos]`.
    ///
    /// # Errors
    /// [`Error::Tokenize`].
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encode = || {
            limits::check_growth(text.len(), self.encode_growth).map_err(|beyond| beyond.to_string())?;
            let added = self.tokenizer.get_added_vocabulary().get_vocab().keys().map(String::as_str);
            let pieces = contain(|| self.patterns.pieces(text, added)).map_err(|panic| panic.to_string())??;
            let mut ids = Vec::new();
            for piece in pieces {
                let encoding =
                    contain(|| self.tokenizer.encode_fast(piece, false)).map_err(|panic| panic.to_string())?;
                ids.extend_from_slice(encoding.map_err(|error| error.to_string())?.get_ids());
            }
            Ok(ids)
        };
        encode().map_err(|problem| Error::Tokenize { text: text.into(), source: self.in_file(problem) })
    }

    /// The token of an id as the vocabulary has it (`Ġthe`, `▁the`), if there is one.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// Whether a token was added to the vocabulary of the model, as text that is found before the text is split.
    pub(super) fn is_added(&self, id: u32) -> bool {
        self.tokenizer.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    /// The id of a token as the vocabulary has it.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The text of tokens as the vocabulary has them.
    ///
    /// # Errors
    /// What the decoder says, with the name of the file.
    pub(super) fn decode(&self, tokens: Vec<String>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let Some(decoder) = self.tokenizer.get_decoder() else {
            return Ok(tokens.join(" "));
        };
        let decode = || {
            limits::check_growth(tokens.iter().map(String::len).sum(), self.decode_growth)
                .map_err(|beyond| beyond.to_string())?;
            let texts = contain(|| decoder.decode_chain(tokens)).map_err(|panic| panic.to_string())?;
            texts.map(|texts| texts.concat()).map_err(|error| error.to_string())
        };
        decode().map_err(|problem| self.in_file(problem))
    }

    fn in_file(&self, problem: String) -> Box<dyn std::error::Error + Send + Sync> {
        Box::new(InFile { file: self.file.clone(), problem })
    }
}

/// Checks the lengths of added tokens after normalization, as the library compares them with a text.
fn check_normalized_tokens(file: &Path, added: &[AddedToken], normalizer: Option<&NormalizerWrapper>) -> Result<()> {
    let Some(normalizer) = normalizer else {
        return Ok(());
    };
    let (mut bytes, mut normalized_bytes) = (0, 0);
    for token in added.iter().filter(|token| token.normalized) {
        let normalize = || {
            let mut text = NormalizedString::from(token.content.as_str());
            normalizer.normalize(&mut text).map(|()| text.get().len())
        };
        bytes += token.content.len();
        normalized_bytes += contained(file, "a normalizer for its added tokens", normalize)?;
    }
    limits::check_normalized_tokens(bytes, normalized_bytes).map_err(beyond(file))
}
