use attention_tokens::prelude::*;

use crate::support::{Folder, demo, fixture, load, read, root};

/// The tokens of the demo model's golden data are Hugging Face's tokens of its `prompts.json`, with the BOS in front.
#[test]
fn tokens_match_hugging_face() {
    let model = demo();
    let folder = root().join("crate/demo-model");
    let prompts: Vec<String> =
        serde_json::from_str(&std::fs::read_to_string(folder.join("prompts.json")).unwrap()).unwrap();
    let expected = read(&folder.join("expected.safetensors"));
    assert_eq!(prompts.len(), 3);
    for (index, prompt) in prompts.iter().enumerate() {
        let (_, _, bytes) = &expected[&format!("prompt{index}.tokens")];
        let want: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(model.to_tokens(prompt).unwrap(), want);
        assert_eq!(model.to_string(&want[1..]).unwrap(), *prompt);
    }
}

/// Ids computed by Python's tokenizers 0.22.2 with the demo model's tokenizer.json.
#[test]
fn unusual_text_is_tokenized_as_in_python() {
    let model = demo();
    let cases: [(&str, &[u32]); 16] = [
        ("Hello world", &[15496, 995]),
        ("\n\n", &[628]),
        ("<|endoftext|>", &[50256]),
        ("   indented", &[220, 220, 773, 4714]),
        ("é", &[2634]),
        ("don't", &[9099, 470]),
        ("🦀 ünïcödé", &[8582, 99, 222, 6184, 120, 77, 26884, 66, 9101, 67, 2634]),
        ("日本語", &[33768, 98, 17312, 105, 45739, 252]),
        ("e\u{301}", &[68, 136, 223]),
        ("\u{0}\t", &[188, 197]),
        ("a\r\nb", &[64, 201, 198, 65]),
        ("١٢٣", &[149, 94, 149, 95, 149, 96]),
        ("𝒳²", &[47728, 240, 111, 31185]),
        ("a  b\u{a0}c", &[64, 220, 275, 1849, 66]),
        ("x\u{2028}y \u{3000}z", &[87, 447, 101, 88, 220, 5099, 222, 89]),
        ("ǅ'Ll'll", &[131, 227, 6, 43, 75, 1183]),
    ];
    for (text, want) in cases {
        assert_eq!(model.to_tokens_without_bos(text).unwrap(), want, "{text:?}");
        assert_eq!(model.to_string(want).unwrap(), text);
    }
}

#[test]
fn single_tokens_convert_in_both_directions() {
    let model = demo();
    assert_eq!(model.to_single_token(" the").unwrap(), 262);
    assert_eq!(model.to_single_str_token(262).unwrap(), " the");
    assert_eq!(model.to_str_tokens("It is").unwrap(), ["<|endoftext|>", "It", " is"]);
    let message = model.to_single_token("two words").unwrap_err().to_string();
    assert_eq!(message, r#""two words" is not a single token: the tokenizer splits it into ["two", "␣words"]"#);
    assert!(model.to_single_token("").unwrap_err().to_string().contains("is not a single token"));
    let message = model.to_single_str_token(50257).unwrap_err().to_string();
    assert_eq!(message, "token id 50257 out of range: the tokenizer has 50257, 0 to 50256");
}

#[test]
fn a_model_without_a_tokenizer_takes_token_ids() {
    let model = load(&fixture("tiny")).unwrap();
    assert_eq!(model.forward(vec![1_u32, 2]).unwrap()[0].dim(), (2, 97));
    for message in [model.forward("text").unwrap_err(), model.to_tokens("text").unwrap_err()] {
        assert!(message.to_string().contains("was loaded without a tokenizer: put tokenizer.json"), "{message}");
    }
    let (_, cache) = model.run_with_cache(vec![1_u32, 2]).unwrap();
    let data = head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap().prompt(0).unwrap();
    assert_eq!(data.token_label(7), "#7");
}

#[test]
fn a_vocabulary_and_merges_make_the_same_tokenizer() {
    let whole: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root().join("crate/demo-model/tokenizer.json")).unwrap()).unwrap();
    let folder = Folder::copy_of("tiny");
    // The tokenizer's vocabulary is larger than the tiny model's, so that text gets no BOS; the model is not run.
    folder.configure("\"bos_token_id\": 0", "\"bos_token_id\": 50256");
    let mut vocabulary = whole["model"]["vocab"].clone();
    vocabulary["<|endoftext|>"] = 50256.into();
    std::fs::write(folder.path().join("vocab.json"), vocabulary.to_string()).unwrap();
    let merges = whole["model"]["merges"].as_array().unwrap().iter().map(|merge| match merge {
        serde_json::Value::String(merge) => merge.clone(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    });
    let merges: Vec<String> = std::iter::once("#version: 0.2".into()).chain(merges).collect();
    std::fs::write(folder.path().join("merges.txt"), merges.join("\n")).unwrap();
    let (model, reference) = (load(folder.path()).unwrap(), demo());
    for text in ["The next bus is late.", "  two  spaces\n", "don't 🦀 日本", "a<|endoftext|>b"] {
        let tokens = model.to_tokens(text).unwrap();
        assert_eq!(tokens, reference.to_tokens_without_bos(text).unwrap(), "{text:?}");
        assert_eq!(model.to_string(&tokens).unwrap(), text);
    }
}

#[test]
fn a_vocabulary_larger_than_the_tokenizers_loads() {
    // An embedding of 97 rows, and a tokenizer of five tokens.
    let folder = Folder::copy_of("tiny");
    std::fs::write(folder.path().join("vocab.json"), r#"{"<|endoftext|>": 0, "a": 1, "b": 2, "c": 3, "ab": 4}"#)
        .unwrap();
    std::fs::write(folder.path().join("merges.txt"), "#version: 0.2\na b\n").unwrap();
    let model = load(folder.path()).unwrap();
    assert_eq!(model.to_tokens("abc").unwrap(), [0, 4, 3]);
    let (_, cache) = model.run_with_cache("abc").unwrap();
    let data = head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap().prompt(0).unwrap();
    assert_eq!((data.token_label(4), data.token_label(96)), ("ab".into(), "#96".into()));
}

#[test]
fn labels_make_white_space_visible() {
    let model = demo();
    let (_, cache) = model.run_with_cache("a").unwrap();
    let data = head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap().prompt(0).unwrap();
    let label = |text: &str| data.token_label(model.to_single_token(text).unwrap());
    assert_eq!([label("\n"), label(" "), label("\t"), label("<|endoftext|>")], ["<nl>", "<sp>", "<tab>", "EOS"]);
    assert_eq!(label(" the"), "␣the");
    assert_eq!(
        model.to_tokens_without_bos(" 👩").unwrap().iter().map(|&token| data.token_label(token)).collect::<String>(),
        "␣<0xF0><0x9F><0x91><0xA9>"
    );
}

/// All 50,257 tokens of GPT-2, and ids beyond them.
#[test]
fn no_two_tokens_have_the_same_label() {
    let model = demo();
    let (_, cache) = model.run_with_cache("a").unwrap();
    let data = head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap().prompt(0).unwrap();
    let mut tokens = std::collections::HashMap::new();
    for token in 0..50_300 {
        let label = data.token_label(token);
        assert!(!label.is_empty() && label.chars().count() <= 45, "{token}: {label:?}");
        assert!(!label.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\u{fffd}'), "{token}: {label:?}");
        if let Some(other) = tokens.insert(label.clone(), token) {
            panic!("{token} and {other} are both {label:?}");
        }
    }
    // Both `b` and ` b`, and the pieces of an emoji.
    assert_ne!(data.token_label(65), data.token_label(275));
}

/// Hash of token ids as in `tests/fixtures/tokenizers/golden.py`.
fn fnv1a(ids: &[u32]) -> String {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// The ids that Python's tokenizers gives, with GPT-2's tokenizer of 50,257 tokens: 10,000 random texts, every code point,
/// and texts of a megabyte.
#[test]
fn tokens_match_python_on_odd_texts() {
    #[derive(serde::Deserialize)]
    struct Golden {
        texts: Vec<(String, String)>,
        code_points: Vec<String>,
        long: Vec<(String, usize, String, usize, String)>,
    }
    let file = std::fs::File::open(fixture("tokenizers/gpt2_ids.json.gz")).unwrap();
    let golden: Golden = serde_json::from_reader(flate2::read::GzDecoder::new(file)).unwrap();
    assert_eq!((golden.texts.len(), golden.code_points.len(), golden.long.len()), (10_000, 840, 3));
    let model = demo();
    let ids = |text: &str| model.to_tokens_without_bos(text).unwrap();
    let mut wrong = Vec::new();
    for (text, want) in &golden.texts {
        let found = ids(text);
        if fnv1a(&found) != *want || model.to_string(&found).unwrap() != *text {
            wrong.push(format!("{text:?}"));
        }
    }
    let blocks = (0..0x340_u32).chain(0xe00..0xe10).filter(|block| !(0xd8..0xe0).contains(block));
    for (block, want) in blocks.zip(&golden.code_points) {
        let points = (block << 8..(block + 1) << 8).filter_map(char::from_u32);
        let text: String = points.map(|c| format!("a{c}1{c} {c},")).collect();
        if fnv1a(&ids(&text)) != *want {
            wrong.push(format!("U+{block:02X}00 to U+{block:02X}FF"));
        }
    }
    for (unit, count, end, len, want) in &golden.long {
        let found = ids(&(unit.repeat(*count) + end));
        if found.len() != *len || fnv1a(&found) != *want {
            wrong.push(format!("{unit:?} {count} times, then {end:?}: {} ids, expected {len}", found.len()));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_second_beginning_of_sequence_token_is_announced_once() {
    let model = demo();
    assert_eq!(model.to_tokens("<|endoftext|>Hi").unwrap(), [50256, 50256, 17250]);
    assert_eq!(model.to_tokens_without_bos("<|endoftext|>Hi").unwrap(), [50256, 17250]);
    let lines = |prompt: &str| {
        let output = crate::support::example("heads").args(["demo", prompt, "output"]).output().unwrap();
        assert!(output.status.success());
        let printed = String::from_utf8(output.stderr).unwrap();
        printed.lines().filter(|line| line.contains("beginning-of-sequence")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines("Hi<|endoftext|>"), [""; 0]);
    let found = lines("<|endoftext|>Hi");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("a text begins with \"<|endoftext|>\", the beginning-of-sequence token"), "{found:?}");
}
