//! Each step of weight processing on a model with `d_model` 2, computed by hand.

use ndarray::{Array, ArrayView, Dimension, arr1, arr2, arr3};

use super::*;

/// Asserts that values agree within 1e-6. Shape: both the same.
#[track_caller]
fn assert_near<D: Dimension>(got: &Array<f32, D>, want: ArrayView<f32, D>) {
    assert_eq!(got.shape(), want.shape());
    assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-6), "{got} is not {want}");
}

/// A block of zeros with `d_model` 2 and `d_mlp` 2, without layer norm weights.
fn zero_block(n_heads: usize, d_head: usize) -> BlockWeights {
    let (w, b) = (Array3::zeros((n_heads, 2, d_head)), Array2::zeros((n_heads, d_head)));
    BlockWeights {
        ln1: None,
        w_q: w.clone(),
        b_q: b.clone(),
        w_k: w.clone(),
        b_k: b.clone(),
        w_v: w,
        b_v: b,
        w_o: Array3::zeros((n_heads, d_head, 2)),
        b_o: Array1::zeros(2),
        ln2: None,
        w_in: Array2::zeros((2, 2)),
        b_in: Array1::zeros(2),
        w_out: Array2::zeros((2, 2)),
        b_out: Array1::zeros(2),
    }
}

/// Shape: `w_u [d_model, d_vocab]`, stored as `W_Uᵀ`, as in a checkpoint.
fn unembed(ln_final: Option<LayerNormWeights>, w_u: [[f32; 2]; 2], b_u: [f32; 2]) -> UnembedWeights {
    let w_u = arr2(&w_u).reversed_axes().as_standard_layout().into_owned().reversed_axes();
    UnembedWeights { ln_final, w_u, b_u: arr1(&b_u) }
}

fn layer_norm(w: [f32; 2], b: [f32; 2]) -> Option<LayerNormWeights> {
    Some(LayerNormWeights { w: arr1(&w), b: arr1(&b) })
}

#[test]
fn fold_ln_of_attention() {
    let steps = Processing { fold_ln: true, ..Processing::none() };
    let mut block = zero_block(1, 1);
    block.ln1 = layer_norm([2.0, 4.0], [1.0, -1.0]);
    block.w_q = arr3(&[[[3.0], [1.0]]]);
    block.b_q = arr2(&[[10.0]]);
    steps.process_block(&mut block, 0).unwrap();
    assert!(block.ln1.is_none());
    assert_eq!(block.b_q, arr2(&[[12.0]])); // 10 + 1 · 3 − 1 · 1
    assert_eq!(block.w_q, arr3(&[[[1.0], [-1.0]]])); // [2 · 3, 4 · 1] minus its mean
}

#[test]
fn fold_ln_of_the_mlp() {
    let steps = Processing { fold_ln: true, ..Processing::none() };
    let mut block = zero_block(1, 1);
    block.ln2 = layer_norm([1.0, 2.0], [1.0, -1.0]);
    block.w_in = arr2(&[[1.0, 2.0], [3.0, 4.0]]);
    block.b_in = arr1(&[0.0, 10.0]);
    steps.process_block(&mut block, 0).unwrap();
    assert!(block.ln2.is_none());
    assert_eq!(block.b_in, arr1(&[-2.0, 8.0])); // b + [1, −1] W
    assert_eq!(block.w_in, arr2(&[[-2.5, -3.0], [2.5, 3.0]])); // [[1, 2], [6, 8]] minus the column means
}

#[test]
fn fold_ln_of_the_unembedding() {
    let steps = Processing { fold_ln: true, ..Processing::none() };
    let mut weights = unembed(layer_norm([1.0, 2.0], [1.0, -1.0]), [[1.0, 2.0], [3.0, 4.0]], [0.0, 10.0]);
    steps.process_unembed(&mut weights);
    assert!(weights.ln_final.is_none());
    assert_eq!(weights.b_u, arr1(&[-2.0, 8.0]));
    assert_eq!(weights.w_u, arr2(&[[-2.5, -3.0], [2.5, 3.0]])); // the same numbers as in the MLP
}

#[test]
fn center_writing_weights() {
    let steps = Processing { center_writing_weights: true, ..Processing::none() };
    let mut w_e = arr2(&[[1.0, 3.0], [2.0, 6.0]]);
    steps.process_embedding(&mut w_e);
    assert_eq!(w_e, arr2(&[[-1.0, 1.0], [-2.0, 2.0]]));

    let mut block = zero_block(1, 1);
    block.w_o = arr3(&[[[5.0, 1.0]]]);
    block.b_o = arr1(&[1.0, 2.0]);
    block.w_out = arr2(&[[1.0, 3.0], [0.0, 4.0]]);
    block.b_out = arr1(&[4.0, 0.0]);
    steps.process_block(&mut block, 0).unwrap();
    assert_eq!(block.w_o, arr3(&[[[2.0, -2.0]]]));
    assert_eq!(block.b_o, arr1(&[-0.5, 0.5]));
    assert_eq!(block.w_out, arr2(&[[-1.0, 1.0], [-2.0, 2.0]]));
    assert_eq!(block.b_out, arr1(&[2.0, -2.0]));
}

#[test]
fn center_unembed() {
    let steps = Processing { center_unembed: true, ..Processing::none() };
    let mut weights = unembed(None, [[1.0, 3.0], [2.0, 6.0]], [1.0, 2.0]);
    steps.process_unembed(&mut weights);
    assert_eq!(weights.w_u, arr2(&[[-1.0, 1.0], [-2.0, 2.0]])); // over the vocabulary, for each dimension
    assert_eq!(weights.b_u, arr1(&[-0.5, 0.5]));
}

#[test]
fn center_unembed_after_fold_ln() {
    let steps = Processing { fold_ln: true, center_unembed: true, ..Processing::none() };
    let mut weights = unembed(layer_norm([1.0, 2.0], [1.0, -1.0]), [[1.0, 2.0], [3.0, 4.0]], [0.0, 10.0]);
    steps.process_unembed(&mut weights);
    assert_eq!(weights.b_u, arr1(&[-5.0, 5.0])); // [−2, 8] minus 3
    assert_eq!(weights.w_u, arr2(&[[0.25, -0.25], [-0.25, 0.25]])); // [[−2.5, −3], [2.5, 3]] minus the row means
}

#[test]
fn fold_value_biases() {
    let steps = Processing { fold_value_biases: true, ..Processing::none() };
    let mut block = zero_block(2, 1);
    block.b_v = arr2(&[[2.0], [3.0]]);
    block.w_o = arr3(&[[[1.0, 10.0]], [[100.0, 1000.0]]]);
    block.b_o = arr1(&[5.0, 7.0]);
    let w_o = block.w_o.clone();
    steps.process_block(&mut block, 0).unwrap();
    assert_eq!(block.b_o, arr1(&[307.0, 3027.0])); // 5 + 2 · 1 + 3 · 100, 7 + 2 · 10 + 3 · 1000
    assert_eq!(block.b_v, arr2(&[[0.0], [0.0]]));
    assert_eq!(block.w_o, w_o);
}

fn refactor(block: &mut BlockWeights) {
    let steps = Processing { refactor_factored_attn_matrices: true, ..Processing::none() };
    steps.process_block(block, 0).unwrap();
}

#[test]
fn refactor_sorts_the_singular_vectors_and_splits_the_singular_values() {
    let mut block = zero_block(1, 2);
    // W_Q W_Kᵀ = [[4, 0], [0, −16]]: the singular values are 16 and 4, and W_Q gets their roots, 4 and 2.
    block.w_q = arr3(&[[[1.0, 0.0], [0.0, -4.0]]]);
    block.w_k = arr3(&[[[4.0, 0.0], [0.0, 4.0]]]);
    // W_V W_O = [[0, 3], [2, 0]]: W_V gets the singular values, 3 and 2, and the rows of W_O have length 1.
    block.w_v = arr3(&[[[1.0, 0.0], [0.0, 2.0]]]);
    block.w_o = arr3(&[[[0.0, 3.0], [1.0, 0.0]]]);
    block.b_v = arr2(&[[1.0, 1.0]]);
    refactor(&mut block);
    // The largest entry of each column of W_Q is positive, so W_K has the minus sign.
    assert_near(&block.w_q, arr3(&[[[0.0, 2.0], [4.0, 0.0]]]).view());
    assert_near(&block.w_k, arr3(&[[[0.0, 2.0], [-4.0, 0.0]]]).view());
    assert_near(&block.w_v, arr3(&[[[3.0, 0.0], [0.0, 2.0]]]).view());
    assert_near(&block.w_o, arr3(&[[[0.0, 1.0], [1.0, 0.0]]]).view());
    // Value biases are folded as well: b_V W_O = [1, 3].
    assert_near(&block.b_v, arr2(&[[0.0, 0.0]]).view());
    assert_near(&block.b_o, arr1(&[1.0, 3.0]).view());
}

#[test]
fn refactor_includes_the_biases_of_queries_and_keys() {
    // [W_Q; b_Q] = [3, 0, 4] has length 5, [W_K; b_K] = [0, 5, 12] has length 13; both get the length √(5 · 13).
    let mut block = zero_block(1, 1);
    (block.w_q, block.b_q) = (arr3(&[[[3.0], [0.0]]]), arr2(&[[4.0]]));
    (block.w_k, block.b_k) = (arr3(&[[[0.0], [5.0]]]), arr2(&[[12.0]]));
    refactor(&mut block);
    let length = 65.0_f32.sqrt();
    assert_near(&block.w_q, (length * arr3(&[[[0.6], [0.0]]])).view());
    assert_near(&block.b_q, (length * arr2(&[[0.8]])).view());
    assert_near(&block.w_k, (length * arr3(&[[[0.0], [5.0 / 13.0]]])).view());
    assert_near(&block.b_k, (length * arr2(&[[12.0 / 13.0]])).view());
}

#[test]
fn refactor_drops_the_vectors_of_negligible_singular_values() {
    let mut block = zero_block(1, 2);
    block.w_v = arr3(&[[[1.0, 0.0], [0.0, 1.0]]]);
    block.w_o = arr3(&[[[2.0, 0.0], [0.0, 1e-6]]]); // below 1e-6 of the largest
    refactor(&mut block);
    assert_near(&block.w_v, arr3(&[[[2.0, 0.0], [0.0, 0.0]]]).view());
    assert_near(&block.w_o, arr3(&[[[1.0, 0.0], [0.0, 0.0]]]).view());
}

#[test]
fn no_step_changes_no_weight() {
    let mut block = zero_block(1, 1);
    block.ln1 = layer_norm([2.0, 4.0], [1.0, -1.0]);
    block.w_q = arr3(&[[[3.0], [1.0]]]);
    block.b_o = arr1(&[1.0, 2.0]);
    Processing::none().process_block(&mut block, 0).unwrap();
    assert!(block.ln1.is_some());
    assert_eq!((block.w_q, block.b_o), (arr3(&[[[3.0], [1.0]]]), arr1(&[1.0, 2.0])));
    let mut weights = unembed(None, [[1.0, 3.0], [2.0, 6.0]], [1.0, 2.0]);
    Processing::none().process_unembed(&mut weights);
    assert_eq!((weights.w_u, weights.b_u), (arr2(&[[1.0, 3.0], [2.0, 6.0]]), arr1(&[1.0, 2.0])));
}
