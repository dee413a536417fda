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

/// Ids computed by Python's tokenizers 0.22.2 with the demo model's tokenizer.json. Python's build splits text with
/// another regular-expression engine, which may differ in white space, combining marks, and digits of other scripts.
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
    assert_eq!(message, r#""two words" is not a single token: the tokenizer splits it into ["two", " words"]"#);
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
    // The tokenizer's vocabulary is larger than the tiny model's; the model is not run.
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
        assert_eq!(model.to_tokens(text).unwrap(), reference.to_tokens(text).unwrap(), "{text:?}");
        let tokens = model.to_tokens_without_bos(text).unwrap();
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
    assert_eq!(label(" the"), " the");
}
