//! Runs other programs, with `xshell` where possible.

use std::fs;
use std::path::Path;
use std::process::Command;

use xshell::{Cmd, Shell};

/// Text for the user.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A shell whose working directory is the top of the repository.
pub(crate) fn shell() -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(crate::root());
    Ok(shell)
}

/// Whether a program starts and reports success.
pub(crate) fn works(command: Cmd) -> bool {
    command.quiet().ignore_stdout().ignore_stderr().run().is_ok()
}

/// Runs a command that `xshell` did not make: one that [`crate::library`] shares with a build script, which has no
/// dependencies, or one that reads the terminal, which `xshell` closes.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    let status =
        command.status().map_err(|error| format!("{what} does not start: {error}: {}", command_line(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status}): {}", command_line(command)).into()) }
}

pub(crate) fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Writes a script of the shell that can be executed.
pub(crate) fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    run("chmod", Command::new("chmod").arg("+x").arg(path))
}
