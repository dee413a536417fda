//! The Jupyter side: a virtual environment with the pinned Python packages, and the Rust kernel inside it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::environment::pip_requirements;
use crate::library;
use crate::prerequisites;
use crate::tool::{Result, output, run};

/// The kernel that was tried, and is installed where the PATH has no such version.
const EVCXR: &str = "0.22.0";

/// An environment that is ready: Python, JupyterLab, the Rust kernel.
pub(crate) struct Jupyter {
    folder: PathBuf,
}

impl Jupyter {
    /// A program of the environment, started with its programs first on the PATH.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        command.env("PATH", self.path_in_front_of(&env::var_os("PATH").unwrap_or_default()));
        // A user's own Jupyter settings must not replace this environment's kernel.
        command.env("JUPYTER_PREFER_ENV_PATH", "1");
        command
    }

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

/// Sets up whatever is missing.
pub(crate) fn jupyter() -> Result<Jupyter> {
    prerequisites::rust()?;
    let folder = match env::var_os("ATTENTION_TOKENS_VENV") {
        Some(folder) => PathBuf::from(folder),
        None => crate::root().join(".venv"),
    };
    let jupyter = Jupyter { folder };
    python_packages(&jupyter)?;
    let evcxr = evcxr(&jupyter)?;
    kernel(&jupyter, &evcxr)?;
    library()?;
    Ok(jupyter)
}

/// Compiles the library that notebooks load, so that no notebook has to: minutes the first time, and only what has changed
/// after that.
fn library() -> Result<()> {
    let root = crate::root();
    let mut compile = library::compile("cargo".as_ref(), &root, false);
    run("compiling the library", compile.args(library::FOR_RUSTC))?;
    let mut link = Command::new("cargo");
    link.args(["build", "--quiet", "--manifest-path"]).arg(root.join("crate/prebuilt/Cargo.toml"));
    link.arg("--target-dir").arg(root.join("target/prebuilt"));
    run("linking the library's sources", &mut link)
}

fn python_packages(jupyter: &Jupyter) -> Result<()> {
    let requirements = pip_requirements(&crate::root().join("environment.yml"))?;
    // What is installed, written once it is: a stopped installation is done again.
    let stamp = jupyter.folder.join("installed.txt");
    let wanted = requirements.join("\n");
    if jupyter.program("python").is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let python = prerequisites::python()?;
    step(&format!("making a Python environment in {}", jupyter.folder.display()), || {
        run("python -m venv", Command::new(python).args(["-m", "venv"]).arg(&jupyter.folder))
    })?;
    step(&format!("installing {} and what they need", requirements.join(", ")), || {
        let mut pip = jupyter.command("python");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(&requirements);
        run("pip install", &mut pip)
    })?;
    write(&stamp, &wanted)
}

/// The path of a known-good evcxr_jupyter: the PATH's, the environment's, or a new one.
fn evcxr(jupyter: &Jupyter) -> Result<PathBuf> {
    let name = PathBuf::from("evcxr_jupyter").with_extension(env::consts::EXE_EXTENSION);
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join(&name));
    let own = jupyter.program("evcxr_jupyter");
    if let Some(found) = std::iter::once(own.clone()).chain(on_path).find(|path| is_known_good(path)) {
        return Ok(found);
    }
    step(&format!("compiling the Rust kernel, evcxr_jupyter {EVCXR}: about 11 minutes on two cores, once"), || {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--locked", "evcxr_jupyter", "--version", EVCXR, "--root"]).arg(&jupyter.folder);
        run("cargo install evcxr_jupyter", &mut cargo)
    })?;
    Ok(own)
}

/// The kernel does not tell its version; cargo keeps a record beside the folder that it installed into.
fn is_known_good(path: &Path) -> bool {
    let Some(root) = path.parent().and_then(Path::parent) else { return false };
    let list = || output(Command::new("cargo").args(["install", "--list", "--root"]).arg(root));
    path.is_file() && list().is_some_and(|list| list.contains(&format!("evcxr_jupyter v{EVCXR}:")))
}

/// Registers the kernel as `rust` inside the environment; no kernel of the user's is touched.
fn kernel(jupyter: &Jupyter, evcxr: &Path) -> Result<()> {
    let share = jupyter.folder.join("share");
    let spec = share.join("jupyter/kernels/rust/kernel.json");
    let config = share.join("evcxr");
    // Compiled dependencies are kept between sessions, up to this many megabytes.
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
    if spec.is_file() && fs::read_to_string(&stamp).is_ok_and(|registered| registered == wanted) {
        return Ok(());
    }
    step("registering the Rust kernel inside the environment", || {
        let mut install = Command::new(evcxr);
        install.arg("--install").env("JUPYTER_PATH", share.join("jupyter"));
        output(&mut install).ok_or("evcxr_jupyter --install failed")?;
        let text = fs::read_to_string(&spec).map_err(|error| format!("{}: {error}", spec.display()))?;
        let mut content: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", spec.display()))?;
        content["env"] = environment;
        write(&spec, &format!("{content:#}\n"))?;
        write(&config.join("init.evcxr"), init)?;
        write(&stamp, &wanted)
    })
}

fn write(path: &Path, content: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}

/// Says what is being done, and how long it took.
fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("set-up: {what}");
    let started = Instant::now();
    work()?;
    println!("set-up: done in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
