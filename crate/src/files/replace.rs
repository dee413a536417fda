//! Writing files: each at once, so that no reader finds a part of one, and a failure leaves the former file as it was.

use std::error::Error as StdError;
use std::fs::{self, File};
use std::io::{Error as IoError, Result as IoResult};
use std::path::Path;

use crate::error::{Error, Result};

/// Creates a file or replaces it, once `write` has written all of it to the path that it is given: a temporary file of the
/// same folder, with a name of its own, which is on the disk before it gets the name `path`. A process that is killed, a
/// full disk and an error of `write` leave the former file. A link is followed. What is not a regular file, such as
/// `/dev/stdout`, is written to directly.
///
/// # Errors
/// [`Error::Write`], naming `path`.
pub(crate) fn replace<E>(path: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<()>
where
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    let failed = |error: Box<dyn StdError + Send + Sync>| Error::write(path, error);
    let former = fs::metadata(path).ok();
    if former.as_ref().is_some_and(|former| !former.is_file() && !former.is_dir()) {
        return write(path).map_err(|error| failed(error.into()));
    }
    let replaced = || -> Result<(), Box<dyn StdError + Send + Sync>> {
        if former.as_ref().is_some_and(|former| former.is_dir()) {
            return Err(IoError::from(std::io::ErrorKind::IsADirectory).into());
        }
        if former.as_ref().is_some_and(|former| former.permissions().readonly()) {
            return Err(IoError::new(std::io::ErrorKind::PermissionDenied, "the file is there and read-only").into());
        }
        // A link to a file is followed; one to nowhere is replaced.
        let target = if former.is_some() { path.canonicalize()? } else { path.to_owned() };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let temporary = temporary_in(folder)?;
        let permissions = former.map_or_else(
            || Ok(temporary.as_file().metadata()?.permissions()),
            |former| Ok::<_, IoError>(former.permissions()),
        )?;
        write(temporary.path()).map_err(Into::into)?;
        // `write` may have replaced the file, so it is opened again.
        let written = File::options().write(true).open(temporary.path())?;
        written.set_permissions(permissions)?;
        written.sync_all()?;
        temporary.persist(&target)?;
        sync_folder(folder);
        Ok(())
    };
    replaced().map_err(failed)
}

/// An empty file with the permissions that a new file has, which is removed unless it is renamed.
fn temporary_in(folder: &Path) -> IoResult<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".attention-tokens-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666)); // less the umask
    }
    builder.tempfile_in(folder)
}

/// Writes the names in a folder to the disk. A file system that cannot has the file all the same.
fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    #[cfg(not(unix))]
    let _ = folder;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in a folder, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_at_once_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.0");
        for name in ["counts.writing", "counts.1", "counts.0.tmp"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        for text in ["first", "second"] {
            let former = fs::read_to_string(&path).ok();
            replace(&path, |temporary| {
                assert_eq!(temporary.parent(), path.parent());
                fs::write(temporary, text)?;
                assert_eq!(fs::read_to_string(&path).ok(), former, "a reader still finds the former file");
                Ok::<_, IoError>(())
            })
            .unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["counts.0", "counts.0.tmp", "counts.1", "counts.writing"]);
        for name in ["counts.writing", "counts.1", "counts.0.tmp"] {
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), name);
        }
    }

    #[test]
    fn a_failure_leaves_the_former_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figure.html");
        fs::write(&path, "former").unwrap();
        let error = replace(&path, |temporary| {
            fs::write(temporary, "half")?;
            Err(IoError::other("the disk is full"))
        });
        let message = error.unwrap_err().to_string();
        assert_eq!(message, format!("{}: cannot be written: the disk is full", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "former");
        assert_eq!(names(folder.path()), ["figure.html"]);
        let nowhere = folder.path().join("none/figure.html");
        let message = replace(&nowhere, |path| fs::write(path, "")).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: cannot be written", nowhere.display())), "{message}");
        let message = replace(folder.path(), |path| fs::write(path, "")).unwrap_err().to_string();
        assert!(message.contains("is a directory"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_and_links_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (plain, fresh, link) =
            (folder.path().join("plain"), folder.path().join("fresh"), folder.path().join("link"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        fs::write(&plain, "").unwrap();
        let write = |path: &Path| fs::write(path, "new");
        replace(&fresh, write).unwrap();
        assert_eq!(mode(&fresh), mode(&plain), "that of any new file");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&fresh, write).unwrap();
        assert_eq!(mode(&fresh), 0o640);
        symlink("plain", &link).unwrap();
        replace(&link, write).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&plain).unwrap(), "new");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o440)).unwrap();
        let message = replace(&fresh, write).unwrap_err().to_string();
        assert!(message.ends_with("the file is there and read-only"), "{message}");
        replace(Path::new("/dev/null"), write).unwrap();
    }
}
