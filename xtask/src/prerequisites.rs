//! What must be on the machine before anything can be set up: named, with the command that installs it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tool::{Result, output, works};

/// The Python that makes the virtual environment: 3.10 or newer, with its module `venv`.
pub(crate) fn python() -> Result<String> {
    let candidates = ["python3", "python"];
    let recent = "import sys; assert sys.version_info >= (3, 10)";
    let Some(python) = candidates.into_iter().find(|python| works(Command::new(python).args(["-c", recent]))) else {
        return Err(missing("Python 3.10 or newer", "apt-get install python3 python3-venv", "python.org"));
    };
    if !works(Command::new(python).args(["-c", "import venv, ensurepip"])) {
        return Err(missing("Python's module venv", "apt-get install python3-venv", "your Python's distributor"));
    }
    Ok(python.into())
}

/// What evcxr needs of Rust at run time: a linker, and the standard library's sources.
pub(crate) fn rust() -> Result<()> {
    if cfg!(unix) && !works(Command::new("cc").arg("--version")) {
        return Err(missing("a linker (cc)", "apt-get install build-essential", "xcode-select --install on macOS"));
    }
    // evcxr infers the types of variables from the standard library's sources; rust-analyzer, inside it, looks for them
    // in RUST_SRC_PATH, then in the sysroot.
    let given = env::var_os("RUST_SRC_PATH").map(PathBuf::from);
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))
        .ok_or_else(|| missing("rustc on the PATH", "rustup default stable", "rustup.rs"))?;
    let sources = given.unwrap_or_else(|| Path::new(&sysroot).join("lib/rustlib/src/rust/library"));
    if !sources.join("core/src/lib.rs").is_file() {
        let what = format!("rust-src, the standard library's sources, in {}", sources.display());
        return Err(missing(&what, "rustup component add rust-src", "conda install rust-src"));
    }
    Ok(())
}

/// A Chromium to open pages with, and the program that drives it.
pub(crate) fn chromium() -> Result<()> {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    if !browsers.into_iter().any(|browser| works(Command::new(browser).arg("--version"))) {
        return Err(missing("Chromium", "apt-get install chromium", "chromium.org"));
    }
    match works(Command::new("chromedriver").arg("--version")) {
        true => Ok(()),
        false => Err(missing("chromedriver", "apt-get install chromium-driver", "chromedriver.chromium.org")),
    }
}

fn missing(what: &str, install: &str, otherwise: &str) -> String {
    format!("missing: {what}\n  install it with: {install}\n  or see: {otherwise}")
}
