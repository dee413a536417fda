//! Tests of messages whose causes a test cannot provoke.

use super::*;

/// The variants that only a failing device or broken weights cause. `tests/errors.rs` tests the others.
#[test]
fn device_svd_and_decoder_failures_name_their_origin() {
    let source = || "out of memory: 5 MB were asked for";
    let device = Error::device("CUDA device 0", "an upload", source());
    assert_eq!(device.to_string(), "CUDA device 0: an upload failed: out of memory: 5 MB were asked for");
    assert_eq!(std::error::Error::source(&device).unwrap().to_string(), source());
    let svd = Error::Svd { function: "singular_vectors", layer: 3, head: 1, hint: "are its weights finite?" };
    let expected = "singular_vectors: the singular value decomposition of head 3.1 does not converge; ";
    assert!(svd.to_string().starts_with(expected));
    let detokenize = Error::Detokenize { tokens: vec![1, 2], source: "no decoder".into() };
    assert_eq!(detokenize.to_string(), "turning tokens [1, 2] into text failed: no decoder");
}

#[test]
fn messages_of_long_texts_are_short() {
    let long = "x".repeat(1_000_000);
    let errors = [
        Error::NotOneToken { text: long.clone(), found: vec![long.clone(); 30] },
        Error::TokenNotInPrompt { token: long.clone(), prompt: vec![long.clone(); 3] },
        Error::Setting { function: "f", option: "o", expected: "a".into(), found: long.clone() },
        Error::Tokenize { text: long.clone(), source: long.clone().into() },
    ];
    for error in errors {
        assert!(error.to_string().len() < 4_000 && format!("{error:?}") == error.to_string());
    }
    let error = Error::NotOneToken { text: "ab".into(), found: vec!["a".into(), "b".into()] };
    assert!(error.to_string().ends_with(r#"splits it into ["a", "b"]"#), "{error}");
}

/// What a foreign file has in the place of something else does not act on a terminal, and does not fill it.
#[test]
fn foreign_texts_in_messages_are_written_out_and_short() {
    let found = || format!("\u{1b}[2J\n{}", "x".repeat(100_000));
    let (path, expected) = (PathBuf::from("a"), || String::from("b"));
    let errors = [
        Error::Format { path: path.clone(), expected: expected(), found: found(), source: None },
        Error::Config { path: path.clone(), field: "n_head", expected: expected(), found: found() },
        Error::Tensor { path, tensor: "t".into(), expected: expected(), found: found() },
    ];
    for error in errors {
        let message = error.to_string();
        assert!(message.contains(r"found \u{1b}[2J\n") && message.len() < 1_200, "{message:.200}");
        assert!(!message.chars().any(char::is_control));
    }
}
