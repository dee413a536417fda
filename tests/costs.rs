//! What a foreign file costs: memory and time are bounded by a small multiple of its size, whatever is in it.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use attention_tokens::experiments::VocabularyCounts;
use attention_tokens::prelude::*;

use super::peak_of;
use crate::support::{Folder, load};

/// The sizes of each file, in entries.
const SIZES: [usize; 2] = [10_000, 80_000];

/// A safetensors file with this header and no data.
fn header(path: &Path, header: &str) {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    std::fs::write(path, file).unwrap();
}

/// A JSON object, or the inside of a list, of `n` entries.
fn entries(n: usize, entry: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for index in 0..n {
        let _ = write!(text, "{}{}", if index > 0 { "," } else { "" }, entry(index));
    }
    text
}

const NO_DATA: &str = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;

type Make = fn(&Folder, usize);

/// The files: a name, what writes one of `n` entries into a model's folder, and the file.
const FILES: [(&str, Make, &str); 16] = [
    ("tensors of a layer", |folder, n| tensors(folder, n, |at| format!("h.{at}.x")), "model.safetensors"),
    ("tensors with short names", |folder, n| tensors(folder, n, |at| format!("{at:x}")), "model.safetensors"),
    (
        "names of many parts",
        |folder, n| tensors(folder, n / 50, |at| format!("{at}{}", ".a".repeat(50))),
        "model.safetensors",
    ),
    ("prefixes", |folder, n| tensors(folder, n, |at| format!("{at}.wpe.weight")), "model.safetensors"),
    ("heads", |folder, n| tensors(folder, n, |at| format!("score.{at}")), "model.safetensors"),
    (
        "metadata",
        |folder, n| {
            let texts = entries(n, |at| format!(r#""{at}":"{at}""#));
            header(&folder.weights(), &format!(r#"{{"__metadata__":{{{texts}}}}}"#));
        },
        "model.safetensors",
    ),
    (
        "one tensor again and again",
        |folder, n| {
            header(&folder.weights(), &format!("{{{}}}", entries(n, |_| format!(r#""x":{NO_DATA}"#))));
        },
        "model.safetensors",
    ),
    (
        "an index",
        |folder, n| {
            std::fs::remove_file(folder.weights()).unwrap();
            let map = entries(n, |at| format!(r#""{at}":"{at}.safetensors""#));
            std::fs::write(
                folder.path().join("model.safetensors.index.json"),
                format!(r#"{{"weight_map":{{{map}}}}}"#),
            )
            .unwrap();
        },
        "model.safetensors.index.json",
    ),
    (
        "a configuration",
        |folder, n| {
            let keys = entries(n, |at| format!(r#""{at}":[{at}]"#));
            folder.configure("{", &format!("{{{keys},"));
        },
        "config.json",
    ),
    (
        "a vocabulary",
        |folder, n| {
            vocabulary(folder, n);
            std::fs::write(folder.path().join("merges.txt"), "").unwrap();
        },
        "vocab.json",
    ),
    (
        "merges",
        |folder, n| {
            vocabulary(folder, 20);
            std::fs::write(folder.path().join("merges.txt"), "a a\n".repeat(n)).unwrap();
        },
        "merges.txt",
    ),
    (
        "added tokens",
        |folder, n| {
            vocabulary(folder, 20);
            std::fs::write(folder.path().join("merges.txt"), "").unwrap();
            let added = entries(n, |at| format!(r#""<{at}>":{}"#, 1_000 + at));
            std::fs::write(folder.path().join("added_tokens.json"), format!("{{{added}}}")).unwrap();
        },
        "added_tokens.json",
    ),
    ("a tokenizer", |folder, n| tokenizer(folder, n, 0), "tokenizer.json"),
    ("a tokenizer with added tokens", |folder, n| tokenizer(folder, 20, n), "tokenizer.json"),
    (
        "special tokens",
        |folder, n| {
            tokenizer(folder, 20, 0);
            let names = entries(n, |at| format!(r#""<{at}>""#));
            let map = format!(r#"{{"additional_special_tokens":[{names}]}}"#);
            std::fs::write(folder.path().join("special_tokens_map.json"), map).unwrap();
        },
        "special_tokens_map.json",
    ),
    (
        "levels",
        |folder, n| {
            std::fs::write(folder.path().join("tokenizer.json"), format!(r#"{{"model":{}"#, "[".repeat(8 * n)))
                .unwrap();
        },
        "tokenizer.json",
    ),
];

fn tensors(folder: &Folder, n: usize, name: impl Fn(usize) -> String) {
    header(&folder.weights(), &format!("{{{}}}", entries(n, |at| format!(r#""{}":{NO_DATA}"#, name(at)))));
}

fn vocabulary(folder: &Folder, n: usize) {
    let tokens = entries(n, |at| format!(r#""{}":{at}"#, token(at)));
    std::fs::write(folder.path().join("vocab.json"), format!("{{{tokens}}}")).unwrap();
}

/// Tokens of letters: `a`, `b`, …, `aa`, …
fn token(mut at: usize) -> String {
    let mut text = String::new();
    loop {
        text.push(char::from(b'a' + (at % 26) as u8));
        at /= 26;
        if at == 0 {
            return text;
        }
        at -= 1;
    }
}

fn tokenizer(folder: &Folder, n: usize, added: usize) {
    let tokens = entries(n, |at| format!(r#""{}":{at}"#, token(at)));
    let added = entries(added, |at| {
        let id = n + at;
        format!(
            r#"{{"id":{id},"content":"<{at}>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
        )
    });
    let model = format!(r#"{{"type":"BPE","vocab":{{{tokens}}},"merges":[]}}"#);
    std::fs::write(folder.path().join("tokenizer.json"), format!(r#"{{"added_tokens":[{added}],"model":{model}}}"#))
        .unwrap();
}

/// The most memory, beyond what the model without the file takes, and the least time of three, that loading takes.
fn cost(folder: &Folder) -> (usize, Duration) {
    let runs: Vec<(usize, Duration)> = (0..3)
        .map(|_| {
            let started = Instant::now();
            let (peak, outcome) = peak_of(|| load(folder.path()).map(drop));
            let elapsed = started.elapsed();
            // An error says little: a message of a file's size would be one more copy of it.
            if let Err(error) = outcome {
                assert!(error.to_string().len() < 2_000, "{} bytes", error.to_string().len());
            }
            (peak, elapsed)
        })
        .collect();
    (runs[0].0, runs.iter().map(|run| run.1).min().unwrap())
}

#[test]
fn a_foreign_file_costs_a_small_multiple_of_its_size() {
    let _alone = super::alone();
    let plain = cost(&Folder::copy_of("tiny"));
    let mut dear = Vec::new();
    for (name, make, file) in FILES {
        let costs = SIZES.map(|n| {
            let folder = Folder::copy_of("tiny");
            make(&folder, n);
            let size = folder.path().join(file).metadata().unwrap().len() as usize;
            let (peak, elapsed) = cost(&folder);
            (size, peak.saturating_sub(plain.0), elapsed)
        });
        let [(_, _, less), (size, peak, more)] = costs;
        let (multiple, slower) =
            (peak as f64 / size as f64, more.as_secs_f64() / less.max(Duration::from_millis(2)).as_secs_f64());
        println!(
            "{name}: {size} bytes, {multiple:.1} times as much memory, {more:.1?}, {slower:.1} times as long for 8 times as much"
        );
        if multiple > MAX_MULTIPLE || slower > 32.0 {
            dear.push(name);
        }
    }
    assert!(dear.is_empty(), "{dear:?}");
}

/// The largest multiple of a file's size that reading it may take. An entry of 12 bytes in a vocabulary becomes a text, and
/// a place in two maps of the tokenizers library; one of 50 bytes in a header becomes a name, a shape and a place in a file.
const MAX_MULTIPLE: f64 = 26.0;

/// States and caches, which people exchange too.
#[test]
fn a_state_costs_a_small_multiple_of_its_size() {
    let _alone = super::alone();
    let model = Gpt2::from_pretrained("letters", LoadOptions::default()).unwrap();
    let like = VocabularyCounts::new(&model, Projection::Notebook).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let read: [(&str, &dyn Fn() -> usize); 2] = [
        ("counts", &|| VocabularyCounts::load(&path, &like).unwrap_err().to_string().len()),
        ("cache", &|| {
            attention_tokens::ActivationCache::read_safetensors(&model, &path).unwrap_err().to_string().len()
        }),
    ];
    for (name, read) in read {
        let costs = SIZES.map(|n| {
            let tensors = entries(n, |at| format!(r#""blocks.{at}.hook_x":{NO_DATA}"#));
            header(&path, &format!("{{{tensors}}}"));
            let size = path.metadata().unwrap().len() as usize;
            let started = Instant::now();
            let (peak, message) = peak_of(read);
            assert!(message < 2_000, "{message} bytes");
            (peak as f64 / size as f64, started.elapsed())
        });
        let [(_, less), (multiple, more)] = costs;
        let slower = more.as_secs_f64() / less.max(Duration::from_millis(2)).as_secs_f64();
        println!("{name}: {multiple:.1} times as much memory, {slower:.1} times as long");
        assert!(multiple < MAX_MULTIPLE && slower < 32.0, "{name}");
    }
}
