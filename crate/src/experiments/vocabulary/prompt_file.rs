//! A text file with one prompt per line, read in bounded memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::state::Place;
use crate::error::{Error, Result};
use crate::files::hexadecimal;

/// Maximum bytes of a line. A longer line is hardly a prompt, and would be read into memory as a whole.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// An open file of prompts. Empty lines are skipped.
pub(in crate::experiments) struct PromptFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// Length of the file in bytes.
    pub(super) len: u64,
    /// Byte offset of the next line.
    pub(super) offset: u64,
    /// Number of prompts before the offset, of all shards.
    pub(super) n_read: u64,
    /// The SHA-256 of the bytes before the offset.
    digest: Context,
}

impl PromptFile {
    /// Opens a file at its first line.
    pub(in crate::experiments) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let reader = BufReader::new(file);
        Ok(Self { path: path.into(), reader, len, offset: 0, n_read: 0, digest: Context::new(&SHA256) })
    }

    /// The place of the next prompt.
    pub(in crate::experiments) fn place(&self) -> Place {
        Place { offset: self.offset, n_read: self.n_read, digest: hexadecimal(self.digest.clone().finish()) }
    }

    /// Continues at a place of the same file, which may have become longer. What is before it is read, to see that it is
    /// what it was. `state` is the file that has the place.
    ///
    /// # Errors
    /// [`Error::Format`] if the file has other bytes before the place; [`Error::Io`].
    pub(super) fn go_to(&mut self, place: &Place, state: &Path) -> Result<()> {
        let mut left = place.offset;
        let mut buffer = vec![0; 1 << 16];
        let mut before = (&mut self.reader).take(left);
        loop {
            let read = before.read(&mut buffer).map_err(Error::io(&self.path))?;
            if read == 0 {
                break;
            }
            self.digest.update(&buffer[..read]);
            left -= read as u64;
        }
        (self.offset, self.n_read) = (place.offset - left, place.n_read);
        if self.place() == *place {
            return Ok(());
        }
        let found = if left > 0 { format!("only {} bytes", self.offset) } else { "other bytes".into() };
        let expected = format!(
            "the first {} bytes as they were when {} was written; remove that file to begin anew",
            place.offset,
            state.display()
        );
        Err(Error::Format { path: self.path.clone(), expected, found, source: None })
    }

    /// The next prompt and its index in the file, from 0; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Format`] if a line is not UTF-8 or longer than a megabyte, or the file has become shorter;
    /// [`Error::Io`].
    pub(in crate::experiments) fn next_prompt(&mut self) -> Result<Option<(u64, String)>> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.reader).take(MAX_LINE_BYTES);
            let read = limited.read_until(b'\n', &mut line).map_err(Error::io(&self.path))? as u64;
            if read == 0 && self.offset < self.len {
                let found = format!("an end after {}: the file has become shorter while it was read", self.offset);
                let expected = format!("{} bytes", self.len);
                return Err(Error::Format { path: self.path.clone(), expected, found, source: None });
            }
            if read == 0 {
                return Ok(None);
            }
            let format_error = |expected: &str, found: String| Error::Format {
                path: self.path.clone(),
                expected: expected.into(),
                found: format!("{found} at byte {}, in prompt {}", self.offset, self.n_read + 1),
                source: None,
            };
            if read == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
                return Err(format_error("one prompt a line, of less than a megabyte", "a longer line".into()));
            }
            self.digest.update(&line);
            let text = String::from_utf8(line).map_err(|error| format_error("text in UTF-8", error.to_string()))?;
            self.offset += read;
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.is_empty() {
                self.n_read += 1;
                return Ok(Some((self.n_read - 1, text.into())));
            }
        }
    }
}
