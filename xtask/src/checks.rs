//! All that CI checks, stage by stage. A stage that cannot run fails; none is skipped.

use std::process::Command;
use std::time::Instant;

use crate::tool::{Result, run, works};
use crate::{notebooks, prerequisites, root, setup};

/// All but the notebook with the plain dependency is checked with everything that there is.
const FEATURES: [&str; 2] = ["--features", "attention-tokens/full"];

/// Runs every stage and prints the seconds of each.
pub(crate) fn all() -> Result<()> {
    let mut stages = Stages(Vec::new());
    stages.run("format", || {
        cargo(&["fmt", "--all", "--check"])?;
        // No member of the workspace.
        let package = root().join("crate/notebook");
        let mut rustfmt = Command::new("rustfmt");
        rustfmt.args(["--check", "--edition", "2024"]).arg(package.join("build.rs")).arg(package.join("src/lib.rs"));
        run("rustfmt", &mut rustfmt)
    })?;
    stages.run("clippy", || {
        cargo(&[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            FEATURES[0],
            FEATURES[1],
            "--",
            "--deny",
            "warnings",
        ])
    })?;
    stages.run("documentation", || {
        let mut doc = Command::new("cargo");
        doc.args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]).args(FEATURES);
        run("cargo doc", doc.env("RUSTDOCFLAGS", "--deny warnings").current_dir(root()))
    })?;
    let jupyter = stages.run("set-up of Jupyter", || {
        prerequisites::chromium()?;
        setup::jupyter()
    })?;
    stages.run("notebooks", || {
        notebooks::execute(&jupyter, &notebooks::in_folder(&root().join("notebooks"))?, false)?;
        notebooks::execute(&jupyter, &notebooks::in_folder(&root().join("tests/notebooks"))?, false)
    })?;
    stages.run("a notebook with the plain dependency", || {
        notebooks::execute_plainly(&jupyter, &root().join("tests/notebooks/types.ipynb"))
    })?;
    stages.run("kernels", || notebooks::kernels(&jupyter))?;
    stages.run("doctests", || cargo(&["test", "--locked", "--workspace", FEATURES[0], FEATURES[1], "--doc"]))?;
    stages.run("compiling the tests", || {
        cargo(&["test", "--locked", "--workspace", FEATURES[0], FEATURES[1], "--no-run"])
    })?;
    stages.print();
    // Last, so that the runner's own closing lines end the run: all tests, also those ignored elsewhere.
    match works(Command::new("cargo").args(["nextest", "--version"])) {
        true => cargo(&[
            "nextest",
            "run",
            "--locked",
            "--workspace",
            FEATURES[0],
            FEATURES[1],
            "--run-ignored",
            "all",
            "--no-fail-fast",
        ]),
        false => cargo(&[
            "test",
            "--locked",
            "--workspace",
            FEATURES[0],
            FEATURES[1],
            "--all-targets",
            "--",
            "--include-ignored",
        ]),
    }
}

/// The stages so far, and the seconds of each.
struct Stages(Vec<(&'static str, f64)>);

impl Stages {
    fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("== {name}");
        let started = Instant::now();
        let outcome = work();
        let seconds = started.elapsed().as_secs_f64();
        println!("== {name}: {seconds:.0} s");
        self.0.push((name, seconds));
        outcome
    }

    fn print(&self) {
        println!("== seconds of each stage before the tests");
        for (name, seconds) in &self.0 {
            println!("{seconds:7.0}  {name}");
        }
    }
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let what = format!("cargo {}", arguments[0]);
    run(&what, Command::new("cargo").args(arguments).current_dir(root()))
}
