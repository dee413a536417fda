//! Weight processing: rewriting the weights so that they are easier to read while every log-probability stays the
//! same. The five steps are TransformerLens', in its order; see its `weight_processing` module for why each is wanted.
//!
//! Everything runs in `f64` and is rounded to `f32` once, at the end.

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayViewMut2, Axis, concatenate};
use rayon::prelude::*;

use super::svd::svd_of_product;
use super::{BlockWeights, LayerNormWeights, Weights};
use crate::error::{Error, Result};

/// Which weight-processing steps to apply, each named as in TransformerLens. All are on by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processing {
    /// Folds scale and shift of every layer norm into the weights that read it, and centres those over `d_model`.
    /// What remains of a layer norm is centring and scaling.
    pub fold_ln: bool,
    /// Centres everything that writes to the residual stream over `d_model`: `W_E W_pos W_O b_O W_out b_out`.
    pub center_writing_weights: bool,
    /// Centres `W_U` and `b_U` over the vocabulary.
    pub center_unembed: bool,
    /// Moves the value biases into the output bias: `b_O += Σ_h b_V[h] W_O[h]`, then `b_V = 0`.
    pub fold_value_biases: bool,
    /// Rewrites each head by the singular value decompositions of its two circuits. `[W_Q; b_Q] [W_K; b_K]ᵀ = U S Vᵀ`
    /// gives `[W_Q; b_Q] = U √S`, `[W_K; b_K] = V √S`; `W_V W_O = U S Vᵀ` gives `W_V = U S`, `W_O = Vᵀ`.
    /// In every column of the left factor the entry of largest magnitude is positive. Value biases are folded as well,
    /// for `b_V` has no place in the new basis; that is what TransformerLens does.
    pub refactor_factored_attn_matrices: bool,
}

impl Default for Processing {
    fn default() -> Self {
        Self {
            fold_ln: true,
            center_writing_weights: true,
            center_unembed: true,
            fold_value_biases: true,
            refactor_factored_attn_matrices: true,
        }
    }
}

impl Processing {
    /// No step at all: the weights as Hugging Face has them.
    pub fn none() -> Self {
        Self {
            fold_ln: false,
            center_writing_weights: false,
            center_unembed: false,
            fold_value_biases: false,
            refactor_factored_attn_matrices: false,
        }
    }
}

/// Up to this share of a head's largest singular value, the singular vectors of `W_V W_O` are noise and are dropped.
const NEGLIGIBLE: f64 = 1e-6;

/// Applies the steps to unprocessed weights.
pub(crate) fn process(mut weights: Weights, steps: Processing) -> Result<Weights> {
    if steps.center_writing_weights {
        for table in [&mut weights.w_e, &mut weights.w_pos] {
            for mut row in table.rows_mut() {
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
                row.mapv_inplace(|x| (f64::from(x) - mean) as f32);
            }
        }
    }
    unembedding(&mut weights, steps);
    weights.blocks = weights
        .blocks
        .into_par_iter()
        .enumerate()
        .map(|(layer, block)| {
            let mut block = block.map(f64::from);
            process_block(&mut block, steps, layer)?;
            Ok(block.map(|x| x as f32))
        })
        .collect::<Result<_>>()?;
    Ok(weights)
}

fn unembedding(weights: &mut Weights, steps: Processing) {
    if !(steps.fold_ln || steps.center_unembed) {
        return;
    }
    let mut w_u = weights.w_u.mapv(f64::from); // [d_model, d_vocab]
    let mut b_u = weights.b_u.mapv(f64::from); // [d_vocab]
    if steps.fold_ln
        && let Some(ln) = weights.ln_final.take()
    {
        fold(&ln.map(f64::from), w_u.view_mut(), &mut b_u);
    }
    if steps.center_unembed {
        for mut row in w_u.rows_mut() {
            let mean = row.sum() / row.len() as f64;
            row -= mean;
        }
        let mean = b_u.sum() / b_u.len() as f64;
        b_u -= mean;
    }
    weights.w_u.zip_mut_with(&w_u, |to, &from| *to = from as f32);
    weights.b_u.zip_mut_with(&b_u, |to, &from| *to = from as f32);
}

/// Folds a layer norm into a weight that reads it: `b += β W`, `W ← γ ⊙ W`, then `W` minus its mean over `d_model`.
/// Shape: `w [d_model, out]`, `b [out]`.
fn fold(ln: &LayerNormWeights<f64>, mut w: ArrayViewMut2<f64>, b: &mut Array1<f64>) {
    *b += &ln.b.dot(&w);
    w *= &ln.w.view().insert_axis(Axis(1));
    let mean = w.sum_axis(Axis(0)) / w.nrows() as f64;
    w -= &mean;
}

fn process_block(block: &mut BlockWeights<f64>, steps: Processing, layer: usize) -> Result<()> {
    if steps.fold_ln {
        if let Some(ln) = block.ln1.take() {
            for (w, b) in
                [(&mut block.w_q, &mut block.b_q), (&mut block.w_k, &mut block.b_k), (&mut block.w_v, &mut block.b_v)]
            {
                for (w, mut b) in w.outer_iter_mut().zip(b.outer_iter_mut()) {
                    let mut folded = b.to_owned();
                    fold(&ln, w, &mut folded);
                    b.assign(&folded);
                }
            }
        }
        if let Some(ln) = block.ln2.take() {
            fold(&ln, block.w_in.view_mut(), &mut block.b_in);
        }
    }
    if steps.center_writing_weights {
        let center = |mut w: ArrayViewMut2<f64>| {
            let mean = w.sum_axis(Axis(1)) / w.ncols() as f64;
            w -= &mean.insert_axis(Axis(1));
        };
        block.w_o.outer_iter_mut().for_each(center);
        center(block.w_out.view_mut());
        center(block.b_o.view_mut().insert_axis(Axis(0)));
        center(block.b_out.view_mut().insert_axis(Axis(0)));
    }
    if steps.fold_value_biases || steps.refactor_factored_attn_matrices {
        for (b_v, w_o) in block.b_v.outer_iter().zip(block.w_o.outer_iter()) {
            block.b_o += &b_v.dot(&w_o);
        }
        block.b_v.fill(0.0);
    }
    if steps.refactor_factored_attn_matrices {
        refactor(block, layer)?;
    }
    Ok(())
}

fn refactor(block: &mut BlockWeights<f64>, layer: usize) -> Result<()> {
    let heads: Vec<Refactored> = (0..block.w_q.len_of(Axis(0)))
        .into_par_iter()
        .map(|head| {
            let of = |w: &Array3<f64>| w.index_axis(Axis(0), head).to_owned();
            let with_bias = |w: &Array3<f64>, b: &Array2<f64>| {
                let bias = b.row(head).insert_axis(Axis(0));
                concatenate(Axis(0), &[w.index_axis(Axis(0), head), bias]).expect("both are d_head wide")
            };
            refactor_head(
                with_bias(&block.w_q, &block.b_q).view(),
                with_bias(&block.w_k, &block.b_k).view(),
                of(&block.w_v).view(),
                of(&block.w_o).view(),
            )
            .ok_or_else(|| Error::Mismatch {
                what: "refactor_factored_attn_matrices",
                expected: "a singular value decomposition that converges".into(),
                found: format!("none for head {layer}.{head}: load with this step switched off"),
            })
        })
        .collect::<Result<_>>()?;
    for (head, new) in heads.into_iter().enumerate() {
        let d_model = new.v.nrows();
        let split = |both: Array2<f64>, w: &mut Array3<f64>, b: &mut Array2<f64>| {
            w.index_axis_mut(Axis(0), head).assign(&both.slice(ndarray::s![..d_model, ..]));
            b.row_mut(head).assign(&both.row(d_model));
        };
        split(new.q, &mut block.w_q, &mut block.b_q);
        split(new.k, &mut block.w_k, &mut block.b_k);
        block.w_v.index_axis_mut(Axis(0), head).assign(&new.v);
        block.w_o.index_axis_mut(Axis(0), head).assign(&new.o);
    }
    Ok(())
}

/// A head in its new basis: `q`, `k` `[d_model + 1, d_head]` with the bias as last row, `v [d_model, d_head]`,
/// `o [d_head, d_model]`.
struct Refactored {
    q: Array2<f64>,
    k: Array2<f64>,
    v: Array2<f64>,
    o: Array2<f64>,
}

fn refactor_head(q: ArrayView2<f64>, k: ArrayView2<f64>, v: ArrayView2<f64>, o: ArrayView2<f64>) -> Option<Refactored> {
    let qk = svd_of_product(q, k)?;
    let root = qk.s.mapv(f64::sqrt);
    let ov = svd_of_product(v, o.t())?;
    let kept = ov.s.mapv(|s| if s <= NEGLIGIBLE * ov.s[0] { 0.0 } else { 1.0 });
    let o = (&ov.v * &kept).reversed_axes().as_standard_layout().into_owned();
    Some(Refactored { q: &qk.u * &root, k: &qk.v * &root, v: &ov.u * &(&ov.s * &kept), o })
}
