//! Compiles attention-tokens as it is now, and hands rustc the library.
//!
//! Compiling a notebook's dependencies takes minutes, and reading their sources takes rust-analyzer, which evcxr asks for the
//! types of variables, ten seconds. So this package has none that rustc sees: the library is compiled by a cargo of its own, in
//! release mode and once for all notebooks, and every kernel, which runs this script once, links to a snapshot of it. cargo
//! decides whether the library is up to date, so it is never stale.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

#[path = "cuda.rs"]
mod cuda;
#[path = "library.rs"]
mod library;

type Result<T, E = String> = std::result::Result<T, E>;

/// The crates whose types a notebook sees: rust-analyzer reads their sources through links in the folder `sources`.
const SEEN: [&str; 3] = ["attention_tokens", "ndarray", "plotly"];

fn main() {
    // In a kernel, once: a library must not change under its variables. In the set-up, when the links may have to change.
    println!("cargo::rerun-if-changed={}", if in_kernel() { "build.rs" } else { "../../Cargo.lock" });
    match hand_over() {
        Ok(true) => {}
        // evcxr has read the sources before it runs cargo.
        Ok(false) if in_kernel() => println!(
            "cargo::error=attention-tokens is compiled now. Restart the kernel once: this one has not seen its sources"
        ),
        Ok(false) => {}
        // cargo then shows what was written to stderr: the compiler's messages, for instance.
        Err(problem) => {
            eprintln!("{problem}");
            std::process::exit(1);
        }
    }
}

/// Compiles, and hands over library and sources; says whether the sources were there before.
fn hand_over() -> Result<bool> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo runs this")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo runs this")?);
    let root = here.ancestors().nth(2).ok_or("the package lies in crate/prebuilt of the repository")?;
    let artifacts = compile(root)?;
    snapshot(&artifacts, &out)?;
    println!("cargo::rustc-link-search=all={}", out.display());
    // rustc names cudarc's libraries to the linker in every cell. None of their functions is missing there, so nothing is linked
    // to them, but the linker wants to find them.
    for path in artifacts.iter().flat_map(|line| strings(line, r#""linked_paths":["#, ']')) {
        println!("cargo::rustc-link-search={path}");
    }
    let profile = out.ancestors().nth(3).ok_or("OUT_DIR is …/PROFILE/build/PACKAGE/out")?;
    lead_there_from(profile);
    link_sources(&artifacts, &here.join("sources"))
}

/// Whether evcxr has called.
fn in_kernel() -> bool {
    env::var_os("EVCXR_CORE_EXTERN").is_some()
}

/// Compiles what has changed; what cargo says of each crate of the library and of its build script, a line of JSON each.
fn compile(root: &Path) -> Result<Vec<String>> {
    let cargo = env::var_os("CARGO").ok_or("cargo runs this")?;
    let cuda = env::var_os("CARGO_FEATURE_CUDA").is_some();
    if cuda {
        cuda::check()?;
    }
    let mut command = library::compile(&cargo, root, cuda);
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

/// Puts the library, and what rustc must know of the crates in it, where only this kernel looks: later changes do not reach it.
fn snapshot(artifacts: &[String], folder: &Path) -> Result<()> {
    let wanted = ["rlib", "rmeta", "so", "dylib", "dll"];
    let files = artifacts.iter().flat_map(|line| strings(line, r#""filenames":["#, ']')).map(PathBuf::from);
    let files: HashSet<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|extension| wanted.iter().any(|&w| extension == w))).collect();
    for file in files {
        let there = folder.join(file.file_name().ok_or("a file has a name")?);
        let _ = fs::remove_file(&there);
        let done = fs::hard_link(&file, &there).or_else(|_| fs::copy(&file, &there).map(drop));
        done.map_err(|error| format!("{} -> {}: {error}", file.display(), there.display()))?;
    }
    Ok(())
}

/// A cell's library finds this one by a path relative to `PROFILE/deps`, where rustc writes it: `../build/…`. evcxr may move it
/// to `PROFILE` before loading it; from there the path leads to a `build` beside `PROFILE`.
fn lead_there_from(profile: &Path) {
    let _ = symlink(&profile.join("build"), &profile.with_file_name("build")); // Without it, loading fails and says so.
}

/// Links the sources of the crates that a notebook sees; says whether the links were there before.
fn link_sources(artifacts: &[String], folder: &Path) -> Result<bool> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut were_there = true;
    for name in SEEN {
        let artifact = artifacts.iter().find(|line| strings(line, r#""target":{"#, '}').any(|text| text == name));
        let source = artifact.and_then(|line| strings(line, r#""src_path":"#, ',').next().map(PathBuf::from));
        let source = source.as_deref().and_then(Path::parent).ok_or(format!("cargo named no sources of {name}"))?;
        let link = folder.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == source) {
            continue;
        }
        were_there = false;
        let _ = fs::remove_file(&link);
        symlink(source, &link).map_err(|error| format!("{} -> {}: {error}", link.display(), source.display()))?;
    }
    Ok(were_there)
}

/// The strings of a piece of JSON between `start` and the first `end` after it.
fn strings<'a>(json: &'a str, start: &str, end: char) -> impl Iterator<Item = &'a str> {
    let piece = json.split_once(start).and_then(|(_, rest)| rest.split(end).next()).unwrap_or_default();
    piece.split('"').skip(1).step_by(2)
}

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_dir as symlink;
