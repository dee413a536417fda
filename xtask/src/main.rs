//! `cargo xtask …`: set-up and chores, for what cargo alone cannot do. It starts tools and re-implements none.

mod checks;
mod cuda;
mod environment;
#[path = "../../crate/prebuilt/library.rs"]
mod library;
mod notebooks;
mod prerequisites;
mod setup;
mod stages;
mod tool;

use std::path::PathBuf;
use std::process::ExitCode;

use tool::Result;

const USAGE: &str = "\
usage: cargo xtask run [--store] [NOTEBOOK …]  set up, then execute the notebooks headless;
                                               --store keeps the outputs in notebooks/
       cargo xtask lab [ARGUMENT …]            set up, then start JupyterLab on notebooks/
       cargo xtask test [--cuda]               all that CI checks; --cuda: and what the next one does
       cargo xtask cuda-check                  compile the feature cuda, and try it without a GPU
       cargo xtask speed FOLDER                time a model in a notebook and in a release program

The Python environment and the Rust kernel lie in .venv (or where ATTENTION_TOKENS_VENV says).";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", &[][..]),
    };
    let outcome = match command {
        "run" => run(rest),
        "lab" => lab(rest),
        "speed" if rest.len() == 1 => notebooks::speed(&rest[0]),
        "test" if rest.is_empty() => checks::all(false),
        "test" if rest == ["--cuda"] => checks::all(true),
        "cuda-check" if rest.is_empty() => checks::cuda(),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    let store = match flags[..] {
        [] => false,
        [flag] if flag == "--store" => true,
        _ => return Err(USAGE.into()),
    };
    let jupyter = setup::jupyter()?;
    let chosen = match names.is_empty() {
        true => notebooks::in_folder(&root().join("notebooks"))?,
        false => names.into_iter().map(PathBuf::from).collect(),
    };
    notebooks::execute(&jupyter, &chosen, store)
}

fn lab(arguments: &[String]) -> Result<()> {
    let jupyter = setup::jupyter()?;
    let mut command = jupyter.command("jupyter");
    command.arg("lab").arg("--notebook-dir").arg(root().join("notebooks")).args(arguments);
    tool::run("JupyterLab", &mut command)
}

/// The top of the repository.
fn root() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package.parent().map(PathBuf::from).unwrap_or(package)
}
