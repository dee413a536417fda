//! Programs that the set-up and the checks need. An error names the missing one and the command that installs it.

use xshell::{Cmd, Shell, cmd};

use crate::logged;
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

/// rustfmt and clippy, which the checks run; added to a toolchain of rustup where they are missing.
pub(crate) fn rustfmt_and_clippy() -> Result<()> {
    let shell = shell()?;
    component(&shell, "rustfmt", "fmt")?;
    component(&shell, "clippy", "clippy")
}

/// A component of the toolchain, which has the command `cargo COMMAND`.
fn component(shell: &Shell, name: &str, command: &str) -> Result<()> {
    let is_there = || works(cmd!(shell, "cargo {command} --version"));
    if is_there() {
        return Ok(());
    }
    let add = || cmd!(shell, "rustup component add {name}");
    let error = if works(cmd!(shell, "rustup --version")) { failure(add()) } else { None };
    if is_there() {
        return Ok(());
    }
    let otherwise = "the distributor of your Rust, whose package has that name";
    Err(with_errors(missing(&format!("{name} (cargo {command})"), &add().to_string(), otherwise), &[error]))
}

/// Installs Debian packages if a program is missing: with apt-get, as root or by a `sudo` that asks for no password. Elsewhere,
/// and where apt-get fails, what is missing is named.
fn installed(check: fn() -> Result<()>, packages: &[&str], reason: &str) -> Result<()> {
    if check().is_ok() {
        return Ok(());
    }
    let shell = shell()?;
    let is_root = is_root()?;
    let sudo: &[&str] = if is_root { &[] } else { &["sudo", "-n"] };
    let may_install = works(cmd!(shell, "apt-get --version")) && (is_root || works(cmd!(shell, "sudo -n true")));
    if !may_install {
        return check();
    }
    println!("installing {} with apt-get, for {reason}", packages.join(" and "));
    let apt_get = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "apt-get", "-qq"]].concat();
    let (program, arguments) = (apt_get[0], &apt_get[1..]);
    // The update may fail because of a source that has nothing to do with these packages.
    let update = failure(cmd!(shell, "{program} {arguments...} update"));
    let install = failure(cmd!(shell, "{program} {arguments...} install -y {packages...}"));
    check().map_err(|missing| with_errors(missing, &[update, install]))
}

/// Runs a command without showing its output. Returns the command and the end of what it wrote to stderr, if it fails.
fn failure(command: Cmd) -> Option<String> {
    /// Number of lines that are shown.
    const SHOWN: usize = 5;
    let line = command.to_string();
    let output = match command.quiet().ignore_status().output() {
        Ok(output) if output.status.success() => return None,
        Ok(output) => output,
        Err(error) => return Some(error.to_string()),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines[lines.len().saturating_sub(SHOWN)..].join("\n    ");
    let cause = logged::cause(&text).map_or_else(String::new, |cause| format!("\n    {cause}"));
    Some(format!("{line} failed ({}):\n    {end}{cause}", output.status))
}

/// The sentence on a missing program, with the errors of the commands that were to install it.
fn with_errors(missing: Error, errors: &[Option<String>]) -> Error {
    errors.iter().flatten().fold(missing.to_string(), |text, error| format!("{text}\n  {error}")).into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_failed_installation_is_shown_with_what_is_missing() {
        let shell = shell().unwrap();
        let script = "for i in 1 2 3 4 5 6; do echo line $i >&2; done; echo Temporary failure resolving x >&2; exit 7";
        let errors = [None, failure(cmd!(shell, "sh -c {script}")), failure(cmd!(shell, "no-such-program"))];
        let error = with_errors(missing("a program", "apt-get install it", "example.org"), &errors).to_string();
        assert!(error.starts_with("missing: a program\n  install it with: apt-get install it\n"), "{error}");
        for part in ["exit status: 7", "\n    line 3\n", "Temporary failure", "no network", "no-such-program"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("\n    line 2"), "{error}");
        assert_eq!(failure(cmd!(shell, "true")), None);
    }
}
