//! What a card has in its memory, and when it is given back.

use attention_tokens::prelude::*;
use ndarray::ArrayD;

use super::{alone, memory_file, on_card};
use crate::support::{assert_close, fixture, load, root};

#[test]
#[ignore = "needs the stand-in"]
fn out_of_memory_is_an_error_and_the_model_stays() {
    let Some(file) = memory_file() else {
        alone("memory::out_of_memory_is_an_error_and_the_model_stays", "1000000000");
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
    let calls = alone("memory::memory_of_a_card_is_given_back", "1000000000");
    assert_eq!(calls["cuMemAllocAsync"], calls["cuMemFreeAsync"]);
    let config = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap().config().clone();
    let (d_model, d_vocab) = (config.d_model as u64, config.d_vocab as u64);
    let blocks = config.n_layers as u64 * (12 * d_model * d_model + 9 * d_model + 4 * d_model);
    let parameters = 4 * (blocks + (2 * d_vocab + config.n_ctx as u64) * d_model + d_vocab);
    assert!(calls["bytes"] <= parameters, "{} bytes, the parameters have {parameters}", calls["bytes"]);

    let calls = alone("memory::a_run_of_everything", "1000000000");
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
        alone("memory::a_cache_stays_on_the_card_until_somebody_looks", "1000000000");
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
        alone("memory::caches_keep_so_much_of_a_card_and_no_more", "40000");
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
