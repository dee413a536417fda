//! The command that compiles the library for notebooks. The build script here and the set-up of `cargo xtask` run the
//! same command, so that neither compiles again what the other has compiled.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Environment variables that cargo sets for the scripts and programs that it runs, or evcxr for a notebook. They are
/// not meant for another workspace in release mode, and a change of some makes build scripts run again. A name that
/// ends in `_` or `W` stands for every variable that begins with it.
const NOT_INHERITED: [&str; 21] = [
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_CFG_",
    "CARGO_CRATE_NAME",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_FEATURE_",
    // The kernel sets it for cells. The library would be compiled once more for it, into slower code.
    "CARGO_INCREMENTAL",
    "CARGO_MAKEFLAGS",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_TARGET_DIR",
    "DEBUG",
    "EVCXR_",
    "HOST",
    "MAKEFLAGS",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC_W",
    "RUSTFLAGS",
    "TARGET",
];

/// The command that compiles the library of the notebooks: the crate with the feature [`FULL`] and those of `features`, a
/// dynamic library with its dependencies. `root` is the top of the repository. The caller adds its own arguments, then
/// [`FOR_RUSTC`].
pub(crate) fn compile(cargo: &OsStr, root: &Path, features: &[&str]) -> Command {
    // All of them have the same file name, so each has a target folder of its own.
    let target = if features.is_empty() { root.join("target") } else { root.join("target").join(features.join("-")) };
    rustc(cargo, root, &target, "dylib", &[&[FULL], features].concat())
}

/// The command that compiles the crate for this computer with exactly `features`, in the target folder `target`.
pub(crate) fn rustc(cargo: &OsStr, root: &Path, target: &Path, crate_type: &str, features: &[&str]) -> Command {
    let mut command = Command::new(cargo);
    command.args(["rustc", "--release", "--locked", "--package", "attention-tokens", "--lib"]);
    command.args(["--crate-type", crate_type, "--features", &features.join(",")]);
    command.arg("--target-dir").arg(target).current_dir(root);
    inherit_no_build(&mut command);
    // Whatever `build.build-dir` is in the user's configuration.
    command.env("CARGO_BUILD_BUILD_DIR", target);
    command
}

/// Removes the variables that cargo or evcxr set for this process. Every other command that compiles in release mode in
/// the same target folder needs this too; otherwise the two recompile some crates in turns.
pub(crate) fn inherit_no_build(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_set_by_build = |&pattern: &&str| {
            if pattern.ends_with(['_', 'W']) { text.starts_with(pattern) } else { text == pattern }
        };
        if NOT_INHERITED.iter().any(is_set_by_build) {
            command.env_remove(&name);
        }
    }
}

/// The heavy dependencies of this feature are compiled once, and cost a notebook nothing.
pub(crate) const FULL: &str = "full";

/// The arguments for rustc. Cells link the standard library dynamically, so this library has to as well.
pub(crate) const FOR_RUSTC: [&str; 2] = ["--", "-Cprefer-dynamic"];
