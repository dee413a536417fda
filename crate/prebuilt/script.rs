//! Compiles attention-tokens as one dynamic library, and links notebooks to it.
//!
//! Compiling a notebook's dependencies takes minutes. rust-analyzer, which infers the types of variables for evcxr,
//! takes ten seconds to read their sources. So this package has no dependencies that rustc sees: this program, which the
//! build script starts, starts another cargo, which compiles the library in release mode, once for all notebooks. Every
//! kernel runs it once and links to a snapshot of the library. cargo decides whether the library is up to date, so it is
//! never stale.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

#[path = "cuda.rs"]
mod cuda;
#[path = "json.rs"]
mod json;
#[path = "library.rs"]
mod library;
#[path = "outline.rs"]
mod outline;

/// The features of this package, each of which is one of the library.
const FEATURES: [&str; 2] = ["cuda", "png"];

type Result<T, E = String> = std::result::Result<T, E>;

/// The crates whose types a notebook uses. rust-analyzer reads the outline of the first, and the sources of the others, in the
/// folder `sources`.
const PUBLIC: [&str; 3] = ["attention_tokens", "ndarray", "plotly"];

fn main() {
    // A kernel runs this once, because the library must not change while variables refer to it. The set-up runs it
    // again when dependencies change, because the sources may have to follow.
    println!("cargo::rerun-if-changed={}", if in_kernel() { "build.rs" } else { "../../Cargo.lock" });
    match provide_library() {
        // evcxr reads the sources before it runs cargo.
        Ok(sources_changed) if sources_changed && in_kernel() => println!(
            "cargo::error=attention-tokens is compiled now. Restart the kernel once: this one has not seen its sources"
        ),
        Ok(_) => {}
        // cargo shows stderr, which has the compiler's messages, only if a build script fails.
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

/// Compiles the library, links it, copies the outlines of its sources, and returns whether they have changed.
fn provide_library() -> Result<bool> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let root = here.ancestors().nth(2).ok_or("expected the package in crate/prebuilt of the repository")?;
    let artifacts = compile(root)?;
    snapshot(&artifacts, &out)?;
    println!("cargo::rustc-link-search=all={}", out.display());
    // rustc passes cudarc's libraries to the linker in every cell. The linker has to find them, although it links to
    // none: no symbol of theirs is undefined in a cell.
    for path in artifacts.iter().flat_map(|line| json::strings(line, r#""linked_paths":["#, ']')) {
        println!("cargo::rustc-link-search={path}");
    }
    let profile = out.ancestors().nth(3).ok_or("OUT_DIR is …/PROFILE/build/PACKAGE/out")?;
    link_build_folder(profile);
    copy_sources(&artifacts, &here.join("sources"))
}

/// Whether evcxr runs this script.
fn in_kernel() -> bool {
    env::var_os("EVCXR_CORE_EXTERN").is_some()
}

/// Compiles the library, and returns cargo's JSON messages: a line for each crate and for each build script.
fn compile(root: &Path) -> Result<Vec<String>> {
    let cargo = env::var_os("CARGO").ok_or("CARGO is not set")?;
    let mut features = FEATURES.to_vec();
    features.retain(|feature| env::var_os(format!("CARGO_FEATURE_{}", feature.to_uppercase())).is_some());
    if features.contains(&"cuda") {
        cuda::check()?;
    }
    let mut command = library::compile(&cargo, root, &features);
    command.args(["--quiet", "--message-format", "json-render-diagnostics"]).args(library::FOR_RUSTC);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{} does not start: {error}", cargo.display()))?;
    if !output.status.success() {
        return Err("attention-tokens does not compile: see above".into());
    }
    let lines = String::from_utf8(output.stdout).map_err(|_| "a path is not Unicode")?;
    let reasons = [r#""reason":"compiler-artifact""#, r#""reason":"build-script-executed""#];
    let wanted = |line: &&str| reasons.iter().any(|reason| line.contains(reason));
    Ok(lines.lines().filter(wanted).map(str::to_owned).collect())
}

/// Links the library, and the metadata of the crates in it, into a folder of this kernel, so that later builds do not
/// change them.
fn snapshot(artifacts: &[String], folder: &Path) -> Result<()> {
    let libraries = ["rlib", "rmeta", "so", "dylib", "dll"];
    let is_library = |file: &PathBuf| file.extension().is_some_and(|found| libraries.iter().any(|&name| found == name));
    let files = artifacts.iter().flat_map(|line| json::strings(line, r#""filenames":["#, ']')).map(PathBuf::from);
    for file in files.filter(is_library).collect::<HashSet<PathBuf>>() {
        let link = folder.join(file.file_name().ok_or("cargo reported a file without a name")?);
        let _ = fs::remove_file(&link);
        let linked = fs::hard_link(&file, &link).or_else(|_| fs::copy(&file, &link).map(drop));
        linked.map_err(|error| format!("{} -> {}: {error}", file.display(), link.display()))?;
    }
    Ok(())
}

/// Links `build` beside the folder `PROFILE` to `PROFILE/build`. A cell's library refers to this one by a path relative
/// to `PROFILE/deps`, where rustc writes it: `../build/…`. evcxr may move it to `PROFILE` before loading it, and the
/// path then begins one folder higher.
fn link_build_folder(profile: &Path) {
    let _ = symlink(&profile.join("build"), &profile.with_file_name("build")); // Without it, loading reports the error.
}

/// Copies the outline of the library's sources and links those of the other public crates. Returns whether one has
/// changed.
fn copy_sources(artifacts: &[String], folder: &Path) -> Result<bool> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut changed = false;
    for name in PUBLIC {
        let is_wanted = |line: &&String| json::strings(line, r#""target":{"#, '}').iter().any(|text| text == name);
        let paths = artifacts.iter().find(is_wanted).map(|line| json::strings(line, r#""src_path":"#, ','));
        let source = paths.and_then(|paths| paths.into_iter().next().map(PathBuf::from));
        let source = source.as_deref().and_then(Path::parent).ok_or(format!("cargo reported no sources of {name}"))?;
        let to = folder.join(name);
        if name == PUBLIC[0] {
            changed |= outline::copy(source, &to)?;
        } else if !fs::read_link(&to).is_ok_and(|target| target == source) {
            changed = true;
            let _ = fs::remove_file(&to).or_else(|_| fs::remove_dir_all(&to));
            symlink(source, &to).map_err(|error| format!("{} -> {}: {error}", to.display(), source.display()))?;
        }
    }
    Ok(changed)
}

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_dir as symlink;
