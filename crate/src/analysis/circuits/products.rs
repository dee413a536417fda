//! Products of `f32` matrices, computed in `f64` on all processors.

use nalgebra::{Cholesky, DMatrix};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

/// Rows that one task multiplies; their copies in `f64` fit into a processor's cache.
const ROWS_PER_TASK: usize = 128;

/// A copy, row by row in memory. Shape: → the same.
pub(super) fn standard(x: ArrayView2<f32>) -> Array2<f32> {
    x.as_standard_layout().into_owned()
}

/// The Frobenius norm. Shape: any.
pub(super) fn norm(x: &Array2<f64>) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// `a b`, computed in `f64` and rounded once. Shape: `a [m, k]`, `b [k, n]` → `[m, n]`.
pub(super) fn product(a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f32> {
    if a.nrows() < b.ncols() {
        // Tasks split the longer side: (a b)ᵀ = bᵀ aᵀ.
        return standard(by_rows(b.reversed_axes(), a.reversed_axes()).t());
    }
    by_rows(a, b)
}

/// [`product`], with tasks that split the rows of `a`. Shape: `a [m, k]`, `b [k, n]` → `[m, n]`.
fn by_rows(a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f32> {
    let b = b.mapv(f64::from);
    let mut result = Array2::zeros((a.nrows(), b.ncols()));
    let tasks = result.axis_chunks_iter_mut(Axis(0), ROWS_PER_TASK).zip(a.axis_chunks_iter(Axis(0), ROWS_PER_TASK));
    tasks.collect::<Vec<_>>().into_par_iter().for_each(|(mut result, a)| {
        result.zip_mut_with(&a.mapv(f64::from).dot(&b), |to, &from| *to = from as f32);
    });
    result
}

/// `a b` in `f64`, for an inner dimension that is long and outer ones that are short: tasks split the inner one.
/// Shape: `a [m, k]`, `b [k, n]` → `[m, n]`.
pub(super) fn small_product(a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f64> {
    /// The inner dimension of a task.
    const PER_TASK: usize = 4096;
    let zeros = || Array2::<f64>::zeros((a.nrows(), b.ncols()));
    let tasks: Vec<_> = a.axis_chunks_iter(Axis(1), PER_TASK).zip(b.axis_chunks_iter(Axis(0), PER_TASK)).collect();
    // Collected before they are added, so that the sum does not depend on the number of threads.
    let parts: Vec<Array2<f64>> =
        tasks.into_par_iter().map(|(a, b)| a.mapv(f64::from).dot(&b.mapv(f64::from))).collect();
    parts.into_iter().fold(zeros(), |sum, part| sum + part)
}

/// A matrix `R` with `RᵀR = wᵀw`, so that `‖R x‖ = ‖w x‖` for every `x`: what is left of `w` without its orthonormal
/// columns. Shape: `w [n, r]` → `[r, r]`, or `[n, r]` if `n < r`.
pub(super) fn without_orthonormal_part(w: ArrayView2<f32>) -> Array2<f64> {
    let gram = small_product(w.t(), w);
    let gram = DMatrix::from_fn(gram.nrows(), gram.ncols(), |row, column| gram[[row, column]]);
    let r = match Cholesky::new(gram) {
        Some(cholesky) => cholesky.l().transpose(),
        // Dependent columns, as after refactoring a head of low rank.
        None => DMatrix::from_fn(w.nrows(), w.ncols(), |row, column| f64::from(w[[row, column]])).qr().unpack_r(),
    };
    Array2::from_shape_fn(r.shape(), |at| r[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        Array2::from_shape_simple_fn((rows, columns), || random.f32() - 0.5)
    }

    fn dense(a: &Array2<f32>, b: &Array2<f32>) -> Array2<f64> {
        a.mapv(f64::from).dot(&b.mapv(f64::from))
    }

    #[test]
    fn products_in_tasks_are_those_of_the_whole() {
        for (m, k, n) in [(1, 1, 1), (300, 7, 5), (5, 7, 300), (130, 9000, 3), (0, 4, 3), (3, 0, 2)] {
            let (a, b) = (noise(m, k, 1), noise(k, n, 2));
            let want = dense(&a, &b);
            let near = |got: f64, want: f64| (got - want).abs() < 1e-6 * (1.0 + want.abs());
            assert!(product(a.view(), b.view()).iter().zip(&want).all(|(&got, &want)| near(got.into(), want)));
            let small = small_product(a.view(), b.view());
            assert!(small.dim() == (m, n) && small.iter().zip(&want).all(|(&got, &want)| (got - want).abs() < 1e-10));
        }
    }

    #[test]
    fn without_its_orthonormal_part_a_matrix_keeps_all_lengths() {
        let mut deficient = noise(20, 6, 3);
        deficient.column_mut(4).fill(0.0);
        for w in [noise(50, 8, 4), deficient, noise(3, 5, 5)] {
            let r = without_orthonormal_part(w.view());
            let (got, want) = (r.t().dot(&r), dense(&w.t().to_owned(), &w));
            assert!((got - want).iter().all(|x| x.abs() < 1e-10));
        }
    }
}
