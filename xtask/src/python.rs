//! The Python environment: made once, and made anew if that was interrupted.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::logged;
use crate::pins::Pins;
use crate::prerequisites;
use crate::progress::Progress;
use crate::setup::Jupyter;
use crate::tool::{Result, at_low_priority};

/// Written when the environment is complete: the packages that it has.
const INSTALLED: &str = "installed.txt";
/// Exists while the environment is being made or changed.
const INSTALLING: &str = "installing.txt";

/// What is in the environment's folder.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// All packages, in the pinned versions.
    Whole,
    /// What an interrupted installation left. pip takes a package whose files are only partly there for installed.
    HalfMade,
    /// Nothing, packages of other versions, or an environment of the user's own.
    Other,
}

impl State {
    fn of(folder: &Path, python: &Path, wanted: &str) -> Self {
        if folder.join(INSTALLING).exists() {
            Self::HalfMade
        } else if python.is_file() && fs::read_to_string(folder.join(INSTALLED)).is_ok_and(|found| found == wanted) {
            Self::Whole
        } else {
            Self::Other
        }
    }
}

/// Whether packages have to be installed.
pub(crate) fn is_missing(jupyter: &Jupyter) -> Result<bool> {
    let wanted = Pins::Environment.read()?;
    Ok(State::of(&jupyter.folder, &jupyter.program("python"), &wanted) != State::Whole)
}

/// Installs the packages that `environment.yml` pins, with all that they need, unless they are there.
pub(crate) fn packages(jupyter: &Jupyter, progress: &Progress) -> Result<()> {
    let (folder, wanted) = (&jupyter.folder, Pins::Environment.read()?);
    let state = State::of(folder, &jupyter.program("python"), &wanted);
    if state == State::Whole {
        return Ok(());
    }
    let python = prerequisites::python()?;
    progress.step(&format!("Python packages in {}", folder.display()), |step| {
        begin(folder, &state)?;
        let mut venv = Command::new(python);
        venv.args(["-m", "venv"]).arg(folder);
        logged::run(step, "python-environment", &mut at_low_priority(venv))?;
        let mut pip = jupyter.command("python");
        Pins::Environment.install(&mut pip);
        logged::run(step, "python-packages", &mut at_low_priority(pip))?;
        finish(folder, &wanted)
    })
}

/// Marks the environment as being made, and removes the packages of an interrupted installation.
fn begin(folder: &Path, state: &State) -> Result<()> {
    let error =
        |error| format!("{}: {error}; set ATTENTION_TOKENS_VENV to a folder that you can write to", folder.display());
    fs::create_dir_all(folder).map_err(error)?;
    // First, so that no moment has neither mark.
    fs::write(folder.join(INSTALLING), "").map_err(error)?;
    let _ = fs::remove_file(folder.join(INSTALLED));
    if *state == State::HalfMade {
        // Only the packages: the compiled kernel is in the folder `bin`.
        for name in ["lib", "lib64", "Lib"] {
            let path = folder.join(name);
            let _ = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
        }
    }
    Ok(())
}

/// Marks the environment as complete.
fn finish(folder: &Path, wanted: &str) -> Result<()> {
    fs::write(folder.join(INSTALLED), wanted)?;
    Ok(fs::remove_file(folder.join(INSTALLING))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_made_environment_is_never_whole() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let python = folder.join("bin/python");
        let state = || State::of(folder, &python, "a==1");
        assert_eq!(state(), State::Other);

        begin(folder, &state()).unwrap();
        assert_eq!(state(), State::HalfMade, "interrupted at once");
        fs::create_dir_all(folder.join("lib/python3/site-packages/a")).unwrap();
        fs::create_dir_all(folder.join("bin")).unwrap();
        for program in [&python, &folder.join("bin/evcxr_jupyter")] {
            fs::write(program, "").unwrap();
        }
        assert_eq!(state(), State::HalfMade, "interrupted while pip copied");

        begin(folder, &state()).unwrap();
        assert!(!folder.join("lib").exists(), "the packages are installed again");
        assert!(folder.join("bin/evcxr_jupyter").exists(), "the kernel, which takes minutes to compile, is kept");
        fs::write(folder.join(INSTALLED), "a==1").unwrap();
        assert_eq!(state(), State::HalfMade, "interrupted between the two marks");
        finish(folder, "a==1").unwrap();
        assert_eq!(state(), State::Whole);

        let newer = || State::of(folder, &python, "a==2");
        assert_eq!(newer(), State::Other);
        begin(folder, &newer()).unwrap();
        assert_eq!((state(), newer()), (State::HalfMade, State::HalfMade), "interrupted while versions changed");
        finish(folder, "a==2").unwrap();
        fs::remove_file(&python).unwrap();
        assert_eq!(newer(), State::Other, "without its Python");
    }

    /// A folder that the user made is not emptied.
    #[test]
    fn packages_of_the_user_are_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("lib/python3/site-packages/own");
        fs::create_dir_all(&own).unwrap();
        begin(folder.path(), &State::of(folder.path(), &folder.path().join("bin/python"), "a==1")).unwrap();
        assert!(own.exists());
    }
}
