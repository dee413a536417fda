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
    let options = DecodeOptions::default().projection(Projection::Output);
    let data = head_data(&model, &cache, 2, 3, options).unwrap().prompt(0).unwrap();
    let tokens: Vec<u32> = data.attention_tokens().iter().flatten().copied().collect();
    let distinct: std::collections::BTreeSet<u32> = tokens.iter().copied().collect();
    let line = lines[1 + 2 * 8 + 3];
    let count_of_first = tokens.iter().filter(|&&token| token == tokens[0]).count();
    let want = format!("  2.3 {:>4} distinct  {} {count_of_first}", distinct.len(), data.token_label(tokens[0]));
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

#[test]
fn referee_ranks_readings_of_a_model_and_of_an_untrained_one() {
    let (passed, printed, error) = run("referee", &["demo", "1", "2"]);
    assert!(passed, "{error}");
    assert!(printed.contains("demo, 1 prompt, 2 random partitions"), "{printed}");
    assert!(printed.contains("demo, random weights of seed 1, 1 prompt"), "{printed}");
    for projection in Projection::ALL {
        assert!(printed.contains(&format!("{}, without b_U", projection.name())), "{printed}");
    }
    assert!(printed.lines().last().unwrap().ends_with(" min"), "{printed}");
    assert!(!run("referee", &[]).0 && !run("referee", &["demo", "x"]).0);
}

#[test]
fn concordance_writes_a_page_for_each_head() {
    let folder = tempfile::tempdir().unwrap();
    let (prompts, pages) = (folder.path().join("prompts.txt"), folder.path().join("pages"));
    std::fs::write(&prompts, "Monday, Tuesday, Wednesday\nThe next bus is late.\n").unwrap();
    let [prompts, pages] = [&prompts, &pages].map(|path| path.to_str().unwrap());
    let (passed, printed, error) =
        run("concordance", &["demo", pages, prompts, "--reading", "ov, without b_U", "--words", "3"]);
    assert!(passed, "{error}");
    assert!(printed.starts_with("2 prompts, 32 heads, in ") && error.contains("pass 2 of 2: 2 prompts"), "{error}");
    let page = std::fs::read_to_string(folder.path().join("pages/head-2-3.html")).unwrap();
    assert!(page.contains("the head&#39;s OV matrix, without b_U, 2 prompts"), "{page}");
    // A later run replaces the pages, but nothing else.
    let (passed, _, error) = run("concordance", &["demo", pages, prompts, "--words", "3"]);
    assert!(passed, "{error}");
    let of_the_user = folder.path().join("pages/head-of-state.html");
    std::fs::write(&of_the_user, "mine").unwrap();
    let (passed, _, error) = run("concordance", &["demo", pages, prompts, "--words", "3"]);
    assert!(!passed && error.contains("head-of-state.html is there and is no page of an earlier run"), "{error}");
    let here = folder.path().to_str().unwrap();
    let index = folder.path().join("index.html");
    std::fs::rename(prompts, &index).unwrap();
    let (passed, _, error) = run("concordance", &["demo", here, index.to_str().unwrap()]);
    assert!(!passed && error.contains("index.html would replace the input"), "{error}");
    for args in [&["demo", pages][..], &["demo", pages, prompts, "--words"], &["demo", pages, prompts, "--sideways"]] {
        let (passed, _, error) = run("concordance", args);
        assert!(!passed && error.contains("usage: concordance MODEL FOLDER"), "{error}");
    }
}

/// Each pair alone, so that a file can be cut into parts.
#[test]
fn patching_writes_a_row_for_each_place_of_each_pair() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let clean = "When Mary and John went to the store, John gave a drink to";
    let corrupted = "When Mary and John went to the store, Mary gave a drink to";
    let pair = format!("{clean}\t{corrupted}\t Mary\t John\n");
    let other = format!("{corrupted}\t{clean}\t John\t Mary\n");
    std::fs::write(path("pairs"), format!("{pair}\n{other}")).unwrap();
    let (passed, printed, error) = run("patching", &["demo", &path("pairs"), &path("out")]);
    assert!(passed && printed.starts_with("2 pairs, in "), "{printed} {error}");
    let table = std::fs::read_to_string(path("out")).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!((rows[0], rows.len()), ("pair,layer,head,value,corrupted,clean", 1 + 2 * 4 * 8));

    let model = demo();
    let metric =
        Metric::logit_diff(&[[model.to_single_token(" Mary").unwrap(), model.to_single_token(" John").unwrap()]]);
    let (_, cache) = model.run_with_cache(clean).unwrap();
    let sweep =
        attention_tokens::patching::get_act_patch_attn_head_out_all_pos(&model, corrupted, &cache, &metric).unwrap();
    let (value, unchanged) = (sweep.values[[2, 3]], sweep.unchanged);
    let expected = format!("0,2,3,{value},{unchanged},{}", metric.measure(&model, clean).unwrap());
    assert_eq!(rows[1 + 2 * 8 + 3], expected);

    std::fs::write(path("second"), other).unwrap();
    assert!(run("patching", &["demo", &path("second"), &path("second.csv")]).0);
    let second = std::fs::read_to_string(path("second.csv")).unwrap();
    let renumbered: Vec<String> = second.lines().skip(1).map(|row| format!("1{}", &row[1..])).collect();
    assert_eq!(renumbered, rows[1 + 4 * 8..]);
    assert!(run("patching", &["demo", &path("pairs"), &path("by-pos"), "--sweep", "resid_pre"]).0);
    assert!(std::fs::read_to_string(path("by-pos")).unwrap().starts_with("pair,layer,pos,value,"));

    std::fs::write(path("bad"), format!("{pair}one\ttwo\n")).unwrap();
    for (args, expected) in [
        (&["demo", &path("bad"), &path("bad.csv")][..], "line 2: expected clean, corrupted, answer and other answer"),
        (&["demo", &path("pairs"), &path("pairs")], "pairs is there; choose another name"),
        (&["demo", &path("none"), &path("none.csv")], "none: "),
        (&["demo", &path("pairs"), &path("x.csv"), "--sweep", "z"], "usage: patching MODEL PAIRS.tsv OUT.csv"),
    ] {
        let (passed, _, error) = run("patching", args);
        assert!(!passed && error.contains(expected), "{error}");
    }
    assert!(!folder.path().join("bad.csv").exists(), "no part of a result stays");
}

#[test]
fn figure_writes_a_page_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let [page, picture] = ["a b.html", "ü.svg"].map(|name| folder.path().join(name));
    let (passed, printed, error) =
        run("figure", &["demo", "The bus is late.", "0.1", page.to_str().unwrap(), picture.to_str().unwrap()]);
    assert!(passed, "{error}");
    assert_eq!(printed, format!("{}\n{}\n", page.display(), picture.display()));
    let [page, picture] = [page, picture].map(|path| std::fs::read_to_string(path).unwrap());
    assert!(page.contains("* plotly.js v") && page.contains("data:image/svg+xml,"));
    let document = roxmltree::Document::parse(&picture).unwrap();
    let described = document.descendants().find(|node| node.has_tag_name("title")).unwrap().text().unwrap();
    let escaped = described.replace('\'', "&#39;");
    assert!(described.contains("6 × 6 cells") && page.contains(&format!("<title>{escaped}")), "{described}");
}

#[test]
fn figure_reports_errors() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/a.svg");
    for (args, expected) in [
        (&["demo", "x"][..], "usage: figure MODEL"),
        (&["demo", "x", "1"], "expected LAYER.HEAD, for example 0.1, found \"1\""),
        (&["demo", "x", "0.1", "a.jpg"], "expected a file FILE.html, FILE.svg or FILE.png, found \"a.jpg\""),
        (&["demo", "x", "0.8"], "head 8 out of range"),
        (&["demo", "x", "0.1", missing.to_str().unwrap()], "cannot be written"),
    ] {
        let (passed, _, error) = run("figure", args);
        assert!(!passed && error.contains(expected), "{error}");
    }
}

/// Without the feature, the error names it, and a former file stays.
#[test]
fn figure_writes_pixels_with_the_feature() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    std::fs::write(&path, "former").unwrap();
    let (passed, _, error) = run("figure", &["demo", "The bus is late.", "0.1", path.to_str().unwrap()]);
    let written = std::fs::read(path).unwrap();
    if cfg!(feature = "png") {
        assert!(passed, "{error}");
        // The header: width and height are at bytes 16 and 20.
        let [width, height] = [16, 20].map(|at| u32::from_be_bytes(written[at..at + 4].try_into().unwrap()));
        assert!(written.starts_with(b"\x89PNG") && width > 400 && height > 400, "{width} × {height}");
    } else {
        assert!(!passed && error.contains("write_png needs the feature `png`"), "{error}");
        assert_eq!(written, b"former");
    }
}

/// On another model than GPT-2 small the published numbers say nothing, and the exit status says so.
#[test]
fn published_runs_nothing_on_the_demo_model() {
    let output = example("published").arg("demo").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected = "published: the numbers are GPT-2 small's, and demo is another model: \
                    layers: 4 in place of 12. Nothing was run.\n";
    assert_eq!(printed, expected);
    for (args, expected) in [(&[][..], "usage: published MODEL"), (&["no-such-model"], "unknown model")] {
        let (passed, printed, error) = run("published", args);
        assert!(!passed && printed.is_empty() && error.contains(expected), "{error}");
    }
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
