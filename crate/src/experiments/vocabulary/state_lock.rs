//! The lock of a sweep's state: two sweeps that write the same state would lose each other's counts.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{Lock, is_at, try_lock};

/// The lock of a state, until it is dropped: the empty file `STATE.lock`, which is then removed.
pub(super) struct StateLock {
    path: PathBuf,
    /// `None` on a file system without locks.
    file: Option<File>,
}

impl StateLock {
    /// # Errors
    /// [`Error::Write`] if another sweep writes this state, the lock cannot be created, or there is a file of its name that
    /// is no lock.
    pub(super) fn acquire(state: &Path) -> Result<Self> {
        let mut path = state.to_owned().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        // The lock is removed in the end, so it must not be anybody's file.
        if path.metadata().is_ok_and(|file| file.len() > 0) {
            let found = "a file that is not empty is there, so it is no lock; give another state, or move the file";
            return Err(Error::write(path, found.to_owned()));
        }
        let file = match try_lock(&path).map_err(|error| Error::write(&path, error))? {
            Lock::Held(file) => Some(file),
            Lock::Unsupported => None,
            Lock::Busy => {
                let found = format!(
                    "another sweep counts into it and holds the lock {}; wait for its end, or give another state",
                    path.display()
                );
                return Err(Error::write(state, found));
            }
        };
        Ok(Self { path, file })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        if self.file.as_ref().is_none_or(|file| is_at(file, &self.path)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
