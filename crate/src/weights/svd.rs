//! The SVD of a product `A Bᵀ` of two tall matrices, through QR of both and the SVD of a small square matrix.

use nalgebra::{Cholesky, DMatrix, SVD};
use ndarray::{Array1, Array2, ArrayView2};

/// `A Bᵀ = U diag(s) Vᵀ` with `s` descending.
pub(crate) struct ProductSvd {
    /// Shape: `[m, r]`, orthonormal columns.
    pub(crate) u: Array2<f64>,
    /// Shape: `[r]`.
    pub(crate) s: Array1<f64>,
    /// Shape: `[n, r]`, orthonormal columns.
    pub(crate) v: Array2<f64>,
}

/// More sweeps than any finite matrix was seen to need; it only bounds the time that a freak input could take.
const MAX_SWEEPS: usize = 100_000;

/// The SVD of `a bᵀ`, `None` if it does not converge (it does for finite input).
///
/// Signs: in every column of `u` the entry of largest magnitude is positive, the lowest row deciding among equals,
/// and `v` takes the same sign. Shape: `[m, r]`, `[n, r]` → `[m, r]`, `[r]`, `[n, r]`, where `r ≤ m, n`.
pub(crate) fn svd_of_product(a: ArrayView2<f64>, b: ArrayView2<f64>) -> Option<ProductSvd> {
    let (a, b) = (Qr::new(a), Qr::new(b));
    // a bᵀ = Q_a (R_a R_bᵀ) Q_bᵀ
    let SVD { u, singular_values, v_t } = SVD::try_new(&a.r * b.r.transpose(), true, true, f64::EPSILON, MAX_SWEEPS)?;
    let mut u = a.q_times(u?);
    let mut v = b.q_times(v_t?.transpose());
    let mut largest = vec![0.0_f64; u.ncols()];
    for row in u.outer_iter() {
        for (largest, &entry) in largest.iter_mut().zip(row) {
            if entry.abs() > largest.abs() {
                *largest = entry;
            }
        }
    }
    let signs: Array1<f64> = largest.into_iter().map(|entry| if entry < 0.0 { -1.0 } else { 1.0 }).collect();
    u *= &signs;
    v *= &signs;
    Some(ProductSvd { u, s: singular_values.iter().copied().collect(), v })
}

/// `a = Q R` with orthonormal columns of `Q = base · mend`. What is large is an ndarray, whose products take any strides;
/// what is small is nalgebra's, which decomposes it.
struct Qr {
    /// Shape: `[m, r]`.
    base: Array2<f64>,
    /// Shape: `[r, r]`; the identity if it is not there.
    mend: Option<DMatrix<f64>>,
    /// Shape: `[r, r]`.
    r: DMatrix<f64>,
}

impl Qr {
    fn new(a: ArrayView2<f64>) -> Self {
        Self::by_cholesky(a).unwrap_or_else(|| {
            let (base, r) = to_nalgebra(a).qr().unpack();
            Self { base: to_ndarray(&base), mend: None, r }
        })
    }

    /// QR through the Cholesky decomposition of `aᵀ a`, done twice: matrix products almost alone, and several times as
    /// fast as Householder reflections. The first pass leaves `Q` a little off orthonormal, the second mends it to the
    /// last digit, as long as the first came near: `None` otherwise, which is where the columns of `a` are almost
    /// dependent. (Yamamoto, Nakatsukasa, Yanagisawa, Fukaya: Roundoff error analysis of the CholeskyQR2 algorithm,
    /// ETNA 44, 2015.)
    fn by_cholesky(a: ArrayView2<f64>) -> Option<Self> {
        /// How far from the identity `Qᵀ Q` may be after the first pass.
        const NEAR: f64 = 0.1;
        let gram = |a: ArrayView2<f64>| to_nalgebra(a.t().dot(&a).view());
        // aᵀ a = L Lᵀ, so a L⁻ᵀ is orthonormal and R is Lᵀ.
        let inverse_and_r = |gram: DMatrix<f64>| {
            let r = Cholesky::new(gram)?.l().transpose();
            let mut inverse = DMatrix::identity(r.nrows(), r.nrows());
            r.solve_upper_triangular_mut(&mut inverse).then_some((inverse, r))
        };
        let (inverse, first) = inverse_and_r(gram(a))?;
        let base = a.dot(&to_ndarray(&inverse));
        let again = gram(base.view());
        let off = (&again - DMatrix::identity(again.nrows(), again.nrows())).norm();
        if off.is_nan() || off > NEAR {
            return None;
        }
        let (mend, second) = inverse_and_r(again)?;
        Some(Self { base, mend: Some(mend), r: second * first })
    }

    /// `Q x`, for a small `x [r, r]`.
    fn q_times(&self, x: DMatrix<f64>) -> Array2<f64> {
        self.base.dot(&to_ndarray(&match &self.mend {
            Some(mend) => mend * x,
            None => x,
        }))
    }
}

fn to_nalgebra(a: ArrayView2<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(a.nrows(), a.ncols(), |row, column| a[[row, column]])
}

fn to_ndarray(a: &DMatrix<f64>) -> Array2<f64> {
    Array2::from_shape_fn(a.shape(), |(row, column)| a[(row, column)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without structure, from a small linear congruential generator.
    fn noise(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut state = seed;
        Array2::from_shape_simple_fn((rows, columns), || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        })
    }

    #[test]
    fn factors_multiply_back_and_follow_the_sign_rule() {
        for (m, n, r) in [(1, 1, 1), (5, 4, 1), (7, 7, 7), (49, 48, 16), (41, 40, 20), (70, 90, 64)] {
            let (a, b) = (noise(m, r, 1), noise(n, r, 2));
            let svd = svd_of_product(a.view(), b.view()).unwrap();
            let back = (&svd.u * &svd.s).dot(&svd.v.t());
            let error = (&back - &a.dot(&b.t())).iter().fold(0.0_f64, |worst, x| worst.max(x.abs()));
            assert!(error < 1e-12 * svd.s[0].max(1.0), "{m} {n} {r}: {error}");
            assert!(svd.s.windows(2).into_iter().all(|pair| pair[0] >= pair[1]));
            let identity = svd.u.t().dot(&svd.u) - Array2::<f64>::eye(r);
            assert!(identity.iter().all(|x| x.abs() < 1e-12));
            for column in svd.u.columns() {
                let largest =
                    column.iter().fold(0.0_f64, |largest, &x| if x.abs() > largest.abs() { x } else { largest });
                assert!(largest > 0.0);
            }
        }
    }

    #[test]
    fn a_rank_deficient_product_keeps_orthonormal_vectors() {
        let mut a = noise(9, 4, 3);
        let first = a.column(0).to_owned();
        a.column_mut(2).assign(&first);
        let b = Array2::<f64>::eye(4);
        let svd = svd_of_product(a.view(), b.view()).unwrap();
        assert!(svd.s[3] < 1e-14 * svd.s[0]);
        let back = (&svd.u * &svd.s).dot(&svd.v.t());
        assert!((&back - &a).iter().all(|x| x.abs() < 1e-13));
        let zero = svd_of_product(Array2::zeros((3, 2)).view(), Array2::zeros((4, 2)).view()).unwrap();
        assert_eq!(zero.s.to_vec(), [0.0, 0.0]);
    }
}
