//! The example programs: their output and their error messages.

use attention_tokens::prelude::*;

use crate::support::{demo, example};

/// Runs an example program and returns whether it succeeded, its stdout, and its stderr.
fn run(name: &str, args: &[&str]) -> (bool, String, String) {
    let output = example(name).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn heads_prints_the_attention_tokens_of_every_head() {
    let prompt = "The next bus is late.";
    let (passed, printed, _) = run("heads", &["demo", prompt, "output"]);
    assert!(passed);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 1 + 4 * 8 + 1);
    assert_eq!(lines[0], "demo, 7 tokens, 28 cells a head, projection output");
    assert!(lines.last().unwrap().starts_with("seconds: load "), "{printed}");

    let model = demo();
    let (_, cache) = model.run_with_cache(prompt).unwrap();
    let options = DecodeOptions { projection: Projection::Output, ..Default::default() };
    let data = head_data(&model, &cache, 2, 3, options).unwrap().prompt(0).unwrap();
    let tokens: Vec<u32> = data.attention_tokens().iter().flatten().copied().collect();
    let distinct: std::collections::BTreeSet<u32> = tokens.iter().copied().collect();
    let line = lines[1 + 2 * 8 + 3];
    let count_of_first = tokens.iter().filter(|&&token| token == tokens[0]).count();
    let want = format!("  2.3 {:>4} distinct  {:?} {count_of_first}", distinct.len(), data.token_label(tokens[0]));
    assert!(line.starts_with(&want), "{line:?} does not start with {want:?}");
}

#[test]
fn heads_reports_errors() {
    let (passed, _, error) = run("heads", &["no-such-model", "x"]);
    assert!(!passed && error.contains("unknown model \"no-such-model\""), "{error}");
    let (passed, _, error) = run("heads", &["demo", "x", "sideways"]);
    assert!(!passed && error.contains("one of notebook, output, ov"), "{error}");
    assert!(!run("heads", &["demo"]).0);
}

/// A build with debug assertions warns that it is slow, in one line even if several models are loaded.
#[test]
fn a_slow_build_warns_once() {
    let (_, _, stderr) = run("parity", &[crate::support::fixture("tiny").to_str().unwrap()]);
    let lines: Vec<&str> = stderr.lines().collect();
    if cfg!(debug_assertions) {
        assert_eq!(lines.len(), 1, "{stderr}");
        assert!(lines[0].contains("built with debug assertions") && lines[0].contains("cargo run --release"));
    } else {
        assert!(lines.is_empty(), "{stderr}");
    }
}
