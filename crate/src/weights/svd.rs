//! The SVD of a product `A Bᵀ` of two tall matrices, by QR decompositions of both and the SVD of a small square matrix.

use nalgebra::{Cholesky, DMatrix, SVD};
use ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2};

/// The SVD of a product: `A Bᵀ = U diag(s) Vᵀ` with `s` descending.
pub(crate) struct ProductSvd {
    /// Shape: `[m, r]`, orthonormal columns.
    pub(crate) u: Array2<f64>,
    /// Shape: `[r]`.
    pub(crate) s: Array1<f64>,
    /// Shape: `[n, r]`, orthonormal columns.
    pub(crate) v: Array2<f64>,
}

/// Limits the time for pathological input. No finite matrix was seen to need nearly this many sweeps.
const MAX_SWEEPS: usize = 100_000;

/// The SVD of `a bᵀ`, or `None` if it does not converge (it does for finite input).
///
/// Signs: in every column of `u` the entry of largest magnitude is positive (among equals, that of the lowest row), and
/// `v` has the same sign as `u`. Shape: `a [m, r]`, `b [n, r]` → `u [m, r]`, `s [r]`, `v [n, r]`, where `r ≤ m, n`.
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

/// `a = Q R`, where `Q = base · correction` has orthonormal columns.
///
/// Large matrices are ndarrays, whose products take any strides; small ones are nalgebra's, which decomposes them.
struct Qr<'a> {
    /// Shape: `[m, r]`.
    base: CowArray<'a, f64, Ix2>,
    /// Shape: `[r, r]`. `None` is the identity.
    correction: Option<DMatrix<f64>>,
    /// Shape: `[r, r]`.
    r: DMatrix<f64>,
}

impl<'a> Qr<'a> {
    /// Shape: `a [m, r]` → `Q [m, r]`, `R [r, r]`.
    fn new(a: ArrayView2<'a, f64>) -> Self {
        Self::by_cholesky(a).unwrap_or_else(|| {
            let (base, r) = to_nalgebra(a).qr().unpack();
            Self { base: to_ndarray(&base).into(), correction: None, r }
        })
    }

    /// CholeskyQR2: QR by the Cholesky decomposition of `aᵀ a`, twice. `None` if columns of `a` are almost dependent.
    /// Shape: `a [m, r]` → `Q [m, r]`, `R [r, r]`.
    ///
    /// It consists almost only of matrix products, and is several times as fast as Householder reflections. The `Q` of
    /// the first pass is not quite orthonormal: its error is ε times the square of the condition number of `a`. Where that
    /// could be seen in a float, a second pass corrects it to the last digit, provided that the first came near.
    /// (Yamamoto, Nakatsukasa, Yanagisawa, Fukaya: Roundoff error analysis of the CholeskyQR2 algorithm, ETNA 44, 2015.)
    fn by_cholesky(a: ArrayView2<'a, f64>) -> Option<Self> {
        /// The largest distance of `Qᵀ Q` from the identity after the first pass.
        const MAX_DISTANCE: f64 = 0.1;
        /// The largest error of a `Q` of one pass: a hundredth of the rounding error of a float.
        const MAX_ERROR: f64 = 5e-10;
        let gram = |a: ArrayView2<f64>| to_nalgebra(a.t().dot(&a).view());
        // aᵀ a = L Lᵀ, so a L⁻ᵀ is orthonormal and R is Lᵀ.
        let inverse_and_r = |gram: DMatrix<f64>| {
            let r = Cholesky::new(gram)?.l().transpose();
            let mut inverse = DMatrix::identity(r.nrows(), r.nrows());
            r.solve_upper_triangular_mut(&mut inverse).then_some((inverse, r))
        };
        let (inverse, r1) = inverse_and_r(gram(a))?;
        // The product of the Frobenius norms is at least the condition number.
        let condition = r1.norm() * inverse.norm();
        if f64::EPSILON * condition * condition <= MAX_ERROR {
            return Some(Self { base: a.into(), correction: Some(inverse), r: r1 });
        }
        let base = a.dot(&to_ndarray(&inverse));
        let second_gram = gram(base.view()); // QᵀQ of the first pass
        let distance = (&second_gram - DMatrix::identity(second_gram.nrows(), second_gram.nrows())).norm();
        if distance.is_nan() || distance > MAX_DISTANCE {
            return None;
        }
        let (correction, r2) = inverse_and_r(second_gram)?;
        Some(Self { base: base.into(), correction: Some(correction), r: r2 * r1 })
    }

    /// `Q x`. Shape: `x [r, r]` → `[m, r]`.
    fn q_times(&self, x: DMatrix<f64>) -> Array2<f64> {
        self.base.dot(&to_ndarray(&match &self.correction {
            Some(correction) => correction * x,
            None => x,
        }))
    }
}

/// Shape: `[m, n]` → the same.
fn to_nalgebra(a: ArrayView2<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(a.nrows(), a.ncols(), |row, column| a[[row, column]])
}

/// Shape: `[m, n]` → the same.
fn to_ndarray(a: &DMatrix<f64>) -> Array2<f64> {
    Array2::from_shape_fn(a.shape(), |(row, column)| a[(row, column)])
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, arr2};

    use super::*;

    /// Uniform random numbers between −0.5 and 0.5. Shape: → `[rows, columns]`.
    fn noise(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        Array2::from_shape_simple_fn((rows, columns), || random.f64() - 0.5)
    }

    #[test]
    fn the_svd_of_a_two_by_two_product() {
        // A Bᵀ = [[0, -3], [2, 0]] has the singular values 3 and 2. Each column of U is positive where it is largest.
        let (a, b) = (arr2(&[[-3.0, 0.0], [0.0, 2.0]]), arr2(&[[0.0, 1.0], [1.0, 0.0]]));
        let svd = svd_of_product(a.view(), b.view()).unwrap();
        let near = |got: &Array2<f64>, want: [[f64; 2]; 2]| (got - &arr2(&want)).iter().all(|x| x.abs() < 1e-14);
        assert!((&svd.s - &arr1(&[3.0, 2.0])).iter().all(|x| x.abs() < 1e-14), "{}", svd.s);
        assert!(near(&svd.u, [[1.0, 0.0], [0.0, 1.0]]), "{}", svd.u);
        assert!(near(&svd.v, [[0.0, 1.0], [-1.0, 0.0]]), "{}", svd.v);
    }

    #[test]
    fn factors_multiply_back_to_the_product_and_obey_the_sign_rule() {
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
    fn factors_of_a_rank_deficient_product_multiply_back() {
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
