//! Models on a CUDA GPU. Ignored tests need the fake driver of `cargo xtask cuda-check`; the others run on a GPU too.

mod calls;
mod memory;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use attention_tokens::prelude::*;

use crate::interventions::random::{assert_edits_agree, assert_edits_equal_those_on_the_host};
use crate::support::{assert_close, example, fixture, load, root};

fn load_on_gpu(folder: &Path) -> Gpt2 {
    Gpt2::from_pretrained(folder.to_str().unwrap(), LoadOptions::default().device(Device::cuda(0))).unwrap()
}

#[test]
fn a_gpu_matches_all_golden_data() {
    let folders = [(fixture("tiny"), 285), (fixture("odd"), 360), (root().join("crate/demo-model"), 110)];
    for (folder, quantities) in folders {
        let output = example("parity").arg(folder).arg("cuda").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let expected = format!("parity: {quantities} quantities, 0 failed, 11 not yet known");
        assert_eq!(text.lines().last(), Some(expected.as_str()), "{text}");
    }
}

/// A batch equals its prompts one by one within rounding (cuBLAS may add in another order for another shape). Repeated
/// runs are equal bit by bit, from any thread.
#[test]
fn results_do_not_depend_on_the_batch_or_the_thread() {
    let model = load_on_gpu(&fixture("tiny"));
    assert_eq!(model.device(), Device::cuda(0));
    let prompts = [vec![1, 2, 3, 4, 5], vec![7], vec![90, 3, 3, 8, 1, 2, 11]];
    let (logits, cache) = model.run_with_cache(prompts.to_vec()).unwrap();
    std::thread::scope(|scope| {
        for (index, prompt) in prompts.iter().enumerate() {
            let (model, logits, cache) = (&model, &logits, &cache);
            scope.spawn(move || {
                let run = || {
                    let (logits, cache) = model.run_with_cache(prompt.clone()).unwrap();
                    let options = DecodeOptions { top_k: 3, ..Default::default() };
                    let data = all_heads_data(model, &cache, options).unwrap();
                    let tokens: Vec<_> =
                        data.iter().map(|data| (data.prompts[0].qk.clone(), data.prompts[0].v.clone())).collect();
                    (logits, cache, tokens)
                };
                let (alone_logits, alone_cache, alone_tokens) = run();
                assert_close(&alone_logits[0], &logits[index], 1e-5);
                let batch_cache = cache.prompt(index).unwrap();
                for activation in [Activation::Q, Activation::Pattern, Activation::Z, Activation::ResidPost] {
                    let (alone, in_batch) = (alone_cache.get(activation, 1), batch_cache.get(activation, 1));
                    assert_close(&alone.unwrap(), &in_batch.unwrap(), 1e-5);
                }
                for _ in 0..2 {
                    let (again_logits, again_cache, again_tokens) = run();
                    assert_eq!((again_logits, again_tokens), (alone_logits.clone(), alone_tokens.clone()));
                    for activation in Activation::ALL {
                        let (first, again) = (alone_cache.get(activation, 1), again_cache.get(activation, 1));
                        assert_eq!(first.unwrap(), again.unwrap(), "{activation:?}");
                    }
                }
            });
        }
    });
}

/// Edits by the GPU agree with the CPU's, and with those of the same model on the host.
#[test]
fn interventions_agree_with_the_cpu_and_with_the_host() {
    for name in ["tiny", "odd"] {
        let gpu = load_on_gpu(&fixture(name));
        assert_edits_agree(&gpu, &load(&fixture(name)).unwrap());
        assert_edits_equal_those_on_the_host(&gpu);
    }
}

/// A cache shares its memory with the residual stream that the next layer edits.
#[test]
fn edits_leave_cached_activations_as_they_are() {
    let model = load_on_gpu(&fixture("tiny"));
    let hooks = [Intervention::zero(Activation::ResidPre.at(1)), Intervention::zero(Activation::K.at(0))];
    let prompt = vec![1, 2, 3, 4, 5];
    let (_, plain) = model.run_with_cache(prompt.clone()).unwrap();
    let (_, cache) = model.hooked(&hooks).unwrap().run_with_cache(prompt).unwrap();
    for activation in [Activation::ResidPre, Activation::K] {
        let layer = usize::from(activation == Activation::ResidPre);
        assert!(cache.get(activation, layer).unwrap().iter().all(|&x| x == 0.0));
    }
    assert_eq!(cache.get(Activation::Q, 0).unwrap(), plain.get(Activation::Q, 0).unwrap());
    assert!(cache.get(Activation::ResidPost, 0).unwrap().iter().any(|&x| x != 0.0));
    let hooks = [hooks[0].clone()];
    let (_, cache) = model.hooked(&hooks).unwrap().run_with_cache(vec![1, 2, 3, 4, 5]).unwrap();
    assert_eq!(cache.get(Activation::ResidPost, 0).unwrap(), plain.get(Activation::ResidPost, 0).unwrap());

    // The activation function of edited neurons.
    let hooks = [Intervention::scale(Activation::MlpPre.at(0), 0.5)];
    let (_, cache) = model.hooked(&hooks).unwrap().run_with_cache(vec![1, 2, 3, 4, 5]).unwrap();
    let half = plain.get(Activation::MlpPre, 0).unwrap() * 0.5;
    assert_close(&cache.get(Activation::MlpPre, 0).unwrap(), &half, 1e-5);
}

#[test]
fn downloaded_weights_equal_the_uploaded_ones() {
    let folder = fixture("odd");
    let cpu = Gpt2::from_pretrained(folder.to_str().unwrap(), LoadOptions::default()).unwrap().weights().unwrap();
    let gpu = load_on_gpu(&folder).weights().unwrap();
    assert_eq!((cpu.w_e, cpu.w_pos, cpu.w_u, cpu.b_u), (gpu.w_e, gpu.w_pos, gpu.w_u, gpu.b_u));
    for (cpu, gpu) in cpu.blocks.iter().zip(&gpu.blocks) {
        assert_eq!((&cpu.w_q, &cpu.b_q, &cpu.w_o, &cpu.b_o), (&gpu.w_q, &gpu.b_q, &gpu.w_o, &gpu.b_o));
        assert_eq!((&cpu.w_in, &cpu.b_in, &cpu.w_out, &cpu.b_out), (&gpu.w_in, &gpu.b_in, &gpu.w_out, &gpu.b_out));
    }
}

#[test]
fn a_device_out_of_range_is_an_error_with_the_number_of_gpus() {
    let error = |device| Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap_err().to_string();
    let expected = "CUDA device 77 out of range: this machine has";
    for device in [Device::cuda(77), Device::dfdx_cuda(77)] {
        assert!(error(device).starts_with(expected), "{}", error(device));
    }
}

/// The folder of the fake driver, from `cargo xtask cuda-check`.
fn fake_cuda() -> PathBuf {
    std::env::var_os("ATTENTION_TOKENS_FAKE_CUDA")
        .expect("`cargo xtask cuda-check` sets the fake driver's folder")
        .into()
}

/// Makes one of the fake libraries available in a folder. As a link, because the three are one file that must be loaded
/// once.
fn link_fake_library(library: &str, folder: &Path) {
    let file = std::fs::canonicalize(fake_cuda().join(library)).unwrap();
    std::os::unix::fs::symlink(file, folder.join(library)).unwrap();
}

/// The last line that `parity` prints on stderr if the system finds only these of NVIDIA's libraries.
fn parity_error(libraries: &[&str], configure: impl Fn(&mut Command) -> &mut Command) -> String {
    let folder = tempfile::tempdir().unwrap();
    for library in libraries {
        link_fake_library(library, folder.path());
    }
    let mut parity = example("parity");
    for variable in ["CUDA_ROOT", "CUDA_PATH", "CUDA_HOME", "CUDA_TOOLKIT_ROOT_DIR", "CONDA_PREFIX"] {
        parity.env_remove(variable);
    }
    parity.arg(fixture("tiny")).arg("cuda").env("LD_LIBRARY_PATH", folder.path());
    let output = configure(&mut parity).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().last().unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs the fake driver, and a machine without NVIDIA's libraries"]
fn a_missing_library_or_gpu_is_named_in_the_error() {
    let (driver, cublas, nvrtc) = ("libcuda.so.1", "libcublas.so.13", "libnvrtc.so.13");
    let cases: [(&[&str], &str, &str); 3] = [
        (
            &[],
            "CUDA needs NVIDIA's driver (libcuda.so.1: cannot open shared object file",
            "install it from nvidia.com/drivers",
        ),
        (
            &[driver],
            "CUDA needs cuBLAS, which comes with the CUDA toolkit (libcublas.so.13: cannot",
            "install CUDA 12 or 13 from",
        ),
        (
            &[driver, cublas],
            "CUDA needs NVRTC, which comes with the CUDA toolkit (libnvrtc.so.13: cannot",
            "set CUDA_ROOT to",
        ),
    ];
    for (libraries, missing, hint) in cases {
        let error = parity_error(libraries, |parity| parity);
        assert!(error.contains(missing) && error.contains(hint), "{error}");
    }
    for devices in ["0", "-1"] {
        let error = parity_error(&[driver, cublas, nvrtc], |parity| parity.env("FAKE_CUDA_DEVICES", devices));
        assert!(error.contains("CUDA needs a GPU") && error.contains("`nvidia-smi` lists what"), "{error}");
    }
}

/// Runs a test of this module in a process of its own, on a fake GPU with `memory` bytes. Returns the fake driver's
/// counts by name.
fn run_alone(test: &str, memory: &str) -> HashMap<String, u64> {
    let folder = tempfile::tempdir().unwrap();
    let (memory_file, calls) = (folder.path().join("memory"), folder.path().join("calls"));
    std::fs::write(&memory_file, memory).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("cuda::{test}"), "--ignored", "--nocapture"]);
    command.env("FAKE_CUDA_MEMORY", memory_file).env("FAKE_CUDA_CALLS", &calls);
    command.env("LD_LIBRARY_PATH", fake_cuda());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let calls = std::fs::read_to_string(calls).unwrap();
    let count = |line: &str| line.split_once(' ').map(|(count, name)| (name.to_owned(), count.parse().unwrap()));
    calls.lines().filter_map(count).collect()
}

/// The file with the fake GPU's memory in bytes, if [`run_alone`] started this process.
fn memory_file() -> Option<PathBuf> {
    std::env::var_os("FAKE_CUDA_MEMORY").map(PathBuf::from)
}

/// NVIDIA's own compiler accepts all kernels.
#[test]
#[ignore = "needs the fake driver and NVRTC"]
fn nvrtc_compiles_the_kernels() {
    if std::env::var_os("WITH_NVRTC").is_some() {
        load_on_gpu(&fixture("tiny"));
        return;
    }
    let nvrtc = std::env::var_os("ATTENTION_TOKENS_NVRTC").expect("`cargo xtask cuda-check` sets NVRTC's folder");
    let folder = tempfile::tempdir().unwrap();
    for library in ["libcuda.so.1", "libcublas.so.13"] {
        link_fake_library(library, folder.path());
    }
    let nvrtc = PathBuf::from(nvrtc);
    // Found by the system in LD_LIBRARY_PATH, then only in the toolkit.
    let paths = std::env::join_paths([folder.path(), &nvrtc]).unwrap();
    for (paths, root) in [(paths.as_os_str(), Path::new("/")), (folder.path().as_os_str(), nvrtc.parent().unwrap())] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "cuda::nvrtc_compiles_the_kernels", "--ignored"]);
        command.env("LD_LIBRARY_PATH", paths).env("CUDA_ROOT", root).env("WITH_NVRTC", "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
