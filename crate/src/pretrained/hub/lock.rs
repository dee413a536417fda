//! The lock of a blob, which `huggingface_hub` takes as well, so that two processes do not download a file twice.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::cache::write_error;
use crate::error::Result;

/// How often a held lock is tried again, and how often a line reports that it is.
const POLL: Duration = Duration::from_millis(50);
const REPORT: Duration = Duration::from_secs(10);

/// Waits until no other process downloads the file, and returns its lock, which ends with the value or the process.
/// `None` on a file system without locks.
///
/// The lock is that of Python's `filelock`: `flock` on Unix, a region of the file on Windows. The file stays.
///
/// # Errors
/// [`Error::Write`](crate::Error::Write) if the file cannot be created.
pub(super) fn acquire(path: &Path, name: &str) -> Result<Option<File>> {
    let started = Instant::now();
    let mut reports = 0;
    loop {
        let file = open(path).map_err(write_error(path))?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => return Ok(Some(file)),
            // Removed by its last owner: another process may lock the file that is there now.
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return Ok(None),
        }
        if started.elapsed() >= REPORT * reports {
            let seconds = started.elapsed().as_secs();
            let waited = if reports == 0 { String::new() } else { format!(" for {seconds} s") };
            println!("  waiting{waited}: another process downloads {name} and holds the lock {}", path.display());
            reports += 1;
        }
        std::thread::sleep(POLL);
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let created = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    match created {
        Ok(file) => {
            // Other users of a shared cache must be able to lock it too.
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
fn is_at(file: &File, path: &Path) -> bool {
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
