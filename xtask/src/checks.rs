//! The checks of CI, stage by stage. A stage that cannot run fails; none is skipped.

use xshell::cmd;

use crate::first_figure::FIRST_FEATURE;
use crate::stages::Stages;
use crate::tool::{Result, shell, works};
use crate::{cluster, cuda, fuzz, notebooks, prerequisites, root, setup, supply_chain};

/// The optional features that compile on every machine.
const FEATURES: [&str; 2] = ["--features", "attention-tokens/full,attention-tokens/png"];

/// Checks the feature `cuda`, without a GPU.
pub(crate) fn cuda() -> Result<()> {
    let mut stages = Stages::default();
    cuda::check(&mut stages, None)?;
    stages.print();
    Ok(())
}

/// Checks the Python package that runs the example programs on a cluster.
pub(crate) fn cluster() -> Result<()> {
    let shell = shell()?;
    let examples = ["vocabulary", "concordance", "patching"].map(|name| format!("--example={name}"));
    cmd!(shell, "cargo build --locked {FEATURES...} {examples...}").run()?;
    cluster::check()
}

/// Runs every stage and prints the seconds of each; with `cuda` also those of the feature `cuda`.
pub(crate) fn all(cuda: bool) -> Result<()> {
    let mut stages = Stages::default();
    let shell = shell()?;
    // First, because the stages that need them come minutes later.
    stages.run("programs", || {
        prerequisites::rustfmt_and_clippy()?;
        prerequisites::chromium()?;
        prerequisites::cpp()
    })?;
    stages.run("format", || {
        cmd!(shell, "cargo fmt --all --check").run()?;
        // These two packages are not in the workspace.
        let files = ["prebuilt/build.rs", "prebuilt/script.rs", "prebuilt/src/lib.rs", "notebook/src/lib.rs"];
        let files = files.map(|file| format!("crate/{file}"));
        Ok(cmd!(shell, "rustfmt --check --edition 2024 {files...}").run()?)
    })?;
    stages.run("dependencies", supply_chain::check)?;
    stages.run("clippy", || {
        let clippy = cmd!(shell, "cargo clippy --locked --workspace {FEATURES...} --all-targets -- --deny warnings");
        clippy.run()?;
        let only = ["--package", "attention-tokens", "--lib", "--no-default-features", "--features", FIRST_FEATURE];
        Ok(cmd!(shell, "cargo clippy --locked {only...} -- --deny warnings").run()?)
    })?;
    stages.run("documentation", || {
        let doc = cmd!(shell, "cargo doc --locked --workspace {FEATURES...} --no-deps --document-private-items");
        Ok(doc.env("RUSTDOCFLAGS", "--deny warnings").run()?)
    })?;
    let jupyter = stages.run("set-up of Jupyter", setup::jupyter)?;
    stages.run("notebooks", || {
        notebooks::execute(&jupyter, &notebooks::in_folder("notebooks")?, false)?;
        notebooks::execute(&jupyter, &notebooks::in_folder("tests/notebooks")?, false)
    })?;
    stages.run("a notebook with the plain dependency", || {
        notebooks::execute_plain(&jupyter, &root().join("tests/notebooks/types.ipynb"))
    })?;
    stages.run("kernels", || notebooks::kernels(&jupyter))?;
    stages.run("doctests", || Ok(cmd!(shell, "cargo test --locked --workspace {FEATURES...} --doc").run()?))?;
    stages.run("compiling the tests", || {
        Ok(cmd!(shell, "cargo test --locked --workspace {FEATURES...} --no-run").run()?)
    })?;
    // With the example programs that were compiled with the tests.
    stages.run("cluster", cluster::check)?;
    stages.run("fuzzing, two minutes", || fuzz::fuzz("15", &[]))?;
    if cuda {
        cuda::check(&mut stages, Some(&jupyter))?;
    }
    stages.print();
    // Last, so that the run ends with the test runner's own summary. It runs all tests, the ignored ones too.
    let test = if works(cmd!(shell, "cargo nextest --version")) {
        cmd!(shell, "cargo nextest run --locked --workspace {FEATURES...} --run-ignored all --no-fail-fast")
    } else {
        cmd!(shell, "cargo test --locked --workspace {FEATURES...} --all-targets -- --include-ignored")
    };
    Ok(test.run()?)
}
