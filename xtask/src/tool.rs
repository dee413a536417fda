//! Starting other programs.

use std::process::{Command, Stdio};

/// What went wrong, for a person.
pub(crate) type Result<T, E = String> = std::result::Result<T, E>;

/// Runs a program with its output shown.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("{what}: {} does not start: {error}", name(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status}): {}", line(command))) }
}

/// Runs a program and gives what it printed; `None` if it is not there or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program starts and reports success.
pub(crate) fn works(command: &mut Command) -> bool {
    output(command).is_some()
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn line(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(name(command)).chain(arguments).collect::<Vec<_>>().join(" ")
}
