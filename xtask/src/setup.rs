//! The Jupyter side: a virtual environment with the pinned Python packages, the Rust kernel, and the compiled library.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use xshell::{Cmd, Shell, cmd};

use crate::environment::pip_requirements;
use crate::library;
use crate::prerequisites;
use crate::tool::{Result, run, shell};

/// The tested version of the kernel, which is installed where none of this version is found.
const EVCXR: &str = "0.22.0";

/// A virtual environment with JupyterLab and the Rust kernel.
pub(crate) struct Jupyter {
    folder: PathBuf,
    shell: Shell,
}

impl Jupyter {
    /// A command that runs a program of the environment, with the environment's programs first on the PATH.
    pub(crate) fn command(&self, program: &str) -> Cmd<'_> {
        let command = self.shell.cmd(self.program(program));
        let command = command.env("PATH", self.path_in_front_of(&env::var_os("PATH").unwrap_or_default()));
        // Otherwise a kernel `rust` in the user's own Jupyter folder replaces this environment's.
        command.env("JUPYTER_PREFER_ENV_PATH", "1")
    }

    /// A PATH with the environment's programs in front of `path`.
    pub(crate) fn path_in_front_of(&self, path: &OsStr) -> OsString {
        let paths = std::iter::once(self.bin()).chain(env::split_paths(path));
        env::join_paths(paths).unwrap_or_else(|_| path.to_owned())
    }

    fn bin(&self) -> PathBuf {
        self.folder.join(if cfg!(windows) { "Scripts" } else { "bin" })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name).with_extension(env::consts::EXE_EXTENSION)
    }
}

/// Installs whatever is missing, and compiles the library.
pub(crate) fn jupyter() -> Result<Jupyter> {
    prerequisites::rust()?;
    let folder = env::var_os("ATTENTION_TOKENS_VENV").map_or_else(|| crate::root().join(".venv"), PathBuf::from);
    let jupyter = Jupyter { folder: std::path::absolute(folder)?, shell: shell()? };
    python_packages(&jupyter)?;
    let evcxr = evcxr(&jupyter)?;
    kernel(&jupyter, &evcxr)?;
    library(&jupyter.shell)?;
    Ok(jupyter)
}

/// Compiles the library that notebooks load, so that no notebook waits for it. That takes minutes the first time; later
/// runs compile only what has changed.
fn library(shell: &Shell) -> Result<()> {
    let mut compile = library::compile("cargo".as_ref(), &crate::root(), false);
    run("compiling the library", compile.args(library::FOR_RUSTC))?;
    // Its build script links the sources that rust-analyzer reads.
    let manifest = "crate/prebuilt/Cargo.toml";
    Ok(cmd!(shell, "cargo build --quiet --manifest-path {manifest} --target-dir target/prebuilt").quiet().run()?)
}

fn python_packages(jupyter: &Jupyter) -> Result<()> {
    let (Jupyter { shell, folder }, file) = (jupyter, "environment.yml");
    let requirements = pip_requirements(&shell.read_file(file)?).map_err(|error| format!("{file}: {error}"))?;
    // The stamp is written last: an installation that was interrupted is repeated.
    let stamp = folder.join("installed.txt");
    let wanted = requirements.join("\n");
    if jupyter.program("python").is_file() && shell.read_file(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let python = prerequisites::python()?;
    step(&format!("making a Python environment in {}", folder.display()), || {
        Ok(cmd!(shell, "{python} -m venv {folder}").quiet().run()?)
    })?;
    step(&format!("installing {} and their dependencies", requirements.join(", ")), || {
        let pip = jupyter.command("python").args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        Ok(pip.args(&requirements).quiet().run()?)
    })?;
    Ok(shell.write_file(stamp, wanted)?)
}

/// The path of an evcxr_jupyter of the tested version: the environment's, one on the PATH, or else a new one.
fn evcxr(jupyter: &Jupyter) -> Result<PathBuf> {
    let Jupyter { shell, folder } = jupyter;
    let name = PathBuf::from("evcxr_jupyter").with_extension(env::consts::EXE_EXTENSION);
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join(&name));
    let own = jupyter.program("evcxr_jupyter");
    if let Some(found) = std::iter::once(own.clone()).chain(on_path).find(|path| is_tested_version(shell, path)) {
        return Ok(found);
    }
    step(&format!("compiling the Rust kernel, evcxr_jupyter {EVCXR}: about 8 minutes on two cores, once"), || {
        let install = cmd!(shell, "cargo install --locked evcxr_jupyter --version {EVCXR} --root {folder}");
        Ok(install.quiet().run()?)
    })?;
    Ok(own)
}

/// Whether cargo's record of installed programs names the tested version. The kernel itself does not print its version.
fn is_tested_version(shell: &Shell, evcxr: &Path) -> bool {
    let Some(root) = evcxr.parent().and_then(Path::parent) else { return false };
    let list = || cmd!(shell, "cargo install --list --root {root}").ignore_stderr().read();
    evcxr.is_file() && list().is_ok_and(|list| list.contains(&format!("evcxr_jupyter v{EVCXR}:")))
}

/// Registers the kernel as `rust` inside the environment; the user's own kernels stay as they are.
fn kernel(jupyter: &Jupyter, evcxr: &Path) -> Result<()> {
    let shell = &jupyter.shell;
    let share = jupyter.folder.join("share");
    let spec = share.join("jupyter/kernels/rust/kernel.json");
    let config = share.join("evcxr");
    // evcxr caches compiled dependencies between sessions, up to this size in megabytes.
    let init = ":cache 4000\n";
    // evcxr builds dependencies with debug assertions, overflow checks and opt-level 2; that is 8 times slower.
    let environment = json!({
        "CARGO_PROFILE_DEV_DEBUG_ASSERTIONS": "false",
        "CARGO_PROFILE_DEV_OVERFLOW_CHECKS": "false",
        "CARGO_PROFILE_DEV_OPT_LEVEL": "3",
        "EVCXR_CONFIG_DIR": config,
    });
    let stamp = share.join("evcxr/registered.txt");
    let wanted = format!("{}\n{init}{environment}\n", evcxr.display());
    if spec.is_file() && shell.read_file(&stamp).is_ok_and(|registered| registered == wanted) {
        return Ok(());
    }
    step("registering the Rust kernel inside the environment", || {
        let install = cmd!(shell, "{evcxr} --install").env("JUPYTER_PATH", share.join("jupyter"));
        install.quiet().ignore_stdout().run()?;
        let text = shell.read_file(&spec)?;
        let mut content: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", spec.display()))?;
        content["env"] = environment;
        shell.write_file(&spec, format!("{content:#}\n"))?;
        shell.write_file(config.join("init.evcxr"), init)?;
        Ok(shell.write_file(&stamp, &wanted)?)
    })
}

/// Prints a description of the step, runs it, and prints its seconds.
fn step(description: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("set-up: {description}");
    let started = Instant::now();
    work()?;
    println!("set-up: done in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
