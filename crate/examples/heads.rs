//! Prints the distinct attention tokens of every head on a prompt.
//!
//!     cargo run --release --example heads -- MODEL "PROMPT" [PROJECTION]
//!
//! MODEL is a name or a folder for `Gpt2::from_pretrained`: `demo`, `gpt2-small`, … PROJECTION is notebook (the default),
//! output, ov, matched or written. The line of a head lists its
//! distinct attention tokens, each with its number of cells, in the order of their first appearance row by row. The
//! last line has the seconds of every stage.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use attention_tokens::prelude::*;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, prompt, projection) = match args.as_slice() {
        [name, prompt] => (name, prompt, "notebook"),
        [name, prompt, projection] => (name, prompt, projection.as_str()),
        _ => {
            eprintln!("usage: heads MODEL \"PROMPT\" [PROJECTION]");
            return ExitCode::FAILURE;
        }
    };
    match heads(name, prompt, projection) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("heads: {error}");
            ExitCode::FAILURE
        }
    }
}

fn heads(name: &str, prompt: &str, projection: &str) -> Result<(), Box<dyn Error>> {
    let projection = Projection::ALL.into_iter().find(|known| known.name() == projection);
    let projection = projection
        .ok_or_else(|| format!("the projection is one of {}", Projection::ALL.map(Projection::name).join(", ")))?;

    let (model, load) = timed(|| Gpt2::from_pretrained(name, LoadOptions::default()))?;
    let options = RunOptions::for_head_data();
    let ((_, cache), run) = timed(|| model.run_with_cache_options(prompt, options.clone()))?;
    let options = DecodeOptions::default().projection(projection);
    let (data, first) = timed(|| all_heads_data(&model, &cache, options))?;
    let (_, second) = timed(|| all_heads_data(&model, &cache, options))?;
    let (_, third) = timed(|| all_heads_data(&model, &cache, options))?;

    let n_pos = cache.tokens()[0].len();
    println!("{name}, {n_pos} tokens, {} cells a head, projection {}", n_pos * (n_pos + 1) / 2, projection.name());
    for head in &data {
        let data = head.prompt(0)?;
        let mut counts: Vec<(u32, usize)> = Vec::new();
        for &token in data.attention_tokens().iter().flatten() {
            match counts.iter_mut().find(|(known, _)| *known == token) {
                Some((_, count)) => *count += 1,
                None => counts.push((token, 1)),
            }
        }
        let tokens: Vec<_> =
            counts.iter().map(|(token, count)| format!("{} {count}", data.token_label(*token))).collect();
        println!("{:>5} {:>4} distinct  {}", format!("{}.{}", head.layer, head.head), counts.len(), tokens.join("  "));
    }
    println!("seconds: load {load:.3?}, run {run:.3?}, decode {first:.3?}, again {second:.3?}, again {third:.3?}");
    Ok(())
}

fn timed<T>(run: impl FnOnce() -> attention_tokens::Result<T>) -> Result<(T, Duration), attention_tokens::Error> {
    let start = Instant::now();
    Ok((run()?, start.elapsed()))
}
