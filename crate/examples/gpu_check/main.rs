//! Checks a GPU against golden data and the CPU, then benchmarks it. Takes at most ten minutes.
//!
//!     cargo run --release --features cuda --example gpu_check [-- OPTION …]
//!
//! | option | |
//! |---|---|
//! | `--device N` | the GPU with this number, 0 by default |
//! | `--small` | small sizes, to test this program itself |
//! | `--without-dfdx` | skip dfdx's own operations |
//! | `--python PROGRAM` | a Python with PyTorch to compare with, `python3` by default |
//!
//! The program is self-contained: it includes the golden data, and makes random weights of GPT-2 small's shape from a
//! seed. It can be copied to a machine with NVIDIA's driver, the libraries of CUDA 12 or 13, and no Rust. It prints
//! Markdown. It fails if a number is wrong; a missed target for speed is printed, and is no failure.

mod against_cpu;
mod benchmark;
#[path = "../golden/mod.rs"]
mod golden;
mod random_weights;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use attention_tokens::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Options {
    device: usize,
    small: bool,
    dfdx: bool,
    python: String,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu_check: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options { device: 0, small: false, dfdx: true, python: "python3".into() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--device" => options.device = value()?.parse().map_err(|_| "--device needs a number")?,
            "--small" => options.small = true,
            "--without-dfdx" => options.dfdx = false,
            "--python" => options.python = value()?,
            _ => {
                return Err(
                    format!("{arg} is no option: [--device N] [--small] [--without-dfdx] [--python PROGRAM]").into()
                );
            }
        }
    }
    Ok(options)
}

/// Returns whether all numbers are right.
fn run(options: &Options) -> Result<bool> {
    let started = Instant::now();
    let gpu = Device::cuda(options.device);
    let folder = tempfile::tempdir()?;
    println!("# gpu_check\n");
    println!("{}, {} processors, attention-tokens {}\n", gpu_name(options.device), cores(), env!("CARGO_PKG_VERSION"));

    println!("## Golden data\n");
    let mut all_right = true;
    for (name, folder) in golden_folders(folder.path())? {
        for (device, device_name) in [(gpu, "cuda"), (Device::dfdx_cuda(options.device), "dfdx_cuda")] {
            // dfdx takes minutes to decode the demo model.
            if device_name == "cuda" || options.dfdx && name != "demo" {
                let outcome = golden::check(&folder, device, true)?;
                println!("- {name} on {device_name}: {} quantities, {} failed", outcome.checked, outcome.failed);
                all_right &= outcome.failed == 0;
            }
        }
    }

    let sizes = if options.small {
        random_weights::Sizes { n_layers: 2, n_heads: 4, d_model: 64, d_vocab: 1000, n_ctx: 64 }
    } else {
        random_weights::GPT2_SMALL
    };
    let weights = folder.path().join("random");
    std::fs::create_dir(&weights)?;
    random_weights::write(&weights, sizes, 1)?;
    println!("\n## The GPU against the CPU, on random weights of {}\n", describe(sizes));
    all_right &= against_cpu::check(&weights, sizes, gpu, options)?;
    println!("\n## Speed, on the same weights\n");
    benchmark::run(&weights, sizes, gpu, options, started)?;
    println!(
        "\nThis took {:.0} s. The numbers are {}.",
        started.elapsed().as_secs_f64(),
        if all_right { "right" } else { "WRONG" }
    );
    Ok(all_right)
}

fn describe(sizes: random_weights::Sizes) -> String {
    let random_weights::Sizes { n_layers, n_heads, d_model, d_vocab, .. } = sizes;
    format!("{n_layers} layers, {n_heads} heads, d_model {d_model}, d_vocab {d_vocab}")
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The GPU, its driver and its memory, from `nvidia-smi`.
fn gpu_name(ordinal: usize) -> String {
    let mut nvidia_smi = Command::new("nvidia-smi");
    nvidia_smi.args([
        "--query-gpu=name,driver_version,memory.total",
        "--format=csv,noheader",
        "-i",
        &ordinal.to_string(),
    ]);
    let printed = nvidia_smi.output().ok().filter(|output| output.status.success());
    let printed = printed.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    printed.unwrap_or_else(|| format!("GPU {ordinal} (nvidia-smi does not name it)"))
}

/// The folders with golden data: those that this program includes, and the demo model if the source tree is there.
fn golden_folders(temporary: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    macro_rules! files {
        ($name:literal) => {
            (
                $name,
                [
                    files!($name, "config.json"),
                    files!($name, "model.safetensors"),
                    files!($name, "expected.safetensors"),
                    files!($name, "analysis.safetensors"),
                ],
            )
        };
        ($name:literal, $file:literal) => {
            ($file, include_bytes!(concat!("../../../tests/fixtures/", $name, "/", $file)).as_slice())
        };
    }
    let mut folders = Vec::new();
    for (name, files) in [files!("tiny"), files!("odd")] {
        let folder = temporary.join(name);
        std::fs::create_dir(&folder)?;
        for (file, content) in files {
            std::fs::write(folder.join(file), content)?;
        }
        folders.push((name, folder));
    }
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model");
    if demo.is_dir() {
        folders.push(("demo", demo));
    }
    Ok(folders)
}
