//! `cargo xtask`: set-up and chores that cargo alone cannot do. It starts tools and re-implements none.

mod checks;
mod cluster;
mod cuda;
mod doc_comment;
mod environment;
mod first_figure;
mod fuzz;
#[cfg(test)]
#[path = "../../crate/prebuilt/json.rs"]
mod json;
mod kernel;
mod lab;
#[path = "../../crate/prebuilt/library.rs"]
mod library;
mod logged;
mod notebooks;
mod notices;
#[cfg(test)]
#[path = "../../crate/prebuilt/outline.rs"]
mod outline;
mod pages;
mod pins;
mod prerequisites;
mod programs;
mod progress;
mod python;
mod release;
mod rust_src;
mod sanitize;
mod setup;
mod stages;
mod std_outline;
mod std_sources;
mod stoppable;
mod supply_chain;
mod tool;

use std::path::PathBuf;
use std::process::ExitCode;

use tool::Result;

const USAGE: &str = "\
usage: cargo xtask run [--store] [NOTEBOOK …]  set up, then execute the notebooks headless (those of
                                               notebooks/ whose pages are not up to date, if none is
                                               named); --store writes the outputs into them
       cargo xtask lab [ARGUMENT …]            set up, then start JupyterLab in notebooks/
       cargo xtask test [--cuda]               run all checks of CI; with --cuda those of cuda-check too
       cargo xtask cuda-check                  compile the feature cuda, and test it without a GPU
       cargo xtask cluster-check               test the Python package that runs programs on a cluster
       cargo xtask speed FOLDER                time a model in a notebook and in a release program
       cargo xtask soak MINUTES                do mixed work in one kernel (Linux), and report memory, threads and files
       cargo xtask fuzz SECONDS [TARGET …]     try changed files of each kind, guided by the code that they reach
       cargo xtask fuzz keep [TARGET …]        keep what it has found in tests/fuzz/corpus
       cargo xtask sanitize NAME [TEST …]      run tests with a sanitizer (address, thread, memory) or in Miri (miri)
       cargo xtask supply-chain                check licences, sources and duplicates of dependencies, and the notices
       cargo xtask advisories                  check dependencies against RustSec's list of vulnerabilities, by network
       cargo xtask notices                     write the licences of the compiled library's packages
       cargo xtask pin [--upgrade]             write the Python packages' versions and hashes, after environment.yml

The set-up installs a Python environment and the Rust kernel in .venv, or in the folder ATTENTION_TOKENS_VENV.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", &[][..]),
    };
    let outcome = match command {
        "run" => run(rest),
        "lab" => lab::lab(rest),
        "fuzz" if !rest.is_empty() => fuzz::fuzz(&rest[0], &rest[1..]),
        "soak" if rest.len() == 1 => notebooks::soak(&rest[0]),
        "sanitize" if !rest.is_empty() => sanitize::sanitize(&rest[0], &rest[1..]),
        "speed" if rest.len() == 1 => notebooks::speed(&rest[0]),
        "test" if rest.is_empty() => checks::all(false),
        "test" if rest == ["--cuda"] => checks::all(true),
        "cuda-check" if rest.is_empty() => checks::cuda(),
        "cluster-check" if rest.is_empty() => checks::cluster(),
        "supply-chain" if rest.is_empty() => supply_chain::check(),
        "advisories" if rest.is_empty() => supply_chain::advisories(),
        "notices" if rest.is_empty() => notices::write(),
        "pin" if rest.is_empty() => pins::write(false),
        "pin" if rest == ["--upgrade"] => pins::write(true),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
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
    if !names.is_empty() {
        let named = names.into_iter().map(std::path::absolute).collect::<std::io::Result<Vec<_>>>()?;
        return notebooks::execute(&jupyter, &named, store);
    }
    let all = notebooks::in_folder("notebooks")?;
    if store { notebooks::execute(&jupyter, &all, true) } else { notebooks::execute_changed(&jupyter, &all) }
}

/// cargo's target folder, for what is not a library or a program.
fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The top of the repository.
fn root() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package.parent().map(PathBuf::from).unwrap_or(package)
}
