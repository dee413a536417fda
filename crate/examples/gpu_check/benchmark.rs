//! Benchmarks of the GPU: milliseconds, shares of its peak rates, and a comparison with PyTorch.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use attention_tokens::prelude::*;
use cudarc::cublas::sys::cublasOperation_t::CUBLAS_OP_N;
use cudarc::cublas::{CudaBlas, Gemm, GemmConfig};
use cudarc::driver::CudaDevice;
use serde_json::Value;

use super::against_cpu::parameter_bytes;
use super::random_weights::{Sizes, prompts};
use super::{Options, Result};

/// Decoding all heads is measured once instead of five times if it takes longer than this, in seconds. If it would take
/// ten times as long, only one layer is measured.
const SLOW_S: f64 = 2.0;

/// Rows of the table are not started later than this, in seconds since the program started, so that it ends within ten
/// minutes.
const LAST_START_S: u64 = 330;
/// The same for the rows of PyTorch.
const LAST_TORCH_START_S: u64 = 450;

/// The rows of a block of logits of GPT-2 small.
const DECODE_ROWS: usize = 256;

/// The peak rates of the GPU.
struct PeakRates {
    /// Operations per second in a product of two large matrices of float32.
    matmul: f64,
    /// Operations per second in a product of decoding's shape: `DECODE_ROWS` vectors with a decode table.
    decoding: f64,
    /// Bytes read and written per second in a copy.
    memory: f64,
}

/// One row of the table.
struct Row {
    batch: usize,
    length: usize,
    blocks_s: f64,
    forward_s: f64,
    heads_s: f64,
    /// Whether `heads_s` is the time of one layer, times the number of layers.
    heads_from_one_layer: bool,
}

pub(crate) fn run(folder: &Path, sizes: Sizes, gpu: Device, options: &Options, started: Instant) -> Result<()> {
    let name = folder.to_string_lossy().into_owned();
    let model = Gpt2::from_pretrained(&name, LoadOptions::default().device(gpu))?;
    let rates = peak_rates(sizes, options)?;
    println!(
        "The GPU reaches {:.1} TFLOP/s in a large product of float32 (no TF32) and {:.1} in one of decoding's shape, and copies \
         {:.0} GB/s (bytes read plus bytes written).\n",
        rates.matmul / 1e12,
        rates.decoding / 1e12,
        rates.memory / 1e9
    );
    let (lengths, batches): (&[usize], &[usize]) =
        if options.small { (&[5, 13], &[1, 2]) } else { (&[13, 128, 512, 1024], &[1, 16]) };
    let mut rows = Vec::new();
    for (&batch, &length) in batches.iter().flat_map(|batch| lengths.iter().map(move |length| (batch, length))) {
        if started.elapsed().as_secs() > LAST_START_S {
            println!("{batch} × {length} skipped after {} s\n", started.elapsed().as_secs());
            continue;
        }
        match measure(&model, sizes, batch, length) {
            Ok(row) => rows.push(row),
            // A small GPU may run out of memory.
            Err(error) => println!("{batch} × {length} skipped: {error}\n"),
        }
    }
    println!("Milliseconds: the median of 5 runs after 2 warm-up runs, with results copied to the host.");
    println!("`blocks`: all layers, returning the last `resid_post`.");
    println!("`forward`: the logits of every position too. `heads`: decoding every cell and vector of all heads.\n");
    println!(
        "| batch × S | blocks | % of the matmul rate | % of the memory rate | forward | heads | % of the matmul rate | % of the decoding rate |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for row in &rows {
        print_row(row, sizes, &rates);
    }
    println!(
        "\n`run_with_cache` with all activations, which stay on the GPU; and with reading all of them on the host:\n"
    );
    for &length in lengths {
        let [run_s, read_s] = measure_cache(&model, sizes, length)?;
        println!("- S = {length}: {:.2} ms, with reading {:.2} ms", 1e3 * run_s, 1e3 * read_s);
    }
    drop(model);

    if options.dfdx {
        println!("\n### dfdx's own operations\n");
        let model = Gpt2::from_pretrained(&name, LoadOptions::default().device(Device::dfdx_cuda(options.device)))?;
        for &length in &lengths[..2] {
            let Row { blocks_s, forward_s, .. } = measure_forward(&model, sizes, 1, length)?;
            println!("- S = {length}: blocks {:.2} ms, forward {:.2} ms", 1e3 * blocks_s, 1e3 * forward_s);
        }
    }

    println!("\n### PyTorch, eager, on the same GPU\n");
    let time_left = Duration::from_secs(LAST_TORCH_START_S).saturating_sub(started.elapsed());
    match torch(folder, lengths, batches, time_left, options) {
        Err(error) => println!("Not compared: {error}."),
        Ok(reports) => compare(&rows, &reports, sizes),
    }
    print_targets(&rows);
    Ok(())
}

fn measure(model: &Gpt2, sizes: Sizes, batch: usize, length: usize) -> Result<Row> {
    let row = measure_forward(model, sizes, batch, length)?;
    let (_, cache) =
        model.run_with_cache_options(prompts(batch, length, sizes.d_vocab), RunOptions::for_head_data())?;
    let layer = |layer: usize| -> Result<f64> {
        let start = Instant::now();
        black_box(layer_data(model, &cache, layer, DecodeOptions::default())?);
        Ok(start.elapsed().as_secs_f64())
    };
    layer(0)?; // makes the decode tables
    let first = layer(0)? * sizes.n_layers as f64;
    if first > 10.0 * SLOW_S {
        return Ok(Row { heads_s: first, heads_from_one_layer: true, ..row });
    }
    // Layer by layer, as a user with many prompts would: the data of all heads takes much memory on the host.
    let all = || (0..sizes.n_layers).map(&layer).sum::<Result<f64>>();
    all()?;
    let seconds = if first > SLOW_S { all()? } else { median(all)? };
    Ok(Row { heads_s: seconds, ..row })
}

fn measure_forward(model: &Gpt2, sizes: Sizes, batch: usize, length: usize) -> Result<Row> {
    let prompts = prompts(batch, length, sizes.d_vocab);
    let last = RunOptions::default().activations([Activation::ResidPost]).layers([sizes.n_layers - 1]).no_logits();
    let seconds = |run: &dyn Fn() -> Result<()>| {
        run()?;
        run()?;
        median(|| {
            let start = Instant::now();
            run()?;
            Ok(start.elapsed().as_secs_f64())
        })
    };
    let blocks_s = seconds(&|| {
        let (_, cache) = model.run_with_cache_options(prompts.clone(), last.clone())?;
        read(&cache, &[Activation::ResidPost], sizes.n_layers - 1..sizes.n_layers)
    })?;
    let forward_s = seconds(&|| {
        black_box(model.forward(prompts.clone())?);
        Ok(())
    })?;
    Ok(Row { batch, length, blocks_s, forward_s, heads_s: f64::NAN, heads_from_one_layer: false })
}

/// Seconds of a run with all activations, which stay on the GPU, and of a run with all of them copied to the host.
fn measure_cache(model: &Gpt2, sizes: Sizes, length: usize) -> Result<[f64; 2]> {
    let prompts = prompts(1, length, sizes.d_vocab);
    let time = |reading: bool| -> Result<f64> {
        let run = || {
            let start = Instant::now();
            let (_, cache) = model.run_with_cache(prompts.clone())?;
            if reading {
                read(&cache, &COMPUTED_ON_GPU, 0..sizes.n_layers)?;
            }
            Ok(start.elapsed().as_secs_f64())
        };
        run()?;
        run()?;
        median(run)
    };
    Ok([time(false)?, time(true)?])
}

/// All activations but the attention scores, which the host computes from queries and keys.
const COMPUTED_ON_GPU: [Activation; 10] = {
    use Activation::{AttnOut, K, MlpOut, Pattern, Q, ResidMid, ResidPost, ResidPre, V, Z};
    [ResidPre, Q, K, V, Pattern, Z, AttnOut, ResidMid, MlpOut, ResidPost]
};

/// Reads activations, which copies them to the host.
fn read(cache: &ActivationCache, activations: &[Activation], layers: Range<usize>) -> Result<()> {
    for prompt in 0..cache.n_prompts() {
        let cache = cache.prompt(prompt)?;
        for (layer, &activation) in layers.clone().flat_map(|layer| activations.iter().map(move |a| (layer, a))) {
            black_box(cache.view(activation, layer)?);
        }
    }
    Ok(())
}

/// The median of 5 measurements.
fn median(mut seconds: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut all = (0..5).map(|_| seconds()).collect::<Result<Vec<_>>>()?;
    all.sort_by(f64::total_cmp);
    Ok(all[2])
}

fn print_row(row: &Row, sizes: Sizes, rates: &PeakRates) {
    let Sizes { n_layers, n_heads, d_model, d_vocab, .. } = sizes;
    let &Row { batch, length, blocks_s, forward_s, heads_s, heads_from_one_layer } = row;
    let rows = (batch * length) as f64;
    // Two operations per weight and row, plus `q kᵀ` and `pattern v` as full squares.
    let blocks_flop =
        2.0 * rows * (n_layers * 12 * d_model * d_model) as f64 + 4.0 * rows * (length * d_model * n_layers) as f64;
    let weight_bytes = (parameter_bytes(sizes) - 8 * d_vocab * d_model) as f64;
    let vectors = (batch * (length * (length + 1) / 2 + 3 * length)) as f64;
    let decoding_flop = 2.0 * vectors * (n_layers * n_heads * (d_model / n_heads) * d_vocab) as f64;
    let percent = |rate: f64, best: f64| 100.0 * rate / best;
    println!(
        "| {batch} × {length} | {:.2} | {:.0} | {:.0} | {:.2} | {:.1}{} | {:.0} | {:.0} |",
        1e3 * blocks_s,
        percent(blocks_flop / blocks_s, rates.matmul),
        percent(weight_bytes / blocks_s, rates.memory),
        1e3 * forward_s,
        1e3 * heads_s,
        if heads_from_one_layer { " (from one layer)" } else { "" },
        percent(decoding_flop / heads_s, rates.matmul),
        percent(decoding_flop / heads_s, rates.decoding),
    );
}

/// Measures the peak rates with calls of cuBLAS and of the driver. A model must be loaded, which loads these libraries.
fn peak_rates(sizes: Sizes, options: &Options) -> Result<PeakRates> {
    let device = CudaDevice::new(options.device)?;
    let n: usize = if options.small { 256 } else { 8192 };
    let blas = CudaBlas::new(device.clone())?;
    let numbers: Vec<f32> = (0..n * n).map(|index| (index % 1000) as f32 / 1000.0 - 0.5).collect();
    let (a, b) = (device.htod_sync_copy(&numbers)?, device.htod_sync_copy(&numbers)?);
    let mut c = device.alloc_zeros::<f32>(n * n)?;
    let (transa, transb) = (CUBLAS_OP_N, CUBLAS_OP_N);
    // cuBLAS stores matrices column by column.
    let shape = |m: usize, n: usize, k: usize| {
        let [m, n, k] = [m, n, k].map(|size| size as i32);
        GemmConfig { transa, transb, m, n, k, alpha: 1.0, lda: m, ldb: k, beta: 0.0, ldc: m }
    };
    let min_seconds = |run: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        let mut min = f64::INFINITY;
        for _ in 0..10 {
            device.synchronize()?;
            let start = Instant::now();
            run()?;
            device.synchronize()?;
            min = min.min(start.elapsed().as_secs_f64());
        }
        Ok(min)
    };
    let (d_vocab, d_head) = (sizes.d_vocab, sizes.d_model / sizes.n_heads);
    let rows = DECODE_ROWS.min(n * n / d_vocab);
    // Short products are issued many at a time, as in decoding.
    let mut rate = |times: usize, m: usize, n: usize, k: usize| -> Result<f64> {
        let seconds = min_seconds(&mut || {
            // SAFETY: all three matrices have the `n * n` elements of the largest product.
            #[allow(unsafe_code)]
            (0..times).try_for_each(|_| unsafe { blas.gemm(shape(m, n, k), &a, &b, &mut c) })?;
            Ok(())
        })?;
        Ok(2.0 * (times * m * n * k) as f64 / seconds)
    };
    let (matmul, decoding) = (rate(1, n, n, n)?, rate(20, d_vocab, rows, d_head)?);
    let (free, _) = cudarc::driver::result::mem_get_info()?;
    let len: usize = if options.small { 1 << 16 } else { (1 << 30).min(free / 16) };
    let from = device.alloc_zeros::<f32>(len)?;
    let mut to = device.alloc_zeros::<f32>(len)?;
    let copy_s = min_seconds(&mut || Ok(device.dtod_copy(&from, &mut to)?))?;
    Ok(PeakRates { matmul, decoding, memory: 8.0 * len as f64 / copy_s })
}

/// Runs `torch.py`, and returns its reports by batch and length.
fn torch(
    folder: &Path,
    lengths: &[usize],
    batches: &[usize],
    time_left: Duration,
    options: &Options,
) -> Result<BTreeMap<(usize, usize), Value>> {
    let script = folder.join("torch.py");
    std::fs::write(&script, include_str!("torch.py"))?;
    let has_cuda =
        Command::new(&options.python).args(["-c", "import torch; assert torch.cuda.is_available()"]).output();
    if !has_cuda.is_ok_and(|output| output.status.success()) {
        return Err(format!("{} has no PyTorch that finds the GPU", options.python).into());
    }
    let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut torch = Command::new(&options.python);
    torch.arg(script).arg(folder).args([list(lengths), list(batches), time_left.as_secs().to_string()]);
    let output = torch.output()?;
    if !output.status.success() {
        return Err(format!("torch.py failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let mut reports = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let report: Value = serde_json::from_str(line)?;
        let number = |key: &str| report[key].as_u64().map(|number| number as usize);
        let key = number("batch").zip(number("length")).ok_or(format!("torch.py printed {line}"))?;
        reports.insert(key, report);
    }
    Ok(reports)
}

/// Prints the comparison with PyTorch. Speed-ups above 1 are in this project's favour.
fn compare(rows: &[Row], reports: &BTreeMap<(usize, usize), Value>, sizes: Sizes) {
    let version = reports.values().next().and_then(|report| report["torch"].as_str()).unwrap_or("?");
    println!("torch {version}. `heads`: without decode tables; one layer, times the number of layers.\n");
    println!(
        "| batch × S | blocks | speed-up here | forward | speed-up here | logits left on the GPU | heads | speed-up here |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        let Some(report) = reports.get(&(row.batch, row.length)) else { continue };
        let seconds = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
        let (blocks_s, forward_s) = (seconds("blocks_s"), seconds("forward_s"));
        let heads_s = seconds("layer_s") * sizes.n_layers as f64;
        println!(
            "| {} × {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} |",
            row.batch,
            row.length,
            1e3 * blocks_s,
            blocks_s / row.blocks_s,
            1e3 * forward_s,
            forward_s / row.forward_s,
            1e3 * seconds("forward_on_gpu_s"),
            if heads_s.is_nan() { String::new() } else { format!("{:.0}", 1e3 * heads_s) },
            if heads_s.is_nan() { String::new() } else { format!("{:.1}", heads_s / row.heads_s) },
        );
    }
    for (length, target) in [(13, 1.0), (512, 0.9)] {
        let row = rows.iter().find(|row| (row.batch, row.length) == (1, length));
        if let Some((row, report)) = row.zip(reports.get(&(1, length))) {
            let speedup = |key: &str, own: f64| report[key].as_f64().map_or(f64::NAN, |seconds| seconds / own);
            let (blocks, forward) = (speedup("blocks_s", row.blocks_s), speedup("forward_s", row.forward_s));
            let met = if blocks >= target && forward >= target { "met" } else { "**missed**" };
            println!(
                "\nTarget at S = {length}: {target} × the speed of PyTorch. Blocks {blocks:.2}, forward {forward:.2}: {met}."
            );
        }
    }
}

fn print_targets(rows: &[Row]) {
    if let Some(row) = rows.iter().find(|row| (row.batch, row.length) == (1, 128)) {
        let met = if row.heads_s <= 0.5 { "met" } else { "**missed**" };
        println!("\nTarget: all heads at S = 128 in 0.5 s. {:.2} s: {met}.", row.heads_s);
    }
}
