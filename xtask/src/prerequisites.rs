//! Programs that the set-up needs and does not install. An error names the missing one and the command that installs
//! it.

use std::env;
use std::path::{Path, PathBuf};

use xshell::cmd;

use crate::tool::{Result, shell, works};

/// The name of a Python 3.10 or newer with the module `venv`, which makes the virtual environment.
pub(crate) fn python() -> Result<String> {
    let shell = shell()?;
    let version_check = "import sys; assert sys.version_info >= (3, 10)";
    let mut candidates = ["python3", "python"].into_iter();
    let Some(python) = candidates.find(|python| works(cmd!(shell, "{python} -c {version_check}"))) else {
        return Err(missing("Python 3.10 or newer", "apt-get install python3 python3-venv", "python.org"));
    };
    let module_check = "import venv, ensurepip";
    if !works(cmd!(shell, "{python} -c {module_check}")) {
        return Err(missing("Python's module venv", "apt-get install python3-venv", "your Python's distributor"));
    }
    Ok(python.into())
}

/// Checks for the parts of Rust that evcxr needs at run time: a linker and the standard library's sources.
pub(crate) fn rust() -> Result<()> {
    let shell = shell()?;
    if cfg!(unix) && !works(cmd!(shell, "cc --version")) {
        return Err(missing("a linker (cc)", "apt-get install build-essential", "xcode-select --install on macOS"));
    }
    // evcxr infers the types of variables with rust-analyzer, which reads the standard library's sources in
    // RUST_SRC_PATH, or else in the sysroot.
    let sysroot = cmd!(shell, "rustc --print sysroot").ignore_stderr().read();
    let sysroot = sysroot.map_err(|_| missing("rustc on the PATH", "rustup default stable", "rustup.rs"))?;
    let in_sysroot = || Path::new(&sysroot).join("lib/rustlib/src/rust/library");
    let sources = env::var_os("RUST_SRC_PATH").map_or_else(in_sysroot, PathBuf::from);
    if !sources.join("core/src/lib.rs").is_file() {
        let what = format!("rust-src, the standard library's sources, in {}", sources.display());
        return Err(missing(&what, "rustup component add rust-src", "conda install rust-src"));
    }
    Ok(())
}

/// Checks for Chromium and chromedriver, which the browser tests use.
pub(crate) fn chromium() -> Result<()> {
    let shell = shell()?;
    let mut browsers = ["chromium", "chromium-browser", "google-chrome"].into_iter();
    if !browsers.any(|browser| works(cmd!(shell, "{browser} --version"))) {
        return Err(missing("Chromium", "apt-get install chromium", "chromium.org"));
    }
    if !works(cmd!(shell, "chromedriver --version")) {
        return Err(missing("chromedriver", "apt-get install chromium-driver", "chromedriver.chromium.org"));
    }
    Ok(())
}

fn missing(what: &str, install: &str, otherwise: &str) -> Box<dyn std::error::Error> {
    format!("missing: {what}\n  install it with: {install}\n  or see: {otherwise}").into()
}
