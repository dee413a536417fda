//! Executing notebooks headless, through nbclient and nbconvert.

use std::path::{Path, PathBuf};

use crate::setup::Jupyter;
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
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| crate::root().join("target")).join("notebooks")
}

/// Executes each notebook in a kernel of its own and prints cells, figures, seconds and where the results lie.
/// With `store`, the outputs go into the notebook itself as well.
pub(crate) fn execute(jupyter: &Jupyter, notebooks: &[PathBuf], store: bool) -> Result<()> {
    for notebook in notebooks {
        println!("{}", notebook.display());
        let mut script = jupyter.command("python");
        script.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/execute.py"));
        script.arg(notebook).arg(output_folder());
        if store {
            script.arg("--store");
        }
        run(&notebook.display().to_string(), &mut script)?;
    }
    Ok(())
}
