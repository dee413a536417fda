//! The code in the README.

use crate::support::root;

/// The README's example is a part of the crate's first doctest, which runs.
#[test]
fn the_readmes_code_is_the_example_that_runs() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let code = readme.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    let map = std::fs::read_to_string(root().join("crate/src/lib.rs")).unwrap();
    let example: String = map
        .lines()
        .filter_map(|line| line.strip_prefix("//! ").or((line == "//!").then_some("")))
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(!code.is_empty() && example.contains(code), "{code}");
}
