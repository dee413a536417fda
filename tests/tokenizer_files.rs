use std::fs;
use std::path::PathBuf;

use attention_tokens::prelude::*;
use serde_json::{Value, json};

use crate::support::{Folder, fixture, load};

/// A model folder with this tokenizer of `tests/fixtures/tokenizers`, changed.
fn with_tokenizer(name: &str, change: impl FnOnce(&mut Value)) -> Folder {
    let folder = Folder::copy_of("tiny");
    let mut file = small(name);
    change(&mut file);
    fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    folder
}

fn small(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture("tokenizers").join(format!("{name}.json"))).unwrap()).unwrap()
}

/// A model folder with the vocabulary (349 tokens) and the merges of the small byte-level tokenizer, and other files.
fn with_vocabulary(files: &[(&str, Value)]) -> Folder {
    let folder = Folder::copy_of("tiny");
    let model = small("byte_level")["model"].take();
    fs::write(folder.path().join("vocab.json"), model["vocab"].to_string()).unwrap();
    let merge = |merge: &Value| format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
    let merges: Vec<String> = model["merges"].as_array().unwrap().iter().map(merge).collect();
    fs::write(folder.path().join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    folder
}

fn ids(model: &Gpt2, text: &str) -> Vec<u32> {
    model.to_tokens_without_bos(text).unwrap()
}

/// Ids and texts of Python's tokenizers for each kind of tokenizer (`tests/fixtures/tokenizers/small.py`). The files
/// have truncation to 4 tokens, padding to 8, and post-processors that add special tokens; prompts get none of these.
#[test]
fn tokenizers_of_each_kind_agree_with_python() {
    type Expected = Vec<(String, Vec<u32>, String)>;
    let expected = fs::read(fixture("tokenizers/small.json")).unwrap();
    let expected: std::collections::BTreeMap<String, Expected> = serde_json::from_slice(&expected).unwrap();
    assert_eq!(expected.len(), 5);
    for (name, cases) in expected {
        let folder = with_tokenizer(&name, |_| {});
        let model = load(folder.path()).unwrap();
        for (text, want, decoded) in cases {
            assert_eq!(ids(&model, &text), want, "{name}: {text:?}");
            assert_eq!(model.to_string(&want).unwrap(), decoded, "{name}: {want:?}");
        }
        assert_eq!(model.to_string(&[]).unwrap(), "");
    }
}

/// Ids of transformers 5.15's `GPT2Tokenizer` with the same files.
#[test]
fn added_tokens_beside_a_vocabulary() {
    let added = json!({"đem": 349, "<x>": 350, "<pad>": 351});
    let folder = with_vocabulary(&[
        ("added_tokens.json", added.clone()),
        ("special_tokens_map.json", json!({"pad_token": {"content": "<pad>"}, "additional_special_tokens": ["<x>"]})),
    ]);
    let model = load(folder.path()).unwrap();
    assert_eq!(ids(&model, "a đem the"), [66, 222, 349, 261]);
    assert_eq!(ids(&model, "the <x> cat"), [85, 259, 222, 350, 287]);
    assert_eq!(ids(&model, "<s>the<pad>"), [0, 85, 259, 351]);
    assert_eq!(model.tokenizer().unwrap().vocab_size(), 352);
    let text = "a đem the<pad><x>é";
    assert_eq!(model.to_string(&ids(&model, text)).unwrap(), text);
    assert_eq!((model.to_single_token("đem").unwrap(), model.to_single_str_token(349).unwrap()), (349, "đem".into()));

    // `added_tokens_decoder` is preferred; its tokens can swallow the spaces around them.
    let token = |content: &str, strips: bool| json!({"content": content, "lstrip": strips, "rstrip": strips, "normalized": false, "special": !strips});
    let config = json!({"added_tokens_decoder": {"349": token("<x>", true), "350": token("<pad>", false)}});
    let folder = with_vocabulary(&[("added_tokens.json", added), ("tokenizer_config.json", config)]);
    let model = load(folder.path()).unwrap();
    assert_eq!(ids(&model, "a đem the"), [66, 222, 130, 241, 70, 78, 261]);
    assert_eq!(ids(&model, "the <x> cat"), [85, 259, 349, 68, 258]);
    assert_eq!(ids(&model, "<s>the<pad>"), [0, 85, 259, 350]);

    // An id after a gap is the token's own.
    let folder = with_vocabulary(&[("added_tokens.json", json!({"<y>": 360}))]);
    let model = load(folder.path()).unwrap();
    assert_eq!(ids(&model, "a<y>"), [66, 360]);
    assert_eq!(model.to_single_str_token(360).unwrap(), "<y>");
    let message = model.to_single_str_token(349).unwrap_err().to_string();
    assert_eq!(message, "turning tokens [349] into text failed: the vocabulary has no token of this id");

    let folder = with_vocabulary(&[("tokenizer_config.json", json!({"add_prefix_space": true}))]);
    assert_eq!(ids(&load(folder.path()).unwrap(), "the <x> cat"), [261, 222, 29, 89, 31, 287]);
}

#[test]
fn added_tokens_that_contradict_the_vocabulary() {
    let error = |name: &str, content: Value| with_vocabulary(&[(name, content)]).error();
    let message = error("added_tokens.json", json!({"<x>": 0}));
    assert!(
        message.contains("added_tokens.json: expected ids that agree with vocab.json, found 0 for \"<x>\", which is"),
        "{message}"
    );
    let message = error("added_tokens.json", json!({"<s>": 700}));
    assert!(message.ends_with("found 700 for \"<s>\", which has 0"), "{message}");
    let message = error("added_tokens.json", json!({"<x>": 700, "<y>": 700}));
    assert!(message.contains("added_tokens.json: expected each id once, found 700 for"), "{message}");
    let message = error("added_tokens.json", json!(["<x>"]));
    assert!(message.contains("added_tokens.json: expected a JSON object from tokens to ids, found "), "{message}");
    let message = error("tokenizer_config.json", json!({"added_tokens_decoder": {"x": {"content": "<x>"}}}));
    assert!(message.contains("tokenizer_config.json: expected added_tokens_decoder from ids to tokens"), "{message}");
    let message = error("added_tokens.json", json!({"x".repeat(600): 349}));
    assert!(message.contains("expected added tokens of at most 512 bytes, found one of 600 bytes"), "{message}");
}

#[test]
fn lines_of_merges() {
    let folder = with_vocabulary(&[]);
    let path = folder.path().join("merges.txt");
    let whole = fs::read_to_string(&path).unwrap();
    let want = ids(&load(folder.path()).unwrap(), "the cat sat");
    fs::write(&path, whole.replace('\n', "\r\n\r\n") + "  \n\n").unwrap();
    assert_eq!(ids(&load(folder.path()).unwrap(), "the cat sat"), want);
    for (line, expected) in [
        ("abc", "expected two tokens in each line, with a space between them, found \"abc\" in line 5"),
        ("a b c", "expected two tokens in each line, with a space between them, found \"a b c\" in line 5"),
        ("a \u{3b1}", "expected tokens of vocab.json that join to another of its tokens, found \"\u{3b1}\" in line 5"),
        ("q q", "expected tokens of vocab.json that join to another of its tokens, found \"qq\" in line 5"),
    ] {
        let mut lines: Vec<&str> = whole.lines().collect();
        lines.insert(4, line);
        fs::write(&path, lines.join("\n")).unwrap();
        let message = folder.error();
        assert!(message.contains("merges.txt: ") && message.ends_with(expected), "{message}");
    }
    fs::write(&path, b"a \xff").unwrap();
    assert!(folder.error().contains("merges.txt: expected merges in UTF-8, found "), "{}", folder.error());
}

/// Python's decoder turns the letters of an added token into bytes: `"\u{11}em"`.
#[test]
fn added_tokens_of_letters_that_stand_for_bytes() {
    let folder = with_tokenizer("byte_level", |_| {});
    let model = load(folder.path()).unwrap();
    let text = "the đem Ġnew café";
    // The file's `Ġnew` takes the space in front of it.
    assert_eq!(ids(&model, text), [85, 259, 222, 349, 350, 339]);
    assert_eq!(model.to_string(&[349, 350, 261, 349]).unwrap(), "đemĠnew theđem");
    assert_eq!(model.to_single_str_token(349).unwrap(), "đem");
    assert_eq!(model.to_single_token("đem").unwrap(), 349);
}

#[test]
fn spaces_in_front_of_tokens_stay() {
    let folder = with_tokenizer("byte_fallback", |_| {});
    let model = load(folder.path()).unwrap();
    assert_eq!(ids(&model, "the cat"), [273, 276]);
    assert_eq!(model.to_str_tokens("the cat").unwrap()[1..], [" the", " cat"]);
    assert_eq!(model.to_string(&[273, 276]).unwrap(), "the cat");
    assert_eq!([" the", "the", " cat", "<s>"].map(|text| model.to_single_token(text).unwrap()), [273, 277, 276, 1]);
    assert_eq!(model.to_single_str_token(3 + 0xe9).unwrap(), "\u{fffd}");
    let message = model.to_single_token("the cat").unwrap_err().to_string();
    assert_eq!(message, "\"the cat\" is not a single token: the tokenizer splits it into [\"␣the\", \"␣cat\"]");

    let folder = with_tokenizer("unigram", |_| {});
    let model = load(folder.path()).unwrap();
    let tokens = model.to_str_tokens(" the mat").unwrap();
    assert!(tokens[1].starts_with(' ') && tokens[1..].concat() == " the mat", "{tokens:?}");
    for token in 0..model.tokenizer().unwrap().vocab_size() as u32 {
        let text = model.to_single_str_token(token).unwrap();
        assert_eq!(model.to_single_token(&text).unwrap(), token, "{text:?}");
    }
    // Labels of figures are made in the same way.
    let (_, cache) = model.run_with_cache(vec![1_u32, 2]).unwrap();
    let data = head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap().prompt(0).unwrap();
    assert_eq!(data.token_label(model.to_single_token(" the").unwrap()), "␣the");
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn replace(content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"Regex": ""}, "content": content})
}

fn sequence(list: &str, parts: Vec<Value>) -> Value {
    json!({"type": "Sequence", list: parts})
}

/// Each kind of file that made the tokenizers library panic, take gigabytes of memory or hours, or overflow the stack.
#[test]
fn a_tokenizer_that_would_harm_is_refused() {
    let nested = (0..60).fold(json!({"type": "NFC"}), |part, _| sequence("normalizers", vec![part]));
    let charsmap = |map: &str| json!({"type": "Precompiled", "precompiled_charsmap": map});
    let cases: Vec<(&str, &str, Value, &str)> = vec![
        ("byte_level", "/normalizer", charsmap("/////w=="), "found a size of 4294967295 bytes before 0 bytes"),
        ("byte_level", "/normalizer", charsmap("!"), "expected a precompiled_charsmap in base64"),
        ("byte_level", "/normalizer", nested, "expected a normalizer of at most 12 levels"),
        (
            "byte_level",
            "/normalizer",
            sequence("normalizers", vec![replace("aa"); 40]),
            "expected a normalizer that makes a text at most 8192 times as long",
        ),
        (
            "byte_level",
            "/normalizer",
            sequence("normalizers", vec![replace("zz"); 8]),
            "expected added tokens of at most 16384 bytes after normalization",
        ),
        (
            "byte_level",
            "/decoder",
            sequence("decoders", vec![replace("aa"); 40]),
            "expected a decoder that makes a text at most 8192 times as long",
        ),
        ("byte_level", "/pre_tokenizer", split(&"a".repeat(5000)), "counted repetitions, found 5000 bytes and 0"),
        (
            "byte_level",
            "/pre_tokenizer",
            split(&"(?=\\w{99})".repeat(40)),
            "16 counted repetitions, found 400 bytes and 40",
        ),
        ("byte_level", "/pre_tokenizer", sequence("pretokenizers", vec![split("a"); 300]), "of at most 200 parts"),
        ("byte_level", "/pre_tokenizer", split("(((("), "expected a tokenizer with a valid pre_tokenizer"),
        ("byte_level", "/added_tokens/0/content", json!("x".repeat(100_000)), "added tokens of at most 512 bytes"),
        ("byte_level", "/added_tokens/0/id", json!(-1), "expected a tokenizer with a valid added_tokens"),
        (
            "byte_level",
            "/model/continuing_subword_prefix",
            json!("x".repeat(1000)),
            "at most 64 bytes, found 1000 bytes",
        ),
        ("byte_level", "/model/merges/0", json!(["a", "zz"]), "expected a tokenizer with a valid model"),
        ("byte_level", "/model", json!(null), "expected a tokenizer with a valid model"),
        ("byte_level", "/version", json!("2.0"), "expected a tokenizer of version \"1.0\", found \"2.0\""),
        (
            "byte_level",
            "/normalizer",
            charsmap("AAAAAP8="),
            "expected a tokenizer with a valid normalizer, found the tokenizers library panicked",
        ),
        (
            "unigram",
            "/model/vocab/5/0",
            json!("x".repeat(200_000)),
            "expected tokens of at most 1024 bytes, found one of 200000",
        ),
        (
            "word_piece",
            "/model/max_input_chars_per_word",
            json!(u64::MAX),
            "expected max_input_chars_per_word up to 1000",
        ),
    ];
    for (name, at, value, expected) in cases {
        let folder = with_tokenizer(name, |file| *file.pointer_mut(at).unwrap() = value);
        let message = folder.error();
        assert!(message.contains("tokenizer.json: expected ") && message.contains(expected), "{at}: {message}");
        assert!(message.len() < 600 && !message.contains('\n'), "{at}: {message}");
    }
}

/// What is only found while text is encoded or tokens are decoded is an error then, and the tokenizer stays usable.
#[test]
fn a_tokenizer_that_fails_on_a_text_names_its_file() {
    let longer = sequence("normalizers", vec![replace("aaaaaaa"); 3]);
    for (part, value, text, expected) in [
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "a".into(), "library panicked: chunk size"),
        ("pre_tokenizer", split("(a|a)*(?=b)c"), "a".repeat(60), "its regular expression takes too long on this text"),
        ("normalizer", longer, "b".repeat(1 << 20), "found 1048576 bytes, which it can make 2048 times as long"),
    ] {
        let folder = with_tokenizer("byte_level", |file| file[part] = value);
        let model = load(folder.path()).unwrap();
        for _ in 0..2 {
            let message = model.to_tokens(&text).unwrap_err().to_string();
            assert!(message.contains("tokenizer.json: ") && message.contains(expected), "{part}: {message}");
        }
        assert_eq!(ids(&model, ""), [0; 0]);
    }
    let strip = json!({"type": "Strip", "content": "a", "start": 0, "stop": 9});
    let folder = with_tokenizer("byte_level", |file| file["decoder"] = strip);
    let model = load(folder.path()).unwrap();
    let message = model.to_single_str_token(66).unwrap_err().to_string();
    assert!(
        message.contains("turning tokens [66] into text failed: ")
            && message.contains("tokenizer.json: the tokenizers"),
        "{message}"
    );
    let (_, cache) = model.run_with_cache(vec![1_u32, 2]).unwrap();
    let data = head_data(&model, &cache, 0, 0, DecodeOptions::default()).unwrap().prompt(0).unwrap();
    // A label needs no decoder.
    assert_eq!(data.token_label(66), "a");
}

/// Runs of a million spaces, after which the library goes on with other tokens than Python, unless the text is cut
/// there as for GPT-2's own tokenizer.
#[test]
fn a_long_run_is_refused_where_it_cannot_be_cut() {
    let text = "\n".repeat(1 << 20) + "the";
    let folder = with_tokenizer("byte_level", |_| {});
    assert_eq!(ids(&load(folder.path()).unwrap(), &text)[(1 << 20) - 1..], [200, 85, 259]);
    let changes = [
        ("/pre_tokenizer/add_prefix_space", json!(true)),
        ("/normalizer", json!({"type": "NFC"})),
        ("/added_tokens/3/content", json!("\n\nthe")),
    ];
    for (at, value) in changes {
        let folder = with_tokenizer("byte_level", |file| *file.pointer_mut(at).unwrap() = value);
        let message = load(folder.path()).unwrap().to_tokens(&text).unwrap_err().to_string();
        assert!(
            message.contains("tokenizer.json: its regular expression takes too long on this text: a run"),
            "{message}"
        );
        assert!(message.len() < 600, "{} bytes", message.len());
    }
}

/// Tokens of the greatest length that is allowed, which the library keeps in a tree and drops by recursion.
#[test]
fn the_longest_allowed_tokens_load() {
    let folder = with_tokenizer("unigram", |file| file["model"]["vocab"][5][0] = json!("x".repeat(1024)));
    drop(load(folder.path()).unwrap());
}

#[test]
fn a_file_of_another_kind() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:248dfc\nsize 456318\n";
    let page = "<!doctype html>\n<html><head>";
    for name in ["vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json", "tokenizer.json"] {
        for (content, found) in [(pointer, "found a Git LFS pointer"), (page, "found a web page (HTML)")] {
            let folder = with_vocabulary(&[("added_tokens.json", json!({}))]);
            fs::write(folder.path().join(name), content).unwrap();
            let message = folder.error();
            assert!(message.contains(name) && message.contains(found), "{name}: {message}");
        }
    }
    let folder = Folder::copy_of("tiny");
    let path: PathBuf = folder.path().join("tokenizer.json");
    fs::File::create(&path).unwrap().set_len(300 << 20).unwrap();
    assert!(
        folder.error().contains("tokenizer.json: expected a tokenizer's file of at most 200 MB"),
        "{}",
        folder.error()
    );
    fs::write(&path, "[".repeat(100_000)).unwrap();
    assert!(folder.error().contains("tokenizer.json: expected a tokenizer, found "), "{}", folder.error());
}
