//! The singular vectors of a head's QK circuit, which `Projection::Matched` reads along.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate, s};

use crate::weights::svd_of_product;

/// A singular value up to this fraction of the head's largest counts as zero, as in weight processing.
const ZERO: f64 = 1e-6;

/// Queries and keys in the basis of the singular vectors of `[W_Q; b_Q] [W_K; b_K]ᵀ = U S Vᵀ`, computed in `f64`.
///
/// With `A = [W_Q; b_Q]` and `B = [W_K; b_K]`, a query `x A` has the coordinates `x U √S = (x A) Bᵀ V / √S`, and a key
/// `x B` the coordinates `x V √S = (x B) Aᵀ U / √S`.
pub(crate) struct MatchedBasis {
    /// Shape: `[d_head]`, descending.
    pub(crate) singular_values: Array1<f64>,
    /// Queries to coordinates. Shape: `[d_head, d_head]`.
    pub(crate) of_queries: Array2<f64>,
    /// Keys to coordinates. Shape: `[d_head, d_head]`.
    pub(crate) of_keys: Array2<f64>,
    /// `Vᵀ` without the entry of the bias. Shape: `[d_head, d_model]`.
    pub(crate) directions: Array2<f64>,
}

impl MatchedBasis {
    /// `None` if the decomposition does not converge (it does for finite weights).
    /// Shape: `w_q`, `w_k` each `[d_model, d_head]`, `b_q`, `b_k` each `[d_head]`.
    pub(crate) fn new(
        (w_q, b_q): (ArrayView2<f32>, ArrayView1<f32>),
        (w_k, b_k): (ArrayView2<f32>, ArrayView1<f32>),
    ) -> Option<Self> {
        let with_bias = |w: ArrayView2<f32>, b: ArrayView1<f32>| {
            concatenate(Axis(0), &[w, b.insert_axis(Axis(0))]).expect("a bias for each column").mapv(f64::from)
        };
        let (a, b) = (with_bias(w_q, b_q), with_bias(w_k, b_k)); // each [d_model + 1, d_head]
        let svd = svd_of_product(a.view(), b.view())?;
        let zero = ZERO * svd.s[0];
        let inverse_root = svd.s.mapv(|s| if s > zero { s.sqrt().recip() } else { 0.0 });
        Some(Self {
            of_queries: b.t().dot(&svd.v) * &inverse_root,
            of_keys: a.t().dot(&svd.u) * &inverse_root,
            directions: svd.v.slice(s![..w_k.nrows(), ..]).t().to_owned(),
            singular_values: svd.s,
        })
    }

    /// The matrix that `c_a k_a`, in the coordinates of queries and keys, is multiplied with: `V_a W_V W_O / √S_a` in row
    /// *a*, because `(V_a · x) V_a = k_a V_a / √S_a`. Shape: `w_v [d_model, d_head]`, `w_o [d_head, d_model]` →
    /// `[d_head, d_model]`.
    pub(crate) fn matrix(&self, w_v: &Array2<f64>, w_o: &Array2<f64>) -> Array2<f64> {
        let zero = ZERO * self.singular_values[0];
        let inverse_root = self.singular_values.mapv(|s| if s > zero { s.sqrt().recip() } else { 0.0 });
        self.directions.dot(w_v).dot(w_o) * &inverse_root.insert_axis(Axis(1))
    }
}

/// The changes of basis alone, which are kept for each head that was decoded.
pub(crate) struct MatchedCoordinates {
    /// Shape: `[d_head, d_head]`.
    of_queries: Array2<f64>,
    /// Shape: `[d_head, d_head]`.
    of_keys: Array2<f64>,
}

impl From<MatchedBasis> for MatchedCoordinates {
    fn from(basis: MatchedBasis) -> Self {
        Self { of_queries: basis.of_queries, of_keys: basis.of_keys }
    }
}

impl MatchedCoordinates {
    /// Shape: `[pos, d_head]` → the same.
    pub(crate) fn of_queries(&self, q: ArrayView2<f32>) -> Array2<f32> {
        q.mapv(f64::from).dot(&self.of_queries).mapv(|x| x as f32)
    }

    /// Shape: `[pos, d_head]` → the same.
    pub(crate) fn of_keys(&self, k: ArrayView2<f32>) -> Array2<f32> {
        k.mapv(f64::from).dot(&self.of_keys).mapv(|x| x as f32)
    }
}

/// The directions of a head's QK circuit that [`Projection::Matched`](crate::Projection::Matched) reads along: the result
/// of [`Gpt2::matched_directions`](crate::Gpt2::matched_directions).
#[derive(Clone, Debug)]
pub struct MatchedDirections {
    /// The singular values of `[W_Q; b_Q] [W_K; b_K]ᵀ`, largest first. Shape: `[d_head]`.
    pub singular_values: Array1<f32>,
    /// The right singular vectors, without the entry of the bias, which makes them shorter than 1. Each is free up to its
    /// sign. Shape: `[d_head, d_model]`.
    pub directions: Array2<f32>,
}

impl MatchedDirections {
    pub(crate) fn of(basis: &MatchedBasis) -> Self {
        Self {
            singular_values: basis.singular_values.mapv(|s| s as f32),
            directions: basis.directions.mapv(|x| x as f32),
        }
    }

    /// The ranges of two or more directions that are free: the singular values of neighbours differ by at most `tolerance`
    /// times the larger one, so that any rotation of the directions among each other describes the head as well. What
    /// [`Projection::Matched`](crate::Projection::Matched) adds up along them depends on the rotation. Weights in `f32`
    /// leave no more than a `tolerance` of about 1e-6 to rounding. Directions whose singular value is below 1e-6 of the
    /// largest are not read along at all, and are in no range.
    ///
    /// ```
    /// # use attention_tokens::prelude::*;
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let directions = model.matched_directions(0, 1)?;
    /// assert!(directions.free(1e-6).is_empty()); // every direction of this head is determined
    /// assert_eq!(directions.free(1.0)[0], 0..16); // a tolerance of 1 calls all of them equal
    /// # Ok::<(), Error>(())
    /// ```
    pub fn free(&self, tolerance: f32) -> Vec<Range<usize>> {
        let s = &self.singular_values;
        let zero = ZERO as f32 * s.first().copied().unwrap_or(0.0);
        let n = s.iter().take_while(|&&s| s > zero).count();
        let (mut ranges, mut start) = (Vec::new(), 0);
        for end in 1..=n {
            if end == n || s[end - 1] - s[end] > tolerance * s[end - 1] {
                if end - start > 1 {
                    ranges.push(start..end);
                }
                start = end;
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr1;

    use super::*;

    #[test]
    fn free_directions_are_runs_of_equal_singular_values() {
        let of = |s: &[f32]| MatchedDirections { singular_values: arr1(s), directions: Array2::zeros((s.len(), 1)) };
        assert_eq!(of(&[5.0, 5.0, 3.0, 2.0, 2.0, 2.0, 1e-9, 0.0]).free(0.0), [0..2, 3..6]);
        assert_eq!(of(&[5.0, 4.9, 3.0, 2.99]).free(0.05), [0..2, 2..4]);
        assert!(of(&[5.0, 4.9, 3.0]).free(0.01).is_empty());
        assert!(of(&[0.0, 0.0]).free(1.0).is_empty());
    }
}
