//! The folder of a repository in the Hugging Face cache, laid out as `huggingface_hub` does:
//!
//! ```text
//! CACHEDIR.TAG
//! .locks/models--owner--name/ETAG.lock
//! models--owner--name/blobs/ETAG                  the content of a file
//!                     snapshots/COMMIT/NAME       a relative link to its blob
//!                     refs/REVISION               the commit of a branch or tag
//!                     .no_exist/COMMIT/NAME       empty: the repository has no such file
//! ```

use std::fs::{self, File};
use std::io::{Error as IoError, Result as IoResult};
use std::path::{Path, PathBuf};

use super::metadata::is_commit;
use super::{check_revision, lock};
use crate::error::{Error, Result};

/// Begins a file `CACHEDIR.TAG`, by which backup programs recognize a cache (<https://bford.info/cachedir/>).
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of the Hugging Face Hub.\n";

pub(super) struct RepoCache {
    cache: PathBuf,
    /// `models--owner--name`
    folder: String,
    /// Whether snapshots hold links to the blobs; else they hold the files themselves.
    symlinks: bool,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &str, symlinks: bool) -> Self {
        Self { cache: cache.into(), folder: format!("models--{}", repo.replace('/', "--")), symlinks }
    }

    fn root(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    /// The commit of a branch, a tag or a commit, if the cache knows it.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let commit = match fs::read_to_string(self.root().join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        check_revision(&commit).is_ok().then_some(commit)
    }

    /// The path of a file of a commit.
    pub(super) fn pointer(&self, commit: &str, name: &str) -> PathBuf {
        self.root().join("snapshots").join(commit).join(name)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root().join("blobs").join(etag)
    }

    /// Whether the Hub was asked for the file before, and the repository has none.
    pub(super) fn is_known_absent(&self, commit: &str, name: &str) -> bool {
        self.absence(commit, name).is_file()
    }

    /// Remembers that the repository does not have a file. It is only asked for again if this cannot be written.
    pub(super) fn remember_absence(&self, commit: &str, name: &str) {
        let path = self.absence(commit, name);
        if !path.exists() {
            let _ = create_parent(&path).and_then(|()| File::create(&path));
        }
    }

    fn absence(&self, commit: &str, name: &str) -> PathBuf {
        self.root().join(".no_exist").join(commit).join(name)
    }

    /// Creates the folders of a file, and takes the lock of its blob.
    ///
    /// # Errors
    /// Here and below: [`Error::Write`].
    pub(super) fn lock(&self, etag: &str, name: &str) -> Result<Option<File>> {
        let lock_path = self.cache.join(".locks").join(&self.folder).join(format!("{etag}.lock"));
        for path in [&lock_path, &self.blob(etag)] {
            create_parent(path).map_err(write_error(path))?;
        }
        let tag = self.cache.join("CACHEDIR.TAG");
        if !tag.exists() {
            let _ = fs::write(tag, CACHE_TAG); // Only backup programs need it.
        }
        lock::acquire(&lock_path, name)
    }

    /// Gives a blob its name in a snapshot: as a relative link, so that the cache can be moved; where links are
    /// impossible, by moving a new blob there, or copying an older one, which other snapshots may have.
    pub(super) fn link(&self, etag: &str, commit: &str, name: &str, is_new: bool) -> Result<PathBuf> {
        let (blob, pointer) = (self.blob(etag), self.pointer(commit, name));
        create_parent(&pointer).map_err(write_error(&pointer))?;
        let target = Path::new("../../blobs").join(etag);
        // Each replaces a link to a blob that was deleted.
        let link = || replace_at(&pointer, |temporary| symlink(&target, temporary));
        if !(self.symlinks && link().is_ok()) {
            let copied = if is_new {
                fs::rename(&blob, &pointer)
            } else {
                replace_at(&pointer, |temporary| fs::copy(&blob, temporary).map(drop))
            };
            copied.map_err(write_error(&pointer))?;
        }
        Ok(pointer)
    }

    /// Records the commit of a branch or tag, unless it is recorded.
    pub(super) fn set_ref(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.root().join("refs").join(revision);
        if is_commit(revision) || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        let write = |temporary: &Path| fs::write(temporary, commit);
        create_parent(&path).and_then(|()| replace_at(&path, write)).map_err(write_error(&path))
    }
}

/// [`Error::Write`] for a file of the cache, with the remedy.
pub(super) fn write_error(path: &Path) -> impl FnOnce(IoError) -> Error {
    let path = path.to_owned();
    move |error| {
        let text = format!("{error}; HF_HUB_CACHE or LoadOptions::cache_dir chooses another folder");
        Error::write(path, IoError::new(error.kind(), text))
    }
}

/// Creates what gets the name `path` under a name that no other process has, also none of another container with the
/// same number. A former file or link of that name is replaced; a link is not followed.
fn replace_at(path: &Path, create: impl Fn(&Path) -> IoResult<()>) -> IoResult<()> {
    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    let created = tempfile::Builder::new().suffix(".tmp").make_in(folder, |temporary| create(temporary))?;
    fs::rename(created.path(), path)
    // The name that is dropped here is not there any more.
}

fn create_parent(path: &Path) -> IoResult<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn symlink(target: &Path, link: &Path) -> IoResult<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(target, link);
    #[cfg(windows)]
    return std::os::windows::fs::symlink_file(target, link);
    #[cfg(not(any(unix, windows)))]
    return Err(std::io::ErrorKind::Unsupported.into());
}
