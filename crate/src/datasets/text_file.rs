//! Rows of tokens from a text file: TransformerLens' `tokenize_and_concatenate`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ndarray::Array2;

use crate::error::{Error, Result, check_count};
use crate::model::Gpt2;

const FUNCTION: &str = "tokenize_and_concatenate";

/// Bytes of a document that are tokenized together. A longer document is cut between words.
const MAX_PIECE: usize = 1 << 20;

/// The documents of a text file: `sample_by` of Hugging Face's loader of text files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleBy {
    /// Each line is a document.
    #[default]
    Line,
    /// Documents are separated by empty lines.
    Paragraph,
    /// The file is one document.
    Document,
}

/// Options of [`tokenize_and_concatenate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFileOptions {
    max_length: Option<usize>,
    add_bos_token: bool,
    sample_by: SampleBy,
    max_rows: Option<usize>,
}

impl Default for TextFileOptions {
    fn default() -> Self {
        Self { max_length: None, add_bos_token: true, sample_by: SampleBy::Line, max_rows: None }
    }
}

impl TextFileOptions {
    /// Tokens of a row, the beginning-of-sequence token included, at most the model's context. Default: the context.
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.max_length = Some(tokens);
        self
    }

    /// Begin each row with the beginning-of-sequence token, if the model has one. Default: true.
    pub fn add_bos_token(mut self, add: bool) -> Self {
        self.add_bos_token = add;
        self
    }

    /// What a document is. Default: a line.
    pub fn sample_by(mut self, sample_by: SampleBy) -> Self {
        self.sample_by = sample_by;
        self
    }

    /// Stop after this many rows, without reading the rest of the file.
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.max_rows = Some(rows);
        self
    }
}

/// Rows of tokens of a text file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRows {
    /// Shape: `[row, max_length]`.
    pub tokens: Array2<u32>,
    /// The number of documents that were read. Empty ones do not count.
    pub n_documents: usize,
    /// The number of tokens that were left over, because they did not fill a row.
    pub n_dropped: usize,
}

impl TokenRows {
    /// The rows as prompts. Shape: → `[row][max_length]`.
    pub fn prompts(&self) -> Vec<Vec<u32>> {
        self.tokens.rows().into_iter().map(|row| row.to_vec()).collect()
    }
}

/// Tokenizes the documents of a UTF-8 text file, joins them with the model's end-of-sequence token (if it has none, with its
/// beginning-of-sequence token), and cuts the result into rows of equal length. What does not fill the last row is dropped.
///
/// The file is read piece by piece. A document of more than 1 MiB is tokenized in pieces that end between words, or in a
/// word that is longer than that.
///
/// ```
/// use attention_tokens::datasets::{TextFileOptions, tokenize_and_concatenate};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/prompts.txt");
/// let rows = tokenize_and_concatenate(&model, path, TextFileOptions::default().max_length(64))?;
/// assert_eq!(rows.tokens.ncols(), 64);
/// let losses = model.loss(rows.prompts())?;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] for a file that cannot be read, [`Error::Format`] for one that is not UTF-8, with the place,
/// [`Error::NoTokenizer`], [`Error::Tokenize`], [`Error::Count`] for a length that is too small or exceeds the context, and
/// [`Error::Setting`] for several documents if the model has neither of the two tokens.
pub fn tokenize_and_concatenate(model: &Gpt2, path: impl AsRef<Path>, options: TextFileOptions) -> Result<TokenRows> {
    tokenize(model, path.as_ref(), &options, MAX_PIECE)
}

/// [`tokenize_and_concatenate`] with the number of bytes that are tokenized together, at least 4.
fn tokenize(model: &Gpt2, path: &Path, options: &TextFileOptions, max_piece: usize) -> Result<TokenRows> {
    let n_ctx = model.config().n_ctx;
    let max_length = options.max_length.unwrap_or(n_ctx);
    let bos = model.config().bos_token_id.filter(|_| options.add_bos_token);
    check_count(FUNCTION, "max_length", max_length, 1 + bos.iter().len(), Some(n_ctx))?;
    let separator = model.config().eos_token_ids.first().copied().or(model.config().bos_token_id);
    let mut rows = Rows { tokens: Vec::new(), max_length, bos };
    let mut reader = Utf8Lines::new(BufReader::new(File::open(path).map_err(Error::io(path))?), path, max_piece);
    let mut document = Document { text: String::new(), begun: false };
    let (mut n_documents, mut at_line_start) = (0, true);
    while options.max_rows.is_none_or(|max| rows.n_full() < max) {
        let line = reader.next_piece()?;
        let ends = match (&line, options.sample_by) {
            (None, _) => true,
            (Some(line), SampleBy::Line) => line.ends_with('\n'),
            (Some(line), SampleBy::Paragraph) => at_line_start && line.trim_end_matches(['\r', '\n']).is_empty(),
            (Some(_), SampleBy::Document) => false,
        };
        document.text += line.as_deref().unwrap_or_default();
        at_line_start = line.as_deref().is_some_and(|line| line.ends_with('\n'));
        if ends {
            let end = document.text.trim_end_matches(['\r', '\n']).len();
            document.text.truncate(end);
        }
        let until = if ends { document.text.len() } else { piece_end(&document.text, max_piece) };
        if until > 0 {
            if !document.begun {
                document.begun = true;
                n_documents += 1;
                if n_documents > 1 {
                    rows.push(separator.ok_or_else(no_separator)?);
                }
            }
            let tokens = model.to_tokens_without_bos(&document.text[..until])?;
            model.check_tokens(&tokens)?;
            tokens.into_iter().for_each(|token| rows.push(token));
            document.text.drain(..until);
        }
        if ends {
            document = Document { text: String::new(), begun: false };
        }
        if line.is_none() {
            break;
        }
    }
    Ok(rows.finish(n_documents, options.max_rows))
}

fn no_separator() -> Error {
    Error::Setting {
        function: FUNCTION,
        option: "sample_by",
        expected: "SampleBy::Document: the model has no end-of-sequence token to set between documents".into(),
        found: "a file of several documents".into(),
    }
}

/// The part of a document that is not tokenized yet.
struct Document {
    text: String,
    /// Whether a part of it was tokenized.
    begun: bool,
}

/// The rows so far.
struct Rows {
    tokens: Vec<u32>,
    max_length: usize,
    bos: Option<u32>,
}

impl Rows {
    fn push(&mut self, token: u32) {
        if self.tokens.len().is_multiple_of(self.max_length) {
            self.tokens.extend(self.bos);
        }
        self.tokens.push(token);
    }

    fn n_full(&self) -> usize {
        self.tokens.len() / self.max_length
    }

    fn finish(mut self, n_documents: usize, max_rows: Option<usize>) -> TokenRows {
        let n_rows = self.n_full().min(max_rows.unwrap_or(usize::MAX));
        let rest = self.tokens.len() - n_rows * self.max_length;
        let n_bos = if self.bos.is_some() { rest.div_ceil(self.max_length) } else { 0 };
        self.tokens.truncate(n_rows * self.max_length);
        let tokens = Array2::from_shape_vec((n_rows, self.max_length), self.tokens).expect("whole rows");
        TokenRows { tokens, n_documents, n_dropped: rest - n_bos }
    }
}

/// How much of an unfinished document to tokenize now: nothing of a short one, and else up to the last beginning of a word,
/// because a token never goes on from one word to the next there.
fn piece_end(text: &str, max_piece: usize) -> usize {
    if text.len() < max_piece {
        return 0;
    }
    let bytes = text.as_bytes();
    let begins_word = |&at: &usize| {
        matches!(bytes[at], b' ' | b'\n') && bytes[at - 1].is_ascii_alphabetic() && bytes[at + 1].is_ascii_alphabetic()
    };
    (1..bytes.len() - 1).rev().find(begins_word).unwrap_or(text.len())
}

/// Lines of a file as text, each with its end, in pieces of at most `max_piece` bytes.
struct Utf8Lines<'a, R> {
    reader: R,
    path: &'a Path,
    max_piece: usize,
    /// Bytes of a character whose end is in the next piece.
    unfinished: Vec<u8>,
    /// Bytes before those.
    offset: usize,
}

impl<'a, R: BufRead> Utf8Lines<'a, R> {
    fn new(reader: R, path: &'a Path, max_piece: usize) -> Self {
        Self { reader, path, max_piece, unfinished: Vec::new(), offset: 0 }
    }

    /// The next line or piece of one; `None` at the end of the file.
    fn next_piece(&mut self) -> Result<Option<String>> {
        let mut bytes = std::mem::take(&mut self.unfinished);
        let limit = (self.max_piece - bytes.len()) as u64;
        let n_read = (&mut self.reader).take(limit).read_until(b'\n', &mut bytes).map_err(Error::io(self.path))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let valid = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            // A character that the piece has only begun.
            Err(error) if error.error_len().is_none() && n_read > 0 && !bytes.ends_with(b"\n") => error.valid_up_to(),
            Err(error) => {
                let at = self.offset + error.valid_up_to();
                return Err(Error::Format {
                    path: self.path.into(),
                    expected: "text in UTF-8".into(),
                    found: format!(
                        "the byte 0x{:02x} at {at}; convert the file to UTF-8 first",
                        bytes[error.valid_up_to()]
                    ),
                    source: None,
                });
            }
        };
        self.unfinished = bytes.split_off(valid);
        self.offset += valid;
        Ok(Some(String::from_utf8(bytes).expect("checked above")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretrained::LoadOptions;

    /// Pieces of a few words each have the tokens of the whole, whatever the length of a piece is.
    #[test]
    fn a_long_document_is_cut_between_words() {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap();
        let text = "The bus is late again\nand nobody's there, said Zoë (at 10:30).  Why?\n\n日本 don't  go on: it's 1984\t\tnow, or is it not? ";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text.repeat(3)).unwrap();
        let options = TextFileOptions::default().add_bos_token(false).max_length(1);
        let whole =
            |sample_by| tokenize(&model, file.path(), &options.clone().sample_by(sample_by), MAX_PIECE).unwrap();
        for sample_by in [SampleBy::Line, SampleBy::Paragraph, SampleBy::Document] {
            let want = whole(sample_by);
            assert_eq!(want.n_dropped, 0);
            for max_piece in 64..130 {
                let options = options.clone().sample_by(sample_by);
                assert_eq!(
                    tokenize(&model, file.path(), &options, max_piece).unwrap(),
                    want,
                    "{max_piece} {sample_by:?}"
                );
            }
        }
        let tokens = model.to_tokens_without_bos(&text.repeat(3)).unwrap();
        assert_eq!(whole(SampleBy::Document).tokens.into_raw_vec_and_offset().0, tokens);
    }

    /// Without any word, characters stay whole.
    #[test]
    fn a_document_without_words_is_cut_between_characters() {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap();
        let text = "日本語".repeat(30);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let options = TextFileOptions::default().add_bos_token(false).max_length(1);
        for max_piece in 4..12 {
            let rows = tokenize(&model, file.path(), &options, max_piece).unwrap();
            assert_eq!(rows.n_documents, 1);
            assert_eq!(model.to_string(&rows.tokens.into_raw_vec_and_offset().0).unwrap(), text);
        }
    }
}
