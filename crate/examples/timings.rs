//! Times every stage on a model folder and prints JSON: the Rust half of `benches/side_by_side.py`.
//!
//!     cargo run --release --example timings -- FOLDER [13,64,128,512,1024 [--lines]]
//!
//! With `--lines` it prints only what depends on the length, as lines `length name seconds`.
//! Seconds are medians of 5 after 2 warm-ups, with rayon's default number of threads (`RAYON_NUM_THREADS`). The folder
//! needs no tokenizer: prompts are random token ids, which cost what any others cost.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use attention_tokens::prelude::*;
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
    for length in lengths.split(',') {
        rows.insert(length.into(), at_length(&model, length.parse()?)?);
    }
    if lines {
        for (length, row) in &rows {
            row.as_object().into_iter().flatten().for_each(|(name, seconds)| println!("{length} {name} {seconds}"));
        }
        return Ok(());
    }
    let (parameter_bytes, peak) = (parameter_bytes(&model)?, peak_bytes());
    drop(model);
    let heads = if rows.contains_key("13") { all_heads(&folder)? } else { Value::Null };
    let report = json!({
        "threads": rayon::current_num_threads(),
        "load_s": load_s,
        "load_peak_bytes": load_peak_bytes,
        "parameter_bytes": parameter_bytes,
        "lengths": rows,
        "all_heads": heads,
        "gemm_gflops": gemm_gflops(),
        "integer_gops": integer_gops()?,
        "read_gbs": read_gbs(),
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

/// A new model's heads at 13 tokens: the first time, the second, when they have decoded enough to be worth folding, and
/// then.
fn all_heads(folder: &str) -> Result<Value> {
    forget_peak();
    let model = &Gpt2::from_pretrained(folder, LoadOptions::default())?;
    let prompt = random_tokens(13, model.config().d_vocab);
    let (_, cache) = model.run_with_cache(prompt)?;
    let once = || {
        let start = Instant::now();
        black_box(all_heads_data(model, &cache, DecodeOptions::default())?);
        Ok::<_, Box<dyn Error>>(start.elapsed().as_secs_f64())
    };
    let (first_s, folding_s) = (once()?, once()?);
    let folded_s = timed(|| all_heads_data(model, &cache, DecodeOptions::default()))?;
    let peak_bytes = peak_bytes();

    let forgetful = Gpt2::from_pretrained(folder, LoadOptions::default().decode_cache_bytes(0))?;
    let mut one_head_first_s = 0.0;
    let heads = some_heads(model);
    for &(layer, head) in &heads {
        one_head_first_s += timed(|| head_data(&forgetful, &cache, layer, head, Default::default()))?;
    }
    Ok(json!({
        "first_s": first_s,
        "folding_s": folding_s,
        "folded_s": folded_s,
        "one_head_first_s": one_head_first_s / heads.len() as f64,
        "peak_bytes": peak_bytes,
    }))
}

/// The reference's three heads, where the model has them.
fn some_heads(model: &Gpt2) -> Vec<(usize, usize)> {
    let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
    [(0, 1), (4, 5), (10, 7)].map(|(layer, head)| (layer % n_layers, head % n_heads)).to_vec()
}

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

fn random_tokens(length: usize, d_vocab: usize) -> Vec<u32> {
    let mut state = length as u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % d_vocab as u64) as u32
    };
    (0..length).map(|_| next()).collect()
}

/// The size in float32 of what the checkpoint holds: a tied unembedding counts once.
fn parameter_bytes(model: &Gpt2) -> Result<usize> {
    let config = model.config();
    let block =
        4 * config.d_model * config.d_model + 2 * config.d_model * config.d_mlp + 9 * config.d_model + config.d_mlp;
    let unembed = if config.tie_word_embeddings { 0 } else { config.d_vocab * config.d_model };
    let embed = (config.d_vocab + config.n_ctx) * config.d_model;
    Ok(4 * (config.n_layers * block + embed + unembed + 2 * config.d_model))
}

/// Lets [`peak_bytes`] begin again, where the system can (Linux).
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that this process ever had, or had since [`forget_peak`], where the system tells (Linux).
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}

/// The best rate that `gemm` reaches on a product of two 1024 × 1024 matrices with all threads.
fn gemm_gflops() -> f64 {
    const N: usize = 1024;
    let [a, b] = [1.0_f32, 2.0].map(|x| vec![x; N * N]);
    let mut c = vec![0.0_f32; N * N];
    let best = (0..40).map(|_| {
        let start = Instant::now();
        let n = N as isize;
        // SAFETY: three different square matrices of N × N contiguous numbers.
        #[allow(unsafe_code)]
        unsafe {
            gemm::gemm(
                N,
                N,
                N,
                c.as_mut_ptr(),
                n,
                1,
                false,
                a.as_ptr(),
                n,
                1,
                b.as_ptr(),
                n,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
        black_box(&mut c);
        start.elapsed().as_secs_f64()
    });
    2e-9 * (N as f64).powi(3) / best.fold(f64::INFINITY, f64::min)
}

/// The best rate that `rten-gemm` reaches on a product of two 1024 × 1024 matrices of 8-bit integers with all threads.
fn integer_gops() -> Result<f64> {
    use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
    const N: usize = 1024;
    let integers = GemmExecutor::<u8, i8, i32>::new();
    let (a, b) = (vec![1_u8; N * N], vec![2_i8; N * N]);
    let a = integers.prepack_a(rten_tensor::NdTensorView::from_data([N, N], a.as_slice()));
    let b = integers.prepack_b(rten_tensor::NdTensorView::from_data([N, N], b.as_slice()));
    let mut c = vec![0_i32; N * N];
    let mut best = f64::INFINITY;
    for _ in 0..40 {
        let start = Instant::now();
        integers.gemm(&mut c, GemmInputA::Packed(&a), GemmInputB::Packed(&b), GemmOptions::default())?;
        black_box(&mut c);
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2e-9 * (N as f64).powi(3) / best)
}

/// The best rate at which all threads together read memory, in GB/s.
fn read_gbs() -> f64 {
    use rayon::prelude::*;
    let numbers = vec![1.0_f32; 64 << 20];
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
    4e-9 * numbers.len() as f64 / best.fold(f64::INFINITY, f64::min)
}
