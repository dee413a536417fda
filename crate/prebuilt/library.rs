//! How the library that notebooks load is compiled. Shared by the build script here and by `cargo xtask`, whose set-up compiles
//! it beforehand: what both run is the same, so that neither compiles anything again.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Set by cargo for a script or a program that it runs, or by evcxr for a notebook: not meant for another workspace in release
/// mode, and a change of some makes build scripts run again.
const NOT_INHERITED: [&str; 20] = [
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_CFG_",
    "CARGO_CRATE_NAME",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_FEATURE_",
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

/// `cargo` in `root`, the repository, compiling the crate and its dependencies into one dynamic library, with CUDA or without;
/// [`FOR_RUSTC`] belongs at the end of its arguments.
pub(crate) fn compile(cargo: &OsStr, root: &Path, cuda: bool) -> Command {
    let mut command = Command::new(cargo);
    command.args(["rustc", "--release", "--locked", "--package", "attention-tokens", "--lib", "--crate-type", "dylib"]);
    // What is heavy is compiled once here, and costs a notebook nothing.
    command.args(["--features", if cuda { "full,cuda" } else { "full" }]);
    // The two have the same file name, so each has a folder of its own.
    command.arg("--target-dir").arg(root.join(if cuda { "target/cuda" } else { "target" })).current_dir(root);
    inherit_no_build(&mut command);
    command
}

/// Whatever else compiles in release mode in the same folder needs this too, or the two compile some crates in turns.
pub(crate) fn inherit_no_build(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let inherited = |&other: &&str| match other.ends_with(['_', 'W']) {
            true => !text.starts_with(other),
            false => text != other,
        };
        if !NOT_INHERITED.iter().all(inherited) {
            command.env_remove(&name);
        }
    }
}

/// Cells use the standard library as a dynamic one, so the library has to.
pub(crate) const FOR_RUSTC: [&str; 2] = ["--", "-Cprefer-dynamic"];
