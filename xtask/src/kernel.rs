//! The Rust kernel: found, or installed into the environment, and registered there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use xshell::cmd;

use crate::logged;
use crate::progress::Progress;
use crate::setup::Jupyter;
use crate::tool::{Result, at_low_priority, shell, works};

/// The tested version of the kernel, which is installed where none of the same minor version is found.
const EVCXR: &str = "0.22.0";

/// Crates of the kernel, most of them rust-analyzer's, that it calls never, rarely or for messages alone, and how far they
/// are optimized: a notebook has no use for refactorings, diagnostics and replacements, and completions come within a
/// tenth of a second in any case. Optimizing them like the rest would be a fifth of what the kernel takes to compile.
const SELDOM_RUN: [(&str, u8); 14] = [
    ("ra_ap_ide", 0),
    ("ra_ap_ide_assists", 0),
    ("ra_ap_ide_completion", 0),
    ("ra_ap_ide_diagnostics", 0),
    ("ra_ap_ide_ssr", 0),
    ("cargo_metadata", 1),
    ("evcxr_jupyter", 1),
    ("notify", 1),
    ("pulldown-cmark", 1),
    ("ra_ap_ide_db", 1),
    ("ra_ap_project_model", 1),
    ("tokio", 1),
    ("toml", 1),
    ("zeromq", 1),
];

/// evcxr executes this when a kernel starts. It prints the error of a `?` with `eprintln!("{}", error)`, and reports the
/// cell as executed while the text may still be in a pipe, so that the text can appear under the next cell. The pause
/// is long enough for the text to arrive, and only an error has it.
const PRELUDE: &str = r#"#[allow(unused_macros)]
macro_rules! eprintln {
    ("{}", $error:ident) => {{
        ::std::eprintln!("{}", $error);
        ::std::thread::sleep(::std::time::Duration::from_millis(20))
    }};
    ($($arguments:tt)*) => { ::std::eprintln!($($arguments)*) };
}
"#;

/// Starts the kernel with the programs of a toolchain in place of rustup's, which a notebook's opening waits for.
const START: &str = include_str!("start_kernel.sh");

/// Caches compiled dependencies between sessions, up to this size in megabytes.
const INIT: &str = ":cache 4000\n";

/// The kernel of a tested version that cargo's records or an earlier question tell of, without asking one now.
pub(crate) fn known(jupyter: &Jupyter) -> Option<PathBuf> {
    candidates(jupyter).into_iter().find(|path| is_recorded(path) || was_asked(jupyter, path))
}

/// The path of a kernel of a tested version: the environment's, one on the PATH, or else a new one. The Python packages
/// must be installed.
pub(crate) fn provide(jupyter: &Jupyter, progress: &Progress) -> Result<PathBuf> {
    if let Some(found) = known(jupyter) {
        return Ok(found);
    }
    for candidate in candidates(jupyter) {
        match ask(jupyter, &candidate) {
            Some(version) if is_tested(&version) => {
                progress.say(&format!("the Rust kernel is {}, version {version}", candidate.display()));
                remember(jupyter, &candidate)?;
                return Ok(candidate);
            }
            version => progress.say(&format!(
                "{} is not used: it is version {}, and {EVCXR} is needed",
                candidate.display(),
                version.as_deref().unwrap_or("unknown")
            )),
        }
    }
    let (shell, folder) = (shell()?, &jupyter.folder);
    let own = jupyter.program("evcxr_jupyter");
    if works(cmd!(shell, "cargo binstall -V")) {
        let install = cmd!(shell, "cargo binstall --no-confirm --version {EVCXR} --root {folder} evcxr_jupyter");
        // It has no program for every system, and then compiles or fails.
        let outcome = progress.step(&format!("the Rust kernel, evcxr_jupyter {EVCXR}, by cargo binstall"), |step| {
            Ok(logged::run(step, "kernel-binstall", &mut install.into()).err().map(|error| error.to_string()))
        })?;
        match outcome {
            None if own.is_file() => {
                remember(jupyter, &own)?;
                return Ok(own);
            }
            error => progress.say(&format!("cargo binstall has not installed it: {}", error.unwrap_or_default())),
        }
    }
    progress.step(&format!("the Rust kernel, evcxr_jupyter {EVCXR}, once"), |step| {
        // In a folder that stays, so that an interrupted compilation goes on.
        let target = crate::root().join("target/kernel");
        // By force, because cargo does not replace a program that is not in its records, such as a copied one.
        let install = ["install", "--locked", "--force", "evcxr_jupyter", "--version", EVCXR];
        let mut command = Command::new("cargo");
        command.args(install).arg("--root").arg(folder).arg("--target-dir").arg(&target).current_dir(crate::root());
        for (name, level) in SELDOM_RUN {
            command.args(["--config", &format!("profile.release.package.{name}.opt-level={level}")]);
        }
        crate::library::inherit_no_build(&mut command);
        // As for the library's dependencies in Cargo.toml: half of the time, and the same program or a faster one.
        command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
        logged::run(step, "kernel", &mut at_low_priority(command))?;
        let _ = fs::remove_dir_all(target);
        Ok(own)
    })
}

/// The environment's kernel and those on the PATH.
fn candidates(jupyter: &Jupyter) -> Vec<PathBuf> {
    let name = PathBuf::from("evcxr_jupyter").with_extension(env::consts::EXE_EXTENSION);
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates = vec![jupyter.program("evcxr_jupyter")];
    for candidate in env::split_paths(&path).map(|folder| folder.join(&name)) {
        if candidate.is_absolute() && !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    candidates.retain(|candidate| candidate.is_file());
    candidates
}

/// Whether a version has the interface of the tested one.
fn is_tested(version: &str) -> bool {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor(version).is_some() && minor(version) == minor(EVCXR)
}

/// Whether cargo's record of installed programs names a tested version.
fn is_recorded(evcxr: &Path) -> bool {
    let Some(root) = evcxr.parent().and_then(Path::parent) else { return false };
    let Ok(shell) = shell() else { return false };
    let list = cmd!(shell, "cargo install --list --root {root}").quiet().ignore_stderr().read().unwrap_or_default();
    let versions = list.lines().filter_map(|line| line.strip_prefix("evcxr_jupyter v"));
    versions.map(|version| version.trim_end_matches(':')).any(is_tested)
}

/// Starts the kernel and asks for its version, as Jupyter does: the program has no option that prints it.
fn ask(jupyter: &Jupyter, evcxr: &Path) -> Option<String> {
    let script = crate::root().join("xtask/src/kernel_version.py");
    let asked = jupyter.command("python").arg(script).arg(evcxr).output().ok()?;
    let version = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    (asked.status.success() && !version.is_empty()).then_some(version)
}

/// The file with the kernel that was asked last: its path, size and time of change.
fn answers(jupyter: &Jupyter) -> PathBuf {
    jupyter.folder.join("share/evcxr/asked.txt")
}

fn identity(evcxr: &Path) -> Option<String> {
    let metadata = fs::metadata(evcxr).ok()?;
    let changed = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{EVCXR} {} {} {}", evcxr.display(), metadata.len(), changed.as_nanos()))
}

fn was_asked(jupyter: &Jupyter, evcxr: &Path) -> bool {
    identity(evcxr).is_some_and(|identity| fs::read_to_string(answers(jupyter)).is_ok_and(|asked| asked == identity))
}

fn remember(jupyter: &Jupyter, evcxr: &Path) -> Result<()> {
    let file = answers(jupyter);
    fs::create_dir_all(file.parent().unwrap_or(&file))?;
    Ok(fs::write(file, identity(evcxr).unwrap_or_default())?)
}

/// Registers the kernel as `rust` inside the environment; the user's own kernels stay as they are. `rust_src` is the
/// folder of the standard library's sources.
pub(crate) fn register(jupyter: &Jupyter, evcxr: &Path, rust_src: &Path) -> Result<()> {
    let shell = shell()?;
    let share = jupyter.folder.join("share");
    let spec = share.join("jupyter/kernels/rust/kernel.json");
    let config = share.join("evcxr");
    // evcxr builds dependencies with debug assertions, overflow checks and opt-level 2; that is 8 times slower.
    // Without incremental compilation, evcxr's cache takes a cell for an earlier one. Optimizing once more across the
    // code generation units of a cell takes a quarter of its compile time.
    let environment = json!({
        "CARGO_INCREMENTAL": "1",
        "CARGO_PROFILE_DEV_DEBUG_ASSERTIONS": "false",
        "CARGO_PROFILE_DEV_LTO": "off",
        "CARGO_PROFILE_DEV_OVERFLOW_CHECKS": "false",
        "CARGO_PROFILE_DEV_OPT_LEVEL": "3",
        "EVCXR_CONFIG_DIR": config,
        "RUST_SRC_PATH": rust_src,
    });
    let stamp = config.join("registered.txt");
    let wanted = format!("{}\n{INIT}{PRELUDE}{START}{environment}\n", evcxr.display());
    if spec.is_file() && shell.read_file(&stamp).is_ok_and(|registered| registered == wanted) {
        return Ok(());
    }
    // First, so that an interrupted registration is repeated.
    let _ = fs::remove_file(&stamp);
    let install = cmd!(shell, "{evcxr} --install").env("JUPYTER_PATH", share.join("jupyter"));
    install.quiet().ignore_stdout().run()?;
    let text = shell.read_file(&spec)?;
    let mut content: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", spec.display()))?;
    content["env"] = environment;
    if cfg!(unix) {
        let script = config.join("start_kernel.sh");
        shell.write_file(&script, START)?;
        let argv = content["argv"].as_array_mut().ok_or_else(|| format!("{}: no `argv`", spec.display()))?;
        argv.splice(..0, [json!("/bin/sh"), json!(script)]);
    }
    shell.write_file(&spec, format!("{content:#}\n"))?;
    shell.write_file(config.join("init.evcxr"), INIT)?;
    shell.write_file(config.join("prelude.rs"), PRELUDE)?;
    Ok(shell.write_file(&stamp, &wanted)?)
}

#[cfg(test)]
mod tests {
    use xshell::Shell;

    use super::*;

    #[test]
    fn versions_of_the_tested_interface_are_used() {
        assert!(["0.22.0", "0.22.7"].into_iter().all(is_tested));
        assert!(["0.21.1", "0.220.0", "1.22.0", "0.22", "", "unknown"].into_iter().all(|version| !is_tested(version)));
    }

    #[cfg(unix)]
    #[test]
    fn a_changed_kernel_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let jupyter = Jupyter::in_folder(folder.path()).unwrap();
        let evcxr = folder.path().join("bin/evcxr_jupyter");
        fs::create_dir_all(evcxr.parent().unwrap()).unwrap();
        fs::write(&evcxr, "one").unwrap();
        assert!(!was_asked(&jupyter, &evcxr));
        remember(&jupyter, &evcxr).unwrap();
        assert!(was_asked(&jupyter, &evcxr) && candidates(&jupyter)[0] == evcxr);
        fs::write(&evcxr, "another").unwrap();
        assert!(!was_asked(&jupyter, &evcxr));
        assert_eq!(ask(&jupyter, &evcxr), None, "there is no Python that could ask");
    }

    #[cfg(unix)]
    #[test]
    fn a_kernel_starts_with_the_toolchain_of_rustup_if_its_cargo_is_rustups() {
        let folder = tempfile::tempdir().unwrap();
        let shell = Shell::new().unwrap();
        let script = folder.path().join("start kernel.sh");
        fs::write(&script, START).unwrap();
        let [proxies, other, toolchain] = ["a b", "other", "the toolchain/bin"].map(|name| folder.path().join(name));
        let program = |folder: &Path, name: &str, text: String| {
            use std::os::unix::fs::PermissionsExt;
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        let start = |path: &str| {
            let arguments = ["-c", "printf %s \"$PATH\"", "kernel"];
            cmd!(shell, "/bin/sh {script} /bin/sh {arguments...}").env("PATH", path).quiet().read().unwrap()
        };
        let [a, b] = [&proxies, &other].map(|folder| folder.display().to_string());
        program(&proxies, "cargo", String::new());
        program(&other, "cargo", String::new());
        let path = format!("{a}:/usr/bin:/bin");
        assert_eq!(start(&path), path, "there is no rustup");
        program(&proxies, "rustup", format!("[ \"$*\" = 'which rustc' ] && echo '{}/rustc'", toolchain.display()));
        assert_eq!(start(&path), format!("{}:{path}", toolchain.display()));
        let other_first = format!("{b}:{path}");
        assert_eq!(start(&other_first), other_first);
        program(&proxies, "rustup", "exit 1".into());
        assert_eq!(start(&path), path, "rustup has no toolchain");
    }
}
