//! JupyterLab on the notebooks: its address once, its log in a file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use crate::prerequisites::is_root;
use crate::setup;
use crate::tool::{Result, command_line};

/// What JupyterLab's option is for.
const ALLOW_ROOT: &str = "--allow-root";

/// Sets up, and starts JupyterLab until it is stopped. `arguments` are passed to it.
pub(crate) fn lab(arguments: &[String]) -> Result<()> {
    // Before the set-up, which takes minutes.
    let allow_root = allow_root(arguments, is_root()?, is_container())?;
    let jupyter = setup::jupyter()?;
    let mut lab = jupyter.command("jupyter");
    lab.arg("lab").arg("--notebook-dir").arg(crate::root().join("notebooks"));
    lab.args(allow_root.then_some(ALLOW_ROOT)).args(arguments);
    let line = command_line(&lab);
    let path = crate::target_folder().join("logs/jupyterlab.log");
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    let mut log = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if allow_root {
        println!("JupyterLab runs as root ({ALLOW_ROOT}), because this is a container");
    }
    println!("starting JupyterLab; its log is {}", path.display());
    // The terminal stays its stdin and stdout, because it asks there before it stops.
    let mut child = lab.stderr(Stdio::piped()).spawn().map_err(|error| format!("{line} does not start: {error}"))?;
    let mut printed = false;
    for text in child.stderr.take().map(BufReader::new).into_iter().flat_map(|stderr| stderr.split(b'\n')) {
        let text = text?;
        let text = String::from_utf8_lossy(&text);
        let _ = writeln!(log, "{text}");
        if let Some(address) = address(&text).filter(|_| !printed) {
            println!("JupyterLab: {address}   (begin with 00_start_here.ipynb; Ctrl-C stops it)");
            printed = true;
        }
    }
    let status = child.wait()?;
    // A user who stops it has seen the address.
    if status.success() || printed {
        return Ok(());
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(10)..].join("\n");
    Err(format!("{end}\nJupyterLab failed ({status}): {line}").into())
}

/// Whether to add `--allow-root`. Outside of a container, that is the user's decision.
fn allow_root(arguments: &[String], is_root: bool, is_container: bool) -> Result<bool> {
    let given = arguments.iter().any(|argument| argument.starts_with(ALLOW_ROOT));
    if !is_root || given {
        return Ok(false);
    }
    if is_container {
        return Ok(true);
    }
    Err("JupyterLab does not run as root unless it is told to, because everyone who has its address can then do \
         everything on this machine: run `cargo xtask lab --allow-root`, or work as another user"
        .into())
}

/// Whether this is a container of Docker, Podman or systemd.
fn is_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    marks.iter().any(|mark| Path::new(mark).exists()) || std::env::var_os("container").is_some()
}

/// The address in a line of Jupyter's log: `[I …] http://localhost:8888/lab?token=…`.
fn address(line: &str) -> Option<&str> {
    let start = line.find("http://").or_else(|| line.find("https://"))?;
    let address = line[start..].split_whitespace().next()?;
    address.contains("/lab").then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_to_allow_root_except_in_a_container() {
        let own = ["--no-browser".to_owned()];
        let given = ["--no-browser".to_owned(), "--allow-root".to_owned()];
        assert!(!allow_root(&own, false, false).unwrap() && !allow_root(&own, false, true).unwrap());
        assert!(!allow_root(&given, true, false).unwrap() && !allow_root(&given, true, true).unwrap());
        assert!(allow_root(&own, true, true).unwrap());
        let error = allow_root(&own, true, false).unwrap_err().to_string();
        assert!(error.contains("`cargo xtask lab --allow-root`") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn the_address_is_found_in_the_log() {
        let line = "[I 2026-01-01 10:00:00.000 ServerApp] http://localhost:8888/lab?token=abc";
        assert_eq!(address(line), Some("http://localhost:8888/lab?token=abc"));
        assert_eq!(address("        http://127.0.0.1:8888/lab?token=abc"), Some("http://127.0.0.1:8888/lab?token=abc"));
        assert_eq!(address("[I] see https://jupyter-server.readthedocs.io/config"), None);
        assert_eq!(address("[I ServerApp] jupyterlab | extension was successfully loaded."), None);
    }
}
