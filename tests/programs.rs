use attention_tokens::prelude::*;

use crate::support::{demo, example};

/// What a program prints to stdout and to stderr.
fn run(name: &str, args: &[&str]) -> (bool, String, String) {
    let output = example(name).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn heads_prints_what_every_head_says() {
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
    let of_first = tokens.iter().filter(|&&token| token == tokens[0]).count();
    let want = format!("  2.3 {:>4} distinct  {:?} {of_first}", distinct.len(), data.token_label(tokens[0]));
    assert!(line.starts_with(&want), "{line:?} does not start with {want:?}");
}

#[test]
fn heads_says_what_is_wrong() {
    let (passed, _, problem) = run("heads", &["no-such-model", "x"]);
    assert!(!passed && problem.contains("unknown model \"no-such-model\""), "{problem}");
    let (passed, _, problem) = run("heads", &["demo", "x", "sideways"]);
    assert!(!passed && problem.contains("one of notebook, output, ov"), "{problem}");
    assert!(!run("heads", &["demo"]).0);
}

/// One line, however many models are loaded; none from a build without debug assertions.
#[test]
fn a_slow_build_says_so_once() {
    let (_, _, noticed) = run("parity", &[crate::support::fixture("tiny").to_str().unwrap()]);
    let lines: Vec<&str> = noticed.lines().collect();
    match cfg!(debug_assertions) {
        true => {
            assert_eq!(lines.len(), 1, "{noticed}");
            assert!(lines[0].contains("built with debug assertions") && lines[0].contains("cargo run --release"));
        }
        false => assert!(lines.is_empty(), "{noticed}"),
    }
}
