//! Programs that the set-up and the checks need. An error names the missing one and the command that installs it.

use xshell::cmd;

use crate::tool::{Error, Result, shell, works};

/// The name of a Python 3.10 or newer with the module `venv`, which makes the virtual environment.
pub(crate) fn python() -> Result<String> {
    let shell = shell()?;
    let version_check = "import sys; assert sys.version_info >= (3, 10)";
    // Older systems have a newer Python beside their own.
    let names = ["python3", "python", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];
    let mut candidates = names.into_iter();
    let Some(python) = candidates.find(|python| works(cmd!(shell, "{python} -c {version_check}"))) else {
        let found = cmd!(shell, "python3 --version").quiet().ignore_stderr().read();
        let found = found.map_or_else(|_| String::new(), |version| format!(" (python3 is {version})"));
        let what = format!("Python 3.10 or newer{found}");
        return Err(missing(&what, "apt-get install python3 python3-venv", "python.org"));
    };
    let module_check = "import venv, ensurepip";
    if !works(cmd!(shell, "{python} -c {module_check}")) {
        return Err(missing("Python's module venv", "apt-get install python3-venv", "your Python's distributor"));
    }
    Ok(python.into())
}

/// Checks for a linker, which compiling anything needs.
pub(crate) fn linker() -> Result<()> {
    let shell = shell()?;
    if cfg!(unix) && !works(cmd!(shell, "cc --version")) {
        return Err(missing("a linker (cc)", "apt-get install build-essential", "xcode-select --install on macOS"));
    }
    Ok(())
}

/// Chromium and chromedriver, which the browser tests use; installed where they are missing.
pub(crate) fn chromium() -> Result<()> {
    installed(has_chromium, &["chromium", "chromium-driver"], "the browser tests")
}

/// A C++ compiler, which libFuzzer is compiled with; installed where it is missing.
pub(crate) fn cpp() -> Result<()> {
    installed(has_cpp, &["g++"], "libFuzzer")
}

/// Installs Debian packages if a program is missing: with apt-get, as root or by a `sudo` that asks for no password. Elsewhere
/// what is missing is named.
fn installed(check: fn() -> Result<()>, packages: &[&str], reason: &str) -> Result<()> {
    if check().is_ok() {
        return Ok(());
    }
    let shell = shell()?;
    let is_root = is_root()?;
    let sudo: &[&str] = if is_root { &[] } else { &["sudo", "-n"] };
    let may_install = works(cmd!(shell, "apt-get --version")) && (is_root || works(cmd!(shell, "sudo -n true")));
    if may_install {
        println!("installing {} with apt-get, for {reason}", packages.join(" and "));
        let apt_get = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]].concat();
        let (program, arguments) = (apt_get[0], &apt_get[1..]);
        cmd!(shell, "{program} {arguments...} update").run()?;
        cmd!(shell, "{program} {arguments...} install -y {packages...}").ignore_stdout().run()?;
    }
    check()
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> Result<bool> {
    let shell = shell()?;
    let id = cmd!(shell, "id -u").quiet().ignore_stderr().read();
    Ok(cfg!(unix) && id.is_ok_and(|id| id.trim() == "0"))
}

fn has_cpp() -> Result<()> {
    let shell = shell()?;
    if works(cmd!(shell, "c++ --version")) {
        return Ok(());
    }
    Err(missing("a C++ compiler (c++)", "apt-get install g++", "xcode-select --install on macOS"))
}

fn has_chromium() -> Result<()> {
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

pub(crate) fn missing(what: &str, install: &str, otherwise: &str) -> Error {
    format!("missing: {what}\n  install it with: {install}\n  or see: {otherwise}").into()
}
