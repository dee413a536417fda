//! The Python environment: made once, and made anew if that was interrupted.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::logged;
use crate::pins::Pins;
use crate::prerequisites;
use crate::progress::Progress;
use crate::setup::Jupyter;
use crate::tool::{Result, at_low_priority};

/// Written when the environment is complete: the packages that it has, and [`place`].
const INSTALLED: &str = "installed.txt";
/// Exists while the environment is being made or changed.
const INSTALLING: &str = "installing.txt";
/// Locked by the set-up that works in the environment.
const LOCK: &str = "lock.txt";

/// Begins the last line of the file [`INSTALLED`].
const PLACE: &str = "# installed for ";

/// What is in the environment's folder.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// All packages, in the pinned versions.
    Whole,
    /// What an interrupted installation left. pip takes a package whose files are only partly there for installed.
    HalfMade,
    /// Packages for another version of Python, or in a folder that has been moved since. The programs in `bin` name the
    /// former folder, and pip does not write those of an installed package again.
    Stale,
    /// Nothing, or packages of other versions.
    Other,
}

impl State {
    /// `python` is the version of the environment's Python, if it starts.
    fn of(folder: &Path, python: Option<&str>, wanted: &str) -> Self {
        if folder.join(INSTALLING).exists() {
            return Self::HalfMade;
        }
        let found = fs::read_to_string(folder.join(INSTALLED)).unwrap_or_default();
        match found.rsplit_once(PLACE) {
            // Earlier versions noted no place.
            None => Self::Other,
            Some((_, found)) if python.is_none_or(|python| found != place(folder, python)) => Self::Stale,
            Some((packages, _)) if packages == wanted => Self::Whole,
            Some(_) => Self::Other,
        }
    }
}

/// The version of Python and the folder that an installation is for.
fn place(folder: &Path, python: &str) -> String {
    // The real folder, because the environment may be reached by several links.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    format!("Python {python} in {}\n", folder.display())
}

/// The version of a Python up to the second number, which is the part that installed packages depend on. `None` if it
/// does not start.
fn version(python: &Path) -> Option<String> {
    let output = Command::new(python).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    minor_version(&String::from_utf8_lossy(&output.stdout))
}

/// `3.11` in `Python 3.11.7`.
fn minor_version(text: &str) -> Option<String> {
    let mut numbers = text.strip_prefix("Python ")?.trim().split('.');
    Some(format!("{}.{}", numbers.next()?, numbers.next()?))
}

/// Waits until no other set-up works in the environment's folder. The next one waits until the returned file is dropped.
/// There is none where the folder cannot be written or its file system has no locks.
///
/// # Errors
/// An environment that the user made: none of its packages is changed.
pub(crate) fn lock(folder: &Path) -> Result<Option<File>> {
    if is_foreign(folder) {
        return Err(format!(
            "{} is a Python environment that cargo xtask did not make; set ATTENTION_TOKENS_VENV to a folder of its own, \
             or remove it",
            folder.display()
        )
        .into());
    }
    // Nothing can be installed in a folder that cannot be written, and the installation reports the error.
    let Ok(file) = fs::create_dir_all(folder).and_then(|()| File::create(folder.join(LOCK))) else { return Ok(None) };
    let outcome = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            println!("waiting for another cargo xtask, which sets up {}", folder.display());
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    Ok(outcome.is_ok().then_some(file))
}

/// Whether a folder is an environment that has no mark of this program.
fn is_foreign(folder: &Path) -> bool {
    // In this order, because another set-up may work in the folder: it writes a mark before the environment, and the
    // second mark before it removes the first.
    let is_environment = ["pyvenv.cfg", "conda-meta"].iter().any(|name| folder.join(name).exists());
    is_environment && ![INSTALLING, INSTALLED].iter().any(|name| folder.join(name).exists())
}

/// Whether packages have to be installed.
pub(crate) fn is_missing(jupyter: &Jupyter) -> Result<bool> {
    Ok(state(jupyter, &Pins::Environment.read()?) != State::Whole)
}

fn state(jupyter: &Jupyter, wanted: &str) -> State {
    State::of(&jupyter.folder, version(&jupyter.program("python")).as_deref(), wanted)
}

/// Installs the packages that `environment.yml` pins, with all that they need, unless they are there.
pub(crate) fn packages(jupyter: &Jupyter, progress: &Progress) -> Result<()> {
    let (folder, wanted) = (&jupyter.folder, Pins::Environment.read()?);
    let state = state(jupyter, &wanted);
    if state == State::Whole {
        return Ok(());
    }
    prerequisites::python()?;
    progress.step(&format!("Python packages in {}", folder.display()), |step| {
        begin(jupyter, &state)?;
        // The Python found before may have been the environment's own, whose links are removed now.
        let mut venv = Command::new(prerequisites::python()?);
        venv.args(["-m", "venv"]).arg(folder);
        logged::run(step, "python-environment", &mut at_low_priority(venv))?;
        let mut pip = jupyter.command("python");
        Pins::Environment.install(&mut pip);
        logged::run(step, "python-packages", &mut at_low_priority(pip))?;
        let python = version(&jupyter.program("python")).ok_or("the environment's Python reports no version")?;
        finish(folder, &python, &wanted)
    })
}

/// Marks the environment as being made, and removes packages that pip would wrongly take for installed.
fn begin(jupyter: &Jupyter, state: &State) -> Result<()> {
    let folder = &jupyter.folder;
    let error =
        |error| format!("{}: {error}; set ATTENTION_TOKENS_VENV to a folder that you can write to", folder.display());
    fs::create_dir_all(folder).map_err(error)?;
    fs::write(folder.join(INSTALLING), "").map_err(error)?;
    if [State::HalfMade, State::Stale].contains(state) {
        // Only the packages: the compiled kernel is in the folder `bin`.
        for name in ["lib", "lib64", "Lib"] {
            let path = folder.join(name);
            let _ = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
        }
    }
    remove_links_to_python(jupyter);
    Ok(())
}

/// Removes `bin/python` and its like. `python -m venv` keeps such links, also if their target is gone or is another
/// version.
fn remove_links_to_python(jupyter: &Jupyter) {
    let python = jupyter.program("python");
    for entry in python.parent().and_then(|bin| fs::read_dir(bin).ok()).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with("python") && path.is_symlink() {
            let _ = fs::remove_file(path);
        }
    }
}

/// Marks the environment as complete.
fn finish(folder: &Path, python: &str, wanted: &str) -> Result<()> {
    fs::write(folder.join(INSTALLED), format!("{wanted}{PLACE}{}", place(folder, python)))?;
    Ok(fs::remove_file(folder.join(INSTALLING))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = "a==1\n";

    /// An environment that looks complete, and its folder.
    fn complete(parent: &Path) -> Jupyter {
        let jupyter = Jupyter::in_folder(&parent.join("venv")).unwrap();
        let folder = &jupyter.folder;
        begin(&jupyter, &State::Other).unwrap();
        fs::create_dir_all(folder.join("lib/python3.11/site-packages/a")).unwrap();
        fs::create_dir_all(jupyter.program("python").parent().unwrap()).unwrap();
        for file in [jupyter.program("evcxr_jupyter"), folder.join("pyvenv.cfg")] {
            fs::write(file, "").unwrap();
        }
        finish(folder, "3.11", WANTED).unwrap();
        assert_eq!(State::of(folder, Some("3.11"), WANTED), State::Whole);
        jupyter
    }

    #[test]
    fn a_half_made_environment_is_never_whole() {
        let folder = tempfile::tempdir().unwrap();
        let state = |folder: &Path, wanted: &str| State::of(folder, Some("3.11"), wanted);
        assert_eq!(state(&folder.path().join("venv"), WANTED), State::Other);
        let jupyter = complete(folder.path());
        let folder = &jupyter.folder;

        let newer = "a==2\n";
        assert_eq!(state(folder, newer), State::Other);
        begin(&jupyter, &State::Other).unwrap();
        assert!(folder.join("lib").exists(), "pip replaces packages of other versions");
        assert_eq!([WANTED, newer].map(|wanted| state(folder, wanted)), [State::HalfMade, State::HalfMade]);

        begin(&jupyter, &State::HalfMade).unwrap();
        assert!(!folder.join("lib").exists(), "the packages are installed again");
        assert!(jupyter.program("evcxr_jupyter").exists(), "the kernel, which takes minutes to compile, is kept");
        fs::write(folder.join(INSTALLED), newer).unwrap();
        assert_eq!(state(folder, newer), State::HalfMade, "interrupted between the two marks");
        finish(folder, "3.11", newer).unwrap();
        assert_eq!(state(folder, newer), State::Whole);
        fs::write(folder.join(INSTALLED), newer).unwrap();
        assert_eq!(state(folder, newer), State::Other, "an earlier version's mark");
    }

    #[test]
    fn an_environment_of_another_python_or_place_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let jupyter = complete(folder.path());
        for python in [Some("3.12"), None] {
            assert_eq!(State::of(&jupyter.folder, python, WANTED), State::Stale, "{python:?}");
        }
        let moved = folder.path().join("moved");
        fs::rename(&jupyter.folder, &moved).unwrap();
        assert_eq!(State::of(&moved, Some("3.11"), WANTED), State::Stale);
        let jupyter = Jupyter::in_folder(&moved).unwrap();
        begin(&jupyter, &State::Stale).unwrap();
        assert!(!moved.join("lib").exists() && jupyter.program("evcxr_jupyter").exists());
        assert_eq!(State::of(&moved, Some("3.11"), WANTED), State::HalfMade);
    }

    #[cfg(unix)]
    #[test]
    fn an_environment_is_whole_by_each_path_and_its_links_to_python_are_made_anew() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let jupyter = complete(folder.path());
        let link = folder.path().join("link");
        symlink(&jupyter.folder, &link).unwrap();
        assert_eq!(State::of(&link, Some("3.11"), WANTED), State::Whole);

        let [python, own] = ["python3", "python-own"].map(|name| jupyter.program(name));
        symlink("/no/such/python", &python).unwrap();
        fs::write(&own, "").unwrap();
        begin(&jupyter, &State::Other).unwrap();
        assert!(!python.is_symlink() && own.is_file());
    }

    #[test]
    fn versions_of_python_are_read() {
        for (text, version) in [("Python 3.11.7\n", "3.11"), ("Python 3.14.0rc1", "3.14")] {
            assert_eq!(minor_version(text).as_deref(), Some(version));
        }
        assert_eq!(["", "Python", "Python 3", "3.11.7"].map(minor_version), [const { None }; 4]);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(version(&folder.path().join("python")), None);
        assert!(version(Path::new(&prerequisites::python().unwrap())).is_some_and(|version| version.starts_with("3.")));
    }

    #[test]
    fn an_environment_of_the_user_is_refused() {
        for mark in ["pyvenv.cfg", "conda-meta"] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            assert!(lock(folder).unwrap().is_some(), "an empty folder is used");
            fs::remove_file(folder.join(LOCK)).unwrap();
            fs::write(folder.join(mark), "").unwrap();
            let error = lock(folder).unwrap_err().to_string();
            assert!(error.contains("did not make") && error.lines().count() == 1, "{error}");
            assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing is written");
            for own in [INSTALLING, INSTALLED] {
                fs::write(folder.join(own), "").unwrap();
                assert!(lock(folder).unwrap().is_some());
                fs::remove_file(folder.join(own)).unwrap();
            }
        }
    }

    #[test]
    fn a_second_set_up_waits_for_the_first() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap().unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let _second = lock(folder.path()).unwrap();
                ended.load(Ordering::SeqCst)
            });
            std::thread::sleep(std::time::Duration::from_millis(200));
            ended.store(true, Ordering::SeqCst);
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}
