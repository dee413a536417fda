//! Lock files: `flock` on Unix, a region of the file on Windows. The system ends a lock with its process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Result as IoResult;
use std::path::Path;

/// What an attempt to lock a file came to.
pub(crate) enum Lock {
    /// The lock is held until the file is dropped.
    Held(File),
    /// Another process holds it, or another part of this one.
    Busy,
    /// The file system has no locks.
    Unsupported,
}

/// Locks a file, which is created if it does not exist. Does not wait for another owner of the lock.
pub(crate) fn try_lock(path: &Path) -> IoResult<Lock> {
    loop {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => return Ok(Lock::Held(file)),
            // Removed by its last owner: another process may lock the file that is there now.
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) => return Ok(Lock::Busy),
            Err(TryLockError::Error(_)) => return Ok(Lock::Unsupported),
        }
    }
}

fn open(path: &Path) -> IoResult<File> {
    let created = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    match created {
        Ok(file) => {
            // Other users of a shared folder must be able to lock it too.
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                file.set_permissions(std::fs::Permissions::from_mode(0o664))?;
            }
            Ok(file)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            OpenOptions::new().read(true).write(true).open(path)
        }
        Err(error) => Err(error),
    }
}

/// Whether the open file is the one that the path names.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        match (file.metadata(), path.metadata()) {
            (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path); // An open file cannot be removed.
        true
    }
}
