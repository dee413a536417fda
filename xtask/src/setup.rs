//! The Jupyter side: a virtual environment with the pinned Python packages, the Rust kernel, and the compiled library.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::progress::Progress;
use crate::tool::Result;
use crate::{first_figure, kernel, prerequisites, python, rust_src};

/// A virtual environment with JupyterLab and the Rust kernel.
pub(crate) struct Jupyter {
    pub(crate) folder: PathBuf,
}

impl Jupyter {
    /// The environment in a folder, whether it exists or not.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        Ok(Self { folder: std::path::absolute(folder)? })
    }

    /// A command that runs a program of the environment, with the environment's programs first on the PATH.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        command.current_dir(crate::root());
        command.env("PATH", self.path_in_front_of(&env::var_os("PATH").unwrap_or_default()));
        // Otherwise a kernel `rust` in the user's own Jupyter folder replaces this environment's.
        command.env("JUPYTER_PREFER_ENV_PATH", "1");
        command
    }

    /// A PATH with the environment's programs in front of `path`.
    pub(crate) fn path_in_front_of(&self, path: &OsStr) -> OsString {
        let paths = std::iter::once(self.bin()).chain(env::split_paths(path));
        env::join_paths(paths).unwrap_or_else(|_| path.to_owned())
    }

    fn bin(&self) -> PathBuf {
        self.folder.join(if cfg!(windows) { "Scripts" } else { "bin" })
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name).with_extension(env::consts::EXE_EXTENSION)
    }
}

/// Installs whatever is missing, compiles the library, and shows the first figure.
pub(crate) fn jupyter() -> Result<Jupyter> {
    let folder = env::var_os("ATTENTION_TOKENS_VENV").map_or_else(|| crate::root().join(".venv"), PathBuf::from);
    let jupyter = Jupyter::in_folder(&folder)?;
    writable(&crate::root())?;
    prerequisites::linker()?;
    // Until the end, so that two calls do not install the same packages or the same kernel.
    let _lock = python::lock(&jupyter.folder)?;
    let missing = [python::is_missing(&jupyter)?, rust_src::is_missing(&jupyter)?, kernel::known(&jupyter).is_none()];
    if missing[0] {
        prerequisites::python()?;
    }
    // The library and its figure come on top.
    let libraries = if first_figure::draws_before_the_library() { 2 } else { 1 };
    let steps = libraries + 1 + missing.into_iter().filter(|&missing| missing).count();
    Progress::run(steps, |progress| -> Result<()> {
        // The library takes the processors, the Python packages the network and the disk. The kernel is compiled at a
        // low priority, wherever the library leaves a processor idle.
        let (kernel, library) = thread::scope(|scope| {
            let kernel = scope.spawn(|| {
                let sources = python::packages(&jupyter, progress).and_then(|()| rust_src::provide(&jupyter, progress));
                let sources = sources?;
                kernel::register(&jupyter, &kernel::provide(&jupyter, progress)?, &sources)
            });
            let library = first_figure::library_and_figure(progress);
            (kernel.join(), library)
        });
        let kernel = kernel.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        progress.first_failure().map_or(Ok(()), Err)?;
        kernel?;
        library
    })?;
    Ok(jupyter)
}

/// Checks that the set-up can write into the checkout.
fn writable(root: &Path) -> Result<()> {
    for folder in ["target", "crate/prebuilt/sources"] {
        let folder = root.join(folder);
        let probe = folder.join(format!(".probe-{}", std::process::id()));
        let written =
            fs::create_dir_all(&folder).and_then(|()| fs::write(&probe, "")).and_then(|()| fs::remove_file(&probe));
        written.map_err(|error| {
            format!(
                "{}: {error}: the set-up writes the compiled library there; copy the repository to a folder that you can \
                 write to, and run the command in it",
                folder.display()
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test puts a file in the place of a folder. A folder without permissions would not do: root can write there.
    #[test]
    fn a_checkout_that_cannot_be_written_is_named() {
        let root = tempfile::tempdir().unwrap();
        writable(root.path()).unwrap();
        fs::remove_dir_all(root.path().join("crate")).unwrap();
        fs::write(root.path().join("crate"), "").unwrap();
        let error = writable(root.path()).unwrap_err().to_string();
        assert!(error.contains("crate/prebuilt/sources") && error.contains("copy the repository"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn paths_with_spaces_and_other_letters_are_kept() {
        let jupyter = Jupyter::in_folder(Path::new("/a b/ü")).unwrap();
        let path = jupyter.path_in_front_of("/usr/bin".as_ref());
        assert_eq!(env::split_paths(&path).next().unwrap(), jupyter.program("python").parent().unwrap());
    }
}
