//! GPU memory: out of memory, how much a model and its caches take, and when it is freed.

use attention_tokens::prelude::*;
use ndarray::ArrayD;

use super::{load_on_gpu, memory_file, run_alone};
use crate::support::{assert_close, fixture, load, root};

#[test]
#[ignore = "needs the fake driver"]
fn the_model_is_usable_after_out_of_memory() {
    let Some(file) = memory_file() else {
        run_alone("memory::the_model_is_usable_after_out_of_memory", "1000000000");
        return;
    };
    let set_memory = |bytes: &str| std::fs::write(&file, bytes).unwrap();
    let model = load_on_gpu(&fixture("tiny"));
    let prompt = vec![1, 2, 3, 4, 5, 6];
    let (logits, cache) = model.run_with_cache(prompt.clone()).unwrap();
    let data = head_data(&model, &cache, 1, 2, DecodeOptions::default()).unwrap();
    set_memory("1000"); // less than the model takes
    let errors = [
        model.forward(prompt.clone()).unwrap_err(),
        head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap_err(),
        Gpt2::from_pretrained(fixture("odd").to_str().unwrap(), LoadOptions::default().device(Device::cuda(0)))
            .unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(matches!(error, Error::Device { .. }), "{text}");
        assert!(
            text.starts_with("CUDA device 0: ")
                && text.contains("out of memory: ")
                && text.contains(" MB requested, 0 of 1 MB are free"),
            "{text}"
        );
    }
    set_memory("1000000000");
    assert_eq!(model.forward(prompt).unwrap(), logits);
    assert_eq!(head_data(&model, &cache, 1, 2, DecodeOptions::default()).unwrap().prompts[0].qk, data.prompts[0].qk);
    head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap();
}

/// Loading never allocates more than the parameters. Everything that a run or a model allocates is freed.
#[test]
#[ignore = "needs the fake driver"]
fn all_memory_is_freed() {
    if memory_file().is_some() {
        return drop(load_on_gpu(&root().join("crate/demo-model")));
    }
    let calls = run_alone("memory::all_memory_is_freed", "1000000000");
    assert_eq!(calls["cuMemAllocAsync"], calls["cuMemFreeAsync"]);
    let config = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap().config().clone();
    let (d_model, d_vocab) = (config.d_model as u64, config.d_vocab as u64);
    let blocks = config.n_layers as u64 * (12 * d_model * d_model + 9 * d_model + 4 * d_model);
    let parameters = 4 * (blocks + (2 * d_vocab + config.n_ctx as u64) * d_model + d_vocab);
    assert!(calls["bytes"] <= parameters, "{} bytes for {parameters} bytes of parameters", calls["bytes"]);

    let calls = run_alone("memory::run_and_decode_everything", "1000000000");
    assert_eq!(calls["cuMemAllocAsync"], calls["cuMemFreeAsync"]);
}

#[test]
#[ignore = "needs the fake driver, and is run by another test"]
fn run_and_decode_everything() {
    let model = load_on_gpu(&fixture("tiny"));
    let (_, cache) = model.run_with_cache(vec![vec![1, 2, 3, 4], vec![5, 6]]).unwrap();
    all_heads_data(&model, &cache, DecodeOptions::default()).unwrap();
}

/// The number of bytes of GPU memory in use.
fn used_bytes() -> usize {
    let (free, total) = cudarc::driver::result::mem_get_info().unwrap();
    total - free
}

/// Reads every activation of every prompt.
fn read_all(cache: &ActivationCache) -> Vec<ArrayD<f32>> {
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

/// Reading an activation copies it to the host and frees it on the GPU; dropping the cache frees the rest.
#[test]
#[ignore = "needs the fake driver"]
fn activations_stay_on_the_gpu_until_they_are_read() {
    if memory_file().is_none() {
        run_alone("memory::activations_stay_on_the_gpu_until_they_are_read", "1000000000");
        return;
    }
    let model = load_on_gpu(&fixture("tiny"));
    let config = model.config();
    let before = used_bytes();
    let run = || model.run_with_cache(ragged()).unwrap().1;
    let cache = run();
    // Each value is stored once: the first resid_pre; in each block q, k, v, z, attn_out, resid_mid, mlp_out,
    // resid_post; and the patterns.
    let pos: usize = RAGGED.iter().map(|prompt| prompt.len()).sum();
    let pattern_len: usize = RAGGED.iter().map(|prompt| prompt.len() * prompt.len()).sum();
    let expected = (1 + 8 * config.n_layers) * pos * config.d_model + config.n_layers * config.n_heads * pattern_len;
    assert_eq!(used_bytes() - before, 4 * expected);
    let prompt_cache = cache.prompt(1).unwrap();
    drop(cache);
    assert!(used_bytes() > before, "the cache of a prompt holds its activations");
    read_all(&prompt_cache);
    assert_eq!(used_bytes(), before);
    let cache = run();
    read_all(&cache);
    assert_eq!(used_bytes(), before);
    drop(run());
    assert_eq!(used_bytes(), before);
}

/// Caches hold a quarter of the GPU's memory. Further activations are copied to the host at once, with the same values.
#[test]
#[ignore = "needs the fake driver"]
fn caches_hold_at_most_a_quarter_of_the_memory() {
    let Some(file) = memory_file() else {
        run_alone("memory::caches_hold_at_most_a_quarter_of_the_memory", "40000");
        return;
    };
    assert_eq!(Device::auto(), Device::cuda(0)); // opens the GPU while its memory is small
    std::fs::write(file, "1000000000").unwrap();
    let model = load_on_gpu(&fixture("tiny"));
    let before = used_bytes();
    let caches: Vec<ActivationCache> = (0..3).map(|_| model.run_with_cache(ragged()).unwrap().1).collect();
    let cached = used_bytes() - before;
    assert!((5_000..=10_000).contains(&cached), "{cached} bytes");
    let first = read_all(&caches[0]);
    assert!(read_all(&caches[1]) == first && read_all(&caches[2]) == first);
    assert_eq!(used_bytes(), before);
    let (_, cpu) = load(&fixture("tiny")).unwrap().run_with_cache(ragged()).unwrap();
    for (got, want) in first.iter().zip(read_all(&cpu)) {
        let finite = |x: &ArrayD<f32>| x.mapv(|x| if x.is_finite() { x } else { 0.0 });
        assert_close(&finite(got), &finite(&want), 1e-4);
    }
}
