//! Executing notebooks headless, through nbclient and nbconvert.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::library;
use crate::root;
use crate::setup::{self, Jupyter};
use crate::tool::{Result, run};

/// The notebooks of a folder, in reading order.
pub(crate) fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut notebooks: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("ipynb".as_ref())).collect();
    notebooks.sort();
    match notebooks.is_empty() {
        true => Err(format!("{}: no notebook", folder.display())),
        false => Ok(notebooks),
    }
}

/// Where the executed notebooks and their pages lie.
pub(crate) fn output_folder() -> PathBuf {
    target_folder().join("notebooks")
}

fn target_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| root().join("target"))
}

/// Executes each notebook in a kernel of its own and prints cells, figures, seconds and where the results lie.
/// With `store`, the outputs go into the notebook itself as well.
pub(crate) fn execute(jupyter: &Jupyter, notebooks: &[PathBuf], store: bool) -> Result<()> {
    for notebook in notebooks {
        println!("{}", notebook.display());
        let mut script = script(jupyter, notebook);
        if store {
            script.arg("--store");
        }
        run(&notebook.display().to_string(), &mut script)?;
    }
    Ok(())
}

/// Executes a notebook with the crate itself as its dependency, instead of the compiled library.
pub(crate) fn execute_plainly(jupyter: &Jupyter, notebook: &Path) -> Result<()> {
    println!("{}, plain", notebook.display());
    run(&notebook.display().to_string(), script(jupyter, notebook).arg("--plain"))
}

/// Executes a notebook in an environment with other paths in front of the PATH, and other variables.
pub(crate) fn execute_in(
    jupyter: &Jupyter,
    notebook: &Path,
    path: &OsStr,
    variables: &[(&str, &Path)],
    plainly: bool,
) -> Result<()> {
    println!("{}{}", notebook.display(), if plainly { ", plain" } else { "" });
    let mut script = script(jupyter, notebook);
    script.env("PATH", jupyter.path_in_front_of(path)).envs(variables.iter().copied());
    if plainly {
        script.arg("--plain");
    }
    run(&notebook.display().to_string(), &mut script)
}

/// What a kernel must withstand: a crate that changes, a panic, an interrupt.
pub(crate) fn kernels(jupyter: &Jupyter) -> Result<()> {
    let mut script = jupyter.command("python");
    script.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels.py"));
    run("kernels.py", script.arg(root()).arg(root().join("target/changed-crate")))
}

fn script(jupyter: &Jupyter, notebook: &Path) -> Command {
    let mut script = jupyter.command("python");
    script.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/execute.py"));
    script.arg(notebook).arg(output_folder());
    script
}

/// Times the same functions from a cell and from a release program, and prints both with their ratios.
pub(crate) fn speed(model: &str) -> Result<()> {
    let jupyter = setup::jupyter()?;
    let model = std::path::absolute(model).map_err(|error| format!("{model}: {error}"))?;
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "attention-tokens", "--example", "timings"]);
    library::inherit_no_build(&mut build);
    run("cargo build", build.current_dir(root()))?;
    let program = target_folder().join("release/examples/timings").with_extension(std::env::consts::EXE_EXTENSION);
    let notebook = root().join("crate/benches/notebook/speed.ipynb");
    let mut script = script(&jupyter, &notebook);
    script.env("ATTENTION_TOKENS_MODEL", model).env("ATTENTION_TOKENS_TIMINGS", program);
    run("the notebook", script.arg("--print"))
}
