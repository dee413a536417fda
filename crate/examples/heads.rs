//! Decodes every head on a prompt: what each says, in how many distinct attention tokens.
//!
//!     cargo run --release --example heads -- MODEL "PROMPT" [notebook|output|ov]
//!
//! MODEL is whatever `Gpt2::from_pretrained` takes: `demo`, a folder, `gpt2-small`, … A line for each head has its
//! distinct attention tokens in the order of their first appearance, reading the cells row by row, with how many cells
//! have them. The seconds of every stage come last.

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
            eprintln!("usage: heads MODEL \"PROMPT\" [notebook|output|ov]");
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
    let projection = projection.ok_or("the projection is one of notebook, output, ov")?;

    let (model, load) = timed(|| Gpt2::from_pretrained(name, LoadOptions::default()))?;
    let options = RunOptions::for_head_data();
    let ((_, cache), run) = timed(|| model.run_with_cache_options(prompt, options.clone()))?;
    let options = DecodeOptions { projection, ..Default::default() };
    let (data, first) = timed(|| all_heads_data(&model, &cache, options))?;
    let (_, second) = timed(|| all_heads_data(&model, &cache, options))?;
    let (_, third) = timed(|| all_heads_data(&model, &cache, options))?;

    let tokens = cache.tokens()[0].len();
    println!("{name}, {tokens} tokens, {} cells a head, projection {}", tokens * (tokens + 1) / 2, projection.name());
    for head in &data {
        let data = head.prompt(0)?;
        let mut counts: Vec<(u32, usize)> = Vec::new();
        for &token in data.attention_tokens().iter().flatten() {
            match counts.iter_mut().find(|(known, _)| *known == token) {
                Some((_, count)) => *count += 1,
                None => counts.push((token, 1)),
            }
        }
        let said: Vec<_> =
            counts.iter().map(|(token, count)| format!("{:?} {count}", data.token_label(*token))).collect();
        println!("{:>5} {:>4} distinct  {}", format!("{}.{}", head.layer, head.head), counts.len(), said.join("  "));
    }
    println!("seconds: load {load:.3?}, run {run:.3?}, decode {first:.3?}, again {second:.3?}, again {third:.3?}");
    Ok(())
}

fn timed<T>(run: impl FnOnce() -> attention_tokens::Result<T>) -> Result<(T, Duration), attention_tokens::Error> {
    let start = Instant::now();
    Ok((run()?, start.elapsed()))
}
