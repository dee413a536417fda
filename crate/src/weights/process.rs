//! Weight processing: rewriting the weights so that they are easier to read while every log-probability stays the
//! same. The five steps are TransformerLens', in its order; see its `weight_processing` module for why each is wanted.
//!
//! Everything runs in `f64` and is rounded to `f32` once, at the end. No large matrix ever lies in memory in `f64`: what
//! a step needs to know of it (means, sums) is collected first, and then every entry is rewritten in one go.

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayViewMut2, Axis, Zip, concatenate, s};
use rayon::prelude::*;

use super::svd::svd_of_product;
use super::{BlockWeights, LayerNormWeights, UnembedWeights};
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

/// Rows of a table that are worth a task.
const ROWS: usize = 256;

impl Processing {
    /// Processes `W_E` or `W_pos`. Shape: `[rows, d_model]`.
    pub(crate) fn embedding(self, w: &mut Array2<f32>) {
        if self.center_writing_weights {
            center_rows(w);
        }
    }

    /// Processes a block.
    pub(crate) fn block(self, block: &mut BlockWeights, layer: usize) -> Result<()> {
        let ln2 = if self.fold_ln { block.ln2.take() } else { None };
        if let Some(ln) = ln2 {
            fold_into_mlp(&ln.map(f64::from), &mut block.w_in, &mut block.b_in);
        }
        if self.center_writing_weights {
            center_rows(&mut block.w_out);
            block.b_out = centered(&block.b_out.mapv(f64::from)).mapv(|x| x as f32);
        }
        let heads_change = self != Self { center_unembed: self.center_unembed, ..Self::none() };
        if heads_change { heads(block, self, layer) } else { Ok(()) }
    }

    /// Processes the final layer norm and the unembedding.
    pub(crate) fn unembed(self, weights: &mut UnembedWeights) {
        if self.fold_ln || self.center_unembed {
            unembedding(weights, self);
        }
    }
}

/// Takes from each row its mean.
fn center_rows(w: &mut Array2<f32>) {
    let columns = w.ncols();
    let values = w.as_slice_mut().expect("a new matrix is contiguous");
    let ones = vec![1.0; columns];
    values.par_chunks_exact_mut(columns).with_min_len(ROWS).for_each(|row| {
        let mean = dot(row, &ones) / columns as f64;
        row.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
    });
}

/// `Σ x_i y_i` in eight lanes, which the processor adds at the same time.
fn dot(x: &[f32], y: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter().zip(y) {
        lanes.iter_mut().zip(x.iter().zip(y)).for_each(|(lane, (&x, y))| *lane += f64::from(x) * y);
    }
    let rest = x_rest.iter().zip(y_rest).map(|(&x, y)| f64::from(x) * y);
    lanes.into_iter().chain(rest).sum()
}

/// Folds the final layer norm into the unembedding, and centres it. Everything goes by rows of `W_Uᵀ [d_vocab, d_model]`,
/// which is how checkpoints have it and how it was read.
fn unembedding(weights: &mut UnembedWeights, steps: Processing) {
    // Scale and shift.
    let ln = if steps.fold_ln { weights.ln_final.take() } else { None };
    let ln = ln.map(|ln| [ln.w, ln.b].map(|x| x.iter().copied().map(f64::from).collect::<Vec<f64>>()));
    let (d_model, d_vocab) = weights.w_u.dim();
    let mut rows = weights.w_u.view_mut().reversed_axes();
    let rows = rows.as_slice_mut().expect("a checkpoint has it by rows of the vocabulary");

    // Of each token: β · w, which goes to the bias, and the mean of γ ⊙ w. Over all tokens: the sum of what remains.
    let collect = |rows: &[f32]| {
        let mut of_rows = Vec::with_capacity(ROWS);
        let mut total = vec![0.0; d_model];
        for row in rows.chunks_exact(d_model) {
            let (mut shift, mut mean) = (0.0, 0.0);
            if let Some([gamma, beta]) = &ln {
                shift = dot(row, beta);
                mean = dot(row, gamma) / d_model as f64;
                let scaled = row.iter().zip(gamma).map(|(&w, gamma)| f64::from(w) * gamma);
                total.iter_mut().zip(scaled).for_each(|(total, w)| *total += w - mean);
            } else {
                total.iter_mut().zip(row).for_each(|(total, &w)| *total += f64::from(w));
            }
            of_rows.push((shift, mean));
        }
        (of_rows, total)
    };
    let collected: Vec<_> = rows.par_chunks(ROWS * d_model).map(collect).collect();
    let mut center = vec![0.0; d_model];
    let mut b_u = weights.b_u.mapv(f64::from);
    if steps.center_unembed {
        collected.iter().flat_map(|(_, total)| total.iter().enumerate()).for_each(|(at, total)| center[at] += total);
        center.iter_mut().for_each(|center| *center /= d_vocab as f64);
    }
    b_u.iter_mut().zip(collected.iter().flat_map(|(of_rows, _)| of_rows)).for_each(|(b, (shift, _))| *b += shift);
    if steps.center_unembed {
        b_u -= b_u.sum() / d_vocab as f64;
    }

    rows.par_chunks_mut(ROWS * d_model).zip(&collected).for_each(|(rows, (of_rows, _))| {
        for (row, &(_, mean)) in rows.chunks_exact_mut(d_model).zip(of_rows) {
            match &ln {
                Some([gamma, _]) => row.iter_mut().zip(gamma.iter().zip(&center)).for_each(|(w, (gamma, center))| {
                    *w = (f64::from(*w) * gamma - mean - center) as f32;
                }),
                None => row.iter_mut().zip(&center).for_each(|(w, center)| *w = (f64::from(*w) - center) as f32),
            }
        }
    });
    weights.b_u = b_u.mapv(|x| x as f32);
}

fn centered(b: &Array1<f64>) -> Array1<f64> {
    b - b.sum() / b.len() as f64
}

/// Folds a layer norm into `W_in [d_model, d_mlp]` and `b_in [d_mlp]`: `b += β W`, `W ← γ ⊙ W` along `d_model`, then `W`
/// minus its mean over `d_model`.
fn fold_into_mlp(ln: &LayerNormWeights<f64>, w: &mut Array2<f32>, b: &mut Array1<f32>) {
    let mut shift = b.mapv(f64::from);
    let mut mean = Array1::<f64>::zeros(b.len());
    for (row, (&gamma, &beta)) in w.outer_iter().zip(ln.w.iter().zip(&ln.b)) {
        Zip::from(&mut shift).and(&mut mean).and(row).for_each(|shift, mean, &w| {
            *shift += beta * f64::from(w);
            *mean += gamma * f64::from(w);
        });
    }
    mean /= w.nrows() as f64;
    for (row, &gamma) in w.outer_iter_mut().zip(&ln.w) {
        Zip::from(row).and(&mean).for_each(|w, mean| *w = (gamma * f64::from(*w) - mean) as f32);
    }
    *b = shift.mapv(|x| x as f32);
}

/// One head in `f64`: `q`, `k`, `v` `[d_model + 1, d_head]` with the bias as last row, `o [d_head, d_model]`.
struct Head {
    q: Array2<f64>,
    k: Array2<f64>,
    v: Array2<f64>,
    o: Array2<f64>,
}

/// Everything that is done to attention, a head at a time.
fn heads(block: &mut BlockWeights, steps: Processing, layer: usize) -> Result<()> {
    let ln = if steps.fold_ln { block.ln1.take() } else { None }.map(|ln| ln.map(f64::from));
    let refactors = steps.refactor_factored_attn_matrices;
    let folds_biases = steps.fold_value_biases || refactors;
    let mut b_o = block.b_o.mapv(f64::from);
    if steps.center_writing_weights {
        b_o = centered(&b_o);
    }
    let read = |w: &Array3<f32>, b: &Array2<f32>, head: usize| {
        let bias = b.row(head).insert_axis(Axis(0));
        concatenate(Axis(0), &[w.index_axis(Axis(0), head), bias]).expect("both are d_head wide").mapv(f64::from)
    };
    let process = |index: usize| -> Result<(Head, Array1<f64>)> {
        let mut head = Head {
            q: read(&block.w_q, &block.b_q, index),
            k: read(&block.w_k, &block.b_k, index),
            v: read(&block.w_v, &block.b_v, index),
            o: block.w_o.index_axis(Axis(0), index).mapv(f64::from),
        };
        if let Some(ln) = &ln {
            [&mut head.q, &mut head.k, &mut head.v].into_iter().for_each(|w| fold(ln, w.view_mut()));
        }
        if steps.center_writing_weights {
            let mean = head.o.sum_axis(Axis(1)) / head.o.ncols() as f64;
            head.o -= &mean.insert_axis(Axis(1));
        }
        let mut to_b_o = Array1::zeros(head.o.ncols());
        if folds_biases {
            let mut b_v = head.v.row_mut(head.o.ncols());
            to_b_o = b_v.dot(&head.o);
            b_v.fill(0.0);
        }
        if refactors {
            head.refactor().ok_or(Error::Svd {
                function: "refactor_factored_attn_matrices",
                layer,
                head: index,
                hint: "load the model with this step switched off",
            })?;
        }
        Ok((head, to_b_o))
    };
    let heads: Vec<_> = (0..block.w_q.len_of(Axis(0))).into_par_iter().map(process).collect::<Result<_>>()?;
    for (index, (head, to_b_o)) in heads.into_iter().enumerate() {
        let d_model = b_o.len();
        for (new, w, b) in [
            (head.q, &mut block.w_q, &mut block.b_q),
            (head.k, &mut block.w_k, &mut block.b_k),
            (head.v, &mut block.w_v, &mut block.b_v),
        ] {
            round(new.slice(s![..d_model, ..]), w.index_axis_mut(Axis(0), index));
            b.row_mut(index).zip_mut_with(&new.row(d_model), |to, &from| *to = from as f32);
        }
        round(head.o.view(), block.w_o.index_axis_mut(Axis(0), index));
        b_o += &to_b_o;
    }
    block.b_o = b_o.mapv(|x| x as f32);
    Ok(())
}

fn round(from: ArrayView2<f64>, mut to: ArrayViewMut2<f32>) {
    to.zip_mut_with(&from, |to, &from| *to = from as f32);
}

/// As [`fold_into_mlp`], with the bias as last row. Shape: `[d_model + 1, out]`.
fn fold(ln: &LayerNormWeights<f64>, both: ArrayViewMut2<f64>) {
    let d_model = ln.w.len();
    let (mut w, mut b) = both.split_at(Axis(0), d_model);
    let mut b = b.row_mut(0);
    b += &ln.b.dot(&w);
    w *= &ln.w.view().insert_axis(Axis(1));
    let mean = w.sum_axis(Axis(0)) / d_model as f64;
    w -= &mean;
}

impl Head {
    /// Rewrites the head in the basis of its singular vectors; `None` if they are not found. Value biases must be zero.
    fn refactor(&mut self) -> Option<()> {
        let qk = svd_of_product(self.q.view(), self.k.view())?;
        let root = qk.s.mapv(f64::sqrt);
        (self.q, self.k) = (&qk.u * &root, &qk.v * &root);
        let d_model = self.o.ncols();
        let ov = svd_of_product(self.v.slice(s![..d_model, ..]), self.o.t())?;
        let kept = ov.s.mapv(|s| if s <= NEGLIGIBLE * ov.s[0] { 0.0 } else { 1.0 });
        self.v.slice_mut(s![..d_model, ..]).assign(&(&ov.u * &(&ov.s * &kept)));
        self.o = (&ov.v * &kept).reversed_axes();
        Some(())
    }
}
