//! The KL divergence of edited runs from the clean one, at many positions of many runs.

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::analysis::log_sum_exp;
use crate::error::Result;
use crate::model::Gpt2;

/// Rows whose logits are computed together. Their memory, 26 MB for GPT-2's vocabulary, is one that the allocator reuses.
const ROWS_AT_ONCE: usize = 128;
/// Tokens whose terms are added in `f32`.
const LANES: usize = 16;
/// The largest difference of two logits for which [`SERIES`] is used.
const MAX_DIFFERENCE: f32 = 1.0;
/// `1 / (k + 2)!`, highest power first: `e^δ − 1 − δ = δ² Σ_k δ^k / (k + 2)!`, whose next term is below 3e-9 for |δ| ≤ 1.
const SERIES: [f32; 10] = [
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
];

/// The predictions of the clean run at some positions of a prompt.
pub(super) struct CleanPredictions {
    /// The positions, ascending.
    positions: Vec<usize>,
    /// Shape: each `[position, d_vocab]`.
    logits: Array2<f32>,
    probabilities: Array2<f32>,
    /// The number of positions that divergences are means over; at the others, no edit changes a prediction.
    n: usize,
}

impl CleanPredictions {
    /// Shape: `rows [pos, d_model]` after the final layer norm.
    pub(super) fn new(model: &Gpt2, rows: &Array2<f32>, positions: Vec<usize>, n: usize) -> Result<Self> {
        let rows = rows.select(Axis(0), &positions);
        let mut logits = Array2::zeros((0, model.config().d_vocab));
        for rows in rows.axis_chunks_iter(Axis(0), ROWS_AT_ONCE) {
            let of_rows = model.on_device().logits_of_normalized(rows.to_owned())?;
            logits.append(Axis(0), of_rows.view()).expect("a logit for each token");
        }
        let mut probabilities = logits.clone();
        probabilities.outer_iter_mut().for_each(|mut row| {
            let log_sum = log_sum_exp(row.view());
            row.mapv_inplace(|x| (f64::from(x) - log_sum).exp() as f32);
        });
        Ok(Self { positions, logits, probabilities, n })
    }

    /// The mean KL divergence of the clean predictions from each run's, in nats.
    /// Shape: `runs [run] [pos, d_model]` after the final layer norm → `[run]`.
    pub(super) fn divergences(&self, model: &Gpt2, runs: &[&Array2<f32>]) -> Result<Vec<f64>> {
        let n_rows = self.positions.len();
        let mut sums = vec![0.0; runs.len()];
        let all: Vec<(usize, usize)> = (0..runs.len()).flat_map(|run| (0..n_rows).map(move |row| (run, row))).collect();
        for chunk in all.chunks(ROWS_AT_ONCE) {
            let mut rows = Array2::zeros((chunk.len(), model.config().d_model));
            for (mut to, &(run, row)) in rows.outer_iter_mut().zip(chunk) {
                to.assign(&runs[run].row(self.positions[row]));
            }
            let logits = model.on_device().logits_of_normalized(rows)?;
            let logits = logits.as_standard_layout();
            let of_row = |index: usize| {
                let row = chunk[index].1;
                let [p, clean] = [&self.probabilities, &self.logits].map(|x| contiguous(x.view(), row));
                divergence(p, clean, contiguous(logits.view(), index))
            };
            let divergences: Vec<f64> = (0..chunk.len()).into_par_iter().map(of_row).collect();
            chunk.iter().zip(divergences).for_each(|(&(run, _), divergence)| sums[run] += divergence);
        }
        Ok(sums.into_iter().map(|sum| sum / self.n as f64).collect())
    }
}

/// Shape: `[rows, d_vocab]` → `[d_vocab]`.
fn contiguous<'a>(x: ArrayView2<'a, f32>, row: usize) -> &'a [f32] {
    x.slice_move(s![row, ..]).to_slice().expect("rows of a new matrix are contiguous")
}

/// `KL(p‖q)` of predictions whose logits differ from those of `p` by `δ = q − clean`:
///
/// ```text
/// KL = ln Σ p e^δ − Σ p δ = ln(1 + D + E) − D       D = Σ p δ, E = Σ p (e^δ − 1 − δ)
/// ```
///
/// `E` is summed without cancellation, and the error of `D` cancels to first order, so that small divergences keep their
/// digits. Shape: each `[d_vocab]`.
fn divergence(p: &[f32], clean: &[f32], q: &[f32]) -> f64 {
    let (d, e) = pulp::Arch::new().dispatch(Moments { p, clean, q });
    let divergence = (d + e).ln_1p() - d;
    if divergence < 0.0 { 0.0 } else { divergence } // rounding, where the two are equal
}

/// `D` and `E` of [`divergence`].
struct Moments<'a> {
    p: &'a [f32],
    clean: &'a [f32],
    q: &'a [f32],
}

impl pulp::WithSimd for Moments<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> (f64, f64) {
        let ((p, p_rest), (clean, clean_rest), (q, q_rest)) =
            (self.p.as_chunks::<LANES>(), self.clean.as_chunks::<LANES>(), self.q.as_chunks::<LANES>());
        let (mut d, mut e) = ([0.0_f64; LANES], [0.0_f64; LANES]);
        for ((p, clean), q) in p.iter().zip(clean).zip(q) {
            let (mut difference, mut largest) = ([0.0_f32; LANES], 0.0_f32);
            for lane in 0..LANES {
                difference[lane] = q[lane] - clean[lane];
                largest = largest.max(difference[lane].abs());
            }
            if largest <= MAX_DIFFERENCE {
                for lane in 0..LANES {
                    let x = difference[lane];
                    let mut sum = SERIES[0];
                    for &coefficient in &SERIES[1..] {
                        sum = sum * x + coefficient;
                    }
                    d[lane] += f64::from(p[lane] * x);
                    e[lane] += f64::from(p[lane] * x * x * sum);
                }
            } else {
                for lane in 0..LANES {
                    let (one_d, one_e) = terms(p[lane], difference[lane]);
                    d[lane] += one_d;
                    e[lane] += one_e;
                }
            }
        }
        let rest = p_rest.iter().zip(clean_rest).zip(q_rest).map(|((&p, &clean), &q)| terms(p, q - clean));
        let (rest_d, rest_e) = rest.fold((0.0, 0.0), |(d, e), (one_d, one_e)| (d + one_d, e + one_e));
        (d.iter().sum::<f64>() + rest_d, e.iter().sum::<f64>() + rest_e)
    }
}

/// `p δ` and `p (e^δ − 1 − δ)`.
fn terms(p: f32, difference: f32) -> (f64, f64) {
    let (p, x) = (f64::from(p), f64::from(difference));
    (p * x, p * (x.exp_m1() - x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::kl_divergence;

    #[test]
    fn divergence_is_that_of_f64_for_small_and_large_differences() {
        let mut random = fastrand::Rng::new();
        println!("seed {}", random.get_seed());
        for (d_vocab, size) in [(1, 1.0), (15, 0.5), (1000, 1e-3), (1003, 0.9), (5001, 4.0), (640, 30.0)] {
            let mut row = |size: f32| -> Vec<f32> { (0..d_vocab).map(|_| size * (2.0 * random.f32() - 1.0)).collect() };
            let clean = row(6.0);
            let q: Vec<f32> = clean.iter().zip(row(size)).map(|(x, y)| x + y).collect();
            let matrix = |row: &[f32]| Array2::from_shape_vec((1, d_vocab), row.to_vec()).unwrap();
            let sum: f64 = clean.iter().map(|&x| f64::from(x).exp()).sum();
            let p: Vec<f32> = clean.iter().map(|&x| (f64::from(x).exp() / sum) as f32).collect();
            let want = kl_divergence(&matrix(&clean), &matrix(&q)).unwrap()[0];
            let got = divergence(&p, &clean, &q);
            // The probabilities are rounded to 24 bits, which is an error of first order where their sum is not 1.
            assert!((got - want).abs() <= 1e-5 * want + 1e-12, "{d_vocab} tokens, ±{size}: {got}, not {want}");
            assert_eq!(divergence(&p, &clean, &clean), 0.0);
        }
    }
}
