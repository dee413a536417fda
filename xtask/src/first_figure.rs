//! The library, compiled for notebooks, and the first figure, which a user sees before the kernel is compiled.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use xshell::{Shell, cmd};

use crate::library;
use crate::logged;
use crate::progress::{Progress, Step};
use crate::release;
use crate::tool::{Result, shell};

const ARGUMENTS: [&str; 3] = ["demo", "The next sentence is false. The previous sentence is true.", "0.1"];

/// The only feature of the first copy: it needs fewer crates than the library, and each is the same as the library's. The
/// rest is compiled after the figure is shown.
pub(crate) const FIRST_FEATURE: &str = "first-figure";

/// Compiles the library that notebooks load, so that no notebook waits for it. That takes minutes the first time; later
/// runs compile only what has changed. Draws the first figure as soon as it can, and prints its paths.
pub(crate) fn library_and_figure(progress: &Progress) -> Result<()> {
    let shell = shell()?;
    // In the same folder as the library, whatever the user's CARGO_TARGET_DIR is.
    let files = ["html", "svg"].map(|extension| crate::root().join("target/first-figure").with_extension(extension));
    let draw_first = draws_before_the_library();
    if draw_first {
        let quick = progress.step("the library, not optimized, for a first figure", |step| {
            let root = crate::root();
            let mut compile = library::rustc("cargo".as_ref(), &root, &root.join("target"), "rlib", &[FIRST_FEATURE]);
            compile.args(["--no-default-features", "--message-format", "json-render-diagnostics"]);
            for setting in ["opt-level=0", "codegen-units=16"] {
                compile.args(["--config", &format!("profile.release.package.attention-tokens.{setting}")]);
            }
            Library::of(&String::from_utf8(logged::run(step, "first-library", &mut compile)?)?, "rlib")
        })?;
        progress.step("the first figure", |step| draw(step, &shell, &quick, &files))?;
        say(progress, &files);
    }
    let compiled = progress.step("the library", |step| {
        let mut compile = library::compile("cargo".as_ref(), &crate::root(), &[]);
        compile.args(["--message-format", "json-render-diagnostics"]);
        let messages = logged::run(step, "library", compile.args(library::FOR_RUSTC))?;
        // Its build script copies what rust-analyzer reads of the sources.
        let manifest = "crate/prebuilt/Cargo.toml";
        let link = cmd!(shell, "cargo build --manifest-path {manifest} --target-dir target/prebuilt");
        logged::run(step, "library-sources", &mut link.into())?;
        Library::of(&String::from_utf8(messages)?, env::consts::DLL_EXTENSION)
    })?;
    let is_new = |file: &PathBuf| Some(modified(file)? >= modified(&compiled.file)?);
    if !draw_first {
        if !files.iter().all(|file| is_new(file) == Some(true)) {
            progress.step("the first figure", |step| draw(step, &shell, &compiled, &files))?;
        }
        say(progress, &files);
    }
    Ok(())
}

/// Whether the library has never been compiled. Optimizing it takes two fifths of the time, so the first figure is drawn by
/// a copy that is not optimized; both have the same compiled dependencies.
pub(crate) fn draws_before_the_library() -> bool {
    release::library().is_none()
}

fn say(progress: &Progress, files: &[PathBuf; 2]) {
    let [page, picture] = files.each_ref().map(|file| file.display().to_string());
    progress.say(&format!("first figure: {page} (open it in a browser)\n              {picture}"));
}

fn modified(file: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(file).ok()?.modified().ok()
}

/// The compiled library, and the folders with the crates that it consists of.
struct Library {
    file: PathBuf,
    dependencies: Vec<PathBuf>,
}

impl Library {
    /// Reads cargo's messages, one JSON value a line. `extension` is that of the library's file.
    fn of(messages: &str, extension: &str) -> Result<Self> {
        let mut library = Self { file: PathBuf::new(), dependencies: Vec::new() };
        for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let names =
                message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from);
            for file in names {
                let is_wanted = file.extension() == Some(extension.as_ref());
                if is_wanted && message["target"]["name"] == "attention_tokens" {
                    library.file = file;
                } else if file.extension() == Some("rlib".as_ref()) {
                    let folder = file.parent().unwrap_or(&file).to_owned();
                    if !library.dependencies.contains(&folder) {
                        library.dependencies.push(folder);
                    }
                }
            }
        }
        if library.file.as_os_str().is_empty() { Err("cargo reported no library".into()) } else { Ok(library) }
    }
}

/// Compiles the example `figure` against the library, as evcxr compiles a cell, because cargo would compile the library
/// again, and what only tests depend on.
fn draw(step: &Step, shell: &Shell, library: &Library, files: &[PathBuf]) -> Result<()> {
    let program = crate::root().join("target/first-figure").with_extension(env::consts::EXE_EXTENSION);
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-Cprefer-dynamic", "--crate-name", "first_figure"]);
    rustc.arg(crate::root().join("crate/examples/figure.rs")).arg("-o").arg(&program);
    rustc.args(["--extern".into(), with_prefix("attention_tokens=", &library.file)]);
    rustc.args(library.dependencies.iter().map(|folder| with_prefix("-Ldependency=", folder)));
    logged::run(step, "first-figure", &mut rustc)?;
    let target_libraries = PathBuf::from(cmd!(shell, "rustc --print target-libdir").quiet().read()?);
    let folders = [library.file.parent().unwrap_or(&library.file), &target_libraries];
    let variable = match env::consts::OS {
        "macos" => "DYLD_FALLBACK_LIBRARY_PATH",
        "windows" => "PATH",
        _ => "LD_LIBRARY_PATH",
    };
    let inherited = env::var_os(variable).unwrap_or_default();
    let path = folders.into_iter().map(Path::to_owned).chain(env::split_paths(&inherited));
    // Written under other names first: an interruption leaves no half of a figure.
    let parts = [files[0].with_file_name("first-figure.part.html"), files[1].with_file_name("first-figure.part.svg")];
    let mut draw = Command::new(&program);
    draw.args(ARGUMENTS).args(&parts).env(variable, env::join_paths(path)?);
    logged::run(step, "first-figure", &mut draw)?;
    fs::remove_file(program)?;
    Ok(parts.iter().zip(files).try_for_each(|(part, file)| fs::rename(part, file))?)
}

fn with_prefix(prefix: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(prefix);
    argument.push(path);
    argument
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The crates that the library needs with some features, each with its own features. The library's line is left out.
    fn crates(features: &[&str]) -> BTreeSet<String> {
        let shell = shell().unwrap();
        let tree = cmd!(shell, "cargo tree --locked --package attention-tokens --edges normal,build --prefix none");
        let tree = tree.args(["--no-dedupe", "--format", "{p} [{f}]"]).args(features).quiet().read().unwrap();
        tree.lines().filter(|line| !line.starts_with("attention-tokens ")).map(String::from).collect()
    }

    #[test]
    fn no_crate_is_compiled_again_for_the_library() {
        let first = crates(&["--no-default-features", "--features", FIRST_FEATURE]);
        let library = crates(&["--features", library::FULL]);
        let again: Vec<_> = first.difference(&library).collect();
        assert!(again.is_empty(), "crates with other features in the first copy than in the library: {again:?}");
        assert!(library.len() > first.len() && first.iter().any(|line| line.starts_with("plotly v")));
        assert!(!crates(&["--no-default-features"]).is_subset(&library), "what the feature is for");
    }

    #[test]
    fn the_library_is_read_from_cargos_messages() {
        let name = format!("{}attention_tokens{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
        let messages = |name: &str| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"target\":{{\"name\":\"serde\"}},\"filenames\":[\"/b ü/deps/libserde.rlib\"]}}\n\
                 not JSON\n\
                 {{\"target\":{{\"name\":\"serde_derive\"}},\"filenames\":[\"/b ü/deps/libserde_derive.so\"]}}\n\
                 {{\"target\":{{\"name\":\"attention_tokens\"}},\"filenames\":[\"/t/release/{name}\"]}}\n"
            )
        };
        for (name, extension) in [(name.as_str(), env::consts::DLL_EXTENSION), ("libattention_tokens.rlib", "rlib")] {
            let library = Library::of(&messages(name), extension).unwrap();
            assert_eq!(library.file, Path::new("/t/release").join(name));
            assert_eq!(library.dependencies, [Path::new("/b ü/deps")]);
        }
        assert!(Library::of("", "rlib").is_err());
    }
}
