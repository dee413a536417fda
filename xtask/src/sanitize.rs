//! `cargo xtask sanitize`: the tests with one of LLVM's sanitizers, or in Miri, which interprets them.
//!
//! `docs/unsafe.md` lists what each has found.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use xshell::cmd;

use crate::tool::{Result, run, shell, works, write_script};

const NAMES: [&str; 4] = ["address", "thread", "memory", "miri"];

/// Unit tests that Miri can run in minutes, with smaller arrays than elsewhere: it interprets each instruction.
const IN_MIRI: [&str; 4] = ["fused::packed", "fused::int8", "memory::", "evcxr::"];

/// The instructions of our AVX2 kernels: Miri has no processor to ask. It does not know those of AVX-512
/// (`_mm512_cmp_ps_mask`), and with all that pulp wants, pulp would call its own kernels.
const INSTRUCTIONS: &str = "-Ctarget-feature=+avx2,+fma,+f16c";

/// Tree Borrows: crossbeam-epoch, which rayon uses, breaks the rules of the older model, Stacked Borrows. Rounding errors
/// are those of a processor, because tests compare bits.
const MIRI_FLAGS: &str = "-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-disable-isolation \
                          -Zmiri-deterministic-floats";

/// dfdx 0.13 uses unstable features if rustc's version contains `nightly`, and these have changed since.
const MIRI_WITHOUT_NIGHTLY_DFDX: &str = r#"#!/bin/sh
case " $* " in
  *" --crate-name dfdx "*)
    for argument; do
      shift
      [ "$argument" = 'feature="nightly"' ] && argument='feature="without-nightly"'
      set -- "$@" "$argument"
    done ;;
esac
exec "$MIRI_OF_TOOLCHAIN" "$@"
"#;

/// Runs the unit and integration tests whose names contain one of `filters`, all if there is none. In Miri only unit tests.
pub(crate) fn sanitize(name: &str, filters: &[String]) -> Result<()> {
    if !NAMES.contains(&name) {
        return Err(format!("no sanitizer {name:?}, expected one of {}", NAMES.join(", ")).into());
    }
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err("the sanitizers are set up for x86-64 Linux only".into());
    }
    if name == "miri" { miri(filters) } else { compiled(name, filters) }
}

fn folder(name: &str) -> PathBuf {
    crate::target_folder().join(format!("sanitize-{name}"))
}

/// cargo, with a target folder for what is compiled with other flags.
fn cargo(name: &str) -> Command {
    let mut cargo = Command::new("cargo");
    crate::library::inherit_no_build(&mut cargo);
    cargo.current_dir(crate::root()).env("CARGO_TARGET_DIR", folder(name));
    cargo
}

/// Runs tests with code that the compiler has instrumented.
fn compiled(name: &str, filters: &[String]) -> Result<()> {
    let cargo = |arguments: &[&str]| {
        let mut cargo = cargo(name);
        // Sanitizers are unstable options, which a stable rustc has too.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags(name)).args(arguments);
        // With a target, flags do not apply to build scripts and procedural macros.
        cargo.args(["--locked", "--target", "x86_64-unknown-linux-gnu"]);
        cargo.args(["--package", "attention-tokens", "--features", "full,png"]);
        if name != "address" {
            // They have to see every access to memory, also those of the standard library.
            cargo.arg("-Zbuild-std");
        }
        cargo
    };
    let shell = shell()?;
    if name != "address" && !works(cmd!(shell, "rustup component add rust-src")) {
        return Err("missing: rust-src\n  install it with: rustup component add rust-src".into());
    }
    // Tests start them.
    run("cargo build", cargo(&["build"]).arg("--examples"))?;
    let mut test = cargo(&["test"]);
    test.args(["--no-fail-fast", "--lib", "--test", "integration", "--"]).args(filters);
    run("cargo test", &mut test)
}

fn flags(name: &str) -> String {
    // The sanitizers walk the stack by frame pointers.
    let origins = if name == "memory" { " -Zsanitizer-memory-track-origins" } else { "" };
    format!("-Zsanitizer={name} -Cforce-frame-pointers=yes{origins}")
}

fn miri(filters: &[String]) -> Result<()> {
    const COMPONENTS: &str = "rustup toolchain install nightly --component miri,rust-src";
    let shell = shell()?;
    let sysroot = cmd!(shell, "rustc +nightly --print sysroot").quiet().ignore_stderr().read().unwrap_or_default();
    let miri = PathBuf::from(sysroot).join("bin/miri");
    if !miri.exists() {
        return Err(
            format!("missing: Miri, which only nightly toolchains have\n  install it with: {COMPONENTS}").into()
        );
    }
    fs::create_dir_all(folder("miri"))?;
    let wrapper = folder("miri").join("miri.sh");
    write_script(&wrapper, MIRI_WITHOUT_NIGHTLY_DFDX)?;
    let mut cargo = cargo("miri");
    // This program's cargo names its own toolchain.
    cargo.env_remove("RUSTUP_TOOLCHAIN").env("MIRI", wrapper).env("MIRI_OF_TOOLCHAIN", miri);
    cargo.env("MIRIFLAGS", MIRI_FLAGS).env("RUSTFLAGS", INSTRUCTIONS);
    cargo.args(["+nightly", "miri", "test", "--locked", "--package", "attention-tokens", "--lib", "--"]);
    if filters.is_empty() {
        cargo.args(IN_MIRI)
    } else {
        cargo.args(filters)
    };
    run("cargo miri test", &mut cargo)
}
