//! Composition scores: how much of what a head writes is read by a later head.

use std::fmt;

use ndarray::{Array2, Array4, ArrayView2, ArrayView3, ArrayViewMut2, Axis, s};
use rand::Rng;
use rayon::prelude::*;

use super::products::{norm, small_product, without_orthonormal_part};
use crate::error::{Result, check_count, check_index};
use crate::model::Gpt2;
use crate::plot::{ChartAxis, Figure, MatrixChart, Table, decimals};
use crate::random::seeded_rng;

/// What a later head reads with: the `mode` of TransformerLens' `all_composition_scores`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Composition {
    /// The later head's queries: its circuit is `W_Q W_Kᵀ`.
    Q,
    /// The later head's keys: its circuit is `W_K W_Qᵀ`.
    K,
    /// The later head's values: its circuit is `W_V W_O`.
    V,
}

impl fmt::Display for Composition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Composition scores of all pairs of heads. See [`Gpt2::all_composition_scores`].
#[derive(Clone, Debug)]
pub struct CompositionScores {
    /// What the later head reads with.
    pub mode: Composition,
    /// The score of each pair; 0 where the second layer is not above the first.
    /// Shape: `[layer, head, later layer, later head]`.
    pub scores: Array4<f32>,
    /// The scores of random matrices, which people subtract.
    pub baseline: RandomBaseline,
}

/// Composition scores of random matrices of the shapes of a model's heads. See [`Gpt2::random_composition`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomBaseline {
    /// The mean score.
    pub mean: f32,
    /// The standard deviation of the scores.
    pub std: f32,
    /// Number of random pairs.
    pub n_samples: usize,
}

/// A head's circuit without what does not change the norm of a product with it.
struct Collapsed {
    /// The factors of all heads of a layer: `[n_heads d_head, d_model]` of what the heads write, or
    /// `[d_model, n_heads d_head]` of what they read.
    factors: Array2<f32>,
    /// The Frobenius norm of each head's circuit. Shape: `[n_heads]`.
    norms: Vec<f64>,
}

/// Random pairs behind the baseline of [`Gpt2::all_composition_scores`].
const BASELINE_SAMPLES: usize = 32;
/// The seed of that baseline.
const BASELINE_SEED: u64 = 0;

impl Gpt2 {
    /// The composition score of every pair of heads (Elhage et al. 2021): TransformerLens' `all_composition_scores`.
    ///
    /// ```text
    /// score = ‖W_OV M‖ / (‖W_OV‖ ‖M‖)     Frobenius norms; W_OV = W_V W_O of the earlier head, and
    ///                                     M = W_Q W_Kᵀ (Q), W_K W_Qᵀ (K) or W_V W_O (V) of the later one
    /// ```
    ///
    /// Pairs whose second head is not in a later layer have score 0. Layer norms are folded or left out as in
    /// [`ov`](Self::ov). No matrix of `d_model²` entries is multiplied out: with `W_V = P R` and `W_K = P' R'`, where the
    /// columns of `P` and `P'` are orthonormal, the norm is that of `R W_O W_Q R'ᵀ [d_head, d_head]`.
    /// Shape: → `[n_layers, n_heads, n_layers, n_heads]`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    pub fn all_composition_scores(&self, mode: Composition) -> Result<CompositionScores> {
        let config = self.config();
        let (n_layers, n_heads, d_head) = (config.n_layers, config.n_heads, config.d_head);
        let collapsed: Vec<(Collapsed, Collapsed)> = (0..n_layers)
            .into_par_iter()
            .map(|layer| {
                let model = self.on_device();
                let (w_v, w_o) = (model.w_v(layer)?, model.w_o(layer)?);
                let reads = match mode {
                    Composition::Q => readers(model.w_q(layer)?.view(), model.w_k(layer)?.view()),
                    Composition::K => readers(model.w_k(layer)?.view(), model.w_q(layer)?.view()),
                    Composition::V => readers(w_v.view(), w_o.view().permuted_axes([0, 2, 1])),
                };
                Ok((writers(w_v.view(), w_o.view()), reads))
            })
            .collect::<Result<_>>()?;
        let pairs: Vec<(usize, usize)> =
            (0..n_layers).flat_map(|layer| (layer + 1..n_layers).map(move |later| (layer, later))).collect();
        let of_pair = |&(layer, later): &(usize, usize)| {
            let (write, read) = (&collapsed[layer].0, &collapsed[later].1);
            let product = write.factors.dot(&read.factors); // [n_heads d_head, n_heads d_head]
            Array2::from_shape_fn((n_heads, n_heads), |(head, later_head)| {
                let cells = s![head * d_head..(head + 1) * d_head, later_head * d_head..(later_head + 1) * d_head];
                ratio(squares(product.slice(cells)).sqrt(), write.norms[head] * read.norms[later_head])
            })
        };
        let blocks: Vec<Array2<f32>> = pairs.par_iter().map(of_pair).collect();
        let mut scores = Array4::zeros((n_layers, n_heads, n_layers, n_heads));
        for ((layer, later), block) in pairs.into_iter().zip(blocks) {
            scores.slice_mut(s![layer, .., later, ..]).assign(&block);
        }
        let baseline = self.random_composition(BASELINE_SAMPLES, BASELINE_SEED)?;
        Ok(CompositionScores { mode, scores, baseline })
    }

    /// The composition score of random matrices of the shapes of this model's heads, which has the same distribution
    /// for all three modes. All entries are independent and uniform around 0, as PyTorch initializes a linear layer; the
    /// scale cancels.
    ///
    /// A pair of random matrices does not score 0 but about `1/√d_model`, so Elhage et al. 2021 ("A Mathematical
    /// Framework for Transformer Circuits", on induction heads) show scores of a model relative to those of random
    /// matrices.
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) if `n_samples` is 0.
    pub fn random_composition(&self, n_samples: usize, seed: u64) -> Result<RandomBaseline> {
        check_count("random_composition", "n_samples", n_samples, 1, None)?;
        let (d_model, d_head) = (self.config().d_model, self.config().d_head);
        let score = |sample: u64| {
            let mut rng = seeded_rng(seed.wrapping_add(sample.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let mut random = || Array2::from_shape_simple_fn((d_model, d_head), || rng.random::<f32>() - 0.5);
            let [w_v, w_o_t, w_q, w_k] = [random(), random(), random(), random()];
            let [r_v, r_o, r_q, r_k] = [&w_v, &w_o_t, &w_q, &w_k].map(|w| without_orthonormal_part(w.view()));
            let middle = small_product(w_o_t.t(), w_q.view()); // [d_head, d_head]
            norm(&r_v.dot(&middle).dot(&r_k.t())) / (norm(&r_v.dot(&r_o.t())) * norm(&r_q.dot(&r_k.t())))
        };
        let scores: Vec<f64> = (0..n_samples as u64).into_par_iter().map(score).collect();
        let mean = scores.iter().sum::<f64>() / n_samples as f64;
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / n_samples as f64;
        Ok(RandomBaseline { mean: mean as f32, std: variance.sqrt() as f32, n_samples })
    }
}

/// `R W_O` of each head, where `W_V = P R` with orthonormal columns of `P`.
/// Shape: `w_v [n_heads, d_model, d_head]`, `w_o [n_heads, d_head, d_model]` → `[n_heads d_head, d_model]`.
fn writers(w_v: ArrayView3<f32>, w_o: ArrayView3<f32>) -> Collapsed {
    let (n_heads, d_head, d_model) = w_o.dim();
    let mut factors = Array2::zeros((n_heads * d_head, d_model));
    let norms = factors.axis_chunks_iter_mut(Axis(0), d_head).enumerate().map(|(head, factor)| {
        let r = without_orthonormal_part(w_v.index_axis(Axis(0), head));
        assign(factor, &r.dot(&w_o.index_axis(Axis(0), head).mapv(f64::from)))
    });
    Collapsed { norms: norms.collect(), factors }
}

/// `W Rᵀ` of each head, where `W` is what the head reads with, and `P R`, with orthonormal columns of `P`, the other
/// factor of its circuit, transposed. Shape: each `[n_heads, d_model, d_head]` → `[d_model, n_heads d_head]`.
fn readers(w: ArrayView3<f32>, other: ArrayView3<f32>) -> Collapsed {
    let (n_heads, d_model, d_head) = w.dim();
    let mut factors = Array2::zeros((d_model, n_heads * d_head));
    let norms = factors.axis_chunks_iter_mut(Axis(1), d_head).enumerate().map(|(head, factor)| {
        let r = without_orthonormal_part(other.index_axis(Axis(0), head));
        assign(factor, &w.index_axis(Axis(0), head).mapv(f64::from).dot(&r.t()))
    });
    Collapsed { norms: norms.collect(), factors }
}

/// Rounds a factor, and returns its norm. Shape: both the same.
fn assign(mut to: ArrayViewMut2<f32>, from: &Array2<f64>) -> f64 {
    to.zip_mut_with(from, |to, &from| *to = from as f32);
    norm(from)
}

/// The sum of squares. Shape: any.
fn squares(x: ArrayView2<f32>) -> f64 {
    x.iter().map(|&x| f64::from(x).powi(2)).sum()
}

/// The quotient; 0 if a head's circuit is zero.
fn ratio(norm_of_product: f64, norms: f64) -> f32 {
    if norms == 0.0 { 0.0 } else { (norm_of_product / norms) as f32 }
}

impl CompositionScores {
    /// The `n` pairs with the highest scores, highest first, as (layer, head), (later layer, later head) and score.
    fn highest(&self, n: usize) -> Vec<([usize; 4], f32)> {
        let later = self.scores.indexed_iter().filter(|&((layer, _, later, _), _)| layer < later);
        let mut pairs: Vec<([usize; 4], f32)> = later.map(|((a, b, c, d), &score)| ([a, b, c, d], score)).collect();
        pairs.sort_by(|one, other| other.1.total_cmp(&one.1));
        pairs.truncate(n);
        pairs
    }

    /// A table of the `n` pairs with the highest scores: the score, and its distance to the baseline.
    pub fn table(&self, n: usize) -> Table {
        let row = |([layer, head, later, later_head], score): ([usize; 4], f32)| {
            vec![
                format!("{layer}.{head}"),
                format!("{later}.{later_head}"),
                format!("{score:.4}"),
                decimals(score - self.baseline.mean, 4),
            ]
        };
        let rows = self.highest(n).into_iter().map(row).collect();
        let header = ["head", "later head", "score", "above random"];
        Table::new(format!("{}-composition, {}", self.mode, self.baseline_text()), &header, rows)
    }

    /// The scores of all heads of one layer with all of a later one, as a heat map.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer that the model does not have.
    pub fn plot_layers(&self, layer: usize, later_layer: usize) -> Result<Figure> {
        let (n_layers, _, _, n_heads) = self.scores.dim();
        check_index("layer", layer, "the model", n_layers)?;
        check_index("layer", later_layer, "the model", n_layers)?;
        let names = |layer: usize| (0..n_heads).map(move |head| format!("{layer}.{head}"));
        let values = self.scores.slice(s![layer, .., later_layer, ..]).to_owned();
        Ok(self.figure(names(layer).collect(), names(later_layer).collect(), values))
    }

    /// The scores of all pairs as a heat map: a row for each head, a column for each later head. Pairs that cannot
    /// compose are empty.
    pub fn plot(&self) -> Figure {
        let (n_layers, n_heads, ..) = self.scores.dim();
        let names = || (0..n_layers * n_heads).map(|head| format!("{}.{}", head / n_heads, head % n_heads)).collect();
        let values = Array2::from_shape_fn((n_layers * n_heads, n_layers * n_heads), |(one, other)| {
            let at = [one / n_heads, one % n_heads, other / n_heads, other % n_heads];
            if at[0] < at[2] { self.scores[at] } else { f32::NAN }
        });
        self.figure(names(), names(), values)
    }

    fn figure(&self, rows: Vec<String>, columns: Vec<String>, values: Array2<f32>) -> Figure {
        let largest = values.iter().filter(|x| x.is_finite()).fold(0.0_f32, |largest, &x| largest.max(x));
        MatrixChart {
            title: format!("{}-composition, {}", self.mode, self.baseline_text()),
            rows: ChartAxis::names("head", rows),
            columns: ChartAxis::names("later head", columns),
            values,
            scale: ("score".into(), [0.0, largest]),
            labels: Vec::new(),
            texts: Vec::new(),
        }
        .figure()
    }

    fn baseline_text(&self) -> String {
        format!("random matrices {:.4} ± {:.4}", self.baseline.mean, self.baseline.std)
    }

    /// Shows the figure of all pairs in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.plot().evcxr_display();
    }
}
