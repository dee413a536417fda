//! The matrices that map a head's vectors to the residual stream.

use ndarray::{Array2, Axis, aview1};
use rand::Rng;
use rand::seq::SliceRandom;

use super::matched::MatchedBasis;
use super::{Basis, Projection, Reading, Signs};
use crate::random::{SeededRng, seeded_stream};

/// The linear map of a head's vectors to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Map {
    /// Of `q ⊙ k`: `(W_V c) ⊙ Σ_m W_O[m, :]`.
    Notebook,
    /// Of `q ⊙ k`, or of a value: `c W_O`.
    Output,
    /// Of `q ⊙ k`: `(W_V c)ᵀ W_V W_O`.
    Ov,
    /// Of `q ⊙ k ⊙ k` in the coordinates of [`MatchedBasis`].
    Matched,
}

impl From<Projection> for Map {
    fn from(projection: Projection) -> Self {
        match projection {
            Projection::Notebook => Self::Notebook,
            Projection::Output | Projection::Written => Self::Output,
            Projection::Ov => Self::Ov,
            Projection::Matched => Self::Matched,
        }
    }
}

/// A matrix of a head, as a key of the cache of decode tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MatrixId {
    pub(crate) layer: usize,
    pub(crate) head: usize,
    pub(crate) map: Map,
    pub(crate) basis: Basis,
    pub(crate) signs: Signs,
    /// Whether its rows are centred along `d_model`.
    pub(crate) centred: bool,
    /// Whether it is multiplied with −1, so that the most likely token is the least likely one.
    pub(crate) negated: bool,
}

impl MatrixId {
    /// The matrix of a map in a reading.
    pub(crate) fn new([layer, head]: [usize; 2], map: Map, reading: Reading) -> Self {
        let Reading { basis, signs, normalized, .. } = reading;
        Self { layer, head, map, basis, signs, centred: normalized, negated: false }
    }

    /// The matrix times −1.
    pub(crate) fn negated(self) -> Self {
        Self { negated: !self.negated, ..self }
    }

    /// The matrix, computed in `f64` and rounded once. `matched` is required by [`Map::Matched`].
    /// Shape: `w_v [d_model, d_head]`, `w_o [d_head, d_model]` → `[d_head, d_model]`.
    pub(crate) fn compute(&self, w_v: &Array2<f32>, w_o: &Array2<f32>, matched: Option<&MatchedBasis>) -> Array2<f32> {
        let change = ColumnChange::of_reading([self.layer, self.head], self.basis, self.signs, w_v.ncols());
        let (w_v, w_o) = (change.of_columns(w_v), change.of_rows(w_o));
        let mut p = matrix(self.map, &w_v, &w_o, matched);
        if self.centred {
            let means = p.mean_axis(Axis(1)).expect("d_model is at least 1").insert_axis(Axis(1));
            p -= &means;
        }
        p.mapv(|x| if self.negated { -x as f32 } else { x as f32 })
    }
}

/// A map's matrix in `f64`. Shape: `w_v [d_model, d_head]`, `w_o [d_head, d_model]` → `[d_head, d_model]`.
pub(crate) fn matrix(map: Map, w_v: &Array2<f32>, w_o: &Array2<f32>, matched: Option<&MatchedBasis>) -> Array2<f64> {
    let (w_v, w_o) = (w_v.mapv(f64::from), w_o.mapv(f64::from));
    match map {
        Map::Notebook => &w_v.t() * &w_o.sum_axis(Axis(0)),
        Map::Output => w_o,
        Map::Ov => w_v.t().dot(&w_v).dot(&w_o),
        Map::Matched => matched.expect("the QK circuit of the head").matrix(&w_v, &w_o),
    }
}

/// A change of the basis of a head's values that leaves the head as it is: an order and signs of the pairs of a column of
/// `W_V` and a row of `W_O`.
pub(crate) struct ColumnChange {
    /// Shape: `[d_head]`.
    order: Vec<usize>,
    /// 1 or −1, in the new order. Shape: `[d_head]`.
    signs: Vec<f32>,
}

impl ColumnChange {
    /// Random signs of `d_head` columns.
    pub(crate) fn random_signs(d_head: usize, rng: &mut SeededRng) -> Self {
        let signs = (0..d_head).map(|_| if rng.random_bool(0.5) { -1.0 } else { 1.0 }).collect();
        Self { order: (0..d_head).collect(), signs }
    }

    /// A random order of `d_head` columns.
    pub(crate) fn random_order(d_head: usize, rng: &mut SeededRng) -> Self {
        let mut order: Vec<usize> = (0..d_head).collect();
        order.shuffle(rng);
        Self { order, signs: vec![1.0; d_head] }
    }

    /// The change of a reading, another one for each head.
    pub(crate) fn of_reading([layer, head]: [usize; 2], basis: Basis, signs: Signs, d_head: usize) -> Self {
        // Two streams for each head.
        let rng = |seed: u64, use_of: u64| seeded_stream(seed, ((layer as u64) << 32 | head as u64) << 1 | use_of);
        let mut change = match basis {
            Basis::AsLoaded => Self { order: (0..d_head).collect(), signs: vec![1.0; d_head] },
            Basis::Reordered(seed) => Self::random_order(d_head, &mut rng(seed, 0)),
        };
        if let Signs::Random(seed) = signs {
            change.signs = Self::random_signs(d_head, &mut rng(seed, 1)).signs;
        }
        change
    }

    /// Shape: `[rows, d_head]` → the same.
    pub(crate) fn of_columns(&self, x: &Array2<f32>) -> Array2<f32> {
        x.select(Axis(1), &self.order) * aview1(&self.signs)
    }

    /// Shape: `[d_head, columns]` → the same.
    pub(crate) fn of_rows(&self, x: &Array2<f32>) -> Array2<f32> {
        x.select(Axis(0), &self.order) * aview1(&self.signs).insert_axis(Axis(1))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;
    use crate::random::seeded_rng;

    #[test]
    fn matrix_of_a_head_with_d_model_3_and_d_head_2() {
        let w_v = arr2(&[[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]); // [d_model, d_head]
        let w_o = arr2(&[[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]); // [d_head, d_model]
        let p = |map: Map| matrix(map, &w_v, &w_o, None);
        // Σ_m W_O[m, :] = [1, 3, -1] scales the columns of W_Vᵀ.
        assert_eq!(p(Map::Notebook), arr2(&[[1.0, 6.0, 0.0], [0.0, 3.0, -3.0]]));
        assert_eq!(p(Map::Output), w_o.mapv(f64::from));
        // W_Vᵀ W_V = [[5, 2], [2, 10]]
        assert_eq!(p(Map::Ov), arr2(&[[5.0, 12.0, -2.0], [2.0, 14.0, -10.0]]));
    }

    #[test]
    fn a_change_of_columns_keeps_the_product() {
        let w_v = arr2(&[[1.0, 0.0, 2.0], [2.0, 1.0, -1.0]]);
        let w_o = arr2(&[[1.0, 2.0], [0.0, 1.0], [3.0, 5.0]]);
        let mut rng = seeded_rng(3);
        for change in [ColumnChange::random_signs(3, &mut rng), ColumnChange::random_order(3, &mut rng)] {
            assert_eq!(change.of_columns(&w_v).dot(&change.of_rows(&w_o)), w_v.dot(&w_o));
        }
        let (basis, signs) = (Basis::Reordered(1), Signs::Random(2));
        let both = ColumnChange::of_reading([1, 2], basis, signs, 3);
        assert_eq!(both.of_columns(&w_v).dot(&both.of_rows(&w_o)), w_v.dot(&w_o));
    }
}
