//! Times every stage of a model and prints JSON: the Rust half of `benches/side_by_side.py`.
//!
//!     cargo run --release --example timings -- FOLDER [13,64,128,512,1024 [--lines]]
//!
//! An empty list of lengths leaves generation, the analysis of a run and that of the weights, which are always timed.
//! With `--lines` it prints only the timings that depend on the prompt's length, as lines `length name seconds`. A
//! timing is the median of 5 runs after 2 warm-ups, with rayon's default number of threads (`RAYON_NUM_THREADS`). The
//! folder needs no tokenizer: prompts are random token ids, which cost the same as any others.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use attention_tokens::{ndarray, prelude::*};
use rten_gemm::{GemmExecutor, GemmInT, GemmInputA, GemmInputB, GemmOptions, GemmOutT};
use rten_tensor::NdTensorView;
use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: timings FOLDER [LENGTHS]")?;
    let lengths = args.next().unwrap_or("13,64,128,512,1024".into());
    let lines = args.next().is_some_and(|flag| flag == "--lines");

    let start = Instant::now();
    let model = Gpt2::from_pretrained(&folder, LoadOptions::default())?;
    let load_s = start.elapsed().as_secs_f64();
    let load_peak_bytes = peak_bytes();

    let mut rows = Map::new();
    for length in lengths.split(',').filter(|length| !length.is_empty()) {
        rows.insert(length.into(), at_length(&model, length.parse()?)?);
    }
    if lines {
        for (length, row) in &rows {
            row.as_object().into_iter().flatten().for_each(|(name, seconds)| println!("{length} {name} {seconds}"));
        }
        return Ok(());
    }
    let (parameter_bytes, peak) = (parameter_bytes(&model)?, peak_bytes());
    let analysis = analysis(&model)?;
    drop(model);
    let heads = if rows.contains_key("13") { all_heads(&folder)? } else { Value::Null };
    let report = json!({
        "threads": rayon::current_num_threads(),
        "load_s": load_s,
        "load_peak_bytes": load_peak_bytes,
        "parameter_bytes": parameter_bytes,
        "lengths": rows,
        "all_heads": heads,
        "analysis": analysis,
        "gemm_gflops": gemm_rate(GemmExecutor::<f32>::new(), (1.0, 2.0))?,
        "integer_gops": gemm_rate(GemmExecutor::<u8, i8, i32>::new(), (1, 2))?,
        "read_gbs": read_gbs()?,
        "peak_bytes": peak,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn at_length(model: &Gpt2, length: usize) -> Result<Value> {
    let prompt = random_tokens(length, model.config().d_vocab);
    let mut row = json!({
        "run_with_cache_s": timed(|| model.run_with_cache(prompt.clone()))?,
        "run_with_cache_no_logits_s": timed(|| {
            model.run_with_cache_options(prompt.clone(), RunOptions::default().no_logits())
        })?,
        "forward_s": timed(|| model.forward(prompt.clone()))?,
    });
    if length <= 128 {
        let (_, cache) = model.run_with_cache(prompt)?;
        let mut seconds = 0.0;
        let heads = some_heads(model);
        for &(layer, head) in &heads {
            seconds += timed(|| head_data(model, &cache, layer, head, Default::default()))?;
        }
        row["attention_tokens_one_head_s"] = json!(seconds / heads.len() as f64);
    }
    Ok(row)
}

/// Times the decoding of all heads of a newly loaded model at 13 tokens: the first time; the second time, which fills
/// the decoding cache because each head has decoded enough vectors by then; and after that.
fn all_heads(folder: &str) -> Result<Value> {
    reset_peak();
    let model = &Gpt2::from_pretrained(folder, LoadOptions::default())?;
    let prompt = random_tokens(13, model.config().d_vocab);
    let (_, cache) = model.run_with_cache(prompt)?;
    let decode_once = || {
        let start = Instant::now();
        black_box(all_heads_data(model, &cache, DecodeOptions::default())?);
        Ok::<_, Box<dyn Error>>(start.elapsed().as_secs_f64())
    };
    let (first_s, caching_s) = (decode_once()?, decode_once()?);
    let cached_s = timed(|| all_heads_data(model, &cache, DecodeOptions::default()))?;
    let peak_bytes = peak_bytes();

    let uncached = Gpt2::from_pretrained(folder, LoadOptions::default().decode_cache_bytes(0))?;
    let mut one_head_first_s = 0.0;
    let heads = some_heads(model);
    for &(layer, head) in &heads {
        one_head_first_s += timed(|| head_data(&uncached, &cache, layer, head, Default::default()))?;
    }
    Ok(json!({
        "first_s": first_s,
        "caching_s": caching_s,
        "cached_s": cached_s,
        "one_head_first_s": one_head_first_s / heads.len() as f64,
        "peak_bytes": peak_bytes,
    }))
}

/// Times the generation of 50 tokens after 13, the analysis of a run of 15 tokens, and that of the weights. The numbers
/// that come out are in the report too, so that
/// `side_by_side.py` can hold them against those of `reference.py`, which runs the same tokens.
fn analysis(model: &Gpt2) -> Result<Value> {
    let d_vocab = model.config().d_vocab;
    let prompt: Vec<u32> = (0..15).map(|pos| ((7919 * pos + 15) % d_vocab) as u32).collect();
    let answer = prompt[0];
    let (_, cache) = model.run_with_cache(prompt.clone())?;
    let (lens_s, lens) = timed_with_result(|| cache.logit_lens(model, &[answer]))?;
    let (attrs_s, attrs) = timed_with_result(|| cache.head_logit_attrs(model, answer, None))?;
    let (stack_s, stack) = timed_with_result(|| cache.stack_head_results(model, None, false))?;
    // A result of this size is compared by its squared norms.
    let norms = stack.values.map_axis(ndarray::Axis(2), |row| row.dot(&row)); // [component, pos]
    let options = GenerateOptions::default().max_new_tokens(50).do_sample(false).stop_at_eos(false);
    let (generate_s, generated) = timed_with_result(|| model.generate(prompt[..13].to_vec(), options.clone()))?;
    let mut rows = json!({
        "generate_50": {"s": generate_s, "tokens": generated.tokens[0]},
        "logit_lens": {"s": lens_s, "values": numbers(&lens.logits), "tokens": numbers(&lens.tokens)},
        "head_logit_attrs": {"s": attrs_s, "values": numbers(&attrs)},
        "stack_head_results": {"s": stack_s, "values": numbers(&norms)},
    });
    for (name, mode) in [("Q", Composition::Q), ("K", Composition::K), ("V", Composition::V)] {
        let (s, composition) = timed_with_result(|| model.all_composition_scores(mode))?;
        rows[format!("composition_{name}")] = json!({"s": s, "values": numbers(&composition.scores)});
    }
    Ok(rows)
}

/// The numbers of an array, in row-major order.
fn numbers<T: serde::Serialize, D: ndarray::Dimension>(array: &ndarray::Array<T, D>) -> Value {
    json!(array.iter().collect::<Vec<_>>())
}

/// The three heads that `reference.py` times, as (layer, head), with indices wrapped for a smaller model.
fn some_heads(model: &Gpt2) -> Vec<(usize, usize)> {
    let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
    [(0, 1), (4, 5), (10, 7)].map(|(layer, head)| (layer % n_layers, head % n_heads)).to_vec()
}

/// [`timed`], and the result of one more run.
fn timed_with_result<T>(mut run: impl FnMut() -> attention_tokens::Result<T>) -> Result<(f64, T)> {
    Ok((timed(&mut run)?, run()?))
}

/// The median seconds of 5 runs, after 2 warm-ups.
fn timed<T>(mut run: impl FnMut() -> attention_tokens::Result<T>) -> Result<f64> {
    run()?;
    run()?;
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        drop(black_box(run()?));
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[2])
}

/// Shape: `[pos]`
fn random_tokens(length: usize, d_vocab: usize) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| random.u32(..d_vocab as u32)).collect()
}

/// The size of the checkpoint's parameters in float32. A tied unembedding counts once.
fn parameter_bytes(model: &Gpt2) -> Result<usize> {
    let config = model.config();
    let block =
        4 * config.d_model * config.d_model + 2 * config.d_model * config.d_mlp + 9 * config.d_model + config.d_mlp;
    let unembed = if config.tie_word_embeddings { 0 } else { config.d_vocab * config.d_model };
    let embed = (config.d_vocab + config.n_ctx) * config.d_model;
    Ok(4 * (config.n_layers * block + embed + unembed + 2 * config.d_model))
}

/// Resets [`peak_bytes`]. Linux only; elsewhere it does nothing.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The process's peak resident memory since its start or the last [`reset_peak`]. `None` on systems other than Linux.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}

/// The best rate of `rten-gemm` in GFLOP/s or GOP/s, for a product of two packed 1024 × 1024 matrices with all threads.
fn gemm_rate<A: GemmInT, B: GemmInT, C: GemmOutT>(gemm: GemmExecutor<A, B, C>, (a, b): (A, B)) -> Result<f64> {
    const N: usize = 1024;
    let (a, b) = (vec![a; N * N], vec![b; N * N]);
    let a = gemm.prepack_a(NdTensorView::from_data([N, N], a.as_slice()));
    let b = gemm.prepack_b(NdTensorView::from_data([N, N], b.as_slice()));
    let mut c = vec![C::default(); N * N];
    let mut best = f64::INFINITY;
    for _ in 0..40 {
        let start = Instant::now();
        gemm.gemm(&mut c, GemmInputA::Packed(&a), GemmInputB::Packed(&b), GemmOptions::default())?;
        black_box(&mut c);
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2e-9 * (N as f64).powi(3) / best)
}

/// The best rate in GB/s at which all threads together read memory, in huge pages where Linux grants them, as weights are.
fn read_gbs() -> Result<f64> {
    use rayon::prelude::*;
    let mut memory = memmap2::MmapMut::map_anon(256 << 20)?;
    #[cfg(target_os = "linux")]
    memory.advise(memmap2::Advice::HugePage)?;
    let numbers: &mut [f32] = bytemuck::cast_slice_mut(&mut memory);
    numbers.fill(1.0);
    let numbers = &*numbers;
    let sum = |piece: &[f32]| {
        let mut lanes = [0.0_f32; 64];
        piece.chunks_exact(64).for_each(|x| lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane += x));
        lanes.iter().sum::<f32>()
    };
    let best = (0..10).map(|_| {
        let start = Instant::now();
        black_box(numbers.par_chunks(1 << 16).map(sum).sum::<f32>());
        start.elapsed().as_secs_f64()
    });
    Ok(4e-9 * numbers.len() as f64 / best.fold(f64::INFINITY, f64::min))
}
