//! Weight matrices packed for fast products.

use ndarray::{Array2, ArrayView2, Axis, Dim, Ix2};
use rayon::prelude::*;
use rten_gemm::PackedBMatrix;
use rten_tensor::Matrix;

use super::gemm::{self, COLUMNS_PER_TASK, ROWS_PER_TASK};
use super::split;
use crate::memory::HostArray;

/// Columns of a strip.
pub(super) const STRIP_WIDTH: usize = COLUMNS_PER_TASK;

/// A matrix `[inner, columns]` as strips of [`STRIP_WIDTH`] columns (the last may be narrower), each packed as the
/// kernel reads it. There is no other copy of the weights.
///
/// One task multiplies one strip and one block of rows, on one thread. The blocks do not depend on the number of
/// threads, so neither do the results.
pub(crate) struct PackedMatrix {
    inner: usize,
    columns: usize,
    /// Shape: each `[inner, up to STRIP_WIDTH]`.
    strips: Vec<PackedBMatrix<f32>>,
}

impl PackedMatrix {
    /// Packs a matrix that is contiguous, row by row or column by column, and not empty. Shape: `w [inner, columns]`.
    pub(super) fn new(w: ArrayView2<f32>) -> Self {
        let (inner, columns) = w.dim();
        let w = gemm::tensor(w);
        let starts = (0..columns).into_par_iter().step_by(STRIP_WIDTH);
        let strips = starts.map(|start| gemm::pack(w.slice((.., start..(start + STRIP_WIDTH).min(columns))))).collect();
        Self { inner, columns, strips }
    }

    /// `(inner, columns)`.
    pub(super) fn dim(&self) -> (usize, usize) {
        (self.inner, self.columns)
    }

    /// The strips. Strip `i` begins at column `i · STRIP_WIDTH`. Shape: each `[inner, up to STRIP_WIDTH]`.
    pub(super) fn strips(&self) -> &[PackedBMatrix<f32>] {
        &self.strips
    }

    /// The matrix in row-major order, bit by bit. Shape: → `[inner, columns]`.
    pub(super) fn to_array(&self) -> Array2<f32> {
        let mut w = Array2::zeros(self.dim());
        let (full, last) = (self.columns.min(STRIP_WIDTH), self.columns % STRIP_WIDTH);
        let places = [full, last].map(|columns| places_in_strip(self.inner, columns));
        let strips = self.strips.iter().zip(w.axis_chunks_iter_mut(Axis(1), STRIP_WIDTH));
        strips.collect::<Vec<_>>().into_par_iter().for_each(|(strip, mut w)| {
            let places = &places[usize::from(w.ncols() != full)];
            let packed = strip.clone().into_vec();
            w.iter_mut().zip(places).for_each(|(w, &place)| *w = f32::from_bits(packed[place]));
        });
        w
    }

    /// `x W`, for a contiguous `x`. `epilogue(column, values)` then updates each piece of a row in place; `column` is
    /// where the piece begins. Shape: `x [rows, inner]` → `[rows, columns]`.
    pub(super) fn matmul(&self, x: ArrayView2<f32>, epilogue: impl Fn(usize, &mut [f32]) + Sync) -> HostArray<Ix2> {
        let mut y = HostArray::from_pool(Dim((x.nrows(), self.columns)));
        let mut tasks = Vec::new();
        for (x, y) in x.axis_chunks_iter(Axis(0), ROWS_PER_TASK).zip(y.axis_chunks_iter_mut(Axis(0), ROWS_PER_TASK)) {
            let by_strip = split(y, Axis(1), self.strips.iter().map(|strip| strip.cols()));
            let x = gemm::tensor(x);
            tasks.extend(
                by_strip.into_iter().zip(&self.strips).enumerate().map(|(index, (y, strip))| (index, x, strip, y)),
            );
        }
        tasks.into_par_iter().for_each(|(index, x, strip, y)| {
            // [rows, inner] × [inner, width]
            gemm::matmul(1.0, x, strip, y, |piece| epilogue(index * STRIP_WIDTH, piece));
        });
        y
    }
}

/// Where a packed strip has each of its values, in row-major order. Shape: → `[inner · columns]`.
///
/// The order differs between processors, and `rten-gemm` does not tell it. Packing only copies values, so a strip of
/// the numbers 1, 2, 3, … shows it.
fn places_in_strip(inner: usize, columns: usize) -> Vec<usize> {
    if columns == 0 {
        return Vec::new();
    }
    let numbers: Vec<f32> = (1..=inner * columns).map(|number| f32::from_bits(number as u32)).collect();
    let packed = gemm::pack(Matrix::from_data([inner, columns], numbers.as_slice())).into_vec();
    let mut places = vec![0; numbers.len()];
    for (place, number) in packed.into_iter().enumerate().filter(|&(_, number)| number > 0) {
        places[number as usize - 1] = place; // zeros fill a strip whose width is not the kernel's
    }
    places
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::*;

    /// Sizes around the kernels' registers, [`STRIP_WIDTH`] and the depth of a block.
    const SHAPES: [(usize, usize); 8] =
        [(1, 1), (3, 5), (7, 127), (33, 128), (300, 129), (255, 257), (257, 1), (768, 300)];

    #[test]
    fn packed_weights_come_back_bit_by_bit() {
        let mut random = fastrand::Rng::new();
        println!("seed {}", random.get_seed());
        for shape in SHAPES {
            // Any bits: signed zeros, subnormal numbers, infinities, and numbers that are not a number.
            let w = Array2::from_shape_simple_fn(shape, || f32::from_bits(random.u32(..)));
            for w in [w.view(), w.t()] {
                let bits = |w: ArrayView2<f32>| w.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(PackedMatrix::new(w).to_array().view()), bits(w), "{:?}", w.dim());
            }
        }
        let zeros = Array2::from_elem((2, 2), -0.0_f32);
        assert!(PackedMatrix::new(zeros.view()).to_array().iter().all(|w| w.is_sign_negative()));
    }

    #[test]
    fn products_are_those_of_float64_and_bit_identical_on_any_number_of_threads() {
        let mut random = fastrand::Rng::new();
        println!("seed {}", random.get_seed());
        for (inner, columns) in SHAPES {
            for rows in [0, 1, 2, 63, 64, 65, 130] {
                let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), || random.f32() - 0.5);
                let (x, w) = (matrix(rows, inner), matrix(inner, columns));
                let packed = PackedMatrix::new(w.view());
                let bias = Array1::from_iter((0..columns).map(|column| column as f32));
                let add_bias = |column: usize, y: &mut [f32]| {
                    y.iter_mut().zip(bias.iter().skip(column)).for_each(|(y, bias)| *y += bias);
                };
                let on = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| packed.matmul(x.view(), add_bias).into_owned())
                };
                let (one, three) = (on(1), on(3));
                assert_eq!(one, three);
                let expected = x.mapv(f64::from).dot(&w.mapv(f64::from)) + &bias.mapv(f64::from);
                let error = (one.mapv(f64::from) - &expected).fold(0.0_f64, |largest, error| largest.max(error.abs()));
                assert!(error <= 1e-6 * columns.max(inner) as f64, "{rows} × {inner} × {columns}: {error:e}");
            }
        }
    }
}
