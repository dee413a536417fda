//! Headless execution of notebooks, through nbclient and nbconvert.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use xshell::{Cmd, cmd};

use crate::library;
use crate::root;
use crate::setup::{self, Jupyter};
use crate::tool::{Result, run, shell};

/// The notebooks of a folder of the repository, sorted by name, which is the reading order.
pub(crate) fn in_folder(folder: &str) -> Result<Vec<PathBuf>> {
    let mut notebooks = shell()?.read_dir(folder)?;
    notebooks.retain(|path| path.extension() == Some("ipynb".as_ref()));
    if notebooks.is_empty() { Err(format!("{folder}: no notebook").into()) } else { Ok(notebooks) }
}

/// The folder of the executed notebooks and their HTML pages.
fn output_folder() -> PathBuf {
    target_folder().join("notebooks")
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Executes each notebook in a kernel of its own and prints cells, figures, seconds and the paths of the results.
/// With `store`, the outputs are written to the notebook itself as well.
pub(crate) fn execute(jupyter: &Jupyter, notebooks: &[PathBuf], store: bool) -> Result<()> {
    for notebook in notebooks {
        println!("{}", notebook.display());
        script(jupyter, notebook).args(store.then_some("--store")).run()?;
    }
    Ok(())
}

/// Executes a notebook with the crate itself as its dependency, in place of the compiled library.
pub(crate) fn execute_plain(jupyter: &Jupyter, notebook: &Path) -> Result<()> {
    println!("{}, with the plain dependency", notebook.display());
    Ok(script(jupyter, notebook).arg("--plain").run()?)
}

/// Executes a notebook with another PATH and additional environment variables; if `plain`, with the crate itself as its
/// dependency.
pub(crate) fn execute_in(
    jupyter: &Jupyter,
    notebook: &Path,
    path: &OsStr,
    variables: &[(&str, &Path)],
    plain: bool,
) -> Result<()> {
    println!("{}{}", notebook.display(), if plain { ", with the plain dependency" } else { "" });
    let script = script(jupyter, notebook).args(plain.then_some("--plain"));
    Ok(script.env("PATH", jupyter.path_in_front_of(path)).envs(variables.iter().copied()).run()?)
}

/// Checks what real kernels do with errors, panics, interrupts and a changed crate.
pub(crate) fn kernels(jupyter: &Jupyter) -> Result<()> {
    let (script, repository) = (root().join("xtask/src/kernels.py"), root());
    let scratch = repository.join("target/changed-crate");
    Ok(jupyter.command("python").arg(script).arg(repository).arg(scratch).quiet().run()?)
}

fn script<'a>(jupyter: &'a Jupyter, notebook: &Path) -> Cmd<'a> {
    let script = root().join("xtask/src/execute.py");
    jupyter.command("python").arg(script).arg(notebook).arg(output_folder()).quiet()
}

/// Times the same functions in a cell and in a release program, and prints both with their ratios.
pub(crate) fn speed(model: &str) -> Result<()> {
    let jupyter = setup::jupyter()?;
    let model = std::path::absolute(model)?;
    let shell = shell()?;
    let build = cmd!(shell, "cargo build --release --package attention-tokens --example timings");
    let mut build = Command::from(build);
    library::inherit_no_build(&mut build);
    run("cargo build", &mut build)?;
    let program = target_folder().join("release/examples/timings").with_extension(std::env::consts::EXE_EXTENSION);
    let script = script(&jupyter, &root().join("crate/benches/notebook/speed.ipynb"));
    let script = script.env("ATTENTION_TOKENS_MODEL", model).env("ATTENTION_TOKENS_TIMINGS", program);
    Ok(script.arg("--print").run()?)
}
