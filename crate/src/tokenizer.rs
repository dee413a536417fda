//! Text ↔ token ids, with Hugging Face's `tokenizers`; and the labels of tokens in figures and tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper};

use crate::error::{Error, Result};

/// The paths of a tokenizer's files.
#[derive(Debug)]
pub(crate) enum TokenizerFiles {
    /// `tokenizer.json`.
    Json(PathBuf),
    /// `vocab.json` and `merges.txt`.
    VocabAndMerges { vocab: PathBuf, merges: PathBuf },
}

/// A model's tokenizer: text ↔ token ids. Cloning is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    bos: u32,
}

impl Tokenizer {
    /// Reads a model's tokenizer.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Format`] for a file that is not a tokenizer.
    pub(crate) fn from_files(files: &TokenizerFiles, bos: u32) -> Result<Self> {
        match files {
            TokenizerFiles::Json(path) => Self::from_json(path, bos),
            TokenizerFiles::VocabAndMerges { vocab, merges } => Self::from_vocab_and_merges(vocab, merges, bos),
        }
    }

    fn from_json(path: &Path, bos: u32) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(format_error(path, "a tokenizer"))?;
        // The file may have the truncation and padding of a training run, which would cut or fill prompts.
        inner.with_truncation(None).map_err(format_error(path, "a tokenizer without truncation"))?;
        inner.with_padding(None);
        Ok(Self { inner: Arc::new(inner), bos })
    }

    fn from_vocab_and_merges(vocab: &Path, merges: &Path, bos: u32) -> Result<Self> {
        let (vocab_text, merges_text) = (vocab.to_string_lossy(), merges.to_string_lossy());
        let bpe = BPE::from_file(&vocab_text, &merges_text).build().map_err(format_error(vocab, "a BPE vocabulary"))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(ByteLevel::default().add_prefix_space(false))));
        inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
        if let Some(text) = inner.id_to_token(bos) {
            inner.add_special_tokens(&[AddedToken::from(text, true).normalized(false)]);
        }
        Ok(Self { inner: Arc::new(inner), bos })
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token ids of a text, with the beginning-of-sequence token in front. Shape: → `[pos]`.
    ///
    /// # Errors
    /// [`Error::Tokenize`] if the tokenizer cannot encode the text.
    pub fn to_tokens(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = vec![self.bos];
        tokens.extend(self.to_tokens_without_bos(text)?);
        Ok(tokens)
    }

    /// The token ids of a text, without the beginning-of-sequence token: TransformerLens' `to_tokens(text,
    /// prepend_bos=False)`. Shape: → `[pos]`.
    ///
    /// # Errors
    /// [`Error::Tokenize`] if the tokenizer cannot encode the text.
    pub fn to_tokens_without_bos(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|source| Error::Tokenize { text: text.into(), source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of a text as strings, with the beginning-of-sequence token in front. Shape: → `[pos]`.
    ///
    /// # Errors
    /// As for [`to_tokens`](Self::to_tokens) and [`to_single_str_token`](Self::to_single_str_token).
    pub fn to_str_tokens(&self, text: &str) -> Result<Vec<String>> {
        self.to_tokens(text)?.into_iter().map(|token| self.to_single_str_token(token)).collect()
    }

    /// The id of a text that is a single token.
    ///
    /// # Errors
    /// [`Error::NotOneToken`], with the tokens that the tokenizer splits it into; [`Error::Tokenize`].
    pub fn to_single_token(&self, text: &str) -> Result<u32> {
        match self.to_tokens_without_bos(text)?[..] {
            [token] => Ok(token),
            ref tokens => Err(Error::NotOneToken {
                text: text.into(),
                found: tokens.iter().map(|&token| self.to_single_str_token(token)).collect::<Result<_>>()?,
            }),
        }
    }

    /// The string of a token. A token that is part of a character gives `�`, as in Python.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the tokenizer has no token of this id, [`Error::Detokenize`] if the tokenizer's decoder
    /// fails.
    pub fn to_single_str_token(&self, token: u32) -> Result<String> {
        self.to_string(&[token])
    }

    /// The text of token ids, special tokens included.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the tokenizer has no token of one of the ids, [`Error::Detokenize`] if the tokenizer's
    /// decoder fails.
    pub fn to_string(&self, tokens: &[u32]) -> Result<String> {
        let unknown = |token: u32| Error::OutOfRange {
            what: "token id",
            index: token as usize,
            owner: "the tokenizer",
            len: self.vocab_size(),
        };
        if let Some(&token) = tokens.iter().find(|&&token| self.inner.id_to_token(token).is_none()) {
            return Err(unknown(token));
        }
        // All ids are known: only a decoder other than GPT-2's can fail.
        self.inner.decode(tokens, false).map_err(|source| Error::Detokenize { tokens: tokens.to_vec(), source })
    }
}

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

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).field("bos", &self.bos).finish()
    }
}

/// [`Error::Format`] for a file of the tokenizer.
fn format_error(path: &Path, expected: &str) -> impl FnOnce(tokenizers::Error) -> Error {
    let (path, expected) = (path.to_owned(), expected.to_owned());
    move |error| Error::format(path, expected, error)
}
