//! Errors about a file of the Hugging Face cache that say how to have it again, and whether it is damaged.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::digest::Digests;
use super::metadata::is_commit;
use crate::error::{Error, Result};

/// Adds the remedy to an error about the content of a cached file, unless the file is what its author published.
pub(crate) fn explain(error: Error) -> Error {
    let path = match &error {
        Error::Io { path, .. }
        | Error::Format { path, .. }
        | Error::Config { path, .. }
        | Error::Tensor { path, .. } => path,
        _ => return error,
    };
    let Some(file) = cached_file(path) else { return error };
    let problem = match is_intact(&file.etag, &file.content) {
        Ok(Some(true)) => return error,
        Ok(Some(false)) => "is damaged: its digest is not the one that the Hub gave",
        Ok(None) | Err(_) => "may be damaged: the cache has no digest of it",
    };
    Error::CachedFile { path: file.content, problem, source: error.into() }
}

struct CachedFile {
    /// The ETag, where the snapshot has a link to a blob; else empty.
    etag: String,
    /// The file itself, behind all links.
    content: PathBuf,
}

/// `None` if the path is not that of a file in a snapshot.
fn cached_file(path: &Path) -> Option<CachedFile> {
    let mut folders = path.parent()?.components().rev().filter_map(|part| part.as_os_str().to_str());
    let is_snapshot = is_commit(folders.next()?) && folders.next()? == "snapshots";
    if !is_snapshot || !folders.next()?.starts_with("models--") {
        return None;
    }
    let blob = std::fs::read_link(path).ok();
    let etag = blob.and_then(|blob| Some(blob.file_name()?.to_str()?.to_owned())).unwrap_or_default();
    Some(CachedFile { etag, content: path.canonicalize().ok()? })
}

/// Whether a file has the digest that its ETag is; `None` if it is none.
fn is_intact(etag: &str, path: &Path) -> Result<Option<bool>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    let mut digests = Digests::new(etag, Some(size));
    if !digests.is_known() {
        return Ok(None);
    }
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => return Ok(Some(digests.check().is_ok())),
            count => digests.update(&buffer[..count]),
        }
    }
}
