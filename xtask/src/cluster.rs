//! Tests of `crate/examples/cluster`, the Python package that runs the example programs on a Dask cluster: a scheduler and workers as
//! processes of this machine, in an environment of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::pins::Pins;
use crate::prerequisites;
use crate::setup::Jupyter;
use crate::tool::{Result, run};

/// Dask; DuckDB, with which a test adds up Parquet files; flit, which installs the package.
pub(crate) const PACKAGES: [&str; 4] =
    ["dask==2026.8.0", "distributed==2026.8.0", "duckdb==1.5.5", "flit-core==3.12.0"];

/// Installs the environment unless it is there, and runs the tests with the compiled example programs of the profile `dev`.
pub(crate) fn check() -> Result<()> {
    let folder = crate::target_folder().join("cluster");
    let environment = Jupyter::in_folder(&folder)?;
    let package = crate::root().join("crate/examples/cluster");
    let project = fs::read_to_string(package.join("pyproject.toml"))?;
    let (stamp, wanted) = (folder.join("installed.txt"), Pins::Cluster.read()? + &project);
    if fs::read_to_string(&stamp).unwrap_or_default() != wanted || !environment.program("python").is_file() {
        install(&folder, &environment.program("python"), &package)?;
        fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    }
    let mut tests = Command::new(environment.program("python"));
    tests.args(["-m", "unittest", "discover", "--verbose", "--start-directory"]).arg(package.join("tests"));
    tests.env("ATTENTION_TOKENS_EXAMPLES", crate::target_folder().join("debug/examples"));
    run("tests of the cluster package", &mut tests)
}

fn install(folder: &Path, python: &Path, package: &Path) -> Result<()> {
    run("python -m venv", Command::new(prerequisites::python()?).args(["-m", "venv", "--clear"]).arg(folder))?;
    let mut pip = Command::new(python);
    run("pip install", Pins::Cluster.install(&mut pip).args(["--quiet", "--only-binary", ":all:"]))?;
    // The package itself as it is in its folder, with the pinned flit and nothing from the network.
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-index", "--no-deps"]);
    run("pip install", pip.args(["--no-build-isolation", "--editable"]).arg(package))
}
