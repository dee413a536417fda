//! Copying scores: whether heads raise the logit of the token that they attend to.

use ndarray::{Array2, Axis, s};
use rayon::prelude::*;

use super::decomposition::eigenvalues_of;
use crate::analysis::heads::HeadScores;
use crate::error::Result;
use crate::model::Gpt2;

/// Tokens whose part of `W_U W_E` is summed in `f32`; the parts are added in `f64`.
const TOKENS_PER_PART: usize = 512;

impl Gpt2 {
    /// The copying score of every head: the sum of the eigenvalues of the full OV circuit `W_E W_V W_O W_U` over the sum
    /// of their sizes (Elhage et al. 2021). It is 1 for a head whose eigenvalues are all positive, which copies; −1 for
    /// one that suppresses what it attends to. Shape: → `[n_layers, n_heads]`.
    ///
    /// The eigenvalues are those of the small matrix `W_O (W_U W_E) W_V [d_head, d_head]`, whose middle all heads share.
    /// For one head, `model.full_ov(layer, head)?.matrix.eigenvalues()?.copying_score()` is the same. Layer norms are
    /// folded or left out as in [`ov`](Self::ov).
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), and [`Error::Decomposition`](crate::Error::Decomposition) if the
    /// eigenvalues do not converge, which finite weights do not cause.
    pub fn copying_scores(&self) -> Result<HeadScores> {
        let (w_e, w_u) = (self.w_e()?, self.w_u()?); // [d_vocab, d_model], [d_model, d_vocab]
        let (d_model, d_vocab) = w_u.dim();
        // A task computes some rows of the product, part by part along the vocabulary.
        let mut w_u_e = Array2::<f64>::zeros((d_model, d_model));
        let rows = d_model.div_ceil(4 * rayon::current_num_threads()).max(16);
        let tasks: Vec<_> = w_u_e.axis_chunks_iter_mut(Axis(0), rows).enumerate().collect();
        tasks.into_par_iter().for_each(|(task, mut sum)| {
            let w_u = w_u.slice(s![task * rows..task * rows + sum.nrows(), ..]);
            for first in (0..d_vocab).step_by(TOKENS_PER_PART) {
                let tokens = first..(first + TOKENS_PER_PART).min(d_vocab);
                let part = w_u.slice(s![.., tokens.clone()]).dot(&w_e.slice(s![tokens, ..]));
                sum.zip_mut_with(&part, |sum, &part| *sum += f64::from(part));
            }
        });
        let (n_layers, n_heads) = (self.config().n_layers, self.config().n_heads);
        let score = |index: usize| -> Result<f32> {
            let (layer, head) = (index / n_heads, index % n_heads);
            let (w_v, w_o) = (self.w_v(layer, head)?.mapv(f64::from), self.w_o(layer, head)?.mapv(f64::from));
            Ok(eigenvalues_of(w_o.dot(&w_u_e).dot(&w_v))?.copying_score())
        };
        let scores: Vec<f32> = (0..n_layers * n_heads).into_par_iter().map(score).collect::<Result<_>>()?;
        let values = Array2::from_shape_vec((n_layers, n_heads), scores).expect("a score for each head");
        Ok(HeadScores { name: "copying score".into(), values, chance: Some(0.0) })
    }
}
