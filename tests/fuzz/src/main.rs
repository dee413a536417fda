//! `cargo xtask fuzz`: libFuzzer changes files of a kind, ATTENTION_TOKENS_FUZZ_TARGET, guided by the code that they reach.
//! With ATTENTION_TOKENS_FUZZ_SEEDS=FOLDER it writes the files that it begins with into the folder, and ends; with
//! ATTENTION_TOKENS_FUZZ_KEEP=FOLDER it keeps the folder's files in the repository, and ends.

#![no_main]

mod corpus;
mod model;
mod seeds;
mod targets;

use std::sync::OnceLock;

use targets::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn prepare() {
    let name = std::env::var("ATTENTION_TOKENS_FUZZ_TARGET").unwrap_or_default();
    let target = Target::new(&name).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(2);
    });
    if let Some(folder) = std::env::var_os("ATTENTION_TOKENS_FUZZ_SEEDS") {
        for (number, seed) in seeds::of(&target).into_iter().chain(corpus::of(&name)).enumerate() {
            std::fs::write(std::path::Path::new(&folder).join(format!("seed-{number}")), seed).expect("a folder");
        }
        std::process::exit(0);
    }
    if let Some(folder) = std::env::var_os("ATTENTION_TOKENS_FUZZ_KEEP") {
        corpus::keep(&name, std::path::Path::new(&folder));
        std::process::exit(0);
    }
    assert!(TARGET.set(target).is_ok(), "libFuzzer initializes once");
}

libfuzzer_sys::fuzz_target!(init: prepare(), |data: &[u8]| {
    TARGET.get().expect("prepared").run(data);
});
