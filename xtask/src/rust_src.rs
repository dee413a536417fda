//! The sources of the standard library, which rust-analyzer inside the kernel reads to infer the types of variables.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use xshell::{Shell, cmd};

use crate::logged;
use crate::prerequisites::missing;
use crate::progress::{Progress, Step};
use crate::setup::Jupyter;
use crate::std_sources;
use crate::tool::{Result, shell, works};

/// Debian's package with the sources of a recent Rust.
const PACKAGE: &str = "rust-web-src";

/// Whether the sources have to be installed.
pub(crate) fn is_missing(jupyter: &Jupyter) -> Result<bool> {
    Ok(present(jupyter)?.is_none())
}

/// Installs the sources where they are missing, and returns the folder that the kernel's `RUST_SRC_PATH` has to name.
pub(crate) fn provide(jupyter: &Jupyter, progress: &Progress) -> Result<PathBuf> {
    let library = match present(jupyter)? {
        Some(found) => found,
        None => install(jupyter, progress)?,
    };
    std_sources::up_to_date(&library, &jupyter.folder.join("share/evcxr/library")).or_else(|error| {
        progress.say(&format!("{error}: the kernel reads {} as it is, and notebooks open later", library.display()));
        Ok(library)
    })
}

/// Installs the sources, and returns their folder.
fn install(jupyter: &Jupyter, progress: &Progress) -> Result<PathBuf> {
    let shell = shell()?;
    progress.step("rust-src, the sources of Rust's standard library", |step| {
        let refusal = by_rustup(&shell, step);
        if let Some(library) = present(jupyter)? {
            return Ok(library);
        }
        let rustc = cmd!(shell, "rustc --version").read()?;
        let installed = nearest(&on_system(), &rustc);
        let (library, origin) = match installed {
            Some(library) => (library, "which this system has"),
            None => {
                let library = from_debian(&shell, jupyter, step).map_err(|error| format!("{error}\n{refusal}"))?;
                (library, "unpacked there without changing the system")
            }
        };
        fs::create_dir_all(&jupyter.folder)?;
        fs::write(record(jupyter), library.to_string_lossy().as_bytes())?;
        let library_path = library.display();
        step.progress().say(&format!("no rust-src for {rustc}: {refusal}; {library_path} is used, {origin}"));
        Ok(library)
    })
}

/// Adds the sources to the toolchain by rustup, and returns why they may still be missing.
fn by_rustup(shell: &Shell, step: &Step) -> String {
    // The name of a log of its own, which apt's output does not replace.
    const LOG: &str = "rust-src-rustup";
    if !works(cmd!(shell, "rustup --version")) {
        return "there is no rustup on the PATH".into();
    }
    match logged::run(step, LOG, &mut cmd!(shell, "rustup component add rust-src").into()) {
        Ok(_) => "rustup has added it to another toolchain than that of the rustc on the PATH".into(),
        Err(_) => format!("rustup failed (its output is in {})", logged::path(LOG).display()),
    }
}

/// The folder of the sources, where they are.
fn present(jupyter: &Jupyter) -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os("RUST_SRC_PATH").map(PathBuf::from) {
        if is_library(&path) {
            return Ok(Some(path));
        }
        let path = path.display();
        return Err(format!("RUST_SRC_PATH={path} has no core/src/lib.rs: unset it, or set it to …/library").into());
    }
    let shell = shell()?;
    let sysroot = cmd!(shell, "rustc --print sysroot").quiet().ignore_stderr().read();
    let sysroot = sysroot.map_err(|_| missing("rustc on the PATH", "rustup default stable", "rustup.rs"))?;
    let in_toolchain = Path::new(&sysroot).join("lib/rustlib/src/rust/library");
    if is_library(&in_toolchain) {
        return Ok(Some(in_toolchain));
    }
    let recorded = fs::read_to_string(record(jupyter)).ok().map(PathBuf::from);
    Ok(recorded.filter(|path| is_library(path)))
}

/// The file with the folder that was found before.
fn record(jupyter: &Jupyter) -> PathBuf {
    jupyter.folder.join("rust-src.txt")
}

fn is_library(path: &Path) -> bool {
    path.join("core/src/lib.rs").is_file()
}

/// The folders that Debian's package installs.
fn on_system() -> Vec<PathBuf> {
    libraries(Path::new("/usr/src"))
}

fn libraries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("library")).filter(|path| is_library(path)).collect()
}

/// The folder `…/rustc-VERSION/library` whose version is nearest to that of rustc.
fn nearest(libraries: &[PathBuf], rustc: &str) -> Option<PathBuf> {
    let wanted = minor_version(rustc)?;
    let distance = |path: &PathBuf| {
        let found = path.parent()?.file_name()?.to_str().and_then(minor_version)?;
        Some(found.abs_diff(wanted))
    };
    libraries.iter().filter_map(|path| Some((distance(path)?, path))).min().map(|(_, path)| path.clone())
}

/// 95 in `rustc 1.95.0 (59807616e 2026-04-14)` and in `rustc-1.95.0`.
fn minor_version(text: &str) -> Option<u32> {
    text.split_once("1.")?.1.split('.').next()?.parse().ok()
}

/// Downloads Debian's package and unpacks it into the environment. Neither needs root, and neither changes the system.
fn from_debian(shell: &Shell, jupyter: &Jupyter, step: &Step) -> Result<PathBuf> {
    let needed = || {
        missing(
            "rust-src, the sources of Rust's standard library",
            "rustup component add rust-src",
            "conda install rust-src",
        )
    };
    if !works(cmd!(shell, "apt-get --version")) || !works(cmd!(shell, "dpkg --version")) {
        return Err(needed());
    }
    // An interrupted download is started again.
    let part = jupyter.folder.join("rust-src.part");
    let _ = fs::remove_dir_all(&part);
    for folder in ["lists/partial", "cache/archives/partial", "download"] {
        fs::create_dir_all(part.join(folder)).map_err(|error| format!("{}: {error}", part.display()))?;
    }
    let download = part.join("download");
    let _in_download = shell.push_dir(&download);
    let by_system = cmd!(shell, "apt-get download {PACKAGE}");
    if logged::run(step, "rust-src", &mut by_system.into()).is_err() {
        // The system's package lists are old, or there are none: lists of our own.
        let option = |name: &str, folder: &str| format!("{name}={}", part.join(folder).display());
        let (lists, cache) = (option("Dir::State::Lists", "lists"), option("Dir::Cache", "cache"));
        let options = ["-o", &lists, "-o", &cache, "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"];
        logged::run(step, "rust-src-lists", &mut cmd!(shell, "apt-get {options...} update").into())
            .and_then(|_| {
                logged::run(step, "rust-src", &mut cmd!(shell, "apt-get {options...} download {PACKAGE}").into())
            })
            .map_err(|error| format!("{}\n{error}", needed()))?;
    }
    let package = shell.read_dir(&download)?.into_iter().find(|file| file.extension() == Some("deb".as_ref()));
    let package = package.ok_or("apt-get download left no package")?;
    let files = part.join("files");
    logged::run(step, "rust-src", &mut cmd!(shell, "dpkg -x {package} {files}").into())?;
    let unpacked =
        libraries(&files.join("usr/src")).pop().ok_or_else(|| format!("{PACKAGE} has no library: {}", needed()))?;
    let version = unpacked.parent().and_then(Path::file_name).ok_or("a path without a version")?;
    let library = jupyter.folder.join("rust-src").join(version).join("library");
    let _ = fs::remove_dir_all(jupyter.folder.join("rust-src"));
    fs::create_dir_all(library.parent().unwrap_or(&library))?;
    fs::rename(&unpacked, &library)?;
    drop(_in_download);
    fs::remove_dir_all(&part)?;
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_version_is_taken() {
        let paths = ["/usr/src/rustc-1.85.0/library", "/usr/src/rustc-1.96.0/library"].map(PathBuf::from);
        assert_eq!(nearest(&paths, "rustc 1.95.0 (59807616e 2026-04-14)"), Some(paths[1].clone()));
        assert_eq!(nearest(&paths, "rustc 1.89.0"), Some(paths[0].clone()));
        assert_eq!(nearest(&[], "rustc 1.89.0"), None);
        assert_eq!(nearest(&["/usr/src/linux/library".into()], "rustc 1.89.0"), None);
    }

    #[test]
    fn a_folder_without_sources_is_no_library() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("rustc-1.90.0/library");
        fs::create_dir_all(library.join("core/src")).unwrap();
        assert!(libraries(folder.path()).is_empty());
        fs::write(library.join("core/src/lib.rs"), "").unwrap();
        assert_eq!(libraries(folder.path()), [library]);
        assert!(libraries(&folder.path().join("none")).is_empty());
    }
}
