//! Draws one head on a prompt, and writes the figure as a page or as a picture.
//!
//!     cargo run --release --example figure -- MODEL "PROMPT" LAYER.HEAD [FILE.html|FILE.svg|FILE.png …]
//!
//! MODEL is a name or a folder for `Gpt2::from_pretrained`: `demo`, `gpt2-small`, … The page has hover texts and zoom,
//! and opens without a network; the pictures are static. A PNG takes `--features png` before `--example`. Without a file,
//! `figure.html` is written. Prints the path of each file. `cargo xtask run` and `cargo xtask lab` show their first figure
//! with this program.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use attention_tokens::notebook::{calculate_attns, plot_head, run_prompts};
use attention_tokens::prelude::*;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.as_slice() {
        [model, prompt, head] => figure(model, prompt, head, &["figure.html".into()]),
        [model, prompt, head, files @ ..] => figure(model, prompt, head, files),
        _ => Err("usage: figure MODEL \"PROMPT\" LAYER.HEAD [FILE.html|FILE.svg|FILE.png …]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn figure(model: &str, prompt: &str, head: &str, files: &[String]) -> Result<(), Box<dyn Error>> {
    let numbers = head.split_once('.').and_then(|(layer, head)| Some((layer.parse().ok()?, head.parse().ok()?)));
    let (layer, head) = numbers.ok_or_else(|| format!("expected LAYER.HEAD, for example 0.1, found {head:?}"))?;
    // Before the work, not after it.
    if let Some(file) = files.iter().find(|file| extension(file).is_none()) {
        return Err(format!("expected a file FILE.html, FILE.svg or FILE.png, found {file:?}").into());
    }
    let model = Gpt2::from_pretrained(model, LoadOptions::default())?;
    let run = run_prompts(&model, prompt)?;
    let figure = plot_head(&calculate_attns(&run, layer, head)?.prompt(0)?);
    for file in files {
        match extension(file) {
            Some("svg") => figure.write_svg(file)?,
            Some("png") => figure.write_png(file)?,
            _ => figure.write_html(file)?,
        }
        println!("{}", std::path::absolute(file)?.display());
    }
    Ok(())
}

/// The extension of a file, if it is one that can be written.
fn extension(file: &str) -> Option<&str> {
    let extension = Path::new(file).extension()?.to_str()?;
    ["html", "svg", "png"].contains(&extension).then_some(extension)
}
