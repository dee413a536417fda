//! Changed `tokenizer.json` files, thousands of them: none may panic, end the process or take long.
//!
//! `ATTENTION_TOKENS_FUZZ=100000` sets the number of files; run it under `ulimit -v`, so that large allocations end the
//! process. `ATTENTION_TOKENS_TEST_SEED` repeats a run.

use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use super::{ConfigBos, FilesBeside, Tokenizer, TokenizerFiles, VocabularyFiles};
use crate::config::StatedBos;

const FIXTURES: [&str; 5] = ["byte_level", "unigram", "byte_fallback", "word_piece", "word_level"];
/// Texts that reach the parts of a tokenizer in different ways.
const TEXTS: [&str; 6] = [
    "",
    "The cat sat on the mat.",
    "<s> đem  \n\tcafé 12.5 %",
    "Ω🦀日本e\u{301}\u{0}",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "▁x  ",
];

fn fixtures() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
    let read = |name: &&str| std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    FIXTURES.iter().map(|name| serde_json::from_slice(&read(name)).unwrap()).collect()
}

/// Parts for each place of a file: those of the fixtures, and others.
struct Parts(Vec<(&'static str, &'static str, Vec<Value>)>);

impl Parts {
    fn new(fixtures: &[Value]) -> Self {
        let of = |key: &str| fixtures.iter().map(|file| file[key].clone()).collect::<Vec<_>>();
        let regexes = [
            r"(a|a)*b",
            r"(?=(\w+))\1",
            r"\w{50}{50}",
            r"(?<=a)b",
            "",
            r"\s+(?!\S)|\s+",
            r"((((a*)*)*)*)*$",
            "(?=a)a*+",
        ];
        let replace = |regex: &str| json!({"type": "Replace", "pattern": {"Regex": regex}, "content": "zz"});
        let split = |regex: &str| {
            let invert = regex.len().is_multiple_of(2);
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "MergedWithNext", "invert": invert})
        };
        let mut normalizers = of("normalizer");
        normalizers.extend(regexes.map(replace));
        normalizers.extend([
            json!({"type": "Strip", "strip_left": true, "strip_right": true}),
            json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
            json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAEAAABhAGI="}),
            json!({"type": "Prepend", "prepend": "▁▁"}),
            json!({"type": "Replace", "pattern": {"String": ""}, "content": "aaaa"}),
            json!({"type": "ByteLevel"}),
        ]);
        normalizers.extend(["StripAccents", "Nmt", "NFC", "NFD", "NFKC", "NFKD"].map(|kind| json!({"type": kind})));
        let mut pre_tokenizers = of("pre_tokenizer");
        pre_tokenizers.extend(regexes.map(split));
        pre_tokenizers.extend([
            json!({"type": "FixedLength", "length": 0}),
            json!({"type": "FixedLength", "length": 2}),
            json!({"type": "Delimiter", "delimiter": "a"}),
            json!({"type": "UnicodeScripts"}),
            json!({"type": "Whitespace"}),
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}),
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false}),
        ]);
        let mut decoders = of("decoder");
        decoders.extend(regexes.map(replace));
        decoders.extend([
            json!({"type": "Strip", "content": "e", "start": 3, "stop": 100}),
            json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}),
            json!({"type": "BPEDecoder", "suffix": ""}),
            json!({"type": "WordPiece", "prefix": "", "cleanup": true}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ]);
        Self(vec![
            ("normalizer", "normalizers", normalizers),
            ("pre_tokenizer", "pretokenizers", pre_tokenizers),
            ("decoder", "decoders", decoders),
        ])
    }

    /// A place of a file, the key of a sequence there, and a part for it.
    fn any(&self, rng: &mut Rng) -> (&'static str, &'static str, Value) {
        let (place, list, parts) = &self.0[rng.usize(0..self.0.len())];
        (place, list, parts[rng.usize(0..parts.len())].clone())
    }
}

/// The paths of every value in a file, as JSON pointers.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.into());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Array(items) => (0..items.len()).for_each(|i| pointers(&items[i], &format!("{at}/{i}"), found)),
        Value::Object(map) => map.iter().for_each(|(k, v)| pointers(v, &format!("{at}/{}", escaped(k)), found)),
        _ => {}
    }
}

/// A value of another type or size.
fn extreme(rng: &mut Rng) -> Value {
    let numbers = [0.0, -1.0, 1.0, 2.0, 255.0, 4_294_967_295.0, 4_294_967_296.0, 1e18, -1e300, 0.5, 1.8e19];
    match rng.u8(0..12) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(u64::MAX),
        3 => json!(u32::MAX - rng.u32(0..3)),
        4 => json!([]),
        5 => json!({}),
        6 => json!(""),
        7 => json!("a".repeat(1 << rng.u32(0..18))),
        8 => json!("▁\u{301}\u{0}đ<"),
        9 => json!([[["x", 1]], null]),
        10 => json!(i64::MIN),
        _ => json!(numbers[rng.usize(0..numbers.len())]),
    }
}

/// Changes one value of a file.
fn change(file: &mut Value, parts: &Parts, rng: &mut Rng) {
    let mut all = Vec::new();
    pointers(file, "", &mut all);
    // Most values are tokens of the vocabulary: most changes are elsewhere.
    let elsewhere: Vec<String> = all
        .iter()
        .filter(|at| !at.starts_with("/model/vocab/") && !at.starts_with("/model/merges/"))
        .cloned()
        .collect();
    let from = if rng.u8(0..4) == 0 { &all } else { &elsewhere };
    let at = from[rng.usize(1..from.len())].clone();
    let (place, list, part) = parts.any(rng);
    match rng.u8(0..10) {
        0 => *file.pointer_mut(&at).unwrap() = extreme(rng),
        1 | 2 => file[place] = part,
        3 => {
            let value = &mut file[place];
            for _ in 0..1 << rng.u32(0..7) {
                *value = json!({"type": "Sequence", list: [value.take()]});
            }
        }
        4 => {
            let many = (0..1 << rng.u32(0..9)).map(|_| part.clone());
            file[place] = json!({"type": "Sequence", list: many.collect::<Vec<_>>()});
        }
        5 => {
            let several: Vec<Value> = std::iter::repeat_with(|| parts.any(rng))
                .filter(|any| any.0 == place)
                .map(|any| any.2)
                .take(4)
                .collect();
            file[place] = json!({"type": "Sequence", list: several});
        }
        6 => match file.pointer_mut(&at).unwrap() {
            Value::String(text) => *text = text.repeat(rng.usize(0..300)),
            Value::Bool(flag) => *flag = !*flag,
            Value::Array(items) if !items.is_empty() => items.push(items[rng.usize(0..items.len())].clone()),
            Value::Object(map) if !map.is_empty() => {
                let key = map.keys().nth(rng.usize(0..map.len())).unwrap().clone();
                let value = map.remove(&key).unwrap();
                if rng.bool() {
                    map.insert(format!("{key}{key}"), value);
                }
            }
            other => *other = extreme(rng),
        },
        7 | 8 => {
            let content = ["a", "", " ", "<s>", "\n", "at", "Ġ"][rng.usize(0..7)];
            let mut token = json!({"id": u32::MAX - rng.u32(0..2), "content": content});
            for flag in ["single_word", "lstrip", "rstrip", "normalized", "special"] {
                token[flag] = json!(rng.bool());
            }
            match file.get_mut("added_tokens") {
                Some(Value::Array(added)) => added.push(token),
                _ => file["added_tokens"] = json!([token]),
            }
        }
        _ => {
            let keys = [
                "dropout",
                "unk_token",
                "unk_id",
                "byte_fallback",
                "ignore_merges",
                "fuse_unk",
                "continuing_subword_prefix",
                "end_of_word_suffix",
                "max_input_chars_per_word",
            ];
            if let Some(model) = file["model"].as_object_mut() {
                model.insert(keys[rng.usize(0..keys.len())].into(), extreme(rng));
            }
        }
    }
}

/// The bytes of a changed file.
fn mutant(fixtures: &[Value], parts: &Parts, rng: &mut Rng) -> Vec<u8> {
    let mut file = fixtures[rng.usize(0..fixtures.len())].clone();
    for _ in 0..rng.usize(1..4) {
        if file.is_object() {
            change(&mut file, parts, rng);
        }
    }
    let mut bytes = serde_json::to_vec(&file).unwrap();
    if rng.u8(0..8) == 0 {
        for _ in 0..rng.usize(1..5) {
            let at = rng.usize(0..bytes.len());
            match rng.u8(0..4) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes.truncate(at + 1),
                2 => bytes[at] = b"\"{}[],:0-9\\e"[rng.usize(0..12)],
                _ => bytes.insert(at, b"\"{}[],:0-9\\e"[rng.usize(0..12)]),
            }
        }
    }
    bytes
}

/// Uses a tokenizer in every way, and returns whether it loads and encodes.
fn exercise(path: &Path) -> (bool, bool) {
    let files = TokenizerFiles { vocabulary: VocabularyFiles::Json(path.into()), beside: FilesBeside::default() };
    let config = ConfigBos { stated: StatedBos::Id(0), token: Some(0), d_vocab: 400 };
    let tokenizer = match Tokenizer::from_files(&files, config) {
        Ok((tokenizer, _)) => tokenizer,
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("tokenizer.json") && message.len() < 1000 && !message.contains('\n'), "{message}");
            return (false, false);
        }
    };
    let mut encodes = true;
    for text in TEXTS {
        match tokenizer.to_tokens_without_bos(text) {
            Ok(ids) => {
                drop(tokenizer.to_string(&ids));
                ids.iter().take(50).for_each(|&id| drop(tokenizer.to_single_str_token(id)));
            }
            Err(error) => {
                encodes = false;
                assert!(error.to_string().contains("tokenizer.json"), "{error}");
            }
        }
    }
    ["the", " the", "zz"].iter().for_each(|text| drop(tokenizer.to_single_token(text)));
    for id in (0..40).chain([399, 500, u32::MAX - 1, u32::MAX]) {
        drop(tokenizer.to_single_str_token(id));
    }
    drop(tokenizer.to_string(&[1, 0, 2, 1, 1, 30, 6]));
    (true, encodes)
}

#[test]
fn changed_files_are_tokenizers_or_errors() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let (count, seed) =
        (number("ATTENTION_TOKENS_FUZZ").unwrap_or(1500), number("ATTENTION_TOKENS_TEST_SEED").unwrap_or(24));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let fixtures = fixtures();
    let parts = Parts::new(&fixtures);
    let (mut loaded, mut encoded, mut slowest) = (0, 0, Duration::ZERO);
    for index in 0..count {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1 << 32).wrapping_add(index));
        std::fs::write(&path, mutant(&fixtures, &parts, &mut rng)).unwrap();
        if let Ok(kept) = std::env::var("ATTENTION_TOKENS_FUZZ_FILE") {
            std::fs::copy(&path, kept).unwrap();
        }
        let start = Instant::now();
        let (loads, encodes) = exercise(&path);
        if start.elapsed() > slowest {
            slowest = start.elapsed();
            println!("file {index}: {slowest:.1?}");
        }
        assert!(start.elapsed() < Duration::from_secs(60), "file {index} of seed {seed} takes {:?}", start.elapsed());
        loaded += u64::from(loads);
        encoded += u64::from(encodes);
    }
    println!("{count} files, {loaded} load, {encoded} encode every text; the slowest takes {slowest:.1?}");
    // A third at least is still a tokenizer, so that the changes reach encoding and decoding.
    assert!(loaded > count / 4 && encoded > count / 8, "{loaded} load, {encoded} encode, of {count}");
}
