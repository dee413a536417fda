//! The lens with each choice of the layer norm's scale, and means over the prompts of a batch.

use attention_tokens::{LensScale, Processing, prelude::*};
use ndarray::{Array1, Array2, Axis, s};

use crate::support::{assert_close, demo, fixture};

const PROMPTS: [&str; 2] = ["When Mary and John went to the store, John gave a drink to", "When Tom and Anna sat,"];

fn unfolded() -> Gpt2 {
    let options = LoadOptions::default().processing(Processing { fold_ln: false, ..Processing::none() });
    Gpt2::from_pretrained(fixture("odd").to_str().unwrap(), options).unwrap()
}

/// Each row is centered, divided by the scale, weighted and shifted where the layer norm is not folded, and unembedded.
#[test]
fn a_lens_divides_by_the_scale_that_it_names() {
    let folded = Gpt2::from_pretrained(fixture("odd").to_str().unwrap(), LoadOptions::default()).unwrap();
    for model in [folded, unfolded()] {
        let tokens: Vec<u32> = (0..9).map(|pos| pos * 17 % 200).collect();
        let (_, cache) = model.run_with_cache(tokens.clone()).unwrap();
        let answers = [3, 150, 42];
        let (weights, n_layers) = (model.weights().unwrap(), model.config().n_layers);
        let stack = cache.accumulated_resid(None, true).unwrap();
        for scale in [LensScale::Own, LensScale::Final, LensScale::Block] {
            let lens = cache.logit_lens_options(&model, &answers, scale).unwrap();
            assert_eq!((lens.scale, &lens.labels), (scale, &stack.labels));
            for (component, resid) in stack.values.outer_iter().enumerate() {
                let own: Array1<f32> = resid.map_axis(Axis(1), |row| (row.var(0.0) + model.config().eps as f32).sqrt());
                let scales = match scale {
                    LensScale::Own => own,
                    LensScale::Final => cache.ln_final_scale(&model).unwrap(),
                    // Blocks write two rows each, after the embeddings.
                    LensScale::Block if component == 0 => own,
                    LensScale::Block => cache.ln1_scale(&model, (component - 1) / 2).unwrap(),
                };
                let means = resid.mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
                let mut normalized: Array2<f32> = (&resid - &means) / &scales.insert_axis(Axis(1));
                if let Some(ln) = &weights.ln_final {
                    normalized = normalized * &ln.w + &ln.b;
                }
                let logits = normalized.dot(&weights.w_u) + &weights.b_u; // [pos, d_vocab]
                for (answer, &token) in answers.iter().enumerate() {
                    let got = lens.logits.slice(s![component, .., answer]);
                    assert_close(got, logits.column(token as usize), 1e-3);
                }
                for (pos, logits) in logits.outer_iter().enumerate() {
                    let (token, largest) =
                        logits.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).unwrap();
                    let sum: f32 = logits.iter().map(|x| (x - largest).exp()).sum();
                    let at = [component, pos];
                    assert!((lens.top_probabilities[at] - 1.0 / sum).abs() < 1e-3, "{scale:?} {at:?}");
                    assert!(lens.tokens[at] == token as u32 || logits[lens.tokens[at] as usize] > largest - 1e-3);
                }
            }
            // After the last layer, two of the three are the model's logits.
            let last = lens.logits.index_axis(Axis(0), 2 * n_layers);
            let logits = model.forward(tokens.clone()).unwrap().remove(0);
            let want = Array2::from_shape_fn(last.dim(), |(pos, answer)| logits[[pos, answers[answer] as usize]]);
            let worst = (&last - &want).iter().fold(0.0_f32, |worst, x| worst.max(x.abs()));
            assert_eq!(worst < 1e-3, scale != LensScale::Block, "{scale:?}: {worst}");
        }
    }
}

#[test]
fn differences_by_layer_are_means_of_the_lens() {
    for (model, prompts) in [
        (demo(), PROMPTS.map(|prompt| demo().to_tokens(prompt).unwrap()).to_vec()),
        (unfolded(), vec![vec![1, 5, 9], vec![7, 7, 7, 30, 2]]),
    ] {
        let (_, cache) = model.run_with_cache(prompts).unwrap();
        let (answers, scales) = ([[17, 5], [3, 101]], [LensScale::Block, LensScale::Own, LensScale::Final]);
        let by_layer = cache.lens_differences(&model, &answers, &scales).unwrap();
        let mut want = Array2::<f32>::zeros(by_layer.values.dim());
        for (prompt, [right, wrong]) in answers.into_iter().enumerate() {
            for (mut want, scale) in want.outer_iter_mut().zip(scales) {
                let lens = cache.prompt(prompt).unwrap().logit_lens_options(&model, &[right, wrong], scale).unwrap();
                let last = lens.logits.slice(s![.., -1, ..]); // [component, answer]
                want += &((&last.column(0) - &last.column(1)) / 2.0);
                assert_eq!(by_layer.labels, lens.labels);
            }
        }
        assert_close(&by_layer.values, &want, 1e-3);
        assert_eq!(by_layer.scales, scales);
        // One pair of answers stands for all prompts.
        let one = cache.lens_differences(&model, &answers[..1], &scales).unwrap();
        assert_eq!(one, cache.lens_differences(&model, &[answers[0]; 2], &scales).unwrap());
        let figure = by_layer.plot();
        assert!(figure.describe().contains("Mean logit difference through the lens"), "{}", figure.describe());
        assert!(["own scale", "scale before the block"].iter().all(|name| figure.to_json().contains(name)));

        let heads = cache.mean_head_logit_attrs(&model, &answers, -1).unwrap();
        let mut want = Array2::<f32>::zeros(heads.values.dim());
        for (prompt, [right, wrong]) in answers.into_iter().enumerate() {
            let attrs = cache.prompt(prompt).unwrap().head_logit_attrs(&model, right, Some(wrong)).unwrap();
            want += &(&attrs.slice(s![.., .., -1]) / 2.0);
        }
        assert_close(&heads.values, &want, 1e-5);
        assert!(heads.name.contains("position -1"));
    }
}

#[test]
fn what_does_not_fit_a_lens_is_an_error() {
    let model = demo();
    let (_, cache) = model.run_with_cache(PROMPTS).unwrap();
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    let differences =
        |answers: &[[u32; 2]], scales: &[LensScale]| message(cache.lens_differences(&model, answers, scales).map(drop));
    let own = [LensScale::Own];
    for (error, parts) in [
        (differences(&[[1, 2]; 3], &own), ["pairs of answers, one for each prompt", "3"]),
        (differences(&[], &own), ["pairs of answers", "0"]),
        (differences(&[[1, 2]], &[]), ["scales", "0"]),
        (differences(&[[1, 60_000]], &own), ["60000", "50256"]),
        (message(cache.mean_head_logit_attrs(&model, &[[1, 2]; 3], -1).map(drop)), ["pairs of answers", "3"]),
        (message(cache.mean_head_logit_attrs(&model, &[[1, 2]], 12).map(drop)), ["12", "prompt 1"]),
        (message(cache.mean_head_logit_attrs(&model, &[[60_000, 2]], -1).map(drop)), ["60000", "50256"]),
        (message(cache.logit_lens_options(&model, &[1], LensScale::Block).map(drop)), ["2 prompts", "prompt"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let other = Gpt2::from_pretrained("letters", LoadOptions::default()).unwrap();
    assert!(matches!(cache.lens_differences(&other, &[[1, 2]], &own), Err(Error::Shape { .. })));
    assert!(matches!(cache.mean_head_logit_attrs(&other, &[[1, 2]], -1), Err(Error::Shape { .. })));
    let only_z = RunOptions::default().activations([Activation::Z]);
    let (_, cache) = model.run_with_cache_options(PROMPTS, only_z).unwrap();
    assert!(matches!(cache.lens_differences(&model, &[[1, 2]], &own), Err(Error::NotCached { .. })));
}

/// Where a run held its layer norms, what components write adds up with the scales that were held, and not with those of
/// the residual stream; also in a cache that is read back, and as the source of further runs.
#[test]
fn attribution_takes_the_scales_that_were_held() {
    let model = demo();
    let (_, plain) = model.run_with_cache(PROMPTS).unwrap();
    let mut hooks = Intervention::freeze_layer_norms(&plain);
    hooks.push(Intervention::scale(Activation::MlpOut.at(0), 3.0));
    let (logits, cache) = model.hooked(&hooks).unwrap().run_with_cache(PROMPTS).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("held.safetensors");
    cache.write_safetensors(&model, &path).unwrap();
    let back = ActivationCache::read_safetensors(&model, &path).unwrap();
    let b_u = model.weights().unwrap().b_u;
    let [right, wrong] = [17, 5];
    for (prompt, logits) in logits.iter().enumerate() {
        let want = &logits.column(right) - &logits.column(wrong); // [pos]
        for cache in [&cache, &back] {
            let cache = cache.prompt(prompt).unwrap();
            let stack = cache.decompose_resid(&model, None).unwrap();
            let attrs = cache.logit_attrs(&model, &stack, right as u32, Some(wrong as u32)).unwrap();
            let sum = attrs.sum_axis(Axis(0)) + (b_u[right] - b_u[wrong]);
            let worst = (&sum - &want).iter().fold(0.0_f32, |worst, x| worst.max(x.abs()));
            assert!(worst < 1e-3, "prompt {prompt}: {worst}");
            let plain = plain.prompt(prompt).unwrap();
            assert_eq!(cache.ln_final_scale(&model).unwrap(), plain.ln_final_scale(&model).unwrap());
            assert_eq!(cache.ln1_scale(&model, 2).unwrap(), plain.ln1_scale(&model, 2).unwrap());
            assert_eq!(cache.ln2_scale(&model, 2).unwrap(), plain.ln2_scale(&model, 2).unwrap());
            // The scales of the residual stream itself are others.
            let resid = cache.get(Activation::ResidPost, 3).unwrap();
            let own = resid.map_axis(Axis(1), |row| (row.var(0.0) + 1e-5).sqrt());
            let held = cache.ln_final_scale(&model).unwrap();
            assert!(own.iter().zip(&held).any(|(own, held)| (own / held - 1.0).abs() > 0.05));
        }
    }
    // Scales that were held can be held again: those of the first run, not those of the residual stream.
    let again = model.hooked(&Intervention::freeze_layer_norms(&back)).unwrap().forward(PROMPTS).unwrap();
    let first = model.hooked(&Intervention::freeze_layer_norms(&plain)).unwrap().forward(PROMPTS).unwrap();
    for (again, first) in again.iter().zip(&first) {
        assert_close(again, first, 1e-4);
    }
    // Of two scales at one layer norm, the later one counts.
    let (_, others) = model.hooked(&hooks[hooks.len() - 1..]).unwrap().run_with_cache(PROMPTS).unwrap();
    let twice = model.hooked(&Intervention::freeze_layer_norms(&others)).unwrap();
    let twice = twice.hooked(&Intervention::freeze_layer_norms(&plain)).unwrap().forward(PROMPTS).unwrap();
    for (twice, first) in twice.iter().zip(&first) {
        assert_close(twice, first, 1e-4);
    }
}
