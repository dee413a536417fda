//! Text ↔ token ids, with Hugging Face's `tokenizers`; and the labels of tokens in figures and tables.

mod added_tokens;
mod bos;
mod contain;
mod files;
#[cfg(test)]
mod fuzz;
mod labels;
mod library;
mod limits;
mod patterns;
mod runs;
mod special_tokens;
mod spelling;
mod tokenizer_json;
mod visible;
mod vocab_and_merges;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::digest::{Context, SHA256};

use crate::error::{Error, Result};
use crate::files::hexadecimal;
pub(crate) use bos::{Bos, ConfigBos};
pub(crate) use files::{FilesBeside, TokenizerFiles, VocabularyFiles};
pub(crate) use labels::TokenLabels;
use library::Library;
use special_tokens::Beside;
use spelling::Spelling;
pub(crate) use visible::visible;

/// A model's tokenizer: text ↔ token ids. Cloning is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    bos: Option<u32>,
}

struct Inner {
    library: Library,
    spelling: Spelling,
    /// Whether the notice of a second beginning-of-sequence token was printed.
    noticed_second_bos: AtomicBool,
}

impl Tokenizer {
    /// Reads a model's tokenizer, and chooses the token with which text begins. `config` is that of `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Format`] for a file that is not a tokenizer.
    pub(crate) fn from_files(files: &TokenizerFiles, config: ConfigBos) -> Result<(Self, Bos)> {
        let beside = Beside::read(&files.beside)?;
        let (library, spelling, bos) = match &files.vocabulary {
            VocabularyFiles::Json(path) => {
                let (mut library, spelling) = tokenizer_json::read(path)?;
                let own = beside.bos()?;
                added_tokens::add_missing(&mut library, &own.text, &beside)?;
                let bos = config.choose(&own, |text| library.id(text), |id| library.token(id));
                (library, spelling, bos)
            }
            VocabularyFiles::VocabAndMerges { vocab, merges } => {
                let added = added_tokens::read(&beside, files.beside.added_tokens.as_deref())?;
                let (library, bos) = vocab_and_merges::read_tokenizer(vocab, merges, &beside, added, config)?;
                (library, Spelling::Bytes, bos)
            }
        };
        let inner = Inner { library, spelling, noticed_second_bos: AtomicBool::new(false) };
        Ok((Self { inner: Arc::new(inner), bos: bos.token }, bos))
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.library.n_tokens()
    }

    /// The SHA-256 of the tokenizer as JSON and of its beginning-of-sequence token, as hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Format`] if the library cannot write the tokenizer.
    pub(crate) fn digest(&self) -> Result<String> {
        let mut context = Context::new(&SHA256);
        context.update(self.inner.library.to_json()?.as_bytes());
        context.update(format!("bos {:?}", self.bos).as_bytes());
        Ok(hexadecimal(context.finish()))
    }

    /// The token ids of a text, with the beginning-of-sequence token in front if the model has one. Shape: → `[pos]`.
    ///
    /// A text that itself begins with that token gets a second one, as in TransformerLens; the first time, a line on
    /// standard error says so.
    ///
    /// # Errors
    /// [`Error::Tokenize`] if the tokenizer cannot encode the text.
    pub fn to_tokens(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = Vec::from_iter(self.bos);
        tokens.extend(self.to_tokens_without_bos(text)?);
        if let Some(bos) = self.bos
            && tokens.get(1) == Some(&bos)
            && !self.inner.noticed_second_bos.swap(true, Ordering::Relaxed)
        {
            let bos = self.to_single_str_token(bos)?;
            eprintln!(
                "a text begins with {bos:?}, the beginning-of-sequence token, and gets a second one in front of it, as \
                 in TransformerLens; to have only one, leave it out of the text, or give the token ids of \
                 `to_tokens_without_bos`"
            );
        }
        Ok(tokens)
    }

    /// The token ids of a text, without the beginning-of-sequence token: TransformerLens' `to_tokens(text,
    /// prepend_bos=False)`. Shape: → `[pos]`.
    ///
    /// # Errors
    /// [`Error::Tokenize`] if the tokenizer cannot encode the text.
    pub fn to_tokens_without_bos(&self, text: &str) -> Result<Vec<u32>> {
        self.inner.library.encode(text)
    }

    /// The number of tokens in front of those of a text: 1 for a beginning-of-sequence token, else 0.
    pub(crate) fn text_start(&self) -> usize {
        self.bos.iter().len()
    }

    /// The tokens of a text as strings, with the beginning-of-sequence token in front if the model has one. Shape: →
    /// `[pos]`.
    ///
    /// # Errors
    /// As for [`to_tokens`](Self::to_tokens) and [`to_single_str_token`](Self::to_single_str_token).
    pub fn to_str_tokens(&self, text: &str) -> Result<Vec<String>> {
        self.to_tokens(text)?.into_iter().map(|token| self.to_single_str_token(token)).collect()
    }

    /// The id of a text that is a single token.
    ///
    /// A tokenizer in SentencePiece's way has tokens with a space in front, `▁the`, and without: `" the"` and `"the"`
    /// are these two, although the tokenizer puts a space in front of every text.
    ///
    /// # Errors
    /// [`Error::NotOneToken`], with the tokens that the tokenizer splits it into; [`Error::Tokenize`].
    pub fn to_single_token(&self, text: &str) -> Result<u32> {
        let Inner { library, spelling, .. } = &*self.inner;
        if let Some(token) = spelling.token(library, text) {
            return Ok(token);
        }
        match self.to_tokens_without_bos(text)?[..] {
            [token] => Ok(token),
            ref tokens => Err(Error::NotOneToken {
                text: text.into(),
                found: tokens.iter().map(|&token| TokenLabels::new(Some(self.clone())).label(token)).collect(),
            }),
        }
    }

    /// The string of a token as it stands within a text, with its leading space. A token that is part of a character
    /// gives `�`, as in Python.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the tokenizer has no token of this id, [`Error::Detokenize`] if the tokenizer's decoder
    /// fails.
    pub fn to_single_str_token(&self, token: u32) -> Result<String> {
        let Inner { library, spelling, .. } = &*self.inner;
        spelling
            .single(library, token, self.known(token)?)
            .map_err(|source| Error::Detokenize { tokens: vec![token], source })
    }

    /// A token as its label shows it; `None` if the tokenizer has no token of this id.
    fn spelled(&self, token: u32) -> Option<labels::Spelled> {
        let Inner { library, spelling, .. } = &*self.inner;
        Some(spelling.spelled(library, token, library.token(token)?))
    }

    /// The text of token ids, special tokens included.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the tokenizer has no token of one of the ids, [`Error::Detokenize`] if the tokenizer's
    /// decoder fails.
    pub fn to_string(&self, tokens: &[u32]) -> Result<String> {
        if tokens.is_empty() {
            return Ok(String::new());
        }
        let known = tokens.iter().map(|&token| Ok((token, self.known(token)?))).collect::<Result<_>>()?;
        let Inner { library, spelling, .. } = &*self.inner;
        spelling.text(library, known).map_err(|source| Error::Detokenize { tokens: tokens.to_vec(), source })
    }

    /// A token as the vocabulary has it.
    fn known(&self, token: u32) -> Result<String> {
        let len = self.vocab_size();
        self.inner.library.token(token).ok_or_else(|| match token as usize {
            index if index >= len => Error::OutOfRange { what: "token id", index, owner: "the tokenizer", len },
            _ => Error::Detokenize { tokens: vec![token], source: "the vocabulary has no token of this id".into() },
        })
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Tokenizer");
        shown.field("vocab_size", &self.vocab_size());
        match self.bos {
            Some(bos) => shown.field("bos", &bos),
            None => shown.field("bos", &self.bos),
        };
        shown.finish()
    }
}
