//! Each variant is caused by a call that a user could make, and its fields are read as a program would read them.
//! The Hub's errors are in `hub.rs`, those of files in `hostile_files.rs`, those of a GPU in `cuda`.

use std::error::Error as _;

use attention_tokens::Occurrence;
use attention_tokens::experiments::*;
use attention_tokens::notebook::*;
use attention_tokens::prelude::*;
use ndarray::Array2;

use crate::support::{Folder, demo, fixture, load};

/// The fields of an error of the expected variant.
macro_rules! expect {
    ($result:expr, $pattern:pat => $fields:expr) => {
        match $result.map(drop).unwrap_err() {
            $pattern => $fields,
            other => panic!("another variant: {other:?}"),
        }
    };
}

fn from_pretrained(name: &str) -> Result<Gpt2, Error> {
    Gpt2::from_pretrained(name, LoadOptions::default())
}

fn heads(model: &Gpt2, text: &str) -> Vec<HeadData> {
    let (_, cache) = model.run_with_cache(text).unwrap();
    all_heads_data(model, &cache, DecodeOptions::default()).unwrap()
}

#[test]
fn unknown_model() {
    let (name, known) = expect!(from_pretrained("gpt3"), Error::UnknownModel { name, known } => (name, known));
    assert_eq!(name, "gpt3");
    assert!(known.contains(&"\"gpt2-small\"".into()), "{known:?}");
}

#[test]
fn revision() {
    let options = LoadOptions::default().revision("../x");
    let found = expect!(Gpt2::from_pretrained("gpt2", options), Error::Revision { found } => found);
    assert_eq!(found, "../x");
}

#[test]
fn missing_file() {
    let path = expect!(from_pretrained("no/such/folder"), Error::MissingFile { path, .. } => path);
    assert!(path.ends_with("no/such/folder/config.json"));
}

#[test]
fn io() {
    let folder = Folder::copy_of("tiny");
    std::fs::write(folder.path().join("config.json"), b"\xff").unwrap(); // not UTF-8
    let error = load(folder.path()).unwrap_err();
    let kind = match &error {
        Error::Io { source, .. } => source.kind(),
        other => panic!("another variant: {other:?}"),
    };
    assert_eq!(kind, std::io::ErrorKind::InvalidData);
    assert!(error.source().unwrap().is::<std::io::Error>());
}

#[test]
fn write() {
    let (_, cache) = demo().run_with_cache("a").unwrap();
    let data = head_data(&demo(), &cache, 0, 0, DecodeOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let csv = data.write_csv(folder.path()).unwrap_err(); // a folder is not a file
    let npz = data.write_npz(folder.path()).unwrap_err();
    for error in [&csv, &npz] {
        assert!(error.source().unwrap().is::<std::io::Error>(), "{error:?}");
    }
    #[cfg(target_os = "linux")]
    {
        let csv = data.write_csv("/dev/full").unwrap_err(); // a disk without space
        assert!(csv.source().unwrap().is::<csv::Error>(), "{csv:?}");
        let npz = data.write_npz("/dev/full").unwrap_err();
        assert!(npz.source().unwrap().is::<ndarray_npy::WriteNpzError>(), "{npz:?}");
    }
    let mut counts = VocabularyCounts::new(&demo(), Projection::Notebook).unwrap();
    counts.add(&demo(), ["a"]).unwrap();
    let saved = counts.save(folder.path().join("no/folder")).unwrap_err();
    assert!(saved.source().unwrap().is::<std::io::Error>(), "{saved:?}");
    for error in [csv, npz, saved] {
        let (text, source) = (error.to_string(), error.source().unwrap().to_string());
        assert_eq!(text.matches(&source).count(), 1, "the source's text once: {text}");
    }
}

#[test]
fn format() {
    let folder = Folder::copy_of("tiny");
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    let error = load(folder.path()).unwrap_err();
    let source = error.source().unwrap();
    assert!(source.is::<serde_json::Error>());
    assert_eq!(error.to_string().matches(&source.to_string()).count(), 1, "{error}");
}

#[test]
fn config() {
    let folder = Folder::copy_of("tiny");
    folder.configure("\"n_layer\": 2", "\"n_layer\": 0");
    let (field, found) = expect!(load(folder.path()), Error::Config { field, found, .. } => (field, found));
    assert_eq!((field, found.as_str()), ("n_layer", "0"));
}

#[test]
fn tensor() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| drop(tensors.remove("ln_f.bias")));
    let tensor = expect!(load(folder.path()), Error::Tensor { tensor, .. } => tensor);
    assert_eq!(tensor, "ln_f.bias");
}

#[test]
fn no_tokenizer_and_no_token() {
    let model = expect!(load(&fixture("tiny")).unwrap().to_tokens("x"), Error::NoTokenizer { model } => model);
    assert!(model.ends_with("tiny"), "{model}");
    let found = expect!(demo().to_single_token("two words"), Error::NotOneToken { found, .. } => found);
    assert_eq!(found, ["two", "␣words"]);
}

/// A word-level vocabulary without an unknown token cannot encode other words.
#[test]
fn tokenize() {
    let folder = Folder::copy_of("tiny");
    let tokenizer = r#"{"version": "1.0", "added_tokens": [], "model":
        {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, "a": 1}, "unk_token": "[UNK]"}}"#;
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    let error = load(folder.path()).unwrap().to_tokens("b").unwrap_err();
    assert!(error.to_string().starts_with("tokenizing \"b\" failed: ") && error.source().is_some(), "{error}");
    assert_eq!(expect!(Err::<(), _>(error), Error::Tokenize { text, .. } => text), "b");
}

#[test]
fn out_of_range() {
    let found = expect!(demo().w_v(4, 0), Error::OutOfRange { what, index, len, .. } => (what, index, len));
    assert_eq!(found, ("layer", 4, 4));
}

#[test]
fn count() {
    let options = RunOptions::default().stop_at_layer(5);
    let run = demo().run_with_cache_options("x", options);
    let limits = expect!(run, Error::Count { what, found, min, max, .. } => (what, found, min, max));
    assert_eq!(limits, ("stop_at_layer".into(), 5, 0, Some(4)));
    let run = demo().forward(Vec::<Vec<u32>>::new());
    let limits = expect!(run, Error::Count { what, found, min, max, .. } => (what, found, min, max));
    assert_eq!(limits, ("prompts".into(), 0, 1, None));
}

#[test]
fn shape() {
    let data = heads(&demo(), "a b")[0].prompt(0).unwrap();
    let figure = add_axis_labels(&plot_attns(&Array2::zeros((5, 5))), &data);
    let shapes = expect!(figure, Error::Shape { expected, found, .. } => (expected, found));
    assert_eq!(shapes, (vec![3, 3], vec![5, 5]));
    let (_, cache) = demo().run_with_cache(vec![1_u32]).unwrap();
    let other = head_data(&load(&fixture("tiny")).unwrap(), &cache, 0, 0, DecodeOptions::default());
    let axes = expect!(other, Error::Shape { axes, found, .. } => (axes, found));
    assert_eq!(axes.0, "a cache of a model with [n_layers, n_heads, d_model, d_mlp, d_vocab, n_ctx]");
    assert_eq!(axes.1, [4, 8, 128, 512, 50257, 256]);
}

#[test]
fn position_and_token_not_in_prompt() {
    let model = demo();
    let position =
        expect!(model.logits_at("a b", &[-4]), Error::Position { position, prompt, len } => (position, prompt, len));
    assert_eq!(position, (-4, 0, 3));
    let found = model.get_token_position(" c", "a b", Occurrence::First);
    let missing = expect!(found, Error::TokenNotInPrompt { token, prompt } => (token, prompt));
    assert_eq!(missing, ("␣c".to_owned(), ["EOS", "a", "␣b"].map(String::from).to_vec()));
}

#[test]
fn prompt() {
    let run = demo().forward(vec![vec![1], vec![1; 257]]);
    let prompt = expect!(run, Error::Prompt { prompt, len, n_ctx } => (prompt, len, n_ctx));
    assert_eq!(prompt, (1, 257, 256));
}

#[test]
fn not_cached_and_several_prompts() {
    let options = RunOptions::default().activations([Activation::Q]);
    let (_, cache) = demo().run_with_cache_options("x", options).unwrap();
    let missing =
        expect!(cache.get(Activation::K, 1), Error::NotCached { activation, layer, .. } => (activation, layer));
    assert_eq!(missing, ("k", 1));
    let (_, cache) = demo().run_with_cache(["a", "b", "c"]).unwrap();
    assert_eq!(expect!(cache.get(Activation::Q, 0), Error::SeveralPrompts { n_prompts } => n_prompts), 3);
}

#[test]
fn heads_of_other_prompts_or_not_all_heads() {
    let model = demo();
    let (a, b) = (heads(&model, "The bus."), heads(&model, "The tram."));
    let both = [a[0].clone(), b[1].clone()];
    let differ =
        expect!(layer_grid(&both, 0), Error::DifferentPrompts { prompt, first, other, .. } => (prompt, first, other));
    assert_eq!(differ, (0, (0, 0), (0, 1)));
    expect!(TokenAgreement::between("x", &a, &b), Error::DifferentPrompts { .. } => ());
    let found = expect!(ContractionByHead::new(&a[1..3]), Error::NotEveryHead { found, .. } => found);
    assert_eq!(found, [(0, 1), (0, 2)]);
}

#[test]
fn figure_kind() {
    let figure = Figure::from(plot_attns(&Array2::zeros((2, 2))).to_plot());
    let function = expect!(figure.with_theme(Theme::Dark), Error::FigureKind { function, .. } => function);
    assert_eq!(function, "with_theme");
}

#[test]
fn other_counts() {
    let counts = |projection| VocabularyCounts::new(&demo(), projection).unwrap();
    let merged = counts(Projection::Notebook).merge(&counts(Projection::Ov));
    let (expected, found) = expect!(merged, Error::OtherCounts { expected, found } => (expected, found));
    assert_eq!((&expected.0[..], &found.0[..], expected.1 == found.1), ("notebook", "ov", true));
}

#[test]
fn no_pairs_of_kind() {
    let test = similarity_test(&demo(), &PromptPair::shipped(), "none", SimilarityOptions::default());
    let found = expect!(test, Error::NoPairsOfKind { found, .. } => found);
    assert_eq!(found, ["structure", "meaning"]);
}

#[cfg(feature = "tsne")]
#[test]
fn perplexity() {
    let mut counts = VocabularyCounts::new(&demo(), Projection::Notebook).unwrap();
    counts.add(&demo(), ["The next bus is late."]).unwrap();
    let map = counts.embedding_map(&demo(), Component::Qk, 10, MapMethod::TSne { perplexity: 30.0 });
    let limits = expect!(map, Error::Perplexity { found, max, n_tokens } => (found, max, n_tokens));
    assert_eq!(limits, (30.0, 3.0, 10));
}
