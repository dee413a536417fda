//! All that CI checks, stage by stage. A stage that cannot run fails; none is skipped.

use std::process::Command;
use std::time::Instant;

use crate::tool::{Result, run, works};
use crate::{notebooks, prerequisites, root, setup};

/// Runs every stage and prints the seconds of each.
pub(crate) fn all() -> Result<()> {
    let mut seconds = Vec::new();
    let mut stage = |name: &'static str, work: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        println!("== {name}");
        let started = Instant::now();
        let outcome = work();
        seconds.push((name, started.elapsed().as_secs_f64()));
        println!("== {name}: {:.0} s", started.elapsed().as_secs_f64());
        outcome
    };
    stage("format", &mut || cargo(&["fmt", "--all", "--check"]))?;
    stage("clippy", &mut || {
        cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    })?;
    stage("documentation", &mut || {
        let mut doc = Command::new("cargo");
        doc.args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
        run("cargo doc", doc.env("RUSTDOCFLAGS", "--deny warnings").current_dir(root()))
    })?;
    let mut jupyter = None;
    stage("set-up of Jupyter", &mut || {
        prerequisites::chromium()?;
        jupyter = Some(setup::jupyter()?);
        Ok(())
    })?;
    let jupyter = jupyter.ok_or("the set-up gave nothing")?;
    stage("notebooks", &mut || {
        notebooks::execute(&jupyter, &notebooks::in_folder(&root().join("notebooks"))?, false)?;
        notebooks::execute(&jupyter, &notebooks::in_folder(&root().join("tests/notebooks"))?, false)
    })?;
    stage("doctests", &mut || cargo(&["test", "--locked", "--workspace", "--doc"]))?;
    // Last, so that the runner's own closing line ends the run: all tests, also those ignored elsewhere.
    stage("tests", &mut || match works(Command::new("cargo").args(["nextest", "--version"])) {
        true => cargo(&["nextest", "run", "--locked", "--workspace", "--run-ignored", "all", "--no-fail-fast"]),
        false => cargo(&["test", "--locked", "--workspace", "--all-targets", "--", "--include-ignored"]),
    })?;
    println!("== seconds");
    for (name, seconds) in seconds {
        println!("{seconds:7.0}  {name}");
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let what = format!("cargo {}", arguments[0]);
    run(&what, Command::new("cargo").args(arguments).current_dir(root()))
}
