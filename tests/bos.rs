//! The beginning-of-sequence token of models: the tokenizer's own, that of `config.json`, or none.

use std::fs;
use std::path::Path;

use attention_tokens::experiments::{
    Controls, PatternMeasure, PromptPair, SimilarityOptions, SweepOptions, appending, count_file, one_token_repeated,
    random_tokens, similarity_test, three_token_cycle,
};
use attention_tokens::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{Folder, example, fixture, load};

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";

/// A model of 97 tokens, whose `config.json` has this `bos_token_id`, with the small byte-level tokenizer, of which one
/// token is called like GPT-2's, and other files. Shape of texts: "a" is 66, "b" is 67.
fn folder(bos_token_id: &str, files: &[(&str, Value)]) -> Folder {
    let folder = Folder::copy_of("tiny");
    folder.configure("\"bos_token_id\": 0", bos_token_id);
    let text = fs::read_to_string(fixture("tokenizers/byte_level.json")).unwrap();
    fs::write(folder.path().join("tokenizer.json"), text.replace("</s>", "<|endoftext|>")).unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    folder
}

/// The same with `vocab.json` and `merges.txt`.
fn use_vocabulary(folder: &Folder) {
    let path = folder.path().join("tokenizer.json");
    let model = serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap()["model"].take();
    let merges = model["merges"].as_array().unwrap().iter();
    let merges: Vec<String> =
        merges.map(|merge| format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap())).collect();
    fs::write(folder.path().join("merges.txt"), merges.join("\n")).unwrap();
    fs::write(folder.path().join("vocab.json"), model["vocab"].to_string()).unwrap();
    fs::remove_file(path).unwrap();
}

/// The lines about `config.json` that loading a folder writes to stderr, without the path.
fn lines(folder: &Path) -> Vec<String> {
    let stderr = String::from_utf8(example("checksums").arg(folder).output().unwrap().stderr).unwrap();
    stderr.lines().filter_map(|line| Some(line.split_once("config.json: ")?.1.to_owned())).collect()
}

/// `bos.py` in the folder of the file says what it holds: what transformers and TransformerLens make of the same files.
#[test]
fn the_token_is_that_of_transformer_lens() {
    let cases: Vec<Map<String, Value>> =
        serde_json::from_slice(&fs::read(fixture("tokenizers/bos.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 44);
    for case in cases {
        let files: Vec<(&str, Value)> =
            case["files"].as_object().unwrap().iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
        let folder = folder("\"bos_token_id\": 67", &files);
        if case["kind"] == "vocab.json" {
            use_vocabulary(&folder);
        }
        let Some(expected) = case["bos"].as_u64() else {
            let message = folder.error();
            let name = files[0].0;
            let problem = format!("{name}: expected bos_token: a text, or an object with its \"content\", found ");
            assert!(message.contains(&problem), "{message}");
            continue;
        };
        let model = load(folder.path()).unwrap();
        // The model has no row for a token that transformers adds.
        let expected = if expected < 97 { expected as u32 } else { 67 };
        assert_eq!(model.config().bos_token_id, Some(expected), "{case:?}");
        assert_eq!(model.to_tokens("ab").unwrap(), [expected, 66, 67], "{case:?}");
        let bos = model.to_single_str_token(expected).unwrap();
        assert_eq!(model.to_str_tokens("ab").unwrap(), [bos.as_str(), "a", "b"], "{case:?}");
        // It is one token within a text too.
        assert_eq!(model.to_tokens_without_bos(&format!("a{bos}")).unwrap(), [66, expected], "{case:?}");
    }
}

#[test]
fn a_token_that_is_not_that_of_the_config_is_reported() {
    let files = [(MAP, json!({"bos_token": "<s>"}))];
    assert_eq!(lines(folder("\"bos_token_id\": 0", &files).path()), [""; 0]);
    assert_eq!(lines(folder("\"n_ctx\": 1", &files).path()), [""; 0]);
    let own = "text begins with the tokenizer's own beginning-of-sequence token, \"<s>\" (0), as in TransformerLens";
    assert_eq!(lines(folder("\"bos_token_id\": 67", &files).path()), [format!("bos_token_id is 67: {own}")]);
    let beyond = "beyond the model's vocabulary of 97 tokens";
    let found = lines(folder("\"bos_token_id\": 50256", &files).path());
    assert_eq!(found, [format!("bos_token_id is 50256, {beyond}: {own}")]);

    let files = [(CONFIG, json!({"bos_token": "<new>\n"}))];
    let unusable = "tokenizer_config.json names \"<new>\\n\", which is not in the vocabulary of the model";
    let of_config = "text begins with the beginning-of-sequence token of config.json, \"b\" (67)";
    assert_eq!(lines(folder("\"bos_token_id\": 67", &files).path()), [format!("{unusable}: {of_config}")]);
    let found = lines(folder("\"bos_token_id\": 97", &files).path());
    assert_eq!(found, [format!("bos_token_id is 97, {beyond}, and {unusable}: text begins without one")]);
}

/// Texts that would change a terminal, or fill it, and what JSON can hold and Rust cannot.
#[test]
fn odd_texts_are_shown_in_one_short_line() {
    for text in ["\u{1b}[2J\r\n", "\0", "\u{202e}\u{5d0}", "\u{1f980}\u{301}", "", &"y".repeat(1_000_000)] {
        let lines = lines(folder("\"bos_token_id\": 67", &[(MAP, json!({"bos_token": text}))]).path());
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.starts_with("special_tokens_map.json names \"") && line.len() < 400, "{line}");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
    let folder = folder("\"bos_token_id\": 67", &[]);
    fs::write(folder.path().join(MAP), r#"{"bos_token": "\ud800"}"#).unwrap();
    let expected = "special_tokens_map.json: expected a JSON object of special tokens, found ";
    assert!(folder.error().contains(expected), "{}", folder.error());
}

/// Without `tokenizer_config.json` and `special_tokens_map.json`, `config.json` is taken at its word.
#[test]
fn without_files_of_special_tokens_the_config_counts() {
    let bos = |bos_token_id: &str| load(folder(bos_token_id, &[]).path()).unwrap().config().bos_token_id;
    assert_eq!(bos("\"bos_token_id\": 67"), Some(67));
    assert_eq!(bos("\"bos_token_id\": 50256"), Some(1));
    assert_eq!(bos("\"bos_token_id\": null"), Some(1));
    assert_eq!(bos("\"n_ctx\": 1"), Some(1));
}

/// A token that only `added_tokens_decoder` has, within the model's vocabulary and beyond.
#[test]
fn a_token_of_added_tokens_decoder() {
    let words = json!({"<|endoftext|>": 0, "a": 1, "b": 2, "[UNK]": 3});
    let model = json!({"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"});
    let tokenizer =
        json!({"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []});
    let added =
        |id: &str| json!({"bos_token": "<b>", "added_tokens_decoder": {id: {"content": "<b>", "special": true}}});
    let folder = folder("\"bos_token_id\": 2", &[("tokenizer.json", tokenizer), (CONFIG, added("4"))]);
    let model = load(folder.path()).unwrap();
    assert_eq!(model.to_tokens("a b").unwrap(), [4, 1, 2]);
    assert_eq!(model.to_str_tokens("a").unwrap(), ["<b>", "a"]);
    // Its id is not the next one, so the library cannot have it there.
    for id in ["5", "97", "4294967295"] {
        fs::write(folder.path().join(CONFIG), added(id).to_string()).unwrap();
        assert_eq!(load(folder.path()).unwrap().to_tokens("a b").unwrap(), [2, 1, 2], "{id}");
    }
    fs::write(folder.path().join(CONFIG), added("x").to_string()).unwrap();
    assert!(
        folder.error().contains("tokenizer_config.json: expected added_tokens_decoder from ids"),
        "{}",
        folder.error()
    );
}

/// A model whose `config.json` and tokenizer have no such token.
fn without_bos() -> Folder {
    let folder = folder("\"bos_token_id\": null", &[]);
    let path = folder.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace("<|endoftext|>", "</s>")).unwrap();
    folder
}

#[test]
fn text_runs_without_a_token_where_there_is_none() {
    let folder = without_bos();
    let expected =
        "bos_token_id is null, and the tokenizer has no beginning-of-sequence token: text begins without one";
    assert_eq!(lines(folder.path()), [expected]);
    let model = load(folder.path()).unwrap();
    assert_eq!(model.config().bos_token_id, None);
    assert_eq!(model.to_tokens("ab").unwrap(), [66, 67]);
    assert_eq!(model.to_str_tokens("ab").unwrap(), ["a", "b"]);
    assert_eq!(model.forward("ab").unwrap(), model.forward(vec![66_u32, 67]).unwrap());
    assert_eq!(model.to_tokens("").unwrap(), [0; 0]);
    let message = model.forward("").unwrap_err().to_string();
    assert!(
        message.starts_with("prompt 0: expected 1 to 32 tokens") || message.contains("found no token"),
        "{message}"
    );
    assert!(format!("{:?}", model.tokenizer().unwrap()).ends_with("bos: None }"));
}

#[test]
fn experiments_work_without_a_token() {
    let folder = without_bos();
    let model = load(folder.path()).unwrap();
    let config = model.config();
    assert_eq!(one_token_repeated(config, 5, 3), [5; 3]);
    assert_eq!(three_token_cycle(config, [1, 2, 3], 4), [1, 2, 3, 1]);
    assert_eq!(random_tokens(config, 4, 0).len(), 4);

    // The first token of a prompt is one of its words.
    let pair = |a: &str, b: &str| PromptPair { kind: "x".into(), a: a.into(), b: b.into() };
    let pairs = [pair("abc", "abd"), pair("xyz", "xzy"), pair("ace", "bdf")];
    for controls in [Controls::OtherPrompts, Controls::Shuffled, Controls::SharedWords] {
        let options = SimilarityOptions { controls, resamples: 19, ..SimilarityOptions::default() };
        let result = similarity_test(&model, &pairs, "x", options).unwrap();
        // 2 of 3, 1 of 3 and none of 3 positions are the same in the pairs.
        assert!((result.equal_tokens_in_pairs - 1.0 / 3.0).abs() < 1e-12, "{}", result.equal_tokens_in_pairs);
    }
    let options =
        SimilarityOptions { measure: PatternMeasure::RowEdits, resamples: 19, ..SimilarityOptions::default() };
    let empty = [pair("", "a"), pair("b", "c")];
    let shuffled = SimilarityOptions { controls: Controls::Shuffled, ..options };
    let message = similarity_test(&model, &empty, "x", shuffled).unwrap_err().to_string();
    assert!(message.contains("found no token"), "{message}");

    let appended = appending(&model, 0, 0, &["ab", "c"], &[66], Projection::Notebook).unwrap();
    assert_eq!(appended.maps[0].n_observations(), 3 + 3);
    let message = appending(&model, 0, 0, &["ab", ""], &[66], Projection::Notebook).unwrap_err().to_string();
    assert!(message.starts_with("prompt 1: ") && message.contains("found no token"), "{message}");

    // A line of which the tokenizer makes no token is skipped, as an empty one is.
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["normalizer"] = json!({"type": "Replace", "pattern": {"String": "!"}, "content": ""});
    fs::write(&path, tokenizer.to_string()).unwrap();
    let model = load(folder.path()).unwrap();
    let prompts = folder.path().join("prompts.txt");
    fs::write(&prompts, "ab\n!!!\n\nc\n").unwrap();
    let counts = count_file(&model, &prompts, &SweepOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(counts.n_prompts(), 2);
}
