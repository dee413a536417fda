use attention_tokens::prelude::*;
use ndarray::{Array2, ArrayD, Axis, Ix2, Ix3, s};

use crate::support::{Folder, assert_close, bytes, demo, fixture, floats, load};

const SENTENCE: &str = "The next sentence is false. The previous sentence is true.";

/// A model without weight processing.
fn raw(name: &str) -> Gpt2 {
    let folder = if name == "demo" { name.into() } else { fixture(name).to_string_lossy().into_owned() };
    Gpt2::from_pretrained(folder, LoadOptions::default().no_processing()).unwrap()
}

/// Log-probabilities, which weight processing must not change. Shape: `[pos, d_vocab]` → the same.
fn log_probabilities(logits: &Array2<f32>) -> Array2<f32> {
    let mut out = logits.clone();
    for mut row in out.rows_mut() {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|x| (x - largest).exp()).sum();
        row.mapv_inplace(|x| x - largest - sum.ln());
    }
    out
}

#[test]
fn no_processing_step_changes_a_log_probability() {
    let none = Processing::none();
    let steps = [
        Processing { fold_ln: true, ..none },
        Processing { center_writing_weights: true, ..none },
        Processing { center_unembed: true, ..none },
        Processing { fold_value_biases: true, ..none },
        Processing { refactor_factored_attn_matrices: true, ..none },
        Processing { fold_ln: true, refactor_factored_attn_matrices: true, ..none },
        Processing::default(),
    ];
    for name in ["tiny", "odd"] {
        let prompt = vec![0_u32, 3, 1, 4, 1, 5, 9, 2, 6];
        let want = log_probabilities(&raw(name).forward(prompt.clone()).unwrap()[0]);
        for processing in steps {
            let options = LoadOptions::default().processing(processing);
            let model = Gpt2::from_pretrained(fixture(name).to_str().unwrap(), options).unwrap();
            let got = log_probabilities(&model.forward(prompt.clone()).unwrap()[0]);
            assert_close(&got, &want, 2e-6); // f32 through three layers
        }
    }
}

#[test]
fn the_undetermined_singular_vector_of_a_single_head_is_dropped() {
    // One head with d_head = d_model: centering W_O removes one from its rank.
    let folder = Folder::copy_of("tiny");
    folder.configure("\"n_head\": 3", "\"n_head\": 1");
    let model = load(folder.path()).unwrap();
    let block = &model.weights().unwrap().blocks[0];
    assert!(block.w_v.slice(s![0, .., 47]).iter().all(|&x| x == 0.0));
    assert!(block.w_o.slice(s![0, 47, ..]).iter().all(|&x| x == 0.0));
    assert!(block.w_o.slice(s![0, 46, ..]).iter().any(|&x| x != 0.0));
    let prompt = vec![1_u32, 2, 3, 4];
    let options = LoadOptions::default().no_processing();
    let plain = Gpt2::from_pretrained(folder.path().to_str().unwrap(), options).unwrap();
    let [got, want] = [&model, &plain].map(|model| log_probabilities(&model.forward(prompt.clone()).unwrap()[0]));
    assert_close(&got, &want, 2e-6);
}

#[test]
fn processing_keeps_a_head_of_zeros_zero() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| {
        let tensor = tensors.get_mut("h.0.attn.c_attn.weight").unwrap();
        tensor.2 = bytes(&vec![0.0; floats(&tensor.2).len()]);
    });
    let model = load(folder.path()).unwrap();
    assert!(model.weights().unwrap().blocks[0].w_o.iter().all(|&x| x == 0.0));
    assert!(model.forward(vec![1_u32, 2]).unwrap()[0].iter().all(|x| x.is_finite()));
}

#[test]
fn activations_of_a_block_satisfy_their_definitions() {
    for model in [demo(), raw("demo")] {
        let (_, cache) = model.run_with_cache(SENTENCE).unwrap();
        let d_head = model.config().d_head as f32;
        for layer in 0..model.config().n_layers {
            let get = |activation| cache.get(activation, layer).unwrap();
            assert_close(&(get(Activation::ResidPre) + get(Activation::AttnOut)), &get(Activation::ResidMid), 1e-6);
            assert_close(&(get(Activation::ResidMid) + get(Activation::MlpOut)), &get(Activation::ResidPost), 1e-6);
            let cube = |activation| get(activation).into_dimensionality::<Ix3>().unwrap();
            let (q, k, v, z) = (cube(Activation::Q), cube(Activation::K), cube(Activation::V), cube(Activation::Z));
            let (scores, pattern) = (cube(Activation::AttnScores), cube(Activation::Pattern));
            for head in 0..model.config().n_heads {
                let of_head = |x: &ndarray::Array3<f32>| x.slice(s![.., head, ..]).to_owned(); // [pos, d_head]
                let want = of_head(&q).dot(&of_head(&k).t()) / d_head.sqrt(); // Σ (q ⊙ k) / √d_head
                for ((query, key), &want) in want.indexed_iter() {
                    let (score, attn) = (scores[[head, query, key]], pattern[[head, query, key]]);
                    if key <= query {
                        assert!((score - want).abs() < 1e-4 * want.abs().max(1.0), "{score} {want}");
                    } else {
                        assert_eq!((score, attn), (f32::NEG_INFINITY, 0.0));
                    }
                }
                let sums = pattern.index_axis(Axis(0), head).sum_axis(Axis(1));
                assert_close(&sums, &vec![1.0; sums.len()], 1e-6);
                assert_close(&pattern.index_axis(Axis(0), head).dot(&of_head(&v)), &of_head(&z), 1e-5);
            }
        }
    }
}

#[test]
fn a_prompt_in_a_batch_equals_the_prompt_alone() {
    let model = demo();
    let prompts = [SENTENCE, "A", "The next bus is late. The previous bus was early today, or so it was said.", ""];
    let (logits, cache) = model.run_with_cache(prompts).unwrap();
    let data = head_data(&model, &cache, 1, 3, DecodeOptions { top_k: 3, ..Default::default() }).unwrap();
    for (index, prompt) in prompts.into_iter().enumerate() {
        let (alone, alone_cache) = model.run_with_cache(prompt).unwrap();
        assert_close(&logits[index], &alone[0], 1e-5);
        let in_batch = cache.prompt(index).unwrap();
        for layer in 0..4 {
            for activation in Activation::ALL {
                let finite = |x: ArrayD<f32>| x.mapv(|x| if x == f32::NEG_INFINITY { 0.0 } else { x });
                let (got, want) =
                    (in_batch.get(activation, layer).unwrap(), alone_cache.get(activation, layer).unwrap());
                assert_eq!(got.shape(), want.shape());
                assert_close(&finite(got), &finite(want), 1e-5);
            }
        }
        let alone_data = head_data(&model, &alone_cache, 1, 3, DecodeOptions::default()).unwrap();
        for feature in [Feature::Input, Feature::Qk, Feature::Q, Feature::K, Feature::V] {
            assert_eq!(data.prompts[index].feature(feature), alone_data.prompts[0].feature(feature));
        }
    }
    let array = data.to_array();
    let longest = data.prompts.iter().map(|prompt| prompt.n_pos()).max().unwrap();
    assert_eq!(array.dim(), (4, longest, longest, 6));
    assert_eq!(array[[1, 0, 0, 0]], 50256.0);
    assert!(array.slice(s![1, 2.., .., ..]).iter().all(|&x| x == -1.0), "padding is −1");
    assert!(array.slice(s![.., 0, 1.., ..]).iter().all(|&x| x == -1.0), "above the diagonal is −1");
}

#[test]
fn results_are_bit_identical_over_thread_counts() {
    // Inside a rayon pool, both dfdx and rayon use as many threads as the pool has.
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let model = demo();
            let (logits, cache) = model.run_with_cache([SENTENCE, "The bus."]).unwrap();
            let data = head_data(&model, &cache, 0, 1, DecodeOptions { top_k: 5, ..Default::default() }).unwrap();
            let numbers: Vec<f32> = logits.iter().flatten().chain(&data.prompts[0].qk.logits).copied().collect();
            (numbers, cache.prompt(0).unwrap().get(Activation::ResidPost, 3).unwrap())
        })
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

/// A build without the feature `cuda` reports that, and does not fall back to another device.
#[test]
#[cfg(not(feature = "cuda"))]
fn cuda_without_the_feature_is_an_error() {
    for device in [Device::cuda(0), Device::dfdx_cuda(0)] {
        let error = Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap_err();
        assert!(matches!(error, Error::Cuda { .. }));
        let text = error.to_string();
        assert!(
            text.starts_with("CUDA needs the feature `cuda` of attention-tokens, which this build lacks; add "),
            "{text}"
        );
    }
    assert_eq!(Device::auto(), Device::cpu());
}

#[test]
fn fused_and_dfdx_agree_on_a_model() {
    let device = |device| Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap();
    let (fused, dfdx) = (device(Device::cpu()), device(Device::dfdx_cpu()));
    assert_eq!((fused.device(), dfdx.device()), (Device::default(), Device::dfdx_cpu()));
    let prompts = [SENTENCE, "A"];
    let ((fused_logits, fused_cache), (dfdx_logits, dfdx_cache)) =
        (fused.run_with_cache(prompts).unwrap(), dfdx.run_with_cache(prompts).unwrap());
    for (got, want) in fused_logits.iter().zip(&dfdx_logits) {
        assert_close(got, want, 1e-5);
    }
    let options = DecodeOptions { top_k: 2, ..Default::default() };
    let all = |model, cache| all_heads_data(model, cache, options).unwrap();
    for (got, want) in all(&fused, &fused_cache).iter().zip(&all(&dfdx, &dfdx_cache)) {
        for (got, want) in got.prompts.iter().zip(&want.prompts) {
            assert_close(&got.attn, &want.attn, 1e-5);
            let largest = want.qk.logits.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            for (cell, margin) in want.qk.margin.iter().enumerate() {
                let clear = *margin > 4e-5 * largest;
                assert!(!clear || got.qk.tokens[[cell, 0]] == want.qk.tokens[[cell, 0]]);
            }
        }
    }
    let (fused, dfdx) = (fused.weights().unwrap(), dfdx.weights().unwrap());
    assert_eq!((fused.w_u, fused.w_e, fused.b_u), (dfdx.w_u, dfdx.w_e, dfdx.b_u), "weights are read back bit by bit");
    for (fused, dfdx) in fused.blocks.iter().zip(&dfdx.blocks) {
        assert_eq!((&fused.w_q, &fused.b_k, &fused.w_o), (&dfdx.w_q, &dfdx.b_k, &dfdx.w_o));
        assert_eq!((&fused.w_in, &fused.b_in, &fused.w_out), (&dfdx.w_in, &dfdx.b_in, &dfdx.w_out));
    }
}

#[test]
fn the_size_of_the_decode_cache_changes_no_token() {
    let options = |bytes| LoadOptions::default().decode_cache_bytes(bytes);
    let [plenty, little, none] = [usize::MAX, 10_000_000, 0].map(|bytes| {
        let model = Gpt2::from_pretrained("demo", options(bytes)).unwrap(); // 3.2 MB per head
        let (_, cache) = model.run_with_cache("The bus.").unwrap();
        let twice = || all_heads_data(&model, &cache, DecodeOptions::default()).unwrap();
        (twice(), twice()).1.iter().map(HeadData::to_array).collect::<Vec<_>>()
    });
    assert!(plenty == little && plenty == none);
}

#[test]
fn run_options_select_activations_layers_and_logits() {
    let model = demo();
    let (everything, all) = model.run_with_cache(SENTENCE).unwrap();
    let options = RunOptions::default().activations([Activation::Q, Activation::Pattern]).layers([1, 2]);
    let (logits, some) = model.run_with_cache_options(SENTENCE, options.clone()).unwrap();
    assert_eq!(logits.unwrap(), everything);
    assert_eq!(some.get(Activation::Q, 2).unwrap(), all.get(Activation::Q, 2).unwrap());
    let message = some.get(Activation::Z, 2).unwrap_err().to_string();
    assert_eq!(
        message,
        "z of layer 2 is not in the cache: it holds only q, pattern of layers 1, 2; run again with RunOptions whose \
         activations and layers include it, or with run_with_cache, which caches everything"
    );
    assert!(some.get(Activation::Q, 0).is_err());

    let (logits, cache) = model.run_with_cache_options(SENTENCE, RunOptions::default().no_logits()).unwrap();
    assert!(logits.is_none());
    assert_eq!(cache.get(Activation::ResidPost, 3).unwrap(), all.get(Activation::ResidPost, 3).unwrap());

    let (logits, cache) = model.run_with_cache_options(SENTENCE, RunOptions::default().stop_at_layer(2)).unwrap();
    assert!(logits.is_none());
    assert_eq!(cache.get(Activation::ResidPost, 1).unwrap(), all.get(Activation::ResidPost, 1).unwrap());
    assert!(cache.get(Activation::ResidPre, 2).is_err());

    let message = |options| model.run_with_cache_options("x", options).unwrap_err().to_string();
    assert!(message(RunOptions::default().stop_at_layer(5)).contains("expected 0 to 4"));
    assert!(message(RunOptions::default().layers([4])).starts_with("layer 4 out of range: the model has 4, 0 to 3"));
}

#[test]
fn tokens_agree_with_the_definition_of_each_projection() {
    let model = demo();
    let (_, cache) = model.run_with_cache("The bus is late.").unwrap();
    let cube = |activation| cache.get(activation, 2).unwrap().into_dimensionality::<Ix3>().unwrap();
    let (q, k) =
        (cube(Activation::Q).slice(s![.., 5, ..]).to_owned(), cube(Activation::K).slice(s![.., 5, ..]).to_owned());
    let weights = model.weights().unwrap();
    let block = &weights.blocks[2];
    assert_eq!(model.w_v(2, 5).unwrap(), block.w_v.index_axis(Axis(0), 5));
    assert_eq!(model.w_o(2, 5).unwrap(), block.w_o.index_axis(Axis(0), 5));
    let (w_v, w_o) = (block.w_v.index_axis(Axis(0), 5), block.w_o.index_axis(Axis(0), 5));
    for projection in [Projection::Notebook, Projection::Output, Projection::Ov] {
        let options = DecodeOptions::default().projection(projection).top_k(2);
        let data = head_data(&model, &cache, 2, 5, options).unwrap().prompt(0).unwrap();
        for query in 0..data.n_pos() {
            for key in 0..=query {
                let c = &q.row(query) * &k.row(key);
                let r = match projection {
                    Projection::Notebook => w_v.dot(&c) * w_o.sum_axis(Axis(0)),
                    Projection::Output => c.dot(&w_o),
                    _ => w_v.dot(&c).dot(&w_v).dot(&w_o),
                };
                let logits = r.dot(&weights.w_u) + &weights.b_u;
                let scale = logits.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                let cell = data.cell(query, key).unwrap();
                for rank in 0..2 {
                    let token = data.qk.tokens[[cell, rank]] as usize;
                    assert!((logits[token] - data.qk.logits[[cell, rank]]).abs() < 1e-5 * scale);
                }
                let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert!(best - data.qk.logits[[cell, 0]] < 1e-5 * scale, "{projection:?}");
                let margin = data.qk.logits[[cell, 0]] - data.qk.logits[[cell, 1]];
                assert_eq!(margin, data.qk.margin[cell]);
            }
        }
        assert_eq!(data.cell(0, 1), None);
    }
    let attn = head_data(&model, &cache, 2, 5, DecodeOptions::default()).unwrap().prompt(0).unwrap().attn;
    let pattern = cube(Activation::Pattern).index_axis(Axis(0), 5).to_owned().into_dimensionality::<Ix2>().unwrap();
    assert_eq!(attn, pattern);
}

#[test]
fn all_heads_data_equals_head_data_of_each_head() {
    let model = load(&fixture("odd")).unwrap();
    let (_, cache) = model.run_with_cache(vec![vec![1_u32, 2, 3], vec![4]]).unwrap();
    let all = all_heads_data(&model, &cache, DecodeOptions::default()).unwrap();
    assert_eq!(all.len(), 6);
    for data in &all {
        let alone = head_data(&model, &cache, data.layer, data.head, DecodeOptions::default()).unwrap();
        assert_eq!(alone.to_array(), data.to_array());
    }
}

#[test]
fn errors_name_the_bad_input() {
    let model = demo();
    let error = |prompts: Vec<Vec<u32>>| model.forward(prompts).unwrap_err().to_string();
    assert_eq!(error(vec![]), "running the model: prompts: expected at least 1, found 0");
    let empty = error(vec![vec![1], vec![]]);
    assert!(empty.starts_with("prompt 1: expected 1 to 256 tokens, the model's context, found no token"), "{empty}");
    assert_eq!(error(vec![vec![1; 257]]), "prompt 0: expected 1 to 256 tokens, the model's context, found 257");
    let beyond = error(vec![vec![50257]]);
    assert_eq!(beyond, "token id 50257 out of range: the model's vocabulary has 50257, 0 to 50256");
    assert_eq!(model.forward(vec![1_u32; 256]).unwrap()[0].nrows(), 256);
    assert_eq!(model.forward("").unwrap()[0].nrows(), 1, "with the beginning-of-sequence token it is one token");

    let (_, cache) = model.run_with_cache(["a", "b"]).unwrap();
    let error = |layer, head| head_data(&model, &cache, layer, head, Default::default()).unwrap_err().to_string();
    assert_eq!(error(4, 0), "layer 4 out of range: the model has 4, 0 to 3");
    assert_eq!(error(0, 8), "head 8 out of range: each layer has 8, 0 to 7");
    assert!(cache.get(Activation::Q, 0).unwrap_err().to_string().contains("choose one with cache.prompt(i)"));
    assert!(cache.prompt(2).unwrap_err().to_string().starts_with("prompt 2 out of range: the cache has 2"));
    let zero = DecodeOptions { top_k: 0, ..Default::default() };
    assert!(
        head_data(&model, &cache, 0, 0, zero)
            .unwrap_err()
            .to_string()
            .starts_with("DecodeOptions: top_k: expected at least 1")
    );
    let other = load(&fixture("tiny")).unwrap();
    assert!(
        head_data(&other, &cache, 0, 0, Default::default())
            .unwrap_err()
            .to_string()
            .contains("the model whose run filled the cache")
    );
}

#[test]
fn debug_of_a_model_and_a_cache_prints_sizes() {
    let model = demo();
    let text = format!("{model:?} {:?}", model.run_with_cache("a").unwrap().1);
    assert!(text.contains("d_head: 16") && text.len() < 1500, "{text}");
}
