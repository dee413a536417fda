//! Perplexity: against one run where the text fits, against windows counted by hand where it does not, and errors.

use attention_tokens::PerplexityOptions;
use attention_tokens::prelude::*;

use crate::support::{assert_close, demo, fixture, load};

#[test]
fn a_text_that_fits_is_scored_as_by_one_run() {
    let model = demo();
    let texts = ["When Mary and John went to the store, John gave a drink to Mary.", "Monday, Tuesday,"];
    let (perplexities, losses) =
        (model.perplexity(texts, PerplexityOptions::default()).unwrap(), model.loss_per_token(texts).unwrap());
    for ((got, want), mean) in perplexities.iter().zip(&losses).zip(model.loss(texts).unwrap()) {
        assert_eq!((got.n_scored, got.n_windows), (want.len(), 1));
        assert_close(&got.loss_per_token, want, 1e-5);
        assert!((got.loss - f64::from(mean)).abs() < 1e-5 && (got.perplexity - got.loss.exp()).abs() < 1e-9);
    }
    assert!(perplexities[0].to_string().starts_with("perplexity "));
}

/// Each token is scored by the first window that holds it, with all the tokens before it in that window.
#[test]
fn a_long_text_is_scored_window_by_window() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let options = LoadOptions::default().device(device);
        let model = Gpt2::from_pretrained(fixture("odd").to_string_lossy(), options).unwrap();
        let mut random = fastrand::Rng::with_seed(5);
        for (len, max_length, stride) in
            [(100, 24, 12), (77, 20, 7), (60, 24, 1), (50, 10, 9), (24, 24, 24), (25, 24, 3)]
        {
            let tokens: Vec<u32> = (0..len).map(|_| random.u32(..211)).collect();
            let options = PerplexityOptions::default().max_length(max_length).stride(stride);
            let got = model.perplexity(tokens.clone(), options).unwrap().remove(0);
            let mut want = Vec::new();
            for target in 1..len {
                let window = (0..).find(|window| window * stride + max_length > target).unwrap();
                let begin: usize = window * stride;
                let end = (begin + max_length).min(len);
                let losses = model.loss_per_token(tokens[begin..end].to_vec()).unwrap().remove(0);
                want.push(losses[target - begin - 1]);
            }
            assert_eq!(got.n_scored, len - 1, "{len}, {max_length}, {stride}");
            assert_eq!(got.n_windows, 1 + (len - max_length).div_ceil(stride), "{len}, {max_length}, {stride}");
            assert_close(&got.loss_per_token, &want, 1e-5);
            let mean = want.iter().map(|&loss| f64::from(loss)).sum::<f64>() / want.len() as f64;
            assert!((got.loss - mean).abs() < 1e-5);
        }
    }
}

/// With a stride of a whole window, nothing precedes the first token of each, which is then not scored.
#[test]
fn windows_that_do_not_overlap_leave_their_first_tokens_out() {
    let model = load(&fixture("odd")).unwrap();
    let tokens: Vec<u32> = (0..41).map(|token| token % 7).collect();
    let options = PerplexityOptions::default().max_length(20).stride(20);
    let got = model.perplexity(tokens.clone(), options).unwrap().remove(0);
    let losses =
        [&tokens[..20], &tokens[20..40]].map(|window| model.loss_per_token(window.to_vec()).unwrap().remove(0));
    assert_eq!((got.n_scored, got.n_windows), (38, 2)); // the last window would have one token
    assert_close(&got.loss_per_token, losses.iter().flatten(), 1e-5);
}

#[test]
fn options_and_texts_that_cannot_be_used_are_named() {
    let model = load(&fixture("odd")).unwrap();
    let options = PerplexityOptions::default;
    let tokens = vec![1_u32; 30];
    for (options, name, found) in [
        (options().stride(0), "stride", 0),
        (options().stride(25), "stride", 25),
        (options().max_length(8).stride(9), "stride", 9),
        (options().max_length(1), "max_length", 1),
        (options().max_length(25), "max_length", 25),
    ] {
        let error = model.perplexity(tokens.clone(), options).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Count { what, found: n, .. } if what == name && n == found), "{text}");
    }
    for short in [vec![], vec![1_u32]] {
        let error = model.perplexity(short, options()).unwrap_err();
        assert!(matches!(error, Error::Count { min: 2, .. }), "{error}");
    }
    let none = model.perplexity(Vec::<Vec<u32>>::new(), options()).unwrap_err();
    assert!(matches!(none, Error::Count { found: 0, .. }), "{none}");
    let unknown = model.perplexity(vec![1_u32, 211], options()).unwrap_err();
    assert!(matches!(unknown, Error::OutOfRange { index: 211, .. }), "{unknown}");
}
