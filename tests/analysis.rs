//! Analysis of runs: sums that must add up, and errors. Its numbers are held against TransformerLens' in `golden.rs`.

use attention_tokens::log_probs;
use attention_tokens::prelude::*;
use ndarray::{Axis, s};

use crate::support::fixture;

const PROMPT: &str = "When Mary and John went to the store, John gave a drink to";

fn demo(processing: Processing) -> Gpt2 {
    Gpt2::from_pretrained("demo", LoadOptions::default().processing(processing)).unwrap()
}

/// The largest difference between two numbers of a pair.
fn largest_difference<'a>(pairs: impl Iterator<Item = (&'a f32, &'a f32)>) -> f32 {
    pairs.fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

#[test]
fn components_and_the_bias_add_up_to_the_logit() {
    for processing in [Processing::default(), Processing::none()] {
        let model = demo(processing);
        let (logits, cache) = model.run_with_cache(PROMPT).unwrap();
        let weights = model.weights().unwrap();
        let (right, wrong) = (model.to_single_token(" Mary").unwrap(), model.to_single_token(" John").unwrap());
        let last = logits[0].nrows() - 1;

        let components = cache.decompose_resid(&model, None).unwrap();
        let mut heads = cache.stack_head_results(&model, None, true).unwrap();
        assert_eq!(components.labels.first().map(String::as_str), Some("embed"));
        assert_eq!(heads.labels.last().map(String::as_str), Some("remainder"));
        for token in [right, wrong] {
            // The layer norm's bias, where it is not folded into the unembedding's.
            let constant = weights.b_u[token as usize]
                + weights.ln_final.as_ref().map_or(0.0, |ln| ln.b.dot(&weights.w_u.column(token as usize)));
            for stack in [&components, &heads] {
                let attrs = cache.logit_attrs(&model, stack, token, None).unwrap(); // [component, pos]
                let sums = attrs.sum_axis(Axis(0)) + constant;
                let difference = largest_difference(sums.iter().zip(logits[0].column(token as usize)));
                let largest = logits[0].fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
                assert!(difference < 1e-4 * largest, "{difference} of {largest}");
            }
        }

        let by_stack = cache.logit_attrs(&model, &heads, right, Some(wrong)).unwrap();
        let by_head = cache.head_logit_attrs(&model, right, Some(wrong)).unwrap();
        let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
        assert_eq!(by_head.dim(), (n_layers, n_heads, last + 1));
        let difference = largest_difference(by_head.iter().zip(&by_stack));
        assert!(difference < 1e-5 * by_stack.fold(0.0_f32, |largest, x| largest.max(x.abs())), "{difference}");
        for layer in 0..n_layers {
            for head in 0..n_heads {
                let cells = cache.cell_logit_attrs(&model, layer, head, right, Some(wrong)).unwrap();
                let sums = cells.sum_axis(Axis(1));
                let difference = largest_difference(sums.iter().zip(by_head.slice(s![layer, head, ..])));
                assert!(difference < 1e-4, "head {layer}.{head}: {difference}");
                assert!(cells.indexed_iter().all(|((query, key), &x)| key <= query || x == 0.0));
            }
        }

        heads.values.fill(0.0);
        assert!(cache.logit_attrs(&model, &heads, right, None).unwrap().iter().all(|&x| x == 0.0));
    }
}

#[test]
fn the_residual_stream_before_a_layer_is_the_sum_of_what_was_added() {
    let model = demo(Processing::default());
    let (_, cache) = model.run_with_cache(PROMPT).unwrap();
    for layer in [Some(0), Some(1), Some(3), None] {
        let accumulated = cache.accumulated_resid(layer, false).unwrap();
        assert_eq!(accumulated.labels.len(), layer.unwrap_or(4) + 1);
        let resid = accumulated.values.index_axis(Axis(0), accumulated.labels.len() - 1);
        let sum = cache.decompose_resid(&model, layer).unwrap().values.sum_axis(Axis(0));
        assert!(largest_difference(resid.iter().zip(&sum)) < 1e-4);
    }
    let labels = cache.accumulated_resid(Some(2), true).unwrap().labels;
    assert_eq!(labels, ["0_pre", "0_mid", "1_pre", "1_mid", "2_pre"]);
}

#[test]
fn the_last_row_of_the_lens_is_the_prediction() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap();
        let (logits, cache) = model.run_with_cache(PROMPT).unwrap();
        let answers = [" Mary", " John", " the"].map(|word| model.to_single_token(word).unwrap());
        let lens = cache.logit_lens(&model, &answers).unwrap();
        assert_eq!(lens.labels.len(), 9);
        assert_eq!(lens.labels[8], "final_post");
        let log_probs = log_probs(&logits[0]);
        for (pos, row) in logits[0].rows().into_iter().enumerate() {
            for (answer, &token) in answers.iter().enumerate() {
                let at = [8, pos, answer];
                assert!((lens.logits[at] - row[token as usize]).abs() < 1e-4);
                assert!((lens.probabilities[at] - log_probs[[pos, token as usize]].exp()).abs() < 1e-4);
                let is_best = lens.tokens[[8, pos]] == token;
                assert_eq!(lens.ranks[at] == 0, is_best, "rank {} of {token}", lens.ranks[at]);
            }
        }
        let last = logits[0].nrows() - 1;
        assert_eq!(lens.tokens[[8, last]], answers[0], "the demo model completes the sentence");
    }
}

#[test]
fn losses_are_those_of_the_log_probabilities() {
    let model = demo(Processing::default());
    let prompts = [PROMPT, "Monday, Tuesday, Wednesday,"];
    let (losses, means) = (model.loss_per_token(prompts).unwrap(), model.loss(prompts).unwrap());
    for ((prompt, losses), mean) in prompts.iter().zip(&losses).zip(means) {
        let tokens = model.to_tokens(prompt).unwrap();
        let log_probs = log_probs(&model.forward(*prompt).unwrap()[0]);
        assert_eq!(losses.len(), tokens.len() - 1);
        let expected: Vec<f32> =
            tokens.windows(2).enumerate().map(|(pos, pair)| -log_probs[[pos, pair[1] as usize]]).collect();
        assert!(largest_difference(losses.iter().zip(&expected)) < 1e-4);
        assert!((mean - losses.mean().unwrap()).abs() < 1e-5);
    }
}

#[test]
fn without_the_bias_tokens_are_those_of_a_model_whose_bias_is_zero() {
    let options = LoadOptions::default();
    let model = Gpt2::from_pretrained(fixture("odd").to_string_lossy(), options.clone()).unwrap();
    // Without any processing this model's unembedding has no bias: the option must change nothing.
    let raw = Gpt2::from_pretrained(fixture("odd").to_string_lossy(), options.processing(Processing::none())).unwrap();
    let tokens = vec![1_u32, 50, 7, 120, 9, 9];
    for (model, same) in [(raw, true), (model, false)] {
        let (_, cache) = model.run_with_cache(tokens.clone()).unwrap();
        let decode = |unembed_bias| {
            let options = DecodeOptions::default().top_k(3).unembed_bias(unembed_bias);
            all_heads_data(&model, &cache, options).unwrap()
        };
        let (with, without) = (decode(true), decode(false));
        let tokens = |data: &[HeadData]| data.iter().map(|data| data.prompts[0].qk.tokens.clone()).collect::<Vec<_>>();
        assert_eq!(tokens(&with) == tokens(&without), same);
        assert!(without.iter().all(|data| !data.reading.unembed_bias && !data.prompts[0].reading.unembed_bias));
    }
}

#[test]
fn errors_name_what_is_missing() {
    let model = demo(Processing::default());
    let (_, batch) = model.run_with_cache(["one", "two"]).unwrap();
    assert!(matches!(batch.accumulated_resid(None, false), Err(Error::SeveralPrompts { n_prompts: 2 })));
    assert!(matches!(batch.decompose_resid(&model, None), Err(Error::SeveralPrompts { .. })));
    assert!(matches!(batch.stack_head_results(&model, None, false), Err(Error::SeveralPrompts { .. })));

    let (_, cache) = model.run_with_cache(PROMPT).unwrap();
    let texts = [
        cache.accumulated_resid(Some(5), false).map(drop),
        cache.logit_lens(&model, &[50_257]).map(drop),
        cache.head_logit_attrs(&model, 3, Some(60_000)).map(drop),
        cache.cell_logit_attrs(&model, 0, 8, 3, None).map(drop),
        model.loss(vec![5_u32]).map(drop),
    ]
    .map(|result| result.unwrap_err().to_string());
    for (text, parts) in
        texts.iter().zip([["layer", "5"], ["50257", "50256"], ["60000", "50256"], ["head 8", "7"], ["1", "2"]])
    {
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }

    let only_patterns = RunOptions::default().activations([Activation::Pattern]);
    let (_, cache) = model.run_with_cache_options(PROMPT, only_patterns).unwrap();
    let error = cache.logit_lens(&model, &[]).unwrap_err().to_string();
    assert!(error.contains("resid_pre") && error.contains("pattern"), "{error}");
}
