//! Weight processing: makes the weights easier to interpret, and leaves every log-probability unchanged.
//!
//! The five steps are TransformerLens', in its order; its `weight_processing` module gives the reason for each.
//!
//! All arithmetic is in `f64`, rounded to `f32` once, at the end. To save memory, embeddings, MLP weights and the
//! unembedding are never copied to `f64`: one pass collects the means and sums that the steps need, and a second pass
//! rewrites every entry.

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayViewMut2, Axis, Zip, s};
use rayon::prelude::*;

use super::svd::svd_of_product;
use super::{BlockWeights, LayerNormWeights, UnembedWeights};
use crate::error::{Error, Result};

/// Which weight-processing steps to apply, each named as in TransformerLens. All are on by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processing {
    /// Folds the scale and shift of every layer norm into the weights that read it, and centers those over `d_model`.
    /// The layer norm itself then only centers and scales.
    pub fold_ln: bool,
    /// Centers the weights that write to the residual stream over `d_model`: `W_E W_pos W_O b_O W_out b_out`.
    pub center_writing_weights: bool,
    /// Centers `W_U` and `b_U` over the vocabulary.
    pub center_unembed: bool,
    /// Moves the value biases into the output bias: `b_O += Σ_h b_V[h] W_O[h]`, then `b_V = 0`.
    pub fold_value_biases: bool,
    /// Rewrites each head by the singular value decompositions of its two circuits. `[W_Q; b_Q] [W_K; b_K]ᵀ = U S Vᵀ`
    /// gives `[W_Q; b_Q] = U √S`, `[W_K; b_K] = V √S`; `W_V W_O = U S Vᵀ` gives `W_V = U S`, `W_O = Vᵀ`. In every
    /// column of the left factor the entry of largest magnitude is positive. Value biases are folded too, as in
    /// TransformerLens, because `b_V` cannot be expressed in the new basis.
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
    /// No step: the weights of the checkpoint.
    pub fn none() -> Self {
        Self {
            fold_ln: false,
            center_writing_weights: false,
            center_unembed: false,
            fold_value_biases: false,
            refactor_factored_attn_matrices: false,
        }
    }

    /// Each step with its name, in the order of the fields.
    fn steps(&mut self) -> [(&'static str, &mut bool); 5] {
        [
            ("fold_ln", &mut self.fold_ln),
            ("center_writing_weights", &mut self.center_writing_weights),
            ("center_unembed", &mut self.center_unembed),
            ("fold_value_biases", &mut self.fold_value_biases),
            ("refactor_factored_attn_matrices", &mut self.refactor_factored_attn_matrices),
        ]
    }

    /// The names of the steps that are on.
    pub(crate) fn names(mut self) -> Vec<&'static str> {
        self.steps().into_iter().filter(|(_, on)| **on).map(|(name, _)| name).collect()
    }

    /// The steps whose names are listed, with commas between them; `None` if one is no name or is there twice.
    pub(crate) fn from_names(names: &str) -> Option<Self> {
        let mut processing = Self::none();
        for name in names.split(',').filter(|_| !names.is_empty()) {
            let (_, on) = processing.steps().into_iter().find(|&(step, _)| step == name)?;
            if std::mem::replace(on, true) {
                return None;
            }
        }
        Some(processing)
    }
}

/// A singular value of `W_V W_O` up to this fraction of the head's largest counts as zero: its vectors are noise.
const RELATIVE_TOLERANCE: f64 = 1e-6;

/// Rows per task of a pass over a large matrix.
const ROWS_PER_TASK: usize = 256;

impl Processing {
    /// Processes `W_E` or `W_pos`. Shape: `[rows, d_model]`.
    pub(crate) fn process_embedding(self, w: &mut Array2<f32>) {
        if self.center_writing_weights {
            center_rows(w);
        }
    }

    /// Processes one block; `layer` is for the error message.
    ///
    /// # Errors
    /// [`Error::Svd`] if a singular value decomposition does not converge.
    pub(crate) fn process_block(self, block: &mut BlockWeights, layer: usize) -> Result<()> {
        let ln2 = if self.fold_ln { block.ln2.take() } else { None };
        if let Some(ln) = ln2 {
            fold_ln_into_mlp(&ln.map(f64::from), &mut block.w_in, &mut block.b_in);
        }
        if self.center_writing_weights {
            center_rows(&mut block.w_out);
            block.b_out = centered(&block.b_out.mapv(f64::from)).mapv(|x| x as f32);
        }
        let changes_heads = self != Self { center_unembed: self.center_unembed, ..Self::none() };
        if changes_heads { process_heads(block, self, layer) } else { Ok(()) }
    }

    /// Processes the final layer norm and the unembedding.
    pub(crate) fn process_unembed(self, weights: &mut UnembedWeights) {
        if self.fold_ln || self.center_unembed {
            process_unembed(weights, self);
        }
    }
}

/// Subtracts the mean of each row. Shape: `[rows, columns]`.
fn center_rows(w: &mut Array2<f32>) {
    let columns = w.ncols();
    let values = w.as_slice_mut().expect("a new matrix is contiguous");
    let ones = vec![1.0; columns];
    values.par_chunks_exact_mut(columns).with_min_len(ROWS_PER_TASK).for_each(|row| {
        let mean = dot(row, &ones) / columns as f64;
        row.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
    });
}

/// `x · y` in `f64`. Eight partial sums let the processor add them in SIMD lanes. Shape: `[n]`, `[n]`.
fn dot(x: &[f32], y: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter().zip(y) {
        lanes.iter_mut().zip(x.iter().zip(y)).for_each(|(lane, (&x, y))| *lane += f64::from(x) * y);
    }
    let rest = x_rest.iter().zip(y_rest).map(|(&x, y)| f64::from(x) * y);
    lanes.into_iter().chain(rest).sum()
}

/// Folds the final layer norm into the unembedding, and centers it. Works on the rows of `W_Uᵀ [d_vocab, d_model]`, the
/// layout of checkpoints.
fn process_unembed(weights: &mut UnembedWeights, steps: Processing) {
    // γ and β
    let ln = if steps.fold_ln { weights.ln_final.take() } else { None };
    let ln = ln.map(|ln| [ln.w, ln.b].map(|x| x.iter().copied().map(f64::from).collect::<Vec<f64>>()));
    let (d_model, d_vocab) = weights.w_u.dim();
    let mut rows = weights.w_u.view_mut().reversed_axes();
    let rows = rows.as_slice_mut().expect("W_Uᵀ is in standard layout");

    // For each token β · w, to be added to its bias, and the mean of γ ⊙ w; over all tokens the sum of γ ⊙ w − mean.
    let collect = |rows: &[f32]| {
        let mut shifts_and_means = Vec::with_capacity(ROWS_PER_TASK);
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
            shifts_and_means.push((shift, mean));
        }
        (shifts_and_means, total)
    };
    let collected: Vec<_> = rows.par_chunks(ROWS_PER_TASK * d_model).map(collect).collect();
    let mut center = vec![0.0; d_model];
    let mut b_u = weights.b_u.mapv(f64::from);
    if steps.center_unembed {
        collected.iter().flat_map(|(_, total)| total.iter().enumerate()).for_each(|(at, total)| center[at] += total);
        center.iter_mut().for_each(|center| *center /= d_vocab as f64);
    }
    b_u.iter_mut()
        .zip(collected.iter().flat_map(|(shifts_and_means, _)| shifts_and_means))
        .for_each(|(b, (shift, _))| *b += shift);
    if steps.center_unembed {
        b_u -= b_u.sum() / d_vocab as f64;
    }

    rows.par_chunks_mut(ROWS_PER_TASK * d_model).zip(&collected).for_each(|(rows, (shifts_and_means, _))| {
        for (row, &(_, mean)) in rows.chunks_exact_mut(d_model).zip(shifts_and_means) {
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

/// `b` minus its mean. Shape: `[n]` → `[n]`.
fn centered(b: &Array1<f64>) -> Array1<f64> {
    b - b.sum() / b.len() as f64
}

/// Folds a layer norm into `W_in` and `b_in`: `b += β W`, `W ← γ ⊙ W` along `d_model`, then `W` minus its mean over
/// `d_model`.
/// Shape: `w [d_model, d_mlp]`, `b [d_mlp]`.
fn fold_ln_into_mlp(ln: &LayerNormWeights<f64>, w: &mut Array2<f32>, b: &mut Array1<f32>) {
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

/// The weights of one head in `f64`.
struct Head {
    /// `[W_Q; b_Q]`. Shape: `[d_model + 1, d_head]`.
    w_q: Array2<f64>,
    /// `[W_K; b_K]`. Shape: `[d_model + 1, d_head]`.
    w_k: Array2<f64>,
    /// `[W_V; b_V]`. Shape: `[d_model + 1, d_head]`.
    w_v: Array2<f64>,
    /// Shape: `[d_head, d_model]`.
    w_o: Array2<f64>,
}

/// Applies all steps to the attention weights of a block, one head at a time.
fn process_heads(block: &mut BlockWeights, steps: Processing, layer: usize) -> Result<()> {
    let ln = if steps.fold_ln { block.ln1.take() } else { None }.map(|ln| ln.map(f64::from));
    let refactor = steps.refactor_factored_attn_matrices;
    let fold_value_biases = steps.fold_value_biases || refactor;
    let mut b_o = block.b_o.mapv(f64::from);
    if steps.center_writing_weights {
        b_o = centered(&b_o);
    }
    // [n_heads, d_model, d_head], [n_heads, d_head] → [d_model + 1, d_head]
    let with_bias = |w: &Array3<f32>, b: &Array2<f32>, head: usize| {
        let (w, b) = (w.index_axis(Axis(0), head), b.row(head));
        let values: Vec<f64> = w.iter().chain(&b).copied().map(f64::from).collect();
        Array2::from_shape_vec((w.nrows() + 1, w.ncols()), values).expect("both have d_head columns")
    };
    let process = |index: usize| -> Result<(Head, Array1<f64>)> {
        let mut head = Head {
            w_q: with_bias(&block.w_q, &block.b_q, index),
            w_k: with_bias(&block.w_k, &block.b_k, index),
            w_v: with_bias(&block.w_v, &block.b_v, index),
            w_o: block.w_o.index_axis(Axis(0), index).mapv(f64::from),
        };
        if let Some(ln) = &ln {
            [&mut head.w_q, &mut head.w_k, &mut head.w_v].into_iter().for_each(|w| fold_ln_into_head(ln, w.view_mut()));
        }
        if steps.center_writing_weights {
            let mean = head.w_o.sum_axis(Axis(1)) / head.w_o.ncols() as f64;
            head.w_o -= &mean.insert_axis(Axis(1));
        }
        let mut folded_b_v = Array1::zeros(head.w_o.ncols());
        if fold_value_biases {
            let mut b_v = head.w_v.row_mut(head.w_o.ncols());
            folded_b_v = b_v.dot(&head.w_o);
            b_v.fill(0.0);
        }
        if refactor {
            head.refactor().ok_or(Error::Svd {
                function: "refactor_factored_attn_matrices",
                layer,
                head: index,
                hint: "load the model with this step switched off",
            })?;
        }
        Ok((head, folded_b_v))
    };
    let heads: Vec<_> = (0..block.w_q.len_of(Axis(0))).into_par_iter().map(process).collect::<Result<_>>()?;
    for (index, (head, folded_b_v)) in heads.into_iter().enumerate() {
        let d_model = b_o.len();
        for (new, w, b) in [
            (head.w_q, &mut block.w_q, &mut block.b_q),
            (head.w_k, &mut block.w_k, &mut block.b_k),
            (head.w_v, &mut block.w_v, &mut block.b_v),
        ] {
            round_into(new.slice(s![..d_model, ..]), w.index_axis_mut(Axis(0), index));
            b.row_mut(index).zip_mut_with(&new.row(d_model), |to, &from| *to = from as f32);
        }
        round_into(head.w_o.view(), block.w_o.index_axis_mut(Axis(0), index));
        b_o += &folded_b_v;
    }
    block.b_o = b_o.mapv(|x| x as f32);
    Ok(())
}

/// Rounds to `f32`. Shape: `from`, `to` the same.
fn round_into(from: ArrayView2<f64>, mut to: ArrayViewMut2<f32>) {
    to.zip_mut_with(&from, |to, &from| *to = from as f32);
}

/// [`fold_ln_into_mlp`] for a head's weights with the bias as last row. Shape: `[d_model + 1, d_head]`.
fn fold_ln_into_head(ln: &LayerNormWeights<f64>, w_and_b: ArrayViewMut2<f64>) {
    let d_model = ln.w.len();
    let (mut w, mut b) = w_and_b.split_at(Axis(0), d_model);
    let mut b = b.row_mut(0);
    b += &ln.b.dot(&w);
    w *= &ln.w.view().insert_axis(Axis(1));
    let mean = w.sum_axis(Axis(0)) / d_model as f64;
    w -= &mean;
}

impl Head {
    /// Rewrites the head in the basis of its singular vectors; `None` if the SVD does not converge. `b_V` must be zero.
    fn refactor(&mut self) -> Option<()> {
        let mut qk = svd_of_product(self.w_q.view(), self.w_k.view())?;
        let sqrt_s = qk.s.mapv(f64::sqrt);
        qk.u *= &sqrt_s;
        qk.v *= &sqrt_s;
        (self.w_q, self.w_k) = (qk.u, qk.v);
        let d_model = self.w_o.ncols();
        let mut ov = svd_of_product(self.w_v.slice(s![..d_model, ..]), self.w_o.t())?;
        let significant = ov.s.mapv(|s| if s <= RELATIVE_TOLERANCE * ov.s[0] { 0.0 } else { 1.0 });
        let scale = &ov.s * &significant;
        Zip::from(self.w_v.slice_mut(s![..d_model, ..]))
            .and(&ov.u)
            .and_broadcast(&scale)
            .for_each(|w, u, s| *w = u * s);
        ov.v *= &significant;
        self.w_o = ov.v.reversed_axes();
        Some(())
    }
}

#[cfg(test)]
mod tests;
