use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use attention_tokens::prelude::*;
use ndarray::ArrayD;

use crate::support::{assert_close, example, fixture, load, root};

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

/// Runs a test of this file by itself, with a number of bytes in a file for the stand-in; gives what it counted.
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

#[test]
#[ignore = "needs the stand-in"]
fn out_of_memory_is_an_error_and_the_model_stays() {
    let Some(file) = memory_file() else {
        alone("out_of_memory_is_an_error_and_the_model_stays", "1000000000");
        return;
    };
    let memory = |bytes: &str| std::fs::write(&file, bytes).unwrap();
    let model = on_card(&fixture("tiny"));
    let prompt = vec![1, 2, 3, 4, 5, 6];
    let (logits, cache) = model.run_with_cache(prompt.clone()).unwrap();
    let data = head_data(&model, &cache, 1, 2, DecodeOptions::default()).unwrap();
    memory("1000"); // less than the model has
    let problems = [
        model.forward(prompt.clone()).unwrap_err(),
        head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap_err(),
        Gpt2::from_pretrained(fixture("odd").to_str().unwrap(), LoadOptions::default().device(Device::cuda(0)))
            .unwrap_err(),
    ];
    for problem in problems {
        let text = problem.to_string();
        assert!(matches!(problem, Error::Device { .. }), "{text}");
        assert!(
            text.starts_with("CUDA device 0: ")
                && text.contains("out of memory: ")
                && text.contains(" MB were asked for, 0 of 1 MB are free"),
            "{text}"
        );
    }
    memory("1000000000");
    assert_eq!(model.forward(prompt).unwrap(), logits);
    assert_eq!(head_data(&model, &cache, 1, 2, DecodeOptions::default()).unwrap().prompts[0].qk, data.prompts[0].qk);
    head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap();
}

/// Loading has nothing twice on the card, a run gives back what it took, and so does the model.
#[test]
#[ignore = "needs the stand-in"]
fn memory_of_a_card_is_given_back() {
    if memory_file().is_some() {
        return drop(on_card(&root().join("crate/demo-model")));
    }
    let calls = alone("memory_of_a_card_is_given_back", "1000000000");
    assert_eq!(calls["cuMemAllocAsync"], calls["cuMemFreeAsync"]);
    let config = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap().config().clone();
    let (d_model, d_vocab) = (config.d_model as u64, config.d_vocab as u64);
    let blocks = config.n_layers as u64 * (12 * d_model * d_model + 9 * d_model + 4 * d_model);
    let parameters = 4 * (blocks + (2 * d_vocab + config.n_ctx as u64) * d_model + d_vocab);
    assert!(calls["bytes"] <= parameters, "{} bytes, the parameters have {parameters}", calls["bytes"]);

    let calls = alone("a_run_of_everything", "1000000000");
    assert_eq!(calls["cuMemAllocAsync"], calls["cuMemFreeAsync"]);
}

#[test]
#[ignore = "needs the stand-in, and is run by another test"]
fn a_run_of_everything() {
    let model = on_card(&fixture("tiny"));
    let (_, cache) = model.run_with_cache(vec![vec![1, 2, 3, 4], vec![5, 6]]).unwrap();
    all_heads_data(&model, &cache, DecodeOptions::default()).unwrap();
}

/// How many bytes of the card are in use.
fn used() -> usize {
    let (free, total) = cudarc::driver::result::mem_get_info().unwrap();
    total - free
}

/// Every activation of every prompt.
fn look_at_all(cache: &ActivationCache) -> Vec<ArrayD<f32>> {
    let mut all = Vec::new();
    for prompt in 0..cache.n_prompts() {
        let cache = cache.prompt(prompt).unwrap();
        for layer in 0..cache.n_layers() {
            all.extend(Activation::ALL.map(|activation| cache.get(activation, layer).unwrap()));
        }
    }
    all
}

const RAGGED: [&[u32]; 3] = [&[1, 2, 3, 4, 5, 6], &[7, 8], &[9, 10, 11, 12, 13, 14]];

fn ragged() -> Vec<Vec<u32>> {
    RAGGED.map(<[u32]>::to_vec).to_vec()
}

/// Looked at, an activation is on the host, and no more on the card; dropped, it is on neither.
#[test]
#[ignore = "needs the stand-in"]
fn a_cache_stays_on_the_card_until_somebody_looks() {
    if memory_file().is_none() {
        alone("a_cache_stays_on_the_card_until_somebody_looks", "1000000000");
        return;
    }
    let model = on_card(&fixture("tiny"));
    let config = model.config();
    let before = used();
    let run = || model.run_with_cache(ragged()).unwrap().1;
    let cache = run();
    // Each number once: the stream before the first block; in each q, k and v, z, what attention adds, the stream behind it,
    // what the MLP adds, the stream behind that.
    let pos: usize = RAGGED.iter().map(|prompt| prompt.len()).sum();
    let squares: usize = RAGGED.iter().map(|prompt| prompt.len() * prompt.len()).sum();
    let expected = (1 + 8 * config.n_layers) * pos * config.d_model + config.n_layers * config.n_heads * squares;
    assert_eq!(used() - before, 4 * expected);
    let own = cache.prompt(1).unwrap();
    drop(cache);
    assert!(used() > before, "a prompt's cache has what is its own");
    look_at_all(&own);
    assert_eq!(used(), before);
    let cache = run();
    look_at_all(&cache);
    assert_eq!(used(), before);
    drop(run());
    assert_eq!(used(), before);
}

/// A quarter of the card: what is beyond comes to the host at once, and nobody sees a difference.
#[test]
#[ignore = "needs the stand-in"]
fn caches_keep_so_much_of_a_card_and_no_more() {
    let Some(file) = memory_file() else {
        alone("caches_keep_so_much_of_a_card_and_no_more", "40000");
        return;
    };
    assert_eq!(Device::auto(), Device::cuda(0)); // opens it, while it is small
    std::fs::write(file, "1000000000").unwrap();
    let model = on_card(&fixture("tiny"));
    let before = used();
    let caches: Vec<ActivationCache> = (0..3).map(|_| model.run_with_cache(ragged()).unwrap().1).collect();
    let kept = used() - before;
    assert!((5_000..=10_000).contains(&kept), "{kept} bytes");
    let first = look_at_all(&caches[0]);
    assert!(look_at_all(&caches[1]) == first && look_at_all(&caches[2]) == first);
    assert_eq!(used(), before);
    let (_, cpu) = load(&fixture("tiny")).unwrap().run_with_cache(ragged()).unwrap();
    for (got, want) in first.iter().zip(look_at_all(&cpu)) {
        let finite = |x: &ArrayD<f32>| x.mapv(|x| if x.is_finite() { x } else { 0.0 });
        assert_close(&finite(got), &finite(&want), 1e-4);
    }
}

/// The work of one forward pass: what was counted with three of them, less what was with two.
fn calls_of_a_forward_pass(kind: &str) -> HashMap<String, u64> {
    let counted = |times: &str| alone(&format!("{times}_forward_passes_{kind}"), "1000000000");
    let (two, three) = (counted("two"), counted("three"));
    three.into_iter().map(|(name, count)| (name.clone(), count - two.get(&name).unwrap_or(&0))).collect()
}

#[test]
#[ignore = "needs the stand-in"]
fn a_forward_pass_waits_for_nothing_but_its_logits() {
    let calls = calls_of_a_forward_pass("of_our_kernels");
    let of = |name: &str| calls.get(name).copied().unwrap_or(0);
    let n_layers = 2;
    assert_eq!(of("kernel layer_norm"), 2 * n_layers + 1);
    assert_eq!(of("cuLaunchKernel"), 9 * n_layers + 3);
    assert_eq!((of("cublasSgemm_v2"), of("cublasSgemmStridedBatched")), (3 * n_layers + 1, 3 * n_layers));
    assert_eq!((of("cuMemcpyHtoD_v2"), of("cuMemcpyDtoH_v2")), (2, 1)); // token ids and positions; logits
    assert_eq!(of("cuStreamSynchronize"), 0);
}

#[test]
#[ignore = "needs the stand-in"]
fn a_run_with_a_cache_copies_no_more_than_one_without() {
    let calls = calls_of_a_forward_pass("with_a_cache");
    let without = calls_of_a_forward_pass("of_our_kernels");
    for name in ["cuLaunchKernel", "cublasSgemm_v2", "cublasSgemmStridedBatched", "cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2"]
    {
        assert_eq!(calls[name], without[name], "{name}");
    }
}

/// Prompts of one length are one product and one softmax, however many.
#[test]
#[ignore = "needs the stand-in"]
fn attention_is_launched_once_a_length() {
    let calls = calls_of_a_forward_pass("of_a_batch");
    let of = |name: &str| calls.get(name).copied().unwrap_or(0);
    let n_layers = 2;
    assert_eq!((of("kernel list_heads"), of("kernel causal_softmax")), (n_layers, 2 * n_layers));
    assert_eq!((of("cublasSgemmBatched"), of("cublasSgemmStridedBatched")), (2 * n_layers, 3 * n_layers));
}

/// Why there are kernels of our own: dfdx's operations launch several times as many, and copy from the host for most of them.
#[test]
#[ignore = "needs the stand-in"]
fn dfdx_asks_a_card_for_several_times_as_much() {
    let work = |kind| {
        let calls = calls_of_a_forward_pass(kind);
        let of = |names: &[&str]| -> u64 { names.iter().map(|&name| calls.get(name).copied().unwrap_or(0)).sum() };
        let launches = of(&["cuLaunchKernel", "cublasSgemm_v2", "cublasSgemmStridedBatched"]);
        (
            launches,
            of(&["cuMemcpyHtoD_v2"]),
            of(&["cuMemAllocAsync", "cuMemFreeAsync", "cuMemsetD8Async", "cuMemcpyDtoDAsync_v2"]),
        )
    };
    let (ours, dfdx) = (work("of_our_kernels"), work("of_dfdx"));
    println!(
        "launches, copies from the host, and calls about memory, of a forward pass of two layers: {ours:?}, by dfdx {dfdx:?}"
    );
    assert!(dfdx.0 > 2 * ours.0 && dfdx.1 > 20 * ours.1 && dfdx.2 > 2 * ours.2, "{ours:?}, by dfdx {dfdx:?}");
}

/// Tests that others run alone.
macro_rules! forward_passes {
    ($($name:ident: $times:literal times $run:ident on $device:ident of $prompts:expr,)*) => {
        $(
            #[test]
            #[ignore = "needs the stand-in, and is run by another test"]
            fn $name() {
                let options = LoadOptions::default().device(Device::$device(0));
                let model = Gpt2::from_pretrained(fixture("tiny").to_str().unwrap(), options).unwrap();
                (0..$times).for_each(|_| drop(model.$run($prompts).unwrap()));
            }
        )*
    };
}

forward_passes! {
    two_forward_passes_with_a_cache: 2 times run_with_cache on cuda of vec![1, 2, 3],
    three_forward_passes_with_a_cache: 3 times run_with_cache on cuda of vec![1, 2, 3],
    two_forward_passes_of_our_kernels: 2 times forward on cuda of vec![1, 2, 3],
    three_forward_passes_of_our_kernels: 3 times forward on cuda of vec![1, 2, 3],
    two_forward_passes_of_a_batch: 2 times forward on cuda of vec![vec![1, 2, 3], vec![4, 5], vec![6, 7, 8], vec![9, 10, 11]],
    three_forward_passes_of_a_batch: 3 times forward on cuda of vec![vec![1, 2, 3], vec![4, 5], vec![6, 7, 8], vec![9, 10, 11]],
    two_forward_passes_of_dfdx: 2 times forward on dfdx_cuda of vec![1, 2, 3],
    three_forward_passes_of_dfdx: 3 times forward on dfdx_cuda of vec![1, 2, 3],
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
