//! The largest entries of a factored matrix, without the matrix.

use std::sync::{Mutex, PoisonError};

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::factored_matrix::FactoredMatrix;
use crate::error::{Result, check_count};

/// An entry of a matrix, with its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatrixEntry {
    /// The row.
    pub row: usize,
    /// The column.
    pub column: usize,
    /// The entry.
    pub value: f32,
}

/// Rows and columns of a tile: the products of one step, which fit into a processor's cache.
const TILE: [usize; 2] = [128, 1024];
/// Entries that are compared with the bound together.
const CHUNK: usize = 64;
/// The largest number of entries that [`FactoredMatrix::top_entries`] returns.
const MAX_ENTRIES: usize = 1 << 20;

impl FactoredMatrix {
    /// The `k` largest entries, the largest first; among equals, that of the first row, then of the first column. All
    /// entries, if there are fewer. Products are computed in `f32`. For the smallest entries, take those of
    /// [`scale(-1.0)`](Self::scale).
    ///
    /// The matrix is computed tile by tile. Rows and columns with long vectors in the factors come first, so that a
    /// tile is skipped if the lengths of its vectors show that it cannot have an entry among the largest.
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) if `k` is 0 or more than 2²⁰,
    /// [`Error::Decomposition`](crate::Error::Decomposition) if a factor is not finite.
    pub fn top_entries(&self, k: usize) -> Result<Vec<MatrixEntry>> {
        check_count("top_entries", "k", k, 1, Some(MAX_ENTRIES))?;
        self.check_finite("top_entries")?;
        let (rows, columns) = (Sorted::new(self.a().view()), Sorted::new(self.b().t()));
        let best = Mutex::new(Best { k, entries: Vec::new() });
        let lock = || best.lock().unwrap_or_else(PoisonError::into_inner);
        let row_tiles: Vec<_> = rows.vectors.axis_chunks_iter(Axis(0), TILE[0]).enumerate().collect();
        row_tiles.into_par_iter().for_each(|(tile, a)| {
            let first_row = tile * TILE[0];
            let mut products = Array2::zeros((a.nrows(), TILE[1]));
            for (tile, b) in columns.vectors.axis_chunks_iter(Axis(0), TILE[1]).enumerate() {
                let first_column = tile * TILE[1];
                let bound = lock().bound();
                // Cauchy and Schwarz, with room for rounding.
                if rows.lengths[first_row] * columns.lengths[first_column] * (1.0 + 1e-5) < f64::from(bound) {
                    break; // further tiles have shorter vectors still
                }
                let mut products = products.slice_mut(s![.., ..b.nrows()]);
                general_mat_mul(1.0, &a, &b.t(), 0.0, &mut products);
                let mut found = Vec::new();
                for (row, products) in (first_row..).zip(products.rows()) {
                    let products = products.to_slice().expect("a row of a tile is contiguous");
                    for (chunk, products) in products.chunks(CHUNK).enumerate() {
                        // Without a branch inside, this loop is vectorized.
                        if !products.iter().fold(false, |any, &value| any | (value >= bound)) {
                            continue;
                        }
                        let first_column = first_column + chunk * CHUNK;
                        found.extend(products.iter().enumerate().filter(|&(_, &value)| value >= bound).map(
                            |(index, &value)| MatrixEntry {
                                row: rows.order[row],
                                column: columns.order[first_column + index],
                                value,
                            },
                        ));
                    }
                }
                keep_largest(&mut found, k);
                if !found.is_empty() {
                    lock().add(found);
                }
            }
        });
        let mut entries = best.into_inner().unwrap_or_else(PoisonError::into_inner).entries;
        entries.sort_by(larger_first);
        Ok(entries)
    }
}

/// The vectors of a factor, the longest first.
struct Sorted {
    /// The index of each vector in the factor. Shape: `[n]`.
    order: Vec<usize>,
    /// Shape: `[n]`.
    lengths: Vec<f64>,
    /// Shape: `[n, mdim]`.
    vectors: Array2<f32>,
}

impl Sorted {
    /// Shape: `vectors [n, mdim]`.
    fn new(vectors: ArrayView2<f32>) -> Self {
        let length =
            |vector: ndarray::ArrayView1<f32>| vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let lengths: Vec<f64> = vectors.rows().into_iter().map(length).collect();
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by(|&one, &other| lengths[other].total_cmp(&lengths[one]));
        let lengths = order.iter().map(|&index| lengths[index]).collect();
        Self { vectors: vectors.select(Axis(0), &order), order, lengths }
    }
}

/// The largest entries so far.
struct Best {
    k: usize,
    entries: Vec<MatrixEntry>,
}

impl Best {
    /// An entry below this value is not among the largest.
    fn bound(&self) -> f32 {
        if self.entries.len() < self.k {
            return f32::NEG_INFINITY;
        }
        self.entries.iter().fold(f32::INFINITY, |least, entry| least.min(entry.value))
    }

    fn add(&mut self, found: Vec<MatrixEntry>) {
        self.entries.extend(found);
        keep_largest(&mut self.entries, self.k);
    }
}

/// Drops all but the `k` largest entries. The rest has no particular order.
fn keep_largest(entries: &mut Vec<MatrixEntry>, k: usize) {
    if entries.len() > k {
        entries.select_nth_unstable_by(k - 1, larger_first);
        entries.truncate(k);
    }
}

/// The order of entries: the largest first, then by row and column.
fn larger_first(one: &MatrixEntry, other: &MatrixEntry) -> std::cmp::Ordering {
    other.value.total_cmp(&one.value).then((one.row, one.column).cmp(&(other.row, other.column)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, whose products are exact. Shape: → `[rows, columns]`.
    fn integers(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        Array2::from_shape_simple_fn((rows, columns), || random.i32(-9..=9) as f32)
    }

    #[test]
    fn the_largest_entries_are_those_of_the_dense_matrix_with_ties_in_order() {
        // Tiles that are full, cut off, and single; many equal entries.
        for (m, mdim, n) in [(1, 1, 1), (5, 3, 7), (300, 4, 2100), (129, 2, 1025), (400, 6, 30)] {
            let (a, b) = (integers(m, mdim, 1), integers(mdim, n, 2));
            let dense = a.dot(&b);
            let entry = |((row, column), &value): ((usize, usize), &f32)| MatrixEntry { row, column, value };
            let mut sorted: Vec<MatrixEntry> = dense.indexed_iter().map(entry).collect();
            sorted.sort_by(larger_first);
            let matrix = FactoredMatrix::new(a, b).unwrap();
            for k in [1, 2, 50, m * n + 3] {
                let top = matrix.top_entries(k).unwrap();
                assert!(top == sorted[..k.min(m * n)], "{m} × {mdim} × {n}, k = {k}");
            }
            let least = matrix.scale(-1.0).top_entries(1).unwrap()[0].value;
            assert_eq!(least, -dense.iter().fold(f32::INFINITY, |least, &x| least.min(x)));
        }
    }

    #[test]
    fn zero_matrices_and_empty_ones_have_top_entries() {
        let zero = FactoredMatrix::new(Array2::zeros((3, 2)), Array2::zeros((2, 4))).unwrap();
        assert_eq!(zero.top_entries(2).unwrap()[1], MatrixEntry { row: 0, column: 1, value: 0.0 });
        let empty = FactoredMatrix::new(Array2::zeros((0, 2)), Array2::zeros((2, 4))).unwrap();
        assert!(empty.top_entries(2).unwrap().is_empty());
    }
}
