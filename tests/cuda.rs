mod calls;
mod memory;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use attention_tokens::prelude::*;

use crate::support::{assert_close, example, fixture, root};

fn on_card(folder: &Path) -> Gpt2 {
    Gpt2::from_pretrained(folder.to_str().unwrap(), LoadOptions::default().device(Device::cuda(0))).unwrap()
}

#[test]
fn every_golden_number_on_a_card() {
    let folders = [(fixture("tiny"), 214), (fixture("odd"), 289), (root().join("crate/demo-model"), 39)];
    for (folder, quantities) in folders {
        let output = example("parity").arg(folder).arg("cuda").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().last(), Some(format!("parity: {quantities} quantities, 0 failed").as_str()), "{text}");
    }
}

/// What a batch gives is what its prompts give alone (within rounding: cuBLAS may add in another order for another shape), and
/// the same bits each time, from any thread.
#[test]
fn a_card_computes_the_same_alone_in_a_batch_and_from_many_threads() {
    let model = on_card(&fixture("tiny"));
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
                let (own, own_cache, tokens) = run();
                assert_close(&own[0], &logits[index], 1e-5);
                let of_batch = cache.prompt(index).unwrap();
                for activation in [Activation::Q, Activation::Pattern, Activation::Z, Activation::ResidPost] {
                    assert_close(&own_cache.get(activation, 1).unwrap(), &of_batch.get(activation, 1).unwrap(), 1e-5);
                }
                for _ in 0..2 {
                    let (again, cache_again, tokens_again) = run();
                    assert_eq!((again, tokens_again), (own.clone(), tokens.clone()));
                    for activation in Activation::ALL {
                        let (one, other) =
                            (own_cache.get(activation, 1).unwrap(), cache_again.get(activation, 1).unwrap());
                        assert_eq!(one, other, "{activation:?}");
                    }
                }
            });
        }
    });
}

/// The weights come back as they went.
#[test]
fn weights_on_a_card_are_those_of_the_file() {
    let folder = fixture("odd");
    let cpu = Gpt2::from_pretrained(folder.to_str().unwrap(), LoadOptions::default()).unwrap().weights().unwrap();
    let card = on_card(&folder).weights().unwrap();
    assert_eq!((cpu.w_e, cpu.w_pos, cpu.w_u, cpu.b_u), (card.w_e, card.w_pos, card.w_u, card.b_u));
    for (cpu, card) in cpu.blocks.iter().zip(&card.blocks) {
        assert_eq!((&cpu.w_q, &cpu.b_q, &cpu.w_o, &cpu.b_o), (&card.w_q, &card.b_q, &card.w_o, &card.b_o));
        assert_eq!((&cpu.w_in, &cpu.b_in, &cpu.w_out, &cpu.b_out), (&card.w_in, &card.b_in, &card.w_out, &card.b_out));
    }
}

/// A card that is not there is named, with how many there are.
#[test]
fn a_card_that_is_not_there() {
    let load = |device| Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap_err().to_string();
    let expected = "CUDA device 77 out of range: this machine has";
    assert!(load(Device::cuda(77)).starts_with(expected), "{}", load(Device::cuda(77)));
    assert!(load(Device::dfdx_cuda(77)).starts_with(expected), "{}", load(Device::dfdx_cuda(77)));
}

/// Where the stand-in lies, as `cargo xtask cuda-check` says.
fn stand_in() -> PathBuf {
    std::env::var_os("ATTENTION_TOKENS_STAND_IN").expect("`cargo xtask cuda-check` says where the stand-in lies").into()
}

/// A link: what is one file is loaded once.
fn lend(library: &str, folder: &Path) {
    let file = std::fs::canonicalize(stand_in().join(library)).unwrap();
    std::os::unix::fs::symlink(file, folder.join(library)).unwrap();
}

/// What `parity` says on a card if the system finds only these files of NVIDIA's.
fn parity_with(libraries: &[&str], set: impl Fn(&mut Command) -> &mut Command) -> String {
    let folder = tempfile::tempdir().unwrap();
    for library in libraries {
        lend(library, folder.path());
    }
    let mut parity = example("parity");
    for variable in ["CUDA_ROOT", "CUDA_PATH", "CUDA_HOME", "CUDA_TOOLKIT_ROOT_DIR", "CONDA_PREFIX"] {
        parity.env_remove(variable);
    }
    parity.arg(fixture("tiny")).arg("cuda").env("LD_LIBRARY_PATH", folder.path());
    let output = set(&mut parity).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().last().unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs the stand-in, and a machine without NVIDIA's libraries"]
fn what_is_missing_is_named() {
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
        let said = parity_with(libraries, |parity| parity);
        assert!(said.contains(missing) && said.contains(hint), "{said}");
    }
    for devices in ["0", "-1"] {
        let said = parity_with(&[driver, cublas, nvrtc], |parity| parity.env("STAND_IN_DEVICES", devices));
        assert!(said.contains("CUDA needs a GPU") && said.contains("`nvidia-smi` says what"), "{said}");
    }
}

/// Runs a test of these files by itself, with a number of bytes in a file for the stand-in; gives what it counted.
fn alone(test: &str, memory: &str) -> HashMap<String, u64> {
    let folder = tempfile::tempdir().unwrap();
    let (memory_file, calls) = (folder.path().join("memory"), folder.path().join("calls"));
    std::fs::write(&memory_file, memory).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("cuda::{test}"), "--ignored", "--nocapture"]);
    command.env("STAND_IN_MEMORY", memory_file).env("STAND_IN_CALLS", &calls);
    command.env("LD_LIBRARY_PATH", stand_in());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let calls = std::fs::read_to_string(calls).unwrap();
    let count = |line: &str| line.split_once(' ').map(|(count, name)| (name.to_owned(), count.parse().unwrap()));
    calls.lines().filter_map(count).collect()
}

/// Whether [`alone`] runs this test, and the file that says how much memory there is.
fn memory_file() -> Option<PathBuf> {
    std::env::var_os("STAND_IN_MEMORY").map(PathBuf::from)
}

/// NVIDIA's own compiler takes the kernels, all of them.
#[test]
#[ignore = "needs the stand-in and NVRTC"]
fn nvrtc_compiles_the_kernels() {
    if std::env::var_os("WITH_NVRTC").is_some() {
        on_card(&fixture("tiny"));
        return;
    }
    let nvrtc = std::env::var_os("ATTENTION_TOKENS_NVRTC").expect("`cargo xtask cuda-check` says where NVRTC lies");
    let folder = tempfile::tempdir().unwrap();
    for library in ["libcuda.so.1", "libcublas.so.13"] {
        lend(library, folder.path());
    }
    let nvrtc = PathBuf::from(nvrtc);
    // Where the system looks, and where the toolkit alone is.
    let paths = std::env::join_paths([folder.path(), &nvrtc]).unwrap();
    for (paths, root) in [(paths.as_os_str(), Path::new("/")), (folder.path().as_os_str(), nvrtc.parent().unwrap())] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "cuda::nvrtc_compiles_the_kernels", "--ignored"]);
        command.env("LD_LIBRARY_PATH", paths).env("CUDA_ROOT", root).env("WITH_NVRTC", "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
