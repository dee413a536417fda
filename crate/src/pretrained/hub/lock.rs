//! The lock of a blob, which `huggingface_hub` takes as well, so that two processes do not download a file twice.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cache::write_error;
use crate::error::Result;
use crate::files::{Lock, try_lock};

/// How often a held lock is tried again, and how often a line reports that it is.
const POLL: Duration = Duration::from_millis(50);
const REPORT: Duration = Duration::from_secs(10);

/// Waits until no other process downloads the file, and returns its lock, which ends with the value or the process.
/// `None` on a file system without locks.
///
/// The lock is that of Python's `filelock`. The file stays.
///
/// # Errors
/// [`Error::Write`](crate::Error::Write) if the file cannot be created.
pub(super) fn acquire(path: &Path, name: &str) -> Result<Option<File>> {
    let started = Instant::now();
    let mut reports = 0;
    loop {
        match try_lock(path).map_err(write_error(path))? {
            Lock::Held(file) => return Ok(Some(file)),
            Lock::Unsupported => return Ok(None),
            Lock::Busy => {}
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
