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

/// The same command at the lowest priority, where there is `nice`: the set-up leaves the processor to the library, which
/// is compiled at the same time as the rest and is needed first.
pub(crate) fn at_low_priority(command: Command) -> Command {
    let has_nice = cfg!(unix) && shell().is_ok_and(|shell| works(xshell::cmd!(shell, "nice -n 19 true")));
    if !has_nice {
        return command;
    }
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        nice.current_dir(folder);
    }
    nice
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

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_command_of_low_priority_is_the_same_command() {
        let mut command = Command::new("sh");
        command.args(["-c", "pwd; echo $A-$HOME; nice"]).env("A", "a b").env_remove("HOME").current_dir("/");
        let output = at_low_priority(command).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "/\na b-\n19\n");
    }
}
