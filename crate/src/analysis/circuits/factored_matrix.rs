//! A matrix of low rank as a product of two factors that is not multiplied out: TransformerLens' `FactoredMatrix`.

use std::fmt;

use ndarray::{Array1, Array2, Axis, s};

use super::products::{product, standard};
use crate::error::{Error, Result, check_index};
use crate::evcxr;

/// A matrix `A B` that is stored as its two factors: TransformerLens' `FactoredMatrix`.
///
/// The QK and OV circuits of a head have `d_model²` entries, but rank `d_head`. Products, norms, singular values and
/// eigenvalues need the factors only. The factors are stored in `f32`; products of them are computed in `f64` and
/// rounded once.
///
/// | axis | name |
/// |---|---|
/// | rows of `A` | `ldim` |
/// | columns of `A`, rows of `B` | `mdim` |
/// | columns of `B` | `rdim` |
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let ov = model.ov(3, 0)?; // W_V W_O of head 3.0
/// assert_eq!((ov.ldim(), ov.mdim(), ov.rdim()), (128, 16, 128));
/// let svd = ov.svd()?;
/// assert_eq!((svd.u.dim(), svd.s.dim(), svd.v.dim()), ((128, 16), 16, (128, 16)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct FactoredMatrix {
    a: Array2<f32>,
    b: Array2<f32>,
}

/// The largest number of entries that [`FactoredMatrix::to_dense`] computes: 1 GiB.
const MAX_DENSE: usize = 1 << 28;

impl FactoredMatrix {
    /// The matrix `A B`. Shape: `a [ldim, mdim]`, `b [mdim, rdim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `b` has not as many rows as `a` has columns.
    pub fn new(a: Array2<f32>, b: Array2<f32>) -> Result<Self> {
        check_shape("the right factor", "[mdim, rdim]", [a.ncols(), b.ncols()], b.dim())?;
        Ok(Self { a, b })
    }

    /// The left factor. Shape: → `[ldim, mdim]`.
    pub fn a(&self) -> &Array2<f32> {
        &self.a
    }

    /// The right factor. Shape: → `[mdim, rdim]`.
    pub fn b(&self) -> &Array2<f32> {
        &self.b
    }

    /// Number of rows.
    pub fn ldim(&self) -> usize {
        self.a.nrows()
    }

    /// The inner dimension of the factors, which the rank cannot exceed.
    pub fn mdim(&self) -> usize {
        self.a.ncols()
    }

    /// Number of columns.
    pub fn rdim(&self) -> usize {
        self.b.ncols()
    }

    /// The transposed matrix `Bᵀ Aᵀ`: `.T` in TransformerLens. Shape: `[ldim, rdim]` → `[rdim, ldim]`.
    pub fn transpose(&self) -> Self {
        Self { a: standard(self.b.t()), b: standard(self.a.t()) }
    }

    /// The matrix times a number. Shape: → the same.
    pub fn scale(&self, factor: f32) -> Self {
        Self { a: &self.a * factor, b: self.b.clone() }
    }

    /// `A B X`. As in TransformerLens, `X` is multiplied into `B`, unless `X` itself is the smaller right factor.
    /// Shape: `x [rdim, n]` → `[ldim, n]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has not `rdim` rows.
    pub fn matmul(&self, x: &Array2<f32>) -> Result<Self> {
        check_shape("the factor of matmul", "[rdim, n]", [self.rdim(), x.ncols()], x.dim())?;
        Ok(if self.rdim() > self.mdim() {
            Self { a: self.a.clone(), b: product(self.b.view(), x.view()) }
        } else {
            Self { a: product(self.a.view(), self.b.view()), b: x.clone() }
        })
    }

    /// `X A B`. Shape: `x [n, ldim]` → `[n, rdim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has not `ldim` columns.
    pub fn rmatmul(&self, x: &Array2<f32>) -> Result<Self> {
        check_shape("the factor of rmatmul", "[n, ldim]", [x.nrows(), self.ldim()], x.dim())?;
        Ok(if self.ldim() > self.mdim() {
            Self { a: product(x.view(), self.a.view()), b: self.b.clone() }
        } else {
            Self { a: x.clone(), b: product(self.a.view(), self.b.view()) }
        })
    }

    /// The product with another factored matrix on the right. Its inner dimension is the smaller one of the two.
    /// Shape: `other [rdim, n]` → `[ldim, n]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `other` has not `rdim` rows.
    pub fn matmul_factored(&self, other: &Self) -> Result<Self> {
        check_shape("the factor of matmul_factored", "[rdim, n]", [self.rdim(), other.rdim()], other.shape())?;
        let middle = product(self.b.view(), other.a.view()); // [mdim, other mdim]
        Ok(if self.mdim() <= other.mdim() {
            Self { a: self.a.clone(), b: product(middle.view(), other.b.view()) }
        } else {
            Self { a: product(self.a.view(), middle.view()), b: other.b.clone() }
        })
    }

    /// `A B x`. Shape: `x [rdim]` → `[ldim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has not `rdim` entries.
    pub fn matmul_vector(&self, x: &Array1<f32>) -> Result<Array1<f32>> {
        check_length("the vector of matmul_vector", "[rdim]", self.rdim(), x.len())?;
        let column = product(self.b.view(), x.view().insert_axis(Axis(1)));
        Ok(product(self.a.view(), column.view()).remove_axis(Axis(1)))
    }

    /// `x A B`. Shape: `x [ldim]` → `[rdim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has not `ldim` entries.
    pub fn rmatmul_vector(&self, x: &Array1<f32>) -> Result<Array1<f32>> {
        check_length("the vector of rmatmul_vector", "[ldim]", self.ldim(), x.len())?;
        let row = product(x.view().insert_axis(Axis(0)), self.a.view());
        Ok(product(row.view(), self.b.view()).remove_axis(Axis(0)))
    }

    /// One entry.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a row or column that the matrix does not have.
    pub fn get(&self, row: usize, column: usize) -> Result<f32> {
        check_index("row", row, OWNER, self.ldim())?;
        check_index("column", column, OWNER, self.rdim())?;
        Ok(dot(self.a.row(row).iter().zip(self.b.column(column))))
    }

    /// One row. Shape: → `[rdim]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a row that the matrix does not have.
    pub fn row(&self, row: usize) -> Result<Array1<f32>> {
        check_index("row", row, OWNER, self.ldim())?;
        Ok(product(self.a.slice(s![row..=row, ..]), self.b.view()).remove_axis(Axis(0)))
    }

    /// One column. Shape: → `[ldim]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a column that the matrix does not have.
    pub fn column(&self, column: usize) -> Result<Array1<f32>> {
        check_index("column", column, OWNER, self.rdim())?;
        Ok(product(self.a.view(), self.b.slice(s![.., column..=column])).remove_axis(Axis(1)))
    }

    /// Some rows, in the order given: the rows of some tokens, for a circuit over the vocabulary.
    /// Shape: `rows [n]` → `[n, rdim]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a row that the matrix does not have.
    pub fn select_rows(&self, rows: &[usize]) -> Result<Self> {
        rows.iter().try_for_each(|&row| check_index("row", row, OWNER, self.ldim()).map(drop))?;
        Ok(Self { a: self.a.select(Axis(0), rows), b: self.b.clone() })
    }

    /// Some columns, in the order given. Shape: `columns [n]` → `[ldim, n]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a column that the matrix does not have.
    pub fn select_columns(&self, columns: &[usize]) -> Result<Self> {
        columns.iter().try_for_each(|&column| check_index("column", column, OWNER, self.rdim()).map(drop))?;
        Ok(Self { a: self.a.clone(), b: self.b.select(Axis(1), columns) })
    }

    /// The first `k` rows and columns, or all where the matrix has fewer: TransformerLens' `get_corner`, whose default
    /// is `k = 3`. Shape: → `[k, k]`.
    pub fn get_corner(&self, k: usize) -> Array2<f32> {
        let (rows, columns) = (k.min(self.ldim()), k.min(self.rdim()));
        product(self.a.slice(s![..rows, ..]), self.b.slice(s![.., ..columns]))
    }

    /// The product, multiplied out: `.AB` in TransformerLens. Shape: → `[ldim, rdim]`.
    ///
    /// # Errors
    /// [`Error::Count`] for more than 2²⁸ entries, which take 1 GiB.
    pub fn to_dense(&self) -> Result<Array2<f32>> {
        let entries = self.ldim().saturating_mul(self.rdim());
        if entries > MAX_DENSE {
            return Err(Error::Count {
                function: "to_dense",
                what: "entries".into(),
                found: entries,
                min: 0,
                max: Some(MAX_DENSE),
                hint: Some("top_entries, row, column, select_rows and get_corner need no dense matrix"),
            });
        }
        Ok(product(self.a.view(), self.b.view()))
    }

    /// [`Error::Shape`] if the matrix is not square.
    pub(super) fn check_square(&self, what: &str, hint: &'static str) -> Result<()> {
        let (ldim, rdim) = self.shape();
        if ldim == rdim {
            return Ok(());
        }
        let (expected, found) = (vec![ldim, ldim], vec![ldim, rdim]);
        Err(Error::Shape { what: what.into(), axes: "[ldim, rdim]", expected, found, hint })
    }

    /// Shape: → `(ldim, rdim)`.
    fn shape(&self) -> (usize, usize) {
        (self.ldim(), self.rdim())
    }

    /// Shows the sizes in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        evcxr::show(&[("text/plain", &format!("{self:?}"))]);
    }
}

/// The name of a factored matrix in messages.
const OWNER: &str = "the matrix";

/// [`Error::Shape`] if the shape is not the expected one.
fn check_shape(what: &str, axes: &'static str, expected: [usize; 2], found: (usize, usize)) -> Result<()> {
    if expected == [found.0, found.1] {
        return Ok(());
    }
    Err(Error::Shape { what: what.into(), axes, expected: expected.into(), found: vec![found.0, found.1], hint: FITS })
}

/// [`Error::Shape`] if the length is not the expected one.
fn check_length(what: &str, axes: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape { what: what.into(), axes, expected: vec![expected], found: vec![found], hint: FITS })
}

/// The rule that factors must follow.
const FITS: &str = "the rows of a right factor are the columns of the left one";

/// The scalar product, summed in `f64`.
fn dot<'a>(pairs: impl Iterator<Item = (&'a f32, &'a f32)>) -> f32 {
    pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
}

impl fmt::Debug for FactoredMatrix {
    /// Sizes without the numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FactoredMatrix({} × {} × {})", self.ldim(), self.mdim(), self.rdim())
    }
}
