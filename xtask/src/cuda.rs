//! The feature `cuda` on a machine without a GPU: compiled by NVIDIA's own compilers, linked, and run with a stand-in for the
//! driver, cuBLAS and NVRTC.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::Jupyter;
use crate::stages::Stages;
use crate::tool::{Result, run, shell, works};
use crate::{library, notebooks, prerequisites};

/// NVIDIA's compilers, headers and NVRTC, as PyPI has them for x86-64 Linux.
const PACKAGES: [&str; 6] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-nvrtc==13.0.88",
    "nvidia-cuda-cccl==13.0.85",
];

/// The oldest cards that dfdx's kernels compile for; the driver of a newer one makes of the result what it needs.
const CAPABILITY: &str = "8.0";

/// What cudarc's build script asks the linker for, and nothing of ours needs.
const LINKED: [&str; 4] = ["cuda", "cublas", "cublasLt", "nvrtc"];

/// The generations of cards that our own kernels are assembled for, to see that they are taken.
const GENERATIONS: [&str; 5] = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"];

/// Where NVIDIA's programs and libraries lie, and the environment that finds them.
struct Toolkit {
    /// `CUDA_ROOT`: headers, and libraries to link to that are empty.
    root: PathBuf,
    path: OsString,
    /// NVIDIA's own libraries.
    libraries: PathBuf,
}

impl Toolkit {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        library::inherit_no_build(&mut command);
        command.env("CUDA_ROOT", &self.root).env("PATH", &self.path).current_dir(crate::root());
        command.env_remove("CUDA_PATH").env_remove("CUDA_COMPUTE_CAP");
        // Crates compiled with CUDA are others: in a folder of their own neither side compiles anything twice.
        command.env("CARGO_TARGET_DIR", target());
        command
    }
}

fn target() -> PathBuf {
    crate::root().join("target/cuda")
}

/// All stages; a notebook only where there is a Jupyter.
pub(crate) fn check(stages: &mut Stages, jupyter: Option<&Jupyter>) -> Result<()> {
    const FEATURES: [&str; 2] = ["--features", "attention-tokens/cuda"];
    let toolkit = stages.run("CUDA: NVIDIA's compilers from PyPI", set_up)?;
    let stand_in = target().join("stand-in");
    stages.run("CUDA: our kernels by nvcc, and the stand-in", || {
        assemble(&toolkit)?;
        compile_stand_in(&stand_in)
    })?;
    stages.run("CUDA: clippy", || {
        let mut clippy = toolkit.command("cargo");
        clippy.args(["clippy", "--locked", "--package", "attention-tokens", "--all-targets"]).args(FEATURES);
        run("cargo clippy", clippy.args(["--", "--deny", "warnings"]))
    })?;
    stages.run("CUDA: documentation", || {
        let mut doc = toolkit.command("cargo");
        doc.args(["doc", "--locked", "--package", "attention-tokens", "--no-deps", "--document-private-items"]);
        run("cargo doc", doc.args(FEATURES).env("RUSTDOCFLAGS", "--deny warnings"))
    })?;
    stages.run("CUDA: compiling the tests", || {
        // The tests start the example programs.
        for what in [&["build", "--examples"][..], &["test", "--no-run", "--lib", "--test", "integration"]] {
            let mut compile = toolkit.command("cargo");
            run("cargo", compile.args(what).args(["--locked", "--package", "attention-tokens"]).args(FEATURES))?;
        }
        Ok(())
    })?;
    stages.run("CUDA: tests with the stand-in", || {
        for (target, names) in [("--lib", "backend::tests"), ("--test=integration", "cuda::")] {
            let mut test = toolkit.command("cargo");
            test.args(["test", "--locked", "--package", "attention-tokens", target]).args(FEATURES);
            test.args(["--", names, "--include-ignored"]);
            test.env("LD_LIBRARY_PATH", &stand_in).env("ATTENTION_TOKENS_STAND_IN", &stand_in);
            run("cargo test", test.env("ATTENTION_TOKENS_NVRTC", &toolkit.libraries))?;
        }
        Ok(())
    })?;
    stages.run("CUDA: gpu_check with the stand-in", || {
        let mut compile = toolkit.command("cargo");
        compile.args(["build", "--release", "--locked", "--package", "attention-tokens", "--example", "gpu_check"]);
        run("cargo build", compile.args(FEATURES))?;
        let program = target().join("release/examples/gpu_check");
        needs_no_library(&program)?;
        let mut gpu_check = Command::new(&program);
        gpu_check.args(["--small", "--without-dfdx"]).env("LD_LIBRARY_PATH", &stand_in);
        run("gpu_check", &mut gpu_check)?;
        println!("{} is ready for a machine with a GPU ({} MB)", program.display(), megabytes(&program)?);
        Ok(())
    })?;
    let Some(jupyter) = jupyter else { return Ok(()) };
    let variables = [("CUDA_ROOT", toolkit.root.as_path()), ("LD_LIBRARY_PATH", stand_in.as_path())];
    let notebook = crate::root().join("tests/cuda/card.ipynb");
    let mut execute = |stage, plainly| {
        stages.run(stage, || notebooks::execute_in(jupyter, &notebook, &toolkit.path, &variables, plainly))
    };
    execute("CUDA: a notebook with the stand-in", false)?;
    execute("CUDA: the same with the plain dependency", true)
}

/// Installs what is missing, and puts it where build scripts look.
fn set_up() -> Result<Toolkit> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err("cuda-check runs on x86-64 Linux, for which PyPI has NVIDIA's compilers".into());
    }
    if !works(shell()?.cmd("g++").arg("--version")) {
        return Err("missing: g++, which nvcc needs\n  install it with: apt-get install g++".into());
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache"))).ok_or("HOME is not set")?;
    let site = cache.join("attention-tokens/cuda");
    let stamp = site.join("installed.txt");
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&stamp).unwrap_or_default() != wanted {
        let mut pip = Command::new(prerequisites::python()?);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--upgrade",
            "--target",
        ]);
        run("pip install", pip.arg(&site).args(PACKAGES))?;
        fs::write(&stamp, &wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    }
    let toolkit = site.join("nvidia/cu13");

    let (root, bin) = (target().join("toolkit"), target().join("bin"));
    let libraries = root.join("lib");
    for folder in [&libraries, &bin] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    link(&toolkit.join("include"), &root.join("include"))?;
    for library in LINKED {
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(libraries.join(format!("lib{library}.so")));
        run("cc", &mut cc)?;
    }
    // dfdx's build script asks it which card to compile for.
    let nvidia_smi = bin.join("nvidia-smi");
    let script = format!("#!/bin/sh\necho compute_cap\necho {CAPABILITY}\n");
    if fs::read_to_string(&nvidia_smi).unwrap_or_default() != script {
        fs::write(&nvidia_smi, script).map_err(|error| format!("{}: {error}", nvidia_smi.display()))?;
        run("chmod", Command::new("chmod").arg("+x").arg(&nvidia_smi))?;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let paths = [bin, toolkit.join("bin")].into_iter().chain(env::split_paths(&path));
    let path = env::join_paths(paths).map_err(|error| format!("PATH: {error}"))?;
    Ok(Toolkit { root, path, libraries: toolkit.join("lib") })
}

/// Assembles our kernels for each generation of cards; what spills its registers would be slow, and fails.
fn assemble(toolkit: &Toolkit) -> Result<()> {
    let source = crate::root().join("crate/src/backend/cuda/kernels.cu");
    for generation in GENERATIONS {
        let mut nvcc = toolkit.command("nvcc");
        nvcc.args(["-cubin", "-Xptxas", "-v", "-Werror", "all-warnings", "-o"]).arg(target().join("kernels.cubin"));
        nvcc.arg(format!("-arch={generation}")).arg(&source);
        let done = nvcc.output().map_err(|error| format!("nvcc: {error}"))?;
        let said = String::from_utf8_lossy(&done.stderr);
        let kernels = said.matches("Compiling entry function").count();
        let spills = said.matches("bytes spill").count()
            - said.matches(" 0 bytes spill stores").count()
            - said.matches(" 0 bytes spill loads").count();
        if !done.status.success() || kernels == 0 || spills > 0 {
            return Err(format!("nvcc for {generation}: {kernels} kernels, {spills} spills\n{said}").into());
        }
        println!("nvcc: {kernels} kernels for {generation}, no register spilled");
    }
    Ok(())
}

/// One file with three names: the driver, cuBLAS and NVRTC.
fn compile_stand_in(folder: &Path) -> Result<()> {
    let sources = crate::root().join("tests/cuda");
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let driver = folder.join("libcuda.so.1");
    let mut compile = Command::new("g++");
    compile.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-clobbered", "-Werror", "-fPIC", "-shared", "-o"]);
    run("g++", compile.arg(&driver).arg(sources.join("fake_cuda.cpp")).arg("-ldl"))?;
    for name in ["libcublas.so.13", "libnvrtc.so.13"] {
        link(&driver, &folder.join(name))?;
    }
    let header = folder.join("on_host.h");
    fs::copy(sources.join("on_host.h"), &header).map_err(|error| format!("{}: {error}", header.display()))?;
    Ok(())
}

/// A program that depended on one of NVIDIA's libraries would not start where it is missing, and could not say so.
fn needs_no_library(program: &Path) -> Result<()> {
    let listed = shell()?.cmd("ldd").arg(program).read()?;
    match LINKED.iter().find(|library| listed.contains(&format!("lib{library}."))) {
        Some(library) => Err(format!("{} is linked to lib{library}:\n{listed}", program.display()).into()),
        None => Ok(()),
    }
}

fn megabytes(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len() / 1_000_000)
}

/// A link that leads there, whatever was there before.
#[cfg(unix)]
fn link(to: &Path, link: &Path) -> Result<()> {
    let _ = fs::remove_file(link);
    std::os::unix::fs::symlink(to, link).map_err(|error| format!("{}: {error}", link.display()).into())
}

#[cfg(not(unix))]
fn link(_: &Path, link: &Path) -> Result<()> {
    Err(format!("{}: no links here", link.display()).into())
}
