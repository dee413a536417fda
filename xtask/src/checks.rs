//! All that CI checks, stage by stage. A stage that cannot run fails; none is skipped.

use std::process::Command;

use crate::stages::Stages;
use crate::tool::{Result, run, works};
use crate::{cuda, notebooks, prerequisites, root, setup};

/// All but the notebook with the plain dependency is checked with everything that there is.
const FEATURES: [&str; 2] = ["--features", "attention-tokens/full"];

/// The feature `cuda`, without a GPU.
pub(crate) fn cuda() -> Result<()> {
    let mut stages = Stages::default();
    cuda::check(&mut stages, None)?;
    stages.print();
    Ok(())
}

/// Runs every stage and prints the seconds of each; those of CUDA if they are asked for.
pub(crate) fn all(cuda: bool) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("format", || {
        cargo(&["fmt", "--all", "--check"])?;
        // No member of the workspace.
        let package = root().join("crate/prebuilt");
        let mut rustfmt = Command::new("rustfmt");
        rustfmt
            .args(["--check", "--edition", "2024"])
            .args(["build.rs", "cuda.rs", "src/lib.rs"].map(|file| package.join(file)));
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
    if cuda {
        cuda::check(&mut stages, Some(&jupyter))?;
    }
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

fn cargo(arguments: &[&str]) -> Result<()> {
    let what = format!("cargo {}", arguments[0]);
    run(&what, Command::new("cargo").args(arguments).current_dir(root()))
}
