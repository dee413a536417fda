//! Prerequisites of the feature `cuda`: the CUDA toolkit, nvcc and a GPU. The build scripts of dfdx and cudarc need the
//! same three, and panic where one is missing.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Checks that the feature `cuda` can be compiled.
///
/// # Errors
/// Names the first thing that is missing and the way to install it.
pub(crate) fn check() -> Result<(), String> {
    let variables = ["CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
    let roots = variables.iter().filter_map(env::var_os).map(PathBuf::from);
    let usual = [
        "/usr",
        "/usr/local/cuda",
        "/opt/cuda",
        "/usr/lib/cuda",
        "C:/Program Files/NVIDIA GPU Computing Toolkit",
        "C:/CUDA",
    ];
    let roots: Vec<PathBuf> = roots.chain(usual.map(PathBuf::from)).collect();
    if !roots.iter().any(|root| root.join("include/cuda.h").is_file()) {
        let searched: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        return Err(missing(
            &format!("include/cuda.h, a part of the CUDA toolkit, in none of {}", searched.join(", ")),
            "install CUDA 12 or 13 from developer.nvidia.com/cuda-downloads, and set CUDA_ROOT if it is in another folder",
        ));
    }
    if !works("nvcc", &["--version"]) {
        return Err(missing(
            "nvcc on the PATH",
            "put the folder bin of the CUDA toolkit on the PATH, and start Jupyter again",
        ));
    }
    if !works("nvidia-smi", &["--query-gpu=compute_cap", "--format=csv"]) {
        return Err(missing(
            "a GPU that nvidia-smi lists: the kernels are compiled for its generation",
            "install NVIDIA's driver from nvidia.com/drivers; `nvidia-smi` prints the cause if the driver fails",
        ));
    }
    Ok(())
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let status =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn missing(what: &str, remedy: &str) -> String {
    format!(
        "the feature cuda of attention-tokens needs {what}\n  {remedy}\n  Without the feature, models run on the CPU."
    )
}
