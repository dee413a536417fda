//! Counts the attention tokens of every head over a text file of prompts, one a line: resumable, and in shards.
//!
//!     cargo run --release --features full --example vocabulary -- MODEL PROMPTS.txt COUNTS [--shard I/N] [--tokens N]
//!                                                                 [--stop-after N] [--save-every SECONDS] [--reading READING]
//!                                                                 [--batch-tokens N]
//!     cargo run --release --example vocabulary -- MODEL --estimate N PROMPTS.txt [--reading READING]
//!     cargo run --release --example vocabulary -- MODEL --merge COUNTS SHARD... [--reading READING]
//!     cargo run --release --example vocabulary -- MODEL --identity [--tokens N] [--reading READING]
//!
//! MODEL is anything that `Gpt2::from_pretrained` accepts: `demo`, a folder, `gpt2-small`, ... COUNTS stores the counts
//! and the position in the file, so the same command resumes an interrupted run. A finished run writes COUNTS.csv, with
//! a row for each head, component and token, and COUNTS.parquet if the feature `parquet` is enabled. Nothing else is
//! replaced: if one of these files is there and is not what an earlier run wrote, nothing is run.
//!
//! `--shard I/N` counts every N-th prompt, from the I-th (0 to N − 1), so that N machines can share a file; `--merge`
//! adds up their counts. `--tokens N` truncates prompts to N tokens (30 by default, as in the original).
//! `--stop-after N` stops after the batch in which N prompts have been counted. `--save-every SECONDS` (10 by default) is how
//! often COUNTS is written: what a killed run has counted since is counted again. `--batch-tokens N` (1024 by default) is the
//! size of a batch, which bounds the memory of activations. `--estimate N` measures the rate on the
//! first N prompts and estimates the total time. `--reading READING` says how cells are read as tokens: `matched`,
//! `"written, without b_U"`, or another name that `Reading` has; without it the original's, `notebook`. `--identity` prints
//! the version of the library, the model and the options as a line of JSON: what must agree between the machines that share
//! a file (`crate/examples/cluster` runs many).

mod outputs;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use attention_tokens::experiments::{
    Component, CountIdentity, SweepOptions, VocabularyCounts, count_file, estimate_sweep,
};
use attention_tokens::prelude::*;
use outputs::OfAnEarlierRun;

const USAGE: &str = "usage: vocabulary MODEL PROMPTS.txt COUNTS [--shard I/N] [--tokens N] [--stop-after N]\n           \
                     [--save-every SECONDS] [--reading READING] [--batch-tokens N]\n       \
                     vocabulary MODEL --estimate N PROMPTS.txt [--reading READING]\n       \
                     vocabulary MODEL --merge COUNTS SHARD... [--reading READING]\n       \
                     vocabulary MODEL --identity [--tokens N] [--reading READING]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match vocabulary(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vocabulary: {error}");
            ExitCode::FAILURE
        }
    }
}

fn vocabulary(args: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut args = args.to_vec();
    let mut reading = Reading::NOTEBOOK;
    if let Some(option) = args.iter().position(|&arg| arg == "--reading") {
        reading = args.get(option + 1).ok_or(USAGE)?.parse()?;
        args.drain(option..option + 2);
    }
    let [model, ref rest @ ..] = args[..] else { return Err(USAGE.into()) };
    let load = || Gpt2::from_pretrained(model, LoadOptions::default());
    match rest {
        ["--estimate", sample, prompts] => {
            println!(
                "{}",
                estimate_sweep(&load()?, prompts, &SweepOptions { reading, ..Default::default() }, sample.parse()?)?
            );
            Ok(())
        }
        ["--identity", options @ ..] => {
            let mut sweep = SweepOptions { reading, ..Default::default() };
            match options {
                [] => {}
                ["--tokens", value] => sweep.max_tokens = value.parse()?,
                _ => return Err(USAGE.into()),
            }
            println!("{}", CountIdentity::new(&load()?, &sweep)?.to_json());
            Ok(())
        }
        ["--merge", merged, shards @ ..] if !shards.is_empty() => {
            // A state in place of COUNTS, which was forgotten, would lose its counts.
            check_outputs(merged, shards, &|bytes| is_state(bytes) && !is_of_sweep(bytes))?;
            let mut counts = VocabularyCounts::new(&load()?, reading)?;
            for shard in shards {
                counts.merge(&VocabularyCounts::load(shard, &counts)?)?;
            }
            counts.save(merged)?;
            write(&counts, merged)
        }
        [prompts, state, options @ ..] if !prompts.starts_with("--") => {
            let mut sweep = SweepOptions { reading, state: Some(state.into()), ..Default::default() };
            for option in options.chunks(2) {
                match option {
                    ["--shard", value] => {
                        let (shard, shards) = value.split_once('/').ok_or(USAGE)?;
                        sweep.shard = (shard.parse()?, shards.parse()?);
                    }
                    ["--tokens", value] => sweep.max_tokens = value.parse()?,
                    ["--batch-tokens", value] => sweep.batch_tokens = value.parse()?,
                    ["--save-every", value] => sweep.save_every = Duration::try_from_secs_f64(value.parse()?)?,
                    ["--stop-after", value] => sweep.stop_after = Some(value.parse()?),
                    _ => return Err(USAGE.into()),
                }
            }
            check_outputs(state, &[prompts], &is_state)?;
            let mut finished = false;
            let counts = count_file(&load()?, prompts, &sweep, &mut |progress| {
                println!("{progress}");
                finished = progress.bytes.0 >= progress.bytes.1;
            })?;
            if finished {
                return write(&counts, state);
            }
            println!("stopped; the same command resumes");
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

/// A file that a run writes beside COUNTS.
fn beside(counts: &str, extension: &str) -> PathBuf {
    PathBuf::from(format!("{counts}.{extension}"))
}

const WORDS: outputs::Words = outputs::Words { no: "not a file", remedy: "choose another name for COUNTS" };

/// Whether a file that begins so is a state, or what `--merge` has made of several.
fn is_state(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).contains("counts of attention tokens")
}

/// Whether a state is that of a sweep, which goes on from it.
fn is_of_sweep(bytes: &[u8]) -> bool {
    !String::from_utf8_lossy(bytes).contains(r#""key":"""#)
}

/// An error unless the files that a run writes are new, or what an earlier run wrote; `may_replace` decides that of COUNTS
/// by its first bytes.
fn check_outputs(counts: &str, inputs: &[&str], may_replace: OfAnEarlierRun) -> Result<(), Box<dyn Error>> {
    // How the files of earlier runs begin.
    let csv = |bytes: &[u8]| bytes.starts_with(b"layer,head,component,token_id,token,count");
    let parquet = |bytes: &[u8]| bytes.starts_with(b"PAR1");
    let lock = |bytes: &[u8]| bytes.is_empty();
    let outputs: [(PathBuf, OfAnEarlierRun); 4] = [
        (PathBuf::from(counts), may_replace),
        (beside(counts, "lock"), &lock),
        (beside(counts, "csv"), &csv),
        (beside(counts, "parquet"), &parquet),
    ];
    for (output, of_an_earlier_run) in outputs {
        outputs::check(&output, inputs, of_an_earlier_run, &WORDS)?;
    }
    Ok(())
}

/// Writes COUNTS.csv and COUNTS.parquet, and prints the tokens common to every head.
fn write(counts: &VocabularyCounts, path: &str) -> Result<(), Box<dyn Error>> {
    counts.write_csv(beside(path, "csv"))?;
    #[cfg(feature = "parquet")]
    counts.write_parquet(beside(path, "parquet"))?;
    for component in Component::ALL {
        let common = counts.common_tokens(&[component]);
        let shown: Vec<String> = common.iter().take(12).map(|&token| counts.label(token)).collect();
        let (name, n) = (component.name(), common.len());
        println!("{name}: {n} tokens common to every head: {}", shown.join(" "));
    }
    println!("{} prompts, in {}", counts.n_prompts(), beside(path, "csv").display());
    #[cfg(target_os = "linux")]
    if let Some(peak) = peak_memory() {
        println!("peak memory: {peak}");
    }
    Ok(())
}

/// Peak resident memory of the process, from Linux's `/proc`.
#[cfg(target_os = "linux")]
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}
