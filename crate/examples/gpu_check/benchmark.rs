//! How fast the card is, and how much of what it can do that is.

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

/// Decoding all heads is measured once if it takes longer than this, and a layer of them instead if it would take longer than
/// ten times this. In seconds.
const LONG: f64 = 2.0;

/// Seconds after the program's own begin: the last moment to begin a row of the table, and one of PyTorch's. The whole of it takes
/// ten minutes at most.
const LATEST: [u64; 2] = [330, 450];

/// Vectors of GPT-2 small that are decoded at a time.
const ROWS: usize = 256;

/// What the card does at best.
struct Rates {
    /// Operations a second in a product of two large matrices of float32.
    product: f64,
    /// The same in a product of decoding's shape: `ROWS` vectors with a folded projection.
    decoding: f64,
    /// Bytes a second, read and written, in a copy.
    memory: f64,
}

/// One row of the table.
struct Row {
    batch: usize,
    length: usize,
    blocks_s: f64,
    forward_s: f64,
    /// And whether it was measured on one layer.
    heads: (f64, bool),
}

pub(crate) fn run(folder: &Path, sizes: Sizes, card: Device, options: &Options, started: Instant) -> Result<()> {
    let name = folder.to_string_lossy().into_owned();
    let model = Gpt2::from_pretrained(&name, LoadOptions::default().device(card))?;
    let rates = rates(sizes, options)?;
    println!(
        "The card does {:.1} TFLOP/s in a large product of float32 (no TF32), {:.1} in one of decoding's shape, and copies {:.0} GB/s, \
         read and written together.\n",
        rates.product / 1e12,
        rates.decoding / 1e12,
        rates.memory / 1e9
    );
    let (lengths, batches): (&[usize], &[usize]) =
        if options.small { (&[5, 13], &[1, 2]) } else { (&[13, 128, 512, 1024], &[1, 16]) };
    let mut rows = Vec::new();
    for (&batch, &length) in batches.iter().flat_map(|batch| lengths.iter().map(move |length| (batch, length))) {
        if started.elapsed().as_secs() > LATEST[0] {
            println!("{batch} × {length} is left out: {} s have gone by\n", started.elapsed().as_secs());
            continue;
        }
        match measure(&model, sizes, batch, length) {
            Ok(row) => rows.push(row),
            // A smaller card may not have the memory.
            Err(problem) => println!("{batch} × {length} is left out: {problem}\n"),
        }
    }
    println!(
        "Milliseconds, median of 5 after 2, everything copied to the host. `blocks`: all layers, the last `resid_post` kept."
    );
    println!("`forward`: and the logits of every position. `heads`: every cell and vector of all heads decoded.\n");
    println!(
        "| batch × S | blocks | % of the product rate | % of the memory rate | forward | heads | % of the product rate | % of decoding's |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for row in &rows {
        print(row, sizes, &rates);
    }
    println!(
        "\n`run_with_cache`, everything kept, which leaves it on the card; and with all of it looked at, on the host then:\n"
    );
    for &length in lengths {
        let [run_s, looked_at_s] = measure_cache(&model, sizes, length)?;
        println!("- S = {length}: {:.2} ms, looked at {:.2} ms", 1e3 * run_s, 1e3 * looked_at_s);
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

    println!("\n### PyTorch, eager, the plain mathematics, on the same card\n");
    let left = Duration::from_secs(LATEST[1]).saturating_sub(started.elapsed());
    match torch(folder, lengths, batches, left, options) {
        Err(problem) => println!("Not compared: {problem}."),
        Ok(reports) => compare(&rows, &reports, sizes),
    }
    targets(&rows);
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
    layer(0)?; // folds
    let first = layer(0)? * sizes.n_layers as f64;
    if first > 10.0 * LONG {
        return Ok(Row { heads: (first, true), ..row });
    }
    // A layer at a time, as a person who has many prompts would: the data of all heads takes much memory on the host.
    let all = || (0..sizes.n_layers).map(&layer).sum::<Result<f64>>();
    all()?;
    let seconds = if first > LONG { all()? } else { median(all)? };
    Ok(Row { heads: (seconds, false), ..row })
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
        look_at(&cache, &[Activation::ResidPost], sizes.n_layers - 1..sizes.n_layers)
    })?;
    let forward_s = seconds(&|| {
        black_box(model.forward(prompts.clone())?);
        Ok(())
    })?;
    Ok(Row { batch, length, blocks_s, forward_s, heads: (f64::NAN, false) })
}

/// Everything kept: the run, which leaves it on the card, and with all of it copied to the host.
fn measure_cache(model: &Gpt2, sizes: Sizes, length: usize) -> Result<[f64; 2]> {
    let prompts = prompts(1, length, sizes.d_vocab);
    let of = |looked_at: bool| -> Result<f64> {
        let run = || {
            let start = Instant::now();
            let (_, cache) = model.run_with_cache(prompts.clone())?;
            if looked_at {
                look_at(&cache, &COMPUTED, 0..sizes.n_layers)?;
            }
            Ok(start.elapsed().as_secs_f64())
        };
        run()?;
        run()?;
        median(run)
    };
    Ok([of(false)?, of(true)?])
}

/// All activations but the scores, which the host computes from queries and keys.
const COMPUTED: [Activation; 10] = {
    use Activation::{AttnOut, K, MlpOut, Pattern, Q, ResidMid, ResidPost, ResidPre, V, Z};
    [ResidPre, Q, K, V, Pattern, Z, AttnOut, ResidMid, MlpOut, ResidPost]
};

/// What is looked at is copied to the host.
fn look_at(cache: &ActivationCache, activations: &[Activation], layers: Range<usize>) -> Result<()> {
    for prompt in 0..cache.n_prompts() {
        let cache = cache.prompt(prompt)?;
        for (layer, &activation) in layers.clone().flat_map(|layer| activations.iter().map(move |a| (layer, a))) {
            black_box(cache.view(activation, layer)?);
        }
    }
    Ok(())
}

fn median(mut seconds: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut all = (0..5).map(|_| seconds()).collect::<Result<Vec<_>>>()?;
    all.sort_by(f64::total_cmp);
    Ok(all[2])
}

fn print(row: &Row, sizes: Sizes, rates: &Rates) {
    let Sizes { n_layers, n_heads, d_model, d_vocab, .. } = sizes;
    let &Row { batch, length, blocks_s, forward_s, heads: (heads_s, of_a_layer) } = row;
    let rows = (batch * length) as f64;
    // Each weight once for each row; queries times keys, and the pattern times values, whole squares.
    let products =
        2.0 * rows * (n_layers * 12 * d_model * d_model) as f64 + 4.0 * rows * (length * d_model * n_layers) as f64;
    let weights = (parameter_bytes(sizes) - 8 * d_vocab * d_model) as f64;
    let vectors = (batch * (length * (length + 1) / 2 + 3 * length)) as f64;
    let decoding = 2.0 * vectors * (n_layers * n_heads * (d_model / n_heads) * d_vocab) as f64;
    let percent = |rate: f64, best: f64| 100.0 * rate / best;
    println!(
        "| {batch} × {length} | {:.2} | {:.0} | {:.0} | {:.2} | {:.1}{} | {:.0} | {:.0} |",
        1e3 * blocks_s,
        percent(products / blocks_s, rates.product),
        percent(weights / blocks_s, rates.memory),
        1e3 * forward_s,
        1e3 * heads_s,
        if of_a_layer { " (from one layer)" } else { "" },
        percent(decoding / heads_s, rates.product),
        percent(decoding / heads_s, rates.decoding),
    );
}

/// Measured with cuBLAS and the driver alone. (A model is loaded: their addresses are known.)
fn rates(sizes: Sizes, options: &Options) -> Result<Rates> {
    let device = CudaDevice::new(options.device)?;
    let n: usize = if options.small { 256 } else { 8192 };
    let blas = CudaBlas::new(device.clone())?;
    let numbers: Vec<f32> = (0..n * n).map(|index| (index % 1000) as f32 / 1000.0 - 0.5).collect();
    let (a, b) = (device.htod_sync_copy(&numbers)?, device.htod_sync_copy(&numbers)?);
    let mut c = device.alloc_zeros::<f32>(n * n)?;
    let (transa, transb) = (CUBLAS_OP_N, CUBLAS_OP_N);
    // As cuBLAS has it, column by column.
    let shape = |m: usize, n: usize, k: usize| {
        let [m, n, k] = [m, n, k].map(|size| size as i32);
        GemmConfig { transa, transb, m, n, k, alpha: 1.0, lda: m, ldb: k, beta: 0.0, ldc: m }
    };
    let best = |run: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..10 {
            device.synchronize()?;
            let start = Instant::now();
            run()?;
            device.synchronize()?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    let (d_vocab, d_head) = (sizes.d_vocab, sizes.d_model / sizes.n_heads);
    let rows = ROWS.min(n * n / d_vocab);
    // Many short ones are asked for at a time, as decoding does.
    let mut rate = |times: usize, m: usize, n: usize, k: usize| -> Result<f64> {
        let seconds = best(&mut || {
            // SAFETY: three matrices of as many numbers as the largest product has, on the card.
            #[allow(unsafe_code)]
            (0..times).try_for_each(|_| unsafe { blas.gemm(shape(m, n, k), &a, &b, &mut c) })?;
            Ok(())
        })?;
        Ok(2.0 * (times * m * n * k) as f64 / seconds)
    };
    let (product, decoding) = (rate(1, n, n, n)?, rate(20, d_vocab, rows, d_head)?);
    let (free, _) = cudarc::driver::result::mem_get_info()?;
    let long: usize = if options.small { 1 << 16 } else { (1 << 30).min(free / 16) };
    let from = device.alloc_zeros::<f32>(long)?;
    let mut to = device.alloc_zeros::<f32>(long)?;
    let copy_s = best(&mut || Ok(device.dtod_copy(&from, &mut to)?))?;
    Ok(Rates { product, decoding, memory: 8.0 * long as f64 / copy_s })
}

/// What `torch.py` reports, by batch and length.
fn torch(
    folder: &Path,
    lengths: &[usize],
    batches: &[usize],
    left: Duration,
    options: &Options,
) -> Result<BTreeMap<(usize, usize), Value>> {
    let script = folder.join("torch.py");
    std::fs::write(&script, include_str!("torch.py"))?;
    let has_cuda =
        Command::new(&options.python).args(["-c", "import torch; assert torch.cuda.is_available()"]).output();
    if !has_cuda.is_ok_and(|output| output.status.success()) {
        return Err(format!("{} has no PyTorch that sees the card", options.python).into());
    }
    let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut torch = Command::new(&options.python);
    torch.arg(script).arg(folder).args([list(lengths), list(batches), left.as_secs().to_string()]);
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

/// Ratios above 1 are in this project's favour.
fn compare(rows: &[Row], reports: &BTreeMap<(usize, usize), Value>, sizes: Sizes) {
    let version = reports.values().next().and_then(|report| report["torch"].as_str()).unwrap_or("?");
    println!("torch {version}. `heads`: PyTorch decodes without folding; one layer, times the number of layers.\n");
    println!(
        "| batch × S | blocks | times as fast here | forward | times as fast here | its logits left on the card | heads | times as fast here |"
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
            1e3 * seconds("forward_on_card_s"),
            if heads_s.is_nan() { String::new() } else { format!("{:.0}", 1e3 * heads_s) },
            if heads_s.is_nan() { String::new() } else { format!("{:.1}", heads_s / row.heads.0) },
        );
    }
    for (length, wanted) in [(13, 1.0), (512, 0.9)] {
        let row = rows.iter().find(|row| (row.batch, row.length) == (1, length));
        if let Some((row, report)) = row.zip(reports.get(&(1, length))) {
            let ratio = |key: &str, own: f64| report[key].as_f64().map_or(f64::NAN, |seconds| seconds / own);
            let (blocks, forward) = (ratio("blocks_s", row.blocks_s), ratio("forward_s", row.forward_s));
            let met = if blocks >= wanted && forward >= wanted { "met" } else { "**missed**" };
            println!("\nTarget at S = {length}: {wanted} × PyTorch. Blocks {blocks:.2}, forward {forward:.2}: {met}.");
        }
    }
}

fn targets(rows: &[Row]) {
    if let Some(row) = rows.iter().find(|row| (row.batch, row.length) == (1, 128)) {
        let met = if row.heads.0 <= 0.5 { "met" } else { "**missed**" };
        println!("\nTarget: all heads at S = 128 in 0.5 s. {:.2} s: {met}.", row.heads.0);
    }
}
