//! The download of one blob: continued where an earlier one ended, repeated after passing failures, and checked before
//! it gets its name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::cache::write_error;
use super::client::Client;
use super::digest::Digests;
use super::failure::Failure;
use super::metadata::Metadata;
use super::progress::ProgressLines;
use super::retry::Retries;
use super::url::Url;
use crate::error::{Error, Result};

/// A connection that brought this many new bytes before it was cut counts as progress.
const PROGRESS: u64 = 1_000_000;

/// What to download, and where to.
pub(super) struct Transfer<'a> {
    pub(super) client: &'a Client,
    pub(super) url: &'a Url,
    pub(super) name: &'a str,
    pub(super) metadata: &'a Metadata,
    /// The largest size in bytes that is accepted.
    pub(super) limit: u64,
    pub(super) retry: bool,
}

impl Transfer<'_> {
    /// Downloads into `partial`, which may hold the beginning of the file, and renames it to `blob`.
    ///
    /// # Errors
    /// Those of the network and the server, which leave the partial file in place; [`Failure::Size`] and
    /// [`Failure::Digest`] for a wrong body, which remove it; [`Error::Write`].
    pub(super) fn run(&self, partial: &Path, blob: &Path) -> Result<(), Failure> {
        let mut file = Partial::open(partial, self.metadata)?;
        let mut retries = Retries::new(self.client.timeouts.download, self.retry);
        let mut progress = ProgressLines::start(self.name, self.metadata.size, file.len);
        let mut furthest = file.len;
        loop {
            let Err(failure) = self.attempt(&mut file, &mut progress) else { break };
            if failure.is_wrong_body() {
                file.restart()?;
            }
            if file.len >= furthest + PROGRESS {
                retries.reset();
            }
            // After a restart, the same bytes again are no progress.
            furthest = furthest.max(file.len);
            if let Err(failure) = retries.wait(failure) {
                if file.len == 0 {
                    file.remove();
                }
                return Err(failure);
            }
        }
        file.rename(blob)?;
        progress.finish();
        Ok(())
    }

    /// One request for the rest of the file.
    fn attempt(&self, file: &mut Partial, progress: &mut ProgressLines<'_>) -> Result<(), Failure> {
        let size = self.metadata.size;
        if size != Some(file.len) {
            self.receive(file, progress).map_err(|failure| match (failure, size) {
                (Failure::Http(ureq::Error::Io(error)), Some(expected)) if is_cut(&error) => {
                    Failure::Cut { done: file.len, expected }
                }
                (failure, _) => failure,
            })?;
        }
        match size {
            Some(expected) if file.len < expected => Err(Failure::Cut { done: file.len, expected }),
            _ => file.digests.check(),
        }
    }

    fn receive(&self, file: &mut Partial, progress: &mut ProgressLines<'_>) -> Result<(), Failure> {
        if self.metadata.size.is_some_and(|size| file.len > size) {
            file.restart()?;
        }
        let mut answer = match self.client.file(self.url, file.len) {
            // The server does not have this range, so the partial file is not the beginning of the file.
            Err(Failure::Status { status: 416, .. }) if file.len > 0 => {
                file.restart()?;
                self.client.file(self.url, 0)?
            }
            answer => answer?,
        };
        let start = match answer.start(file.len) {
            Some(start) => start,
            None => {
                file.restart()?;
                answer = self.client.file(self.url, 0)?;
                answer.start(0).ok_or(Failure::Header {
                    name: "content-range",
                    expected: "the range requested",
                    found: "another one".into(),
                })?
            }
        };
        if start != file.len {
            file.restart()?;
        }
        let most = self.metadata.size.unwrap_or(self.limit);
        if let (Some(expected), Some(length)) = (self.metadata.size, answer.length())
            && start.saturating_add(length) != expected
        {
            let found = format!("{} in Content-Length", start.saturating_add(length));
            return Err(Failure::Size { expected, found });
        }
        answer.read(|bytes| {
            if file.len + bytes.len() as u64 > most {
                return Err(match self.metadata.size {
                    Some(expected) => Failure::Size { expected, found: "more".into() },
                    None => Failure::TooLarge { limit: self.limit, found: "more".into() },
                });
            }
            file.append(bytes)?;
            progress.update(file.len);
            Ok(())
        })
    }
}

/// Whether the server closed the connection.
fn is_cut(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// A file of which the beginning is there.
struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    digests: Digests,
    etag: String,
    size: Option<u64>,
}

impl Partial {
    fn open(path: &Path, metadata: &Metadata) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(write_error(path))?;
        let digests = Digests::new(&metadata.etag, metadata.size);
        let (etag, size) = (metadata.etag.clone(), metadata.size);
        let mut partial = Self { path: path.into(), file, len: 0, digests, etag, size };
        partial.read_existing().map_err(Error::io(path))?;
        Ok(partial)
    }

    /// Reads the bytes of an earlier download, and leaves the file's position at their end.
    fn read_existing(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                count => {
                    self.digests.update(&buffer[..count]);
                    self.len += count as u64;
                }
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(write_error(&self.path))?;
        self.digests.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(write_error(&self.path))?;
        self.digests = Digests::new(&self.etag, self.size);
        self.len = 0;
        Ok(())
    }

    fn rename(self, blob: &Path) -> Result<()> {
        // Otherwise a machine that loses its power may have the name without the bytes, which nobody compares again.
        self.file.sync_all().map_err(write_error(blob))?;
        drop(self.file); // Windows does not rename open files.
        std::fs::rename(&self.path, blob).map_err(write_error(blob))
    }

    fn remove(self) {
        drop(self.file);
        let _ = std::fs::remove_file(&self.path);
    }
}
