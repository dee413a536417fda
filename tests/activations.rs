//! Activations that are computed when they are first read, runs of a part of the model, and their errors.

use attention_tokens::prelude::*;
use ndarray::{Array2, ArrayD, Axis, Ix2, Ix3, s};

use crate::support::{assert_close, demo, fixture};

const PROMPTS: [&str; 2] = ["When Mary and John went to the store, John gave a drink to", "Monday, Tuesday,"];

fn on(device: Device) -> Gpt2 {
    Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap()
}

fn matrix(cache: &ActivationCache, activation: Activation, layer: usize) -> Array2<f32> {
    cache.get(activation, layer).unwrap().into_dimensionality::<Ix2>().unwrap()
}

#[test]
fn neurons_and_results_add_up_to_what_the_layers_write() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = on(device);
        let (_, cache) = model.run_with_cache(PROMPTS).unwrap();
        for cache in [cache.prompt(0).unwrap(), cache.prompt(1).unwrap()] {
            for layer in 0..model.config().n_layers {
                let block = model.block_weights(layer).unwrap();
                let (pre, post) =
                    (matrix(&cache, Activation::MlpPre, layer), matrix(&cache, Activation::MlpPost, layer));
                let gelu_new = |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x.powi(3))).tanh());
                assert_close(&pre.mapv(gelu_new), &post, 1e-5);
                assert_close(
                    &(post.dot(&block.w_out) + &block.b_out),
                    &matrix(&cache, Activation::MlpOut, layer),
                    1e-5,
                );

                let result = cache.get(Activation::Result, layer).unwrap().into_dimensionality::<Ix3>().unwrap();
                let z = cache.get(Activation::Z, layer).unwrap().into_dimensionality::<Ix3>().unwrap();
                let pos = z.dim().0;
                assert_eq!(result.dim(), (pos, model.config().n_heads, model.config().d_model));
                let sum = result.sum_axis(Axis(1)) + &block.b_o;
                assert_close(&sum, &matrix(&cache, Activation::AttnOut, layer), 1e-5);
                let of_head: Array2<f32> = z.index_axis(Axis(1), 2).dot(&model.w_o(layer, 2).unwrap());
                assert_close(result.slice(s![.., 2, ..]), &of_head, 1e-5);
            }
        }
    }
}

/// Also where the activation that they are computed from is not in the cache, and after the model is dropped.
#[test]
fn computed_activations_can_be_selected_alone() {
    let computed = [Activation::Result, Activation::MlpPre, Activation::MlpPost];
    let (all, alone) = {
        let model = demo();
        let options = RunOptions::default().activations(computed).layers([1, 3]).no_logits();
        (model.run_with_cache(PROMPTS).unwrap().1, model.run_with_cache_options(PROMPTS, options).unwrap().1)
    };
    for prompt in 0..2 {
        let (all, alone) = (all.prompt(prompt).unwrap(), alone.prompt(prompt).unwrap());
        for layer in [1, 3] {
            for activation in computed {
                assert_eq!(all.get(activation, layer).unwrap(), alone.get(activation, layer).unwrap());
            }
            assert!(matches!(alone.get(Activation::ResidMid, layer), Err(Error::NotCached { .. })));
        }
        assert!(matches!(alone.get(Activation::MlpPost, 0), Err(Error::NotCached { .. })));
    }
}

/// A thread that waits inside a computation takes up other work; here, work that reads the same activation.
#[test]
fn threads_can_read_an_activation_for_the_first_time_at_once() {
    use rayon::prelude::*;
    let (_, cache) = demo().run_with_cache(vec![vec![3_u32; 120]]).unwrap();
    for layer in 0..4 {
        let read: Vec<ArrayD<f32>> =
            (0..64).into_par_iter().map(|_| cache.get(Activation::MlpPost, layer).unwrap()).collect();
        assert!(read.iter().all(|array| *array == read[0]));
    }
}

#[test]
fn logits_at_positions_are_rows_of_all_logits() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = on(device);
        let all = model.forward(PROMPTS).unwrap();
        let chosen = model.logits_at(PROMPTS, &[-1, 0, 3, -1, -2]).unwrap();
        for (all, chosen) in all.iter().zip(&chosen) {
            let last = all.nrows() - 1;
            assert_close(chosen, &all.select(Axis(0), &[last, 0, 3, last, last - 1]), 1e-5);
        }
    }
    let model = demo();
    // Logits of chosen positions do not change what is cached.
    let (logits, cache) = model.run_with_cache_options(PROMPTS, RunOptions::default().logits_at([-1])).unwrap();
    assert_eq!(logits.unwrap()[1].nrows(), 1);
    let full = model.run_with_cache(PROMPTS).unwrap().1.prompt(1).unwrap();
    assert_eq!(matrix(&cache.prompt(1).unwrap(), Activation::ResidPost, 3), matrix(&full, Activation::ResidPost, 3));

    let error = model.logits_at(PROMPTS, &[-1, 5]).unwrap_err().to_string();
    assert_eq!(error, "position 5 out of range: prompt 1 has 5 tokens, positions 0 to 4, or -5 to -1 from the end");
    assert!(matches!(model.logits_at(PROMPTS, &[-6]), Err(Error::Position { position: -6, prompt: 1, len: 5 })));
    assert!(matches!(model.logits_at(PROMPTS, &[]), Err(Error::Count { .. })));
}

#[test]
fn runs_can_start_from_a_residual_stream() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = on(device);
        let (logits, cache) = model.run_with_cache(PROMPTS).unwrap();
        let prompts: Vec<ActivationCache> = (0..2).map(|prompt| cache.prompt(prompt).unwrap()).collect();
        for start in 0..4 {
            let resid: Vec<_> = prompts.iter().map(|cache| matrix(cache, Activation::ResidPre, start)).collect();
            let from = model.forward_from(&resid, start).unwrap();
            for stop in start..=4 {
                let got = model.resid_from(&resid, start, stop).unwrap();
                for (got, cache) in got.iter().zip(&prompts) {
                    let want = match stop {
                        4 => matrix(cache, Activation::ResidPost, 3),
                        _ => matrix(cache, Activation::ResidPre, stop),
                    };
                    assert_close(got, &want, 1e-5);
                }
            }
            from.iter().zip(&logits).for_each(|(got, want)| assert_close(got, want, 1e-5));
        }
        let last: Vec<_> = prompts.iter().map(|cache| matrix(cache, Activation::ResidPost, 3)).collect();
        let unembedded = model.forward_from(&last, 4).unwrap();
        unembedded.iter().zip(&logits).for_each(|(got, want)| assert_close(got, want, 1e-5));

        // With a cache: twice the residual stream is another one, and the layers below did not run.
        let twice: Vec<_> = prompts.iter().map(|cache| 2.0 * matrix(cache, Activation::ResidPre, 2)).collect();
        let options = RunOptions::default().start_at_layer(2, twice.clone()).logits_at([-1]);
        let (logits, cache) = model.run_with_cache_options(PROMPTS, options).unwrap();
        let from = model.forward_from(&twice, 2).unwrap();
        let cache = cache.prompt(0).unwrap();
        assert_close(logits.unwrap()[0].row(0), from[0].row(from[0].nrows() - 1), 1e-5);
        assert_close(&matrix(&cache, Activation::ResidPre, 2), &twice[0], 0.0);
        let error = cache.get(Activation::Q, 1).unwrap_err().to_string();
        assert!(error.contains("layer 1") && error.contains("layers 2, 3"), "{error}");
    }
}

#[test]
fn residual_streams_of_other_shapes_are_errors() {
    let model = demo();
    let d_model = model.config().d_model;
    let rows = |rows: usize| Array2::<f32>::zeros((rows, d_model));
    let with = |layer, resid: Vec<Array2<f32>>| RunOptions::default().start_at_layer(layer, resid);
    let run = |options| model.run_with_cache_options(PROMPTS[1], options).map(drop).unwrap_err().to_string();
    for (error, parts) in [
        (run(with(1, vec![rows(4)])), ["[5, 128]", "[4, 128]"]),
        (run(with(1, vec![Array2::zeros((5, 7))])), ["[5, 128]", "[5, 7]"]),
        (run(with(1, vec![])), ["residual streams", "found 0"]),
        (run(with(5, vec![rows(5)])), ["start_at_layer", "0 to 4"]),
        (run(with(3, vec![rows(5)]).stop_at_layer(2)), ["start_at_layer", "0 to 2"]),
        (model.forward_from(&[], 1).unwrap_err().to_string(), ["prompts", "at least 1"]),
        (model.forward_from(&[rows(0)], 1).unwrap_err().to_string(), ["prompt 0", "no token"]),
        (model.forward_from(&[rows(5000)], 1).unwrap_err().to_string(), ["prompt 0", "5000"]),
        (model.resid_from(&[rows(5)], 3, 2).unwrap_err().to_string(), ["stop_at_layer", "3 to 4"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn computed_activations_have_the_shapes_of_a_model_with_an_odd_number_of_heads() {
    let model = Gpt2::from_pretrained(fixture("odd").to_string_lossy(), LoadOptions::default()).unwrap();
    let (n_heads, d_model, d_mlp) = (model.config().n_heads, model.config().d_model, model.config().d_mlp);
    let (_, cache) = model.run_with_cache(vec![1_u32, 50, 7]).unwrap();
    assert_eq!(cache.get(Activation::Result, 1).unwrap().shape(), [3, n_heads, d_model]);
    assert_eq!(cache.get(Activation::MlpPre, 1).unwrap().shape(), [3, d_mlp]);
}
