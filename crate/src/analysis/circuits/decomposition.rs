//! Singular values, eigenvalues and norms of factored matrices, from small square matrices.

use nalgebra::{DMatrix, Schur};
use ndarray::{Array1, Array2, Axis};

use super::factored_matrix::FactoredMatrix;
use super::products::{norm, product, small_product, standard, without_orthonormal_part};
use crate::error::{Error, Result};
use crate::weights::svd_of_product;

/// The singular value decomposition of a matrix `M = U diag(S) Vᵀ`. See [`FactoredMatrix::svd`].
#[derive(Clone, Debug, PartialEq)]
pub struct FactoredSvd {
    /// The left singular vectors, in columns of length 1. Shape: `[ldim, rank]`.
    pub u: Array2<f32>,
    /// The singular values, largest first. Shape: `[rank]`, the smallest of `ldim`, `mdim` and `rdim`.
    pub s: Array1<f32>,
    /// The right singular vectors, in columns of length 1: what TransformerLens returns as `Vh`, which is not
    /// transposed there either. Shape: `[rdim, rank]`.
    pub v: Array2<f32>,
}

/// The eigenvalues of a square matrix. See [`FactoredMatrix::eigenvalues`].
#[derive(Clone, Debug, PartialEq)]
pub struct Eigenvalues {
    /// Real parts. Shape: `[mdim]`.
    pub re: Array1<f32>,
    /// Imaginary parts. Shape: `[mdim]`.
    pub im: Array1<f32>,
}

impl Eigenvalues {
    /// The magnitude of each. Shape: → `[mdim]`.
    pub fn abs(&self) -> Array1<f32> {
        self.re.iter().zip(&self.im).map(|(&re, &im)| re.hypot(im)).collect()
    }

    /// The copying score `Σ λ / Σ |λ|` (Elhage et al. 2021, "Detecting copying heads"): 1 if all eigenvalues are
    /// positive, −1 if all are negative, near 0 for a matrix without a preference. The imaginary parts cancel. 0 if all
    /// eigenvalues are zero.
    pub fn copying_score(&self) -> f32 {
        let (sum, sizes) = self.re.iter().zip(&self.im).fold((0.0, 0.0), |(sum, sizes), (&re, &im)| {
            let (re, im) = (f64::from(re), f64::from(im));
            (sum + re, sizes + re.hypot(im))
        });
        if sizes == 0.0 { 0.0 } else { (sum / sizes) as f32 }
    }
}

/// No finite matrix was seen to need nearly this many steps.
const MAX_STEPS: usize = 100_000;

/// The number of singular values or eigenvalues is at most `mdim`, and everything is computed in `f64`.
impl FactoredMatrix {
    /// The singular value decomposition, by QR decompositions of both factors and the SVD of a small square matrix.
    /// Shape: → as [`FactoredSvd`] lists.
    ///
    /// Singular vectors are free up to a common sign of each pair: the entry of largest magnitude of each column of `u`
    /// is positive. TransformerLens returns the signs that its library happens to give.
    ///
    /// # Errors
    /// [`Error::Decomposition`] if a factor is not finite.
    pub fn svd(&self) -> Result<FactoredSvd> {
        self.check_finite("svd")?;
        let (ldim, mdim, rdim) = (self.ldim(), self.mdim(), self.rdim());
        if ldim.min(mdim).min(rdim) == 0 {
            let empty = |rows| Array2::zeros((rows, 0));
            return Ok(FactoredSvd { u: empty(ldim), s: Array1::zeros(0), v: empty(rdim) });
        }
        let (a, b_t) = if mdim <= ldim.min(rdim) {
            (self.a().mapv(f64::from), self.b().t().mapv(f64::from))
        } else {
            // The inner dimension is not the smallest: the product itself is smaller than the factors.
            let dense = self.a().mapv(f64::from).dot(&self.b().mapv(f64::from)); // [ldim, rdim]
            if ldim <= rdim { (Array2::eye(ldim), dense.reversed_axes()) } else { (dense, Array2::eye(rdim)) }
        };
        let svd = svd_of_product(a.view(), b_t.view()).ok_or_else(|| diverged("svd"))?;
        let rounded = |x: Array2<f64>| x.mapv(|x| x as f32);
        Ok(FactoredSvd { u: rounded(svd.u), s: svd.s.mapv(|x| x as f32), v: rounded(svd.v) })
    }

    /// The eigenvalues of a square matrix, from those of the small matrix `B A`: TransformerLens' `eigenvalues`.
    /// Shape: → `[mdim]`.
    ///
    /// The largest magnitude comes first, and of a conjugate pair the one with the positive imaginary part.
    /// (TransformerLens returns them in the order in which its library finds them.)
    ///
    /// # Errors
    /// [`Error::Shape`] if the matrix is not square, [`Error::Decomposition`] if a factor is not finite.
    pub fn eigenvalues(&self) -> Result<Eigenvalues> {
        self.check_square("the matrix of eigenvalues", "only a square matrix has eigenvalues")?;
        self.check_finite("eigenvalues")?;
        eigenvalues_of(small_product(self.b().view(), self.a().view()))
    }

    /// The Frobenius norm: the root of the sum of squares of all entries, or of all singular values.
    ///
    /// # Errors
    /// [`Error::Decomposition`] if a factor is not finite.
    pub fn norm(&self) -> Result<f32> {
        self.check_finite("norm")?;
        let left = without_orthonormal_part(self.a().view());
        let right = without_orthonormal_part(self.b().t());
        Ok(norm(&left.dot(&right.t())) as f32)
    }

    /// The same matrix with even factors, `U √S` and `√S Vᵀ`: TransformerLens' `make_even`. Shape: → the same.
    ///
    /// # Errors
    /// As for [`svd`](Self::svd).
    pub fn make_even(&self) -> Result<Self> {
        let FactoredSvd { u, s, v } = self.svd()?;
        let sqrt_s = s.mapv(f32::sqrt);
        Self::new(u * &sqrt_s, standard((v * &sqrt_s).t()))
    }

    /// `diag(S) Vᵀ`: the matrix without the orthonormal `U` on its left, which changes neither the lengths of what it
    /// writes nor its singular values. TransformerLens' `collapse_l`. Shape: → `[rank, rdim]`.
    ///
    /// # Errors
    /// As for [`svd`](Self::svd).
    pub fn collapse_l(&self) -> Result<Array2<f32>> {
        let FactoredSvd { s, v, .. } = self.svd()?;
        Ok(v.t().to_owned() * &s.insert_axis(Axis(1)))
    }

    /// `U diag(S)`: the matrix without the orthonormal `Vᵀ` on its right. TransformerLens' `collapse_r`.
    /// Shape: → `[ldim, rank]`.
    ///
    /// # Errors
    /// As for [`svd`](Self::svd).
    pub fn collapse_r(&self) -> Result<Array2<f32>> {
        let FactoredSvd { u, s, .. } = self.svd()?;
        Ok(u * &s)
    }

    /// The reverse product `B A` of a square matrix: TransformerLens' `BA`. Shape: → `[mdim, mdim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the matrix is not square.
    pub fn ba(&self) -> Result<Array2<f32>> {
        self.check_square("the matrix of ba", "B A exists for a square matrix only")?;
        Ok(product(self.b().view(), self.a().view()))
    }

    /// [`Error::Decomposition`] if a factor has an entry that is not finite.
    pub(super) fn check_finite(&self, function: &'static str) -> Result<()> {
        for (name, factor) in [("left", self.a()), ("right", self.b())] {
            if let Some(((row, column), x)) = factor.indexed_iter().find(|(_, x)| !x.is_finite()) {
                let found = format!("{x} in row {row}, column {column} of the {name} factor");
                return Err(Error::Decomposition { function, found });
            }
        }
        Ok(())
    }
}

/// The error of a decomposition that does not converge.
fn diverged(function: &'static str) -> Error {
    Error::Decomposition { function, found: "a matrix whose decomposition does not converge".into() }
}

/// The eigenvalues of a small square matrix, in the order of [`FactoredMatrix::eigenvalues`]. Shape: `[n, n]` → `[n]`.
pub(super) fn eigenvalues_of(matrix: Array2<f64>) -> Result<Eigenvalues> {
    let n = matrix.nrows();
    let matrix = DMatrix::from_fn(n, n, |row, column| matrix[[row, column]]);
    let (_, t) = Schur::try_new(matrix, f64::EPSILON, MAX_STEPS).ok_or_else(|| diverged("eigenvalues"))?.unpack();
    let mut values: Vec<(f64, f64)> = Vec::with_capacity(n);
    while values.len() < n {
        let i = values.len();
        if i + 1 == n || t[(i + 1, i)] == 0.0 {
            values.push((t[(i, i)], 0.0));
            continue;
        }
        // A block of two rows has a pair of eigenvalues, m ± √d.
        let (half_difference, m) = ((t[(i, i)] - t[(i + 1, i + 1)]) / 2.0, (t[(i, i)] + t[(i + 1, i + 1)]) / 2.0);
        let d = half_difference * half_difference + t[(i + 1, i)] * t[(i, i + 1)];
        let root = d.abs().sqrt();
        values.extend(if d < 0.0 { [(m, root), (m, -root)] } else { [(m + root, 0.0), (m - root, 0.0)] });
    }
    values
        .sort_by(|a, b| b.0.hypot(b.1).total_cmp(&a.0.hypot(a.1)).then(b.0.total_cmp(&a.0)).then(b.1.total_cmp(&a.1)));
    let part = |part: fn(&(f64, f64)) -> f64| values.iter().map(|value| part(value) as f32).collect();
    Ok(Eigenvalues { re: part(|value| value.0), im: part(|value| value.1) })
}
