//! `cargo xtask cuda-check`: tests the feature `cuda` on a machine without a GPU. It is compiled by NVIDIA's own
//! compilers and runs with a fake of the driver, cuBLAS and NVRTC.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pins::Pins;
use crate::setup::Jupyter;
use crate::stages::Stages;
use crate::tool::{Result, run, shell, works, write_script};
use crate::{library, notebooks, prerequisites, release};

/// NVIDIA's compilers, headers and NVRTC on PyPI, for x86-64 Linux.
pub(crate) const PACKAGES: [&str; 6] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-nvrtc==13.0.88",
    "nvidia-cuda-cccl==13.0.85",
];

/// The oldest compute capability that dfdx's kernels compile for. The driver of a newer GPU JIT-compiles the result.
const CAPABILITY: &str = "8.0";

/// The libraries that cudarc's build script passes to the linker. Programs must not depend on them.
const NVIDIA_LIBRARIES: [&str; 4] = ["cuda", "cublas", "cublasLt", "nvrtc"];

/// The architectures that nvcc compiles our own kernels for.
const ARCHITECTURES: [&str; 5] = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"];

/// The sources of the fake, in `tests/cuda/fake_cuda`.
const FAKE_CUDA: [&str; 6] = ["driver.cpp", "memory.cpp", "blocks.cpp", "cublas.cpp", "nvrtc.cpp", "calls.cpp"];

/// The installed toolkit.
struct Toolkit {
    /// `CUDA_ROOT`: headers, and empty libraries to link to.
    root: PathBuf,
    /// `PATH`, with nvcc and a fake `nvidia-smi`.
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
        // Dependencies differ with the feature. In a folder of their own, neither build makes the other compile again.
        command.env("CARGO_TARGET_DIR", target());
        command
    }
}

fn target() -> PathBuf {
    crate::root().join("target/cuda")
}

/// Runs all stages. Those of the notebook need Jupyter.
pub(crate) fn check(stages: &mut Stages, jupyter: Option<&Jupyter>) -> Result<()> {
    const FEATURES: [&str; 2] = ["--features", "attention-tokens/cuda"];
    let toolkit = stages.run("CUDA: NVIDIA's compilers from PyPI", set_up)?;
    let fake_cuda = target().join("fake-cuda");
    stages.run("CUDA: our kernels by nvcc, and the fake driver", || {
        compile_kernels(&toolkit)?;
        compile_fake_cuda(&fake_cuda)
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
        // Examples too: tests start them.
        for args in [&["build", "--examples"][..], &["test", "--no-run", "--lib", "--test", "integration"]] {
            let mut compile = toolkit.command("cargo");
            run("cargo", compile.args(args).args(["--locked", "--package", "attention-tokens"]).args(FEATURES))?;
        }
        Ok(())
    })?;
    stages.run("CUDA: tests with the fake driver", || {
        for (target, filter) in [("--lib", "backend::tests"), ("--test=integration", "cuda::")] {
            let mut test = toolkit.command("cargo");
            test.args(["test", "--locked", "--package", "attention-tokens", target]).args(FEATURES);
            test.args(["--", filter, "--include-ignored"]);
            test.env("LD_LIBRARY_PATH", &fake_cuda).env("ATTENTION_TOKENS_FAKE_CUDA", &fake_cuda);
            run("cargo test", test.env("ATTENTION_TOKENS_NVRTC", &toolkit.libraries))?;
        }
        Ok(())
    })?;
    stages.run("CUDA: gpu_check with the fake driver", || {
        let mut compile = toolkit.command("cargo");
        compile.args(["build", "--release", "--locked", "--package", "attention-tokens", "--example", "gpu_check"]);
        run("cargo build", compile.args(FEATURES))?;
        let program = release::newest(&target(), "examples/gpu_check".as_ref());
        let program = program.ok_or("cargo build left no program examples/gpu_check")?;
        check_dependencies(&program)?;
        let mut gpu_check = Command::new(&program);
        gpu_check.args(["--small", "--without-dfdx"]).env("LD_LIBRARY_PATH", &fake_cuda);
        run("gpu_check", &mut gpu_check)?;
        println!("{} is ready for a machine with a GPU ({} MB)", program.display(), megabytes(&program)?);
        Ok(())
    })?;
    let Some(jupyter) = jupyter else { return Ok(()) };
    let variables = [("CUDA_ROOT", toolkit.root.as_path()), ("LD_LIBRARY_PATH", fake_cuda.as_path())];
    let notebook = crate::root().join("tests/cuda/gpu.ipynb");
    let mut execute = |stage, plain| {
        stages.run(stage, || notebooks::execute_in(jupyter, &notebook, &toolkit.path, &variables, plain))
    };
    execute("CUDA: a notebook with the fake driver", false)?;
    execute("CUDA: the same notebook with the plain dependency", true)
}

/// Installs NVIDIA's packages unless they are installed, and lays out a toolkit where build scripts find it.
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
    let packages = Pins::Cuda.read()?;
    if fs::read_to_string(&stamp).unwrap_or_default() != packages {
        let mut pip = Command::new(prerequisites::python()?);
        Pins::Cuda.install(&mut pip).args(["--quiet", "--no-deps", "--upgrade", "--target"]);
        run("pip install", pip.arg(&site))?;
        fs::write(&stamp, &packages).map_err(|error| format!("{}: {error}", stamp.display()))?;
    }
    let nvidia = site.join("nvidia/cu13");

    let (root, bin) = (target().join("toolkit"), target().join("bin"));
    let libraries = root.join("lib");
    for folder in [&libraries, &bin] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    link(&nvidia.join("include"), &root.join("include"))?;
    for library in NVIDIA_LIBRARIES {
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(libraries.join(format!("lib{library}.so")));
        run("cc", &mut cc)?;
    }
    // dfdx's build script asks nvidia-smi for the compute capability to compile for.
    let nvidia_smi = bin.join("nvidia-smi");
    let script = format!("#!/bin/sh\necho compute_cap\necho {CAPABILITY}\n");
    if fs::read_to_string(&nvidia_smi).unwrap_or_default() != script {
        write_script(&nvidia_smi, &script)?;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let paths = [bin, nvidia.join("bin")].into_iter().chain(env::split_paths(&path));
    let path = env::join_paths(paths).map_err(|error| format!("PATH: {error}"))?;
    Ok(Toolkit { root, path, libraries: nvidia.join("lib") })
}

/// Compiles our kernels for each architecture. A kernel that spills registers would be slow, and is an error.
fn compile_kernels(toolkit: &Toolkit) -> Result<()> {
    let source = crate::root().join("crate/src/backend/cuda/kernels.cu");
    for architecture in ARCHITECTURES {
        let mut nvcc = toolkit.command("nvcc");
        nvcc.args(["-cubin", "-Xptxas", "-v", "-Werror", "all-warnings", "-o"]).arg(target().join("kernels.cubin"));
        nvcc.arg(format!("-arch={architecture}")).arg(&source);
        let output = nvcc.output().map_err(|error| format!("nvcc: {error}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let kernels = stderr.matches("Compiling entry function").count();
        let spills = stderr.matches("bytes spill").count()
            - stderr.matches(" 0 bytes spill stores").count()
            - stderr.matches(" 0 bytes spill loads").count();
        if !output.status.success() || kernels == 0 || spills > 0 {
            return Err(format!("nvcc for {architecture}: {kernels} kernels, {spills} spills\n{stderr}").into());
        }
        println!("nvcc: {kernels} kernels for {architecture}, no register spilled");
    }
    Ok(())
}

/// Compiles the fake of the driver, cuBLAS and NVRTC: one file with three names.
fn compile_fake_cuda(folder: &Path) -> Result<()> {
    let sources = crate::root().join("tests/cuda/fake_cuda");
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let driver = folder.join("libcuda.so.1");
    let mut compile = Command::new("g++");
    compile.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-clobbered", "-Werror", "-fPIC", "-shared", "-o"]);
    run("g++", compile.arg(&driver).args(FAKE_CUDA.map(|file| sources.join(file))).arg("-ldl"))?;
    for name in ["libcublas.so.13", "libnvrtc.so.13"] {
        link(&driver, &folder.join(name))?;
    }
    // It compiles kernels with this header.
    let header = folder.join("on_host.h");
    fs::copy(sources.join("on_host.h"), &header).map_err(|error| format!("{}: {error}", header.display()))?;
    Ok(())
}

/// Checks that a program depends on none of NVIDIA's libraries. Otherwise it would not start where one is missing, and
/// could not report which.
fn check_dependencies(program: &Path) -> Result<()> {
    let listed = shell()?.cmd("ldd").arg(program).read()?;
    match NVIDIA_LIBRARIES.iter().find(|library| listed.contains(&format!("lib{library}."))) {
        Some(library) => Err(format!("{} is linked to lib{library}:\n{listed}", program.display()).into()),
        None => Ok(()),
    }
}

fn megabytes(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len() / 1_000_000)
}

/// Makes a symbolic link, and replaces an older one.
#[cfg(unix)]
fn link(to: &Path, link: &Path) -> Result<()> {
    let _ = fs::remove_file(link);
    std::os::unix::fs::symlink(to, link).map_err(|error| format!("{}: {error}", link.display()).into())
}

#[cfg(not(unix))]
fn link(_: &Path, link: &Path) -> Result<()> {
    Err(format!("{}: symbolic links need Unix", link.display()).into())
}
