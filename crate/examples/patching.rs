//! Patches activations of a file of prompt pairs, one pair after the other, and writes what comes back as CSV.
//!
//!     cargo run --release --example patching -- MODEL PAIRS.tsv OUT.csv [--sweep SWEEP]
//!
//! MODEL is anything that `Gpt2::from_pretrained` accepts: `demo`, a folder, `gpt2-small`, ... A line of PAIRS.tsv has four
//! fields, separated by tabs: the clean prompt, the corrupted prompt with as many tokens, the answer of the clean prompt
//! and another answer, each one token with its space in front. Empty lines are skipped. SWEEP is the activation that is
//! patched from the clean run into the corrupted one: `head_out` (the default: each head's `z` at all positions), `resid_pre`,
//! `attn_out` or `mlp_out` (at each position).
//!
//! OUT.csv has a row for each place of each pair: `pair` (from 0), `layer`, `head` or `pos`, `value`, which is the logit
//! difference of the two answers with the patch, `corrupted`, without it, and `clean`, that of the clean prompt. Pairs do not
//! depend on each other, so a file can be cut into parts (`crate/examples/cluster` runs them on many machines).

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use attention_tokens::patching::{
    get_act_patch_attn_head_out_all_pos, get_act_patch_attn_out, get_act_patch_mlp_out, get_act_patch_resid_pre,
};
use attention_tokens::prelude::*;
use attention_tokens::{Sweep, ndarray::Dimension};

const USAGE: &str = "usage: patching MODEL PAIRS.tsv OUT.csv [--sweep head_out|resid_pre|attn_out|mlp_out]";

type Patch = fn(&Gpt2, &str, &ActivationCache, &Metric) -> attention_tokens::Result<Sweep>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match patch_file(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("patching: {error}");
            ExitCode::FAILURE
        }
    }
}

fn patch_file(args: &[&str]) -> Result<(), Box<dyn Error>> {
    let (model, pairs, out, sweep) = match args {
        [model, pairs, out] => (model, pairs, out, "head_out"),
        [model, pairs, out, "--sweep", sweep] => (model, pairs, out, *sweep),
        _ => return Err(USAGE.into()),
    };
    let (patch, axis): (Patch, &str) = match sweep {
        "head_out" => {
            (|model, prompt, cache, metric| get_act_patch_attn_head_out_all_pos(model, prompt, cache, metric), "head")
        }
        "resid_pre" => (|model, prompt, cache, metric| get_act_patch_resid_pre(model, prompt, cache, metric), "pos"),
        "attn_out" => (|model, prompt, cache, metric| get_act_patch_attn_out(model, prompt, cache, metric), "pos"),
        "mlp_out" => (|model, prompt, cache, metric| get_act_patch_mlp_out(model, prompt, cache, metric), "pos"),
        _ => return Err(USAGE.into()),
    };
    // A file that is there may be the input. Before the work, not after it.
    if Path::new(out).symlink_metadata().is_ok() {
        return Err(format!("{out} is there; choose another name, or move the file").into());
    }
    let model = Gpt2::from_pretrained(model, LoadOptions::default())?;
    let text = std::fs::read_to_string(pairs).map_err(|error| format!("{pairs}: {error}"))?;
    // It gets its name at the end: a part of a result looks like a whole one.
    let file = temporary_beside(Path::new(out)).map_err(|error| format!("{out}: {error}"))?;
    let mut csv = csv::Writer::from_writer(file);
    csv.write_record(["pair", "layer", axis, "value", "corrupted", "clean"])?;
    let mut n_pairs = 0;
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.is_empty()) {
        let rows = patched(&model, text, patch).map_err(|error| format!("{pairs}, line {}: {error}", line + 1))?;
        for (place, value, corrupted, clean) in rows {
            csv.serialize((n_pairs, place[0], place[1], value, corrupted, clean))?;
        }
        n_pairs += 1;
    }
    let file = csv.into_inner().map_err(|error| format!("{out}: {}", error.error()))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(out).map_err(|error| format!("{out}: {error}"))?;
    println!("{n_pairs} pairs, in {out}");
    Ok(())
}

/// An empty file in the folder of `path`, with the permissions that a new file has, which is removed unless it is renamed.
fn temporary_beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".attention-tokens-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // less the umask
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}

/// A place of the model, the metric with the patch there, and the metric of the corrupted and of the clean prompt.
type Row = (Vec<usize>, f32, f32, f32);

/// The sweep of one pair of prompts.
fn patched(model: &Gpt2, line: &str, patch: Patch) -> Result<Vec<Row>, Box<dyn Error>> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [clean, corrupted, answer, other] = fields[..] else {
        return Err(format!(
            "expected clean, corrupted, answer and other answer between tabs, found {} fields",
            fields.len()
        )
        .into());
    };
    let metric = Metric::logit_diff(&[[model.to_single_token(answer)?, model.to_single_token(other)?]]);
    let (_, cache) = model.run_with_cache(clean)?;
    let sweep = patch(model, corrupted, &cache, &metric)?;
    let clean = metric.measure(model, clean)?;
    Ok(sweep.values.indexed_iter().map(|(place, &x)| (place.slice().to_vec(), x, sweep.unchanged, clean)).collect())
}
