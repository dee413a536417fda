//! Every operation on numbers small enough to compute by hand, on every backend.
//!
//! When a test on golden data fails, the test that fails here names the operation.

use std::f32::consts::PI;
use std::slice;

use ndarray::{Array, Array3, arr1, arr2, arr3};

use super::*;
use crate::decode::DecodeBackend;

/// Runs an expression on every backend, dfdx included, and returns each result.
macro_rules! results {
    (|$backend:ident| $run:expr) => {{
        let (mut got, dfdx) = on_every_backend!(|$backend| $run);
        got.push(dfdx);
        got
    }};
}

/// Rounds to four decimal places. Shape: any → the same.
fn rounded<D: Dimension>(x: &Array<f32, D>) -> Array<f32, D> {
    x.mapv(|x| (1e4 * x).round() / 1e4)
}

#[test]
fn embed_adds_the_rows_of_a_token_and_a_position() {
    let (w_e, w_pos) = (arr2(&[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), arr2(&[[0.1, 0.2], [0.3, 0.4]]));
    for y in results!(|backend| {
        let embedding = backend.upload_embedding(w_e.clone(), w_pos.clone()).unwrap();
        download(backend, &backend.embed(&embedding, &[2, 0], &[0, 1]).unwrap())
    }) {
        assert_eq!(rounded(&y), arr2(&[[5.1, 6.2], [1.3, 2.4]]));
    }
}

#[test]
fn layer_norm_centers_and_scales_each_row() {
    // The variance of [1, 2, 3] is 2/3, and √(3/2) = 1.2247. A constant row has variance 0, and `eps` avoids 0/0.
    let x = arr2(&[[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [-20.0, 0.0, 20.0]]);
    for y in results!(|backend| {
        let norm = backend.upload_layer_norm(None, 1e-5).unwrap();
        download(backend, &backend.layer_norm(&norm, &upload(backend, &x)).unwrap())
    }) {
        assert_eq!(rounded(&y), arr2(&[[-1.2247, 0.0, 1.2247], [0.0, 0.0, 0.0], [-1.2247, 0.0, 1.2247]]));
        for row in [y.row(0), y.row(2)] {
            assert_eq!(row.sum(), 0.0, "mean");
            assert!((row.dot(&row) / 3.0 - 1.0).abs() < 1e-4, "variance");
        }
    }
}

#[test]
fn layer_norm_with_weights_scales_and_shifts() {
    let ln = LayerNormWeights { w: arr1(&[1.0, 10.0, 100.0]), b: arr1(&[0.5, -1.0, 2.0]) };
    for y in results!(|backend| {
        let norm = backend.upload_layer_norm(Some(&ln), 1e-5).unwrap();
        download(backend, &backend.layer_norm(&norm, &upload(backend, &arr2(&[[1.0, 2.0, 3.0]]))).unwrap())
    }) {
        let scale = 1.0 / (2.0_f32 / 3.0 + 1e-5).sqrt();
        assert_close(y.view(), arr2(&[[0.5 - scale, -1.0, 2.0 + 100.0 * scale]]).view(), 1.0, "(x − mean) scale w + b");
    }
}

#[test]
fn layer_norm_adds_eps_to_the_variance() {
    // The variance of [−1, 1] is 1; with eps = 3 it is divided by √4.
    for y in results!(|backend| {
        let norm = backend.upload_layer_norm(None, 3.0).unwrap();
        download(backend, &backend.layer_norm(&norm, &upload(backend, &arr2(&[[-1.0, 1.0]]))).unwrap())
    }) {
        assert_eq!(rounded(&y), arr2(&[[-0.5, 0.5]]));
    }
}

#[test]
fn linear_is_x_w_plus_b() {
    let (w, b) = (arr2(&[[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]]), arr1(&[10.0, 20.0, 30.0]));
    for (y, qkv) in results!(|backend| {
        let x = upload(backend, &arr2(&[[1.0, 2.0], [-1.0, 0.5]]));
        let linear = backend.upload_linear(w.clone(), b.clone()).unwrap();
        let y = download(backend, &backend.linear(&linear, &x).unwrap());
        let linears = backend.upload_linear_qkv([1.0, 2.0, 3.0].map(|scale| (scale * &w, scale * &b))).unwrap();
        (y, backend.linear_qkv(&linears, &x).unwrap().map(|y| download(backend, &y)))
    }) {
        let want = arr2(&[[11.0, 22.0, 38.0], [9.0, 20.5, 29.5]]);
        assert_eq!(y, want);
        assert_eq!(qkv, [want.clone(), 2.0 * &want, 3.0 * &want]);
    }
}

#[test]
fn activation_functions_at_minus_one_zero_and_one() {
    let gelu_new = |x: f32| 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    // The normal distribution function at −1 and 1 is 0.1587 and 0.8413, the logistic function 0.2689 and 0.7311.
    for (act_fn, want) in [
        (ActFn::GeluNew, [gelu_new(-1.0), 0.0, gelu_new(1.0)]), // −0.1588, 0, 0.8412
        (ActFn::Gelu, [-0.158655, 0.0, 0.841345]),
        (ActFn::Relu, [0.0, 0.0, 1.0]),
        (ActFn::Silu, [-0.268941, 0.0, 0.731059]),
        (ActFn::Tanh, [-0.761594, 0.0, 0.761594]),
    ] {
        for y in results!(|backend| {
            let identity = backend.upload_linear(arr2(&[[1.0]]), arr1(&[0.0])).unwrap();
            let x = upload(backend, &arr2(&[[-1.0], [0.0], [1.0]]));
            download(backend, &backend.linear_act(&identity, act_fn, &x).unwrap())
        }) {
            assert_close(y.column(0), arr1(&want).view(), 0.5, &format!("{act_fn:?}"));
        }
    }
}

#[test]
fn linear_act_adds_the_bias_first() {
    for y in results!(|backend| {
        let linear = backend.upload_linear(arr2(&[[2.0]]), arr1(&[-3.0])).unwrap();
        download(backend, &backend.linear_act(&linear, ActFn::Relu, &upload(backend, &arr2(&[[1.0], [2.0]]))).unwrap())
    }) {
        assert_eq!(y, arr2(&[[0.0], [1.0]]));
    }
}

#[test]
fn add_is_element_wise() {
    for y in results!(|backend| {
        let [a, b] = [arr2(&[[1.0, 2.0]]), arr2(&[[10.0, -2.0]])].map(|x| upload(backend, &x));
        download(backend, &backend.add(&a, &b).unwrap())
    }) {
        assert_eq!(y, arr2(&[[11.0, 0.0]]));
    }
}

/// `z`, the patterns and the scores of each prompt. Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `z` the same,
/// patterns and scores each `[n_heads, query_pos, key_pos]`.
fn attention<B: Backend>(
    backend: &B,
    qkv: [&Array2<f32>; 3],
    n_heads: usize,
    lengths: &[usize],
) -> (Array2<f32>, Vec<Array3<f32>>, Vec<Array3<f32>>) {
    let (prompts, _) = consecutive_rows(lengths);
    let heads = heads(n_heads, qkv[0].ncols() / n_heads);
    let [q, k, v] = qkv.map(|x| upload(backend, x));
    let AttentionOutput { z, pattern } = backend.attention([&q, &k, &v], heads, &prompts, true).unwrap();
    let on_host = |lazy: LazyArray<Ix3>| lazy.compute().unwrap().into_owned();
    let scores = prompts.iter().map(|rows| on_host(backend.attn_scores(&q, &k, heads, rows.clone()).unwrap()));
    (download(backend, &z), pattern.into_iter().map(on_host).collect(), scores.collect())
}

#[test]
fn attention_of_two_positions() {
    // Query 1 has the scores [2, 6], so its pattern is [1, e⁴] / (1 + e⁴) = [0.0180, 0.9820].
    let [q, k, v] = [[1.0, 2.0], [1.0, 3.0], [10.0, 20.0]].map(|x| arr2(&[x]).reversed_axes()); // [pos, 1]
    for (z, pattern, scores) in results!(|backend| attention(backend, [&q, &k, &v], 1, &[2])) {
        assert_eq!(scores, [arr3(&[[[1.0, f32::NEG_INFINITY], [2.0, 6.0]]])]);
        assert_eq!(rounded(&pattern[0]), arr3(&[[[1.0, 0.0], [0.0180, 0.9820]]]));
        assert!((pattern[0].sum() - 2.0).abs() < 1e-6, "each of the two rows sums to 1");
        assert_eq!(rounded(&z), arr2(&[[10.0], [19.8201]])); // 10 · 0.0180 + 20 · 0.9820
    }
}

#[test]
fn scores_are_divided_by_the_square_root_of_d_head() {
    let (q, k) = (arr2(&[[1.0, 2.0, 3.0, 4.0]]), arr2(&[[1.0, 1.0, -1.0, 2.0]])); // q · k = 8
    for (_, _, scores) in results!(|backend| attention(backend, [&q, &k, &k], 1, &[1])) {
        assert_eq!(scores, [arr3(&[[[4.0]]])]);
    }
}

#[test]
fn heads_and_prompts_do_not_mix() {
    // Two heads of d_head 1; a prompt of two positions and a prompt of one. Equal scores give the mean of the
    // values.
    let q = Array2::zeros((3, 2));
    let v = arr2(&[[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]]);
    for (z, pattern, _) in results!(|backend| attention(backend, [&q, &q, &v], 2, &[2, 1])) {
        assert_eq!(rounded(&z), arr2(&[[1.0, 10.0], [2.0, 20.0], [5.0, 50.0]]));
        let first = [[1.0, 0.0], [0.5, 0.5]];
        assert_eq!([rounded(&pattern[0]), rounded(&pattern[1])], [arr3(&[first, first]), arr3(&[[[1.0]], [[1.0]]])]);
    }
}

#[test]
fn logits_and_top_tokens_of_a_vocabulary_of_three() {
    // x W_U + b_U = [1, −1, 1] + [0, 0, 2]; as a head's vector, [2] P = x.
    let (w_u, b_u) = (arr2(&[[1.0, 2.0, 0.0], [0.0, 3.0, -1.0]]), arr1(&[0.0, 0.0, 2.0]));
    let (x, p) = (arr2(&[[1.0, -1.0]]), arr2(&[[0.5, -0.5]]));
    for (logits, top) in results!(|backend| {
        let unembed = backend.upload_unembed(w_u.clone(), b_u.clone()).unwrap();
        let logits = backend.logits(&unembed, &upload(backend, &x), slice::from_ref(&(0..1))).unwrap();
        let table = backend.upload_projection(p.clone()).unwrap();
        (logits, backend.decode(&single_vectors(&arr2(&[[2.0]])), &table, &unembed, with_bias(2)).unwrap())
    }) {
        assert_eq!(logits, [arr2(&[[1.0, -1.0, 3.0]])]);
        assert_eq!(top, TopTokens { tokens: arr2(&[[2, 0]]), logits: arr2(&[[3.0, 1.0]]), margin: arr1(&[2.0]) });
    }
}
