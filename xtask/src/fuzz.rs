//! `cargo xtask fuzz`: libFuzzer on the targets of `tests/fuzz`, one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::prerequisites;
use crate::tool::{Result, run, write_script};

const TARGETS: [&str; 10] =
    ["config", "header", "weights", "index", "tokenizer", "vocab", "added", "processed", "state", "cache"];

/// rustc with coverage for the library and the targets alone: LLVM counts the edges of the code that run, and notes what is
/// compared, for libFuzzer. rustc's stable options do. Dependencies with coverage would take several times as long to compile.
const WITH_COVERAGE: &str = r#"#!/bin/sh
rustc=$1; shift
case " $* " in
  *" --crate-name attention_tokens "*|*" --crate-name fuzz "*)
    exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
      -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
      -Cllvm-args=-sanitizer-coverage-trace-compares ;;
  *) exec "$rustc" "$@" ;;
esac
"#;

/// Runs the named targets, all if none is named, `seconds` each. Their corpora are in `target/fuzz/corpus` and are gone on with;
/// with `keep` in place of a number, they are kept in the repository, without the files that reach nothing new.
pub(crate) fn fuzz(seconds: &str, names: &[String]) -> Result<()> {
    let seconds: Option<u32> = match seconds {
        "keep" => None,
        seconds => {
            Some(seconds.parse().map_err(|_| format!("expected a number of seconds or keep, found {seconds:?}"))?)
        }
    };
    if let Some(name) = names.iter().find(|name| !TARGETS.contains(&name.as_str())) {
        return Err(format!("no target {name:?}, expected some of {}", TARGETS.join(", ")).into());
    }
    let program = compile()?;
    let chosen = TARGETS.into_iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target));
    let mut failed = Vec::new();
    for target in chosen {
        println!("== {target}");
        let outcome = match seconds {
            Some(seconds) => run_target(&program, target, seconds),
            None => keep(&program, target),
        };
        if let Err(error) = outcome {
            println!("{error}");
            failed.push(target);
        }
    }
    let finds = folder().join("finds");
    if failed.is_empty() { Ok(()) } else { Err(format!("finds in {}: {}", finds.display(), failed.join(", ")).into()) }
}

fn folder() -> PathBuf {
    crate::target_folder().join("fuzz")
}

/// Compiles the targets with coverage, in a target folder of their own, and returns the program.
fn compile() -> Result<PathBuf> {
    if cfg!(windows) {
        return Err("cargo xtask fuzz runs on Linux and macOS".into());
    }
    prerequisites::cpp()?;
    let package = crate::root().join("tests/fuzz");
    let mut cargo = Command::new("cargo");
    crate::library::inherit_no_build(&mut cargo);
    fs::create_dir_all(folder())?;
    let wrapper = folder().join("rustc-with-coverage.sh");
    write_script(&wrapper, WITH_COVERAGE)?;
    cargo.args(["build", "--locked", "--target-dir"]).arg(folder()).current_dir(package);
    run("cargo build", cargo.env("RUSTC_WRAPPER", wrapper))?;
    Ok(folder().join("debug/fuzz"))
}

fn run_target(program: &Path, target: &str, seconds: u32) -> Result<()> {
    let (corpus, finds) = (folder().join("corpus").join(target), folder().join("finds").join(target));
    for folder in [&corpus, &finds] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    run("writing seeds", of_target(program, target).env("ATTENTION_TOKENS_FUZZ_SEEDS", &corpus))?;
    let mut libfuzzer = of_target(program, target);
    libfuzzer.args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"]);
    // The library notes what is odd about a file, thousands of times.
    libfuzzer.arg("-close_fd_mask=2");
    libfuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", finds.display()));
    let outcome = run(target, libfuzzer.arg(corpus));
    if outcome.is_err() {
        for find in fs::read_dir(&finds)? {
            let find = find?.path();
            println!("-- {}", find.display());
            let _ = of_target(program, target).arg(find).status(); // with its messages; it fails again
        }
    }
    outcome
}

/// Keeps the files of a target's corpus that reach code which no smaller file reaches, and its finds, whose names then
/// begin with `find-`.
fn keep(program: &Path, target: &str) -> Result<()> {
    let [corpus, kept, finds] = ["corpus", "kept", "finds"].map(|part| folder().join(part).join(target));
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir_all(&kept)?;
    run(target, of_target(program, target).args(["-merge=1", "-close_fd_mask=2"]).arg(&kept).arg(corpus))?;
    for find in fs::read_dir(finds).into_iter().flatten() {
        let find = find?;
        fs::copy(find.path(), kept.join(format!("find-{}", find.file_name().display())))?;
    }
    run("keeping", of_target(program, target).env("ATTENTION_TOKENS_FUZZ_KEEP", kept))
}

fn of_target(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command.env("ATTENTION_TOKENS_FUZZ_TARGET", target).current_dir(folder());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packages of a lock file: names, versions and digests.
    fn packages(lock: &Path) -> Vec<[String; 3]> {
        let text = fs::read_to_string(lock).unwrap();
        let field = |package: &str, name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let of = |package: &str| ["name", "version", "checksum"].map(|name| field(package, name));
        text.split("[[package]]").skip(1).map(of).collect()
    }

    #[test]
    fn fuzzing_runs_the_crates_that_the_library_has() {
        let (own, whole) = (crate::root().join("tests/fuzz/Cargo.lock"), crate::root().join("Cargo.lock"));
        let (found, expected) = (packages(&own), packages(&whole));
        assert!(found.len() > 100 && expected.len() > 100);
        let added: Vec<&str> =
            found.iter().filter(|package| !expected.contains(package)).map(|[name, ..]| name.as_str()).collect();
        let remedy = "cp Cargo.lock tests/fuzz && cargo metadata --manifest-path tests/fuzz/Cargo.toml >/dev/null";
        assert_eq!(added, ["fuzz", "getrandom", "jobserver", "libfuzzer-sys", "r-efi"], "other crates too: {remedy}");
    }
}
