//! The standard library's sources as the kernel's rust-analyzer reads them: a folder of outlines.
//!
//! rust-analyzer reads the sources when a kernel starts, when a dependency is added, and for the first variable. Without comments, the
//! bodies of functions and the attributes for the compiler (see [`std_outline`](crate::std_outline)), a notebook opens about a second
//! sooner. What is left out besides:
//!
//! - `core_arch`, the instructions of processors (`std::arch`), more than half of the sources: almost two seconds;
//! - `portable-simd` (`std::simd`, which is not stable), whose macros implement each trait for each vector: half a second.
//!
//! evcxr then asks for the type of a variable such as `let x = unsafe { std::arch::x86_64::_mm_setzero_ps() };`.

use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::std_outline::outline;
use crate::tool::Result;

/// Folders of packages that rust-analyzer does not need.
const LEFT_OUT: [&str; 4] = ["benches", "core_arch", "portable-simd", "tests"];

/// The folder `to` with the outlines of the sources in `library`, made anew if a source has changed or an outline is gone.
///
/// If one of the folders is inside of the other, `library` itself.
///
/// # Errors
/// A file or folder that cannot be read or written. The kernel can then read `library`.
pub(crate) fn up_to_date(library: &Path, to: &Path) -> Result<PathBuf> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
    let real = |path: &Path| path.canonicalize().map_err(|error| failed(path, error));
    let (real_library, real_parent) = (real(library)?, real(parent)?);
    let real_to = to.canonicalize().unwrap_or_else(|_| real_parent.join(to.file_name().unwrap_or_default()));
    if real_library.starts_with(&real_to) || real_to.starts_with(&real_library) {
        return Ok(library.to_owned()); // As where a kernel's `RUST_SRC_PATH` is inherited.
    }
    let mut files = Vec::new();
    find(library, Path::new(""), &mut files)?;
    files.sort();
    // Another version of `outline` may leave out something else.
    let mut version = DefaultHasher::new();
    version.write(include_bytes!("std_outline.rs"));
    version.write(include_bytes!("doc_comment.rs"));
    let mut wanted = format!("{:x}\n{}\n", version.finish(), library.display());
    for Source { path, len, changed } in &files {
        let changed = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        writeln!(wanted, "{} {len} {}", path.display(), changed.as_nanos())?;
    }
    let stamp = to.with_extension("txt");
    let is_whole = || files.iter().all(|file| to.join(&file.path).is_file());
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && is_whole() {
        return Ok(to.to_owned());
    }
    // In another folder, because a kernel that starts now must not read a part of them.
    let [unfinished, former] = ["unfinished", "former"].map(|name| to.with_extension(name));
    remove(&unfinished).and_then(|()| remove(&former)).map_err(|error| failed(parent, error))?;
    for Source { path, .. } in &files {
        let (source, copy) = (library.join(path), unfinished.join(path));
        let bytes = fs::read(&source).map_err(|error| failed(&source, error))?;
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let outline = is_rust.then(|| str::from_utf8(&bytes).map(outline)).and_then(std::result::Result::ok);
        let content = outline.map_or(bytes, String::into_bytes);
        let written = fs::create_dir_all(copy.parent().unwrap_or(to)).and_then(|()| fs::write(&copy, content));
        written.map_err(|error| failed(&copy, error))?;
    }
    // First, so that an interrupted call is repeated.
    remove(&stamp).map_err(|error| failed(&stamp, error))?;
    if fs::symlink_metadata(to).is_ok() {
        fs::rename(to, &former).map_err(|error| failed(to, error))?;
    }
    fs::rename(&unfinished, to).map_err(|error| failed(to, error))?;
    remove(&former).map_err(|error| failed(&former, error))?;
    fs::write(&stamp, wanted).map_err(|error| failed(&stamp, error))?;
    Ok(to.to_owned())
}

/// Removes a file, a link or a folder, if it is there.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file of the sources.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    /// Relative to the folder of all sources.
    path: PathBuf,
    len: u64,
    changed: SystemTime,
}

/// Finds the files that rust-analyzer and cargo read in a folder of `library`.
fn find(library: &Path, folder: &Path, files: &mut Vec<Source>) -> Result<()> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", library.join(path).display());
    // Modules may have the names of folders that are left out.
    let is_module = folder.iter().any(|parent| parent == "src");
    for entry in fs::read_dir(library.join(folder)).map_err(|error| failed(folder, error))? {
        let name = entry.map_err(|error| failed(folder, error))?.file_name();
        let path = folder.join(&name);
        let is_read =
            ["rs", "toml", "lock"].iter().any(|&wanted| path.extension().is_some_and(|found| found == wanted));
        let metadata = match fs::metadata(library.join(&path)) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue, // a link to nowhere, such as an editor's
            Err(error) => return Err(failed(&path, error).into()),
        };
        if metadata.is_dir() {
            if is_module || LEFT_OUT.iter().all(|&left_out| name != left_out) {
                find(library, &path, files)?;
            }
        } else if metadata.is_file() && is_read {
            let changed = metadata.modified().map_err(|error| failed(&path, error))?;
            files.push(Source { path, len: metadata.len(), changed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_copied_without_tests_and_instructions_and_follow_another_toolchain() {
        let folder = tempfile::tempdir().unwrap();
        let outlines = folder.path().join("share/library");
        for toolchain in ["1.94", "1.95"] {
            let library = folder.path().join(toolchain).join("library");
            for file in [
                "Cargo.lock",
                "Cargo.toml",
                "std/Cargo.toml",
                "std/README.md",
                "std/src/lib.rs",
                "std/src/tests/mod.rs",
                "std/tests/a.rs",
                "core/src/lib.rs",
                "core/benches/b.rs",
                "portable-simd/crates/core_simd/src/mod.rs",
                "stdarch/crates/core_arch/src/mod.rs",
                "stdarch/crates/std_detect/src/lib.rs",
                "stdarch/crates/std_detect/tests/c.rs",
            ] {
                fs::create_dir_all(library.join(file).parent().unwrap()).unwrap();
                fs::write(library.join(file), format!("/// {toolchain}\nfn f() {{ 1 }}\n")).unwrap();
            }
            for _ in 0..2 {
                assert_eq!(up_to_date(&library, &outlines).unwrap(), outlines);
            }
            for copied in ["std/src/lib.rs", "std/src/tests/mod.rs", "stdarch/crates/std_detect/src/lib.rs"] {
                let text = fs::read_to_string(outlines.join(copied)).unwrap();
                assert_eq!(text, format!("/// {toolchain}\nfn f() {{ }}"), "{copied}");
            }
            let lock = fs::read_to_string(outlines.join("Cargo.lock")).unwrap();
            assert_eq!(lock, format!("/// {toolchain}\nfn f() {{ 1 }}\n"));
            for left_out in [
                "std/README.md",
                "std/tests",
                "core/benches",
                "portable-simd",
                "stdarch/crates/core_arch",
                "stdarch/crates/std_detect/tests",
            ] {
                assert!(!outlines.join(left_out).exists(), "{left_out}");
            }
            assert_eq!(up_to_date(&outlines, &outlines).unwrap(), outlines);
        }
        // A toolchain that is updated in its place.
        let library = folder.path().join("1.95/library");
        fs::write(library.join("core/src/lib.rs"), "mod updated;").unwrap();
        up_to_date(&library, &outlines).unwrap();
        assert_eq!(fs::read_to_string(outlines.join("core/src/lib.rs")).unwrap(), "mod updated;");
        // An interrupted call is repeated.
        fs::remove_file(outlines.with_extension("txt")).unwrap();
        fs::write(outlines.join("core/src/lib.rs"), "").unwrap();
        up_to_date(&library, &outlines).unwrap();
        assert_eq!(fs::read_to_string(outlines.join("core/src/lib.rs")).unwrap(), "mod updated;");
    }

    #[test]
    fn an_outline_that_is_not_whole_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (library, outlines) = (folder.path().join("library"), folder.path().join("outlines"));
        for file in ["core/src/lib.rs", "std/src/lib.rs", "std/src/odd.rs"] {
            fs::create_dir_all(library.join(file).parent().unwrap()).unwrap();
            fs::write(library.join(file), "fn f() { 1 }").unwrap();
        }
        fs::write(library.join("std/src/odd.rs"), b"fn f() { \xff }").unwrap();
        // What an interrupted call has left.
        fs::create_dir_all(outlines.with_extension("unfinished").join("core")).unwrap();
        fs::write(outlines.with_extension("former"), "").unwrap();
        fs::write(&outlines, "a file").unwrap();
        for gone in ["std", "core/src/lib.rs"] {
            up_to_date(&library, &outlines).unwrap();
            for file in ["core/src/lib.rs", "std/src/lib.rs"] {
                assert_eq!(fs::read_to_string(outlines.join(file)).unwrap(), "fn f() { }");
            }
            assert_eq!(fs::read(outlines.join("std/src/odd.rs")).unwrap(), b"fn f() { \xff }");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "the library, its outlines and their stamp");
            remove(&outlines.join(gone)).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn folders_inside_of_each_other_and_links_are_left_alone() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("a/library");
        fs::create_dir_all(library.join("core/src")).unwrap();
        fs::write(library.join("core/src/lib.rs"), "fn f() { 1 }").unwrap();
        symlink(folder.path().join("a"), folder.path().join("alias")).unwrap();
        for to in ["a/library", "a/../a/library", "alias/library", "a/library/venv/outlines", "a"] {
            assert_eq!(up_to_date(&library, &folder.path().join(to)).unwrap(), library, "{to}");
            assert_eq!(fs::read_to_string(library.join("core/src/lib.rs")).unwrap(), "fn f() { 1 }");
        }
        symlink("nowhere", library.join("core/src/.#lib.rs")).unwrap();
        let outlines = folder.path().join("outlines");
        assert_eq!(up_to_date(&library, &outlines).unwrap(), outlines);
        symlink(".", library.join("core/again")).unwrap();
        let error = up_to_date(&library, &outlines).unwrap_err().to_string();
        assert!(error.contains("core/again"), "{error}");
        assert_eq!(fs::read_to_string(outlines.join("core/src/lib.rs")).unwrap(), "fn f() { }");
    }
}
