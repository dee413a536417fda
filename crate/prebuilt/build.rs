//! Starts `script.rs`, the program that compiles the library.
//!
//! Each kernel has a target folder of its own, where cargo compiles this file anew. So this file is short, and compiles the
//! longer program in a folder that stays, if its sources are newer than it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;
use std::{env, fs};

/// The program's sources, the main one first.
const SOURCES: [&str; 5] = ["script.rs", "cuda.rs", "json.rs", "library.rs", "outline.rs"];

fn main() -> ExitCode {
    let run = program().and_then(|program| {
        Command::new(&program).status().map_err(|error| format!("{} does not start: {error}", program.display()))
    });
    match run {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE, // It has reported why.
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The path of the program, which is compiled first if it is older than its sources.
fn program() -> Result<PathBuf, String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let folder = here.join("../../target/prebuilt-script").join(variable("HOST")?);
    let program = folder.join("script").with_extension(env::consts::EXE_EXTENSION);
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in SOURCES.map(|name| here.join(name)) {
        println!("cargo::rerun-if-changed={}", source.display());
        newest = newest.max(changed(&source).map_err(|error| format!("{}: {error}", source.display()))?);
    }
    if changed(&program).is_ok_and(|compiled| compiled > newest) {
        return Ok(program);
    }
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Another kernel may start or compile the program now.
    let unfinished =
        folder.join(format!("unfinished-{}", std::process::id())).with_extension(env::consts::EXE_EXTENSION);
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "-Copt-level=2", "-Cstrip=debuginfo"]).arg(here.join(SOURCES[0]));
    rustc.arg("-o").arg(&unfinished);
    match rustc.status() {
        Ok(status) if status.success() => {}
        outcome => return Err(format!("{} does not compile: {outcome:?}", SOURCES[0])),
    }
    fs::rename(&unfinished, &program).map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(program)
}
