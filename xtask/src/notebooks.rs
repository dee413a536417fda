//! Headless execution of notebooks, through nbclient and nbconvert.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::pages::Inputs;
use crate::progress::Progress;
use crate::setup::{self, Jupyter};
use crate::tool::{Result, run, shell};
use crate::{library, logged, release, root};

/// The notebooks of a folder of the repository, sorted by name, which is the reading order.
pub(crate) fn in_folder(folder: &str) -> Result<Vec<PathBuf>> {
    let mut notebooks = shell()?.read_dir(folder)?;
    notebooks.retain(|path| path.extension() == Some("ipynb".as_ref()));
    if notebooks.is_empty() { Err(format!("{folder}: no notebook").into()) } else { Ok(notebooks) }
}

/// The folder of the executed notebooks and their HTML pages.
fn output_folder() -> PathBuf {
    crate::target_folder().join("notebooks")
}

/// Executes the notebooks whose pages are not up to date, as [`execute`] does, and prints the paths of the other pages.
pub(crate) fn execute_changed(jupyter: &Jupyter, notebooks: &[PathBuf]) -> Result<()> {
    let inputs = Inputs::now(jupyter);
    let (made, changed): (Vec<_>, Vec<_>) =
        notebooks.iter().cloned().partition(|notebook| inputs.made(notebook, &page(notebook)));
    for notebook in &made {
        println!("up to date: {}", page(notebook).display());
    }
    if !made.is_empty() {
        println!("(a notebook that you name is executed in any case)");
    }
    if changed.is_empty() { Ok(()) } else { execute(jupyter, &changed, false) }
}

/// The page of an executed notebook.
fn page(notebook: &Path) -> PathBuf {
    output_folder().join(notebook.file_stem().unwrap_or_default()).with_extension("html")
}

/// Executes each notebook in a kernel of its own, two at a time, and prints cells, figures, seconds and the paths of the
/// results. With `store`, the outputs are written to the notebook itself as well.
pub(crate) fn execute(jupyter: &Jupyter, notebooks: &[PathBuf], store: bool) -> Result<()> {
    let inputs = Inputs::now(jupyter);
    let command = |notebook: &Path| {
        let mut script = script(jupyter, notebook);
        script.args(store.then_some("--store"));
        script
    };
    if let [notebook] = notebooks {
        println!("{}", notebook.display());
        run("the notebook", &mut command(notebook))?;
        return inputs.remember(notebook, &page(notebook));
    }
    Progress::run(notebooks.len(), |progress| {
        // Half of a cell's time is one thread of rust-analyzer or of the compiler, so two notebooks gain from two cores.
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(notebook) = notebooks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let name = notebook.strip_prefix(root()).unwrap_or(notebook).display().to_string();
                let log = format!("notebook-{}", notebook.file_stem().unwrap_or_default().display());
                let output = progress.step(&name, |step| logged::run(step, &log, &mut command(notebook)))?;
                inputs.remember(notebook, &page(notebook))?;
                // The results, without evcxr's own line and those about single cells, which the log has.
                let output = String::from_utf8_lossy(&output);
                let results = output.lines().filter(|line| line.starts_with("  ") && !line.trim().starts_with("cell "));
                progress.say(&results.collect::<Vec<_>>().join("\n"));
            }
            Ok(())
        };
        let outcomes = thread::scope(|scope| [scope.spawn(work), scope.spawn(work)].map(|thread| thread.join()));
        progress.first_failure().map_or(Ok(()), Err)?;
        for outcome in outcomes {
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })
}

/// Executes a notebook with the crate itself as its dependency, in place of the compiled library.
pub(crate) fn execute_plain(jupyter: &Jupyter, notebook: &Path) -> Result<()> {
    println!("{}, with the plain dependency", notebook.display());
    run("the notebook", script(jupyter, notebook).arg("--plain"))
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
    let mut script = script(jupyter, notebook);
    script.args(plain.then_some("--plain"));
    run("the notebook", script.env("PATH", jupyter.path_in_front_of(path)).envs(variables.iter().copied()))
}

/// Checks what real kernels do with errors, panics, interrupts and a changed crate.
pub(crate) fn kernels(jupyter: &Jupyter) -> Result<()> {
    let (script, repository) = (root().join("xtask/src/kernels.py"), root());
    let scratch = repository.join("target/changed-crate");
    let library = release::library().ok_or("expected the compiled library in target/release")?;
    let library = library.strip_prefix(&repository)?;
    run("the checks of kernels", jupyter.command("python").arg(script).arg(&repository).arg(scratch).arg(library))
}

/// Does mixed work in one kernel, and fails if the work or what it costs is not as expected.
pub(crate) fn soak(minutes: &str) -> Result<()> {
    let minutes: f64 = minutes.parse().map_err(|_| format!("expected a number of minutes, found {minutes:?}"))?;
    let jupyter = setup::jupyter()?;
    let script = root().join("xtask/src/soak.py");
    run("the soak", jupyter.command("python").arg(script).arg(root()).arg(minutes.to_string()))
}

fn script(jupyter: &Jupyter, notebook: &Path) -> Command {
    let mut script = jupyter.command("python");
    script.arg(root().join("xtask/src/execute.py")).arg(notebook).arg(output_folder());
    script
}

/// Times the same functions in a cell and in a release program, and prints both with their ratios.
pub(crate) fn speed(model: &str) -> Result<()> {
    let jupyter = setup::jupyter()?;
    let model = std::path::absolute(model)?;
    // In this folder also where the user's configuration names another.
    let target = crate::target_folder();
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "attention-tokens", "--example", "timings", "--target-dir"]);
    library::inherit_no_build(&mut build);
    run("cargo build", build.arg(&target).current_dir(root()))?;
    let name = Path::new("examples/timings").with_extension(std::env::consts::EXE_EXTENSION);
    let program = release::newest(&target, &name).ok_or("cargo build left no program examples/timings")?;
    let mut script = script(&jupyter, &root().join("crate/benches/notebook/speed.ipynb"));
    script.env("ATTENTION_TOKENS_MODEL", model).env("ATTENTION_TOKENS_TIMINGS", program);
    run("the notebook", script.arg("--print"))
}
