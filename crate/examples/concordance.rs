//! Writes a concordance: for each head a searchable HTML page of its words and the contexts in which it says them.
//!
//!     cargo run --release --example concordance -- MODEL FOLDER PROMPTS.txt... [--reading READING] [--words N]
//!                                                  [--contexts N] [--tokens N] [--first-key]
//!
//! MODEL is anything that `Gpt2::from_pretrained` accepts: `demo`, a folder, `gpt2-small`, ... The files have a prompt a
//! line, and are read twice: once to count words, once to collect contexts. FOLDER gets `index.html` and a page for each
//! head; the pages load nothing from elsewhere. READING is the name of a reading, `matched, without b_U` by default. A head
//! has its `--words` most frequent words (200), each with the `--contexts` (5) in which it attends most. `--tokens` truncates
//! prompts (30). `--first-key` counts the pairs whose key is the first token too.

mod outputs;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use attention_tokens::experiments::{ConcordanceOptions, concordance};
use attention_tokens::prelude::*;

/// What the pages of a concordance have in their heads.
const GENERATOR: &str = "<meta name=\"generator\" content=\"attention-tokens, concordance\">";

const USAGE: &str = "usage: concordance MODEL FOLDER PROMPTS.txt... [--reading READING] [--words N] [--contexts N]\n       \
                     [--tokens N] [--first-key]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match write_concordance(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("concordance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_concordance(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [model, folder, rest @ ..] = args else { return Err(USAGE.into()) };
    let (mut options, mut files) = (ConcordanceOptions::default(), Vec::<PathBuf>::new());
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().ok_or(USAGE);
        match arg.as_str() {
            "--reading" => options.reading = value()?.parse()?,
            "--words" => options.words_per_head = value()?.parse()?,
            "--contexts" => options.contexts_per_word = value()?.parse()?,
            "--tokens" => options.max_tokens = value()?.parse()?,
            "--first-key" => options.first_key = true,
            _ if arg.starts_with("--") => return Err(USAGE.into()),
            _ => files.push(arg.into()),
        }
    }
    if files.is_empty() {
        return Err(USAGE.into());
    }
    // Before the work, not after it.
    check_outputs(Path::new(folder), &files)?;
    let writable = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder).map(drop));
    writable.map_err(|error| format!("{folder}: cannot be written: {error}"))?;
    let model = Gpt2::from_pretrained(model, LoadOptions::default())?;
    let concordance = concordance(&model, &files, &options, &mut |progress| eprintln!("{progress}"))?;
    concordance.write_pages(folder)?;
    let (n_prompts, n_heads) = (concordance.n_prompts, concordance.heads.len());
    println!("{n_prompts} prompts, {n_heads} heads, in {}", PathBuf::from(folder).join("index.html").display());
    Ok(())
}

/// An error if the folder has a page that a run would replace, and that is an input or no page of an earlier run.
fn check_outputs(folder: &Path, inputs: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    const WORDS: outputs::Words = outputs::Words { no: "no page", remedy: "choose another folder" };
    let of_an_earlier_run = |first: &[u8]| String::from_utf8_lossy(first).contains(GENERATOR);
    // An error of its own follows where the folder cannot be read or made.
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let page = entry?.path();
        let name = page.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name != "index.html" && !(name.starts_with("head-") && name.ends_with(".html")) {
            continue;
        }
        outputs::check(&page, inputs, &of_an_earlier_run, &WORDS)?;
    }
    Ok(())
}
