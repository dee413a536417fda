//! A text file with one prompt per line, read in bounded memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Maximum bytes of a line. A longer line is hardly a prompt, and would be read into memory as a whole.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// An open file of prompts. Empty lines are skipped.
pub(super) struct PromptFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// Length of the file in bytes.
    pub(super) len: u64,
    /// Byte offset of the next line.
    pub(super) offset: u64,
    /// Number of prompts before the offset, of all shards.
    pub(super) n_read: u64,
}

impl PromptFile {
    /// Opens a file at its first line.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(Self { path: path.into(), reader: BufReader::new(file), len, offset: 0, n_read: 0 })
    }

    /// Continues at a byte offset, which must be the beginning of a line.
    pub(super) fn seek(&mut self, offset: u64) -> Result<()> {
        self.reader.seek(SeekFrom::Start(offset)).map_err(Error::io(&self.path))?;
        self.offset = offset;
        Ok(())
    }

    /// The next prompt and its index in the file, from 0; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Format`] if a line is not UTF-8 or longer than a megabyte; [`Error::Io`].
    pub(super) fn next_prompt(&mut self) -> Result<Option<(u64, String)>> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.reader).take(MAX_LINE_BYTES);
            let read = limited.read_until(b'\n', &mut line).map_err(Error::io(&self.path))? as u64;
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
