//! Benchmarks of every stage: loading, the forward pass, activation caches, decoding.
//!
//!     cargo bench
//!     ATTENTION_TOKENS_MODEL=FOLDER cargo bench
//!
//! Without a folder the demo model is timed. Prompts are cut to the model's context. `side_by_side.py` compares the
//! same stages with TransformerLens.

use std::sync::LazyLock;

use attention_tokens::prelude::*;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

static NAME: LazyLock<String> =
    LazyLock::new(|| std::env::var("ATTENTION_TOKENS_MODEL").unwrap_or_else(|_| "demo".into()));
static MODEL: LazyLock<Gpt2> = LazyLock::new(|| load(LoadOptions::default()));

fn load(options: LoadOptions) -> Gpt2 {
    Gpt2::from_pretrained(NAME.as_str(), options).unwrap()
}

/// Shape: `[pos]`
fn prompt(len: usize) -> Vec<u32> {
    let (len, d_vocab) = (len.min(MODEL.config().n_ctx), MODEL.config().d_vocab);
    let mut random = fastrand::Rng::with_seed(len as u64);
    (0..len).map(|_| random.u32(..d_vocab as u32)).collect()
}

fn cache(len: usize) -> ActivationCache {
    MODEL.run_with_cache(prompt(len)).unwrap().1
}

#[divan::bench(sample_count = 5)]
fn load_with_all_processing() -> Gpt2 {
    load(LoadOptions::default())
}

#[divan::bench(sample_count = 5)]
fn load_without_processing() -> Gpt2 {
    load(LoadOptions::default().no_processing())
}

#[divan::bench(args = [13, 128, 512, 1024], max_time = 3)]
fn forward(bencher: Bencher, len: usize) {
    let prompt = prompt(len);
    bencher.bench(|| MODEL.forward(prompt.clone()).unwrap());
}

#[divan::bench(args = [13, 128, 512, 1024], max_time = 3)]
fn run_with_cache(bencher: Bencher, len: usize) {
    let prompt = prompt(len);
    bencher.bench(|| MODEL.run_with_cache(prompt.clone()).unwrap());
}

#[divan::bench(args = [13, 128, 512, 1024], max_time = 3)]
fn run_with_cache_no_logits(bencher: Bencher, len: usize) {
    let prompt = prompt(len);
    let options = RunOptions::default().no_logits();
    bencher.bench(|| MODEL.run_with_cache_options(prompt.clone(), options.clone()).unwrap());
}

#[divan::bench(args = [13, 128], max_time = 3)]
fn forward_on_dfdx(bencher: Bencher, len: usize) {
    static DFDX: LazyLock<Gpt2> = LazyLock::new(|| load(LoadOptions::default().device(Device::dfdx_cpu())));
    let prompt = prompt(len);
    bencher.bench(|| DFDX.forward(prompt.clone()).unwrap());
}

#[divan::bench(args = [13, 64], max_time = 3)]
fn one_head_cached(bencher: Bencher, len: usize) {
    let cache = cache(len);
    bencher.bench(|| head_data(&MODEL, &cache, 0, 1, DecodeOptions::default()).unwrap());
}

#[divan::bench(args = [13], max_time = 3)]
fn one_head_uncached(bencher: Bencher, len: usize) {
    static UNCACHED: LazyLock<Gpt2> = LazyLock::new(|| load(LoadOptions::default().decode_cache_bytes(0)));
    let cache = cache(len);
    bencher.bench(|| head_data(&UNCACHED, &cache, 0, 1, DecodeOptions::default()).unwrap());
}

#[divan::bench(sample_count = 5)]
fn all_heads_cached(bencher: Bencher) {
    let cache = cache(13);
    let decode_all = || all_heads_data(&MODEL, black_box(&cache), DecodeOptions::default()).unwrap();
    (0..2).for_each(|_| drop(decode_all())); // The second run fills the decoding cache.
    bencher.bench_local(decode_all);
}
