//! Weight matrices packed for fast products.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Dim, Ix2, s};
use rayon::prelude::*;
use rten_gemm::PackedBMatrix;
use rten_tensor::Matrix;

use super::gemm::{self, COLUMNS_PER_TASK, ROWS_PER_TASK};
use super::split;
use super::tile::{Kernel, PANEL_WIDTH, PanelRow};
use crate::memory::{HostArray, Mapped};

/// Columns of a strip.
pub(super) const STRIP_WIDTH: usize = COLUMNS_PER_TASK;
/// So many rows of a product take no longer than reading the weights.
const FEW_ROWS: usize = 16;
const PANELS_PER_STRIP: usize = STRIP_WIDTH / PANEL_WIDTH;

/// A matrix `[inner, columns]` as strips of [`STRIP_WIDTH`] columns (the last may be narrower), each packed as the
/// kernel reads it. There is no other copy of the weights.
///
/// One task multiplies one block of rows and one strip, or half of a strip if there are few rows, on one thread. No result
/// depends on how the work is split.
pub(crate) struct PackedMatrix {
    inner: usize,
    columns: usize,
    strips: Strips,
}

/// The weights, as the kernel reads them. Strip `i` begins at column `i · STRIP_WIDTH`.
enum Strips {
    /// For `rten-gemm`. Shape: each `[inner, up to STRIP_WIDTH]`.
    Library(Vec<PackedBMatrix<f32>>),
    /// Panel after panel; the last is filled up with zeros. Shape: `[panels · inner]`.
    Panels(Kernel, Mapped<PanelRow>),
}

impl PackedMatrix {
    /// Packs a matrix that is contiguous, row by row or column by column, and not empty. Shape: `w [inner, columns]`.
    pub(super) fn new(w: ArrayView2<f32>) -> Self {
        Self::for_kernel(Kernel::available().pop(), w)
    }

    /// [`PackedMatrix::new`] for a kernel, or for `rten-gemm`.
    fn for_kernel(kernel: Option<Kernel>, w: ArrayView2<f32>) -> Self {
        let (inner, columns) = w.dim();
        let strips = match kernel {
            Some(kernel) => Strips::Panels(kernel, panels(w)),
            None => {
                let w = gemm::tensor(w);
                let starts = (0..columns).into_par_iter().step_by(STRIP_WIDTH);
                let strip = |start: usize| gemm::pack(w.slice((.., start..(start + STRIP_WIDTH).min(columns))));
                Strips::Library(starts.map(strip).collect())
            }
        };
        Self { inner, columns, strips }
    }

    /// `(inner, columns)`.
    pub(super) fn dim(&self) -> (usize, usize) {
        (self.inner, self.columns)
    }

    /// The number of columns of each strip.
    pub(super) fn strip_widths(&self) -> impl Iterator<Item = usize> {
        let columns = self.columns;
        (0..columns).step_by(STRIP_WIDTH).map(move |start| STRIP_WIDTH.min(columns - start))
    }

    /// The matrix in row-major order, bit by bit. Shape: → `[inner, columns]`.
    pub(super) fn to_array(&self) -> Array2<f32> {
        let mut w = Array2::zeros(self.dim());
        let by_strip = w.axis_chunks_iter_mut(Axis(1), STRIP_WIDTH).collect::<Vec<_>>().into_par_iter();
        match &self.strips {
            Strips::Panels(_, rows) => {
                by_strip.zip(rows.par_chunks(PANELS_PER_STRIP * self.inner)).for_each(|(mut w, rows)| {
                    for (mut w, rows) in w.axis_chunks_iter_mut(Axis(1), PANEL_WIDTH).zip(rows.chunks_exact(self.inner))
                    {
                        for (mut w, row) in w.rows_mut().into_iter().zip(rows) {
                            w.iter_mut().zip(row).for_each(|(w, value)| *w = *value);
                        }
                    }
                })
            }
            Strips::Library(strips) => {
                let (full, last) = (self.columns.min(STRIP_WIDTH), self.columns % STRIP_WIDTH);
                let places = [full, last].map(|columns| places_in_strip(self.inner, columns));
                by_strip.zip(strips).for_each(|(mut w, strip)| {
                    let places = &places[usize::from(w.ncols() != full)];
                    let packed = strip.clone().into_vec();
                    w.iter_mut().zip(places).for_each(|(w, &place)| *w = f32::from_bits(packed[place]));
                });
            }
        }
        w
    }

    /// `x W`. `epilogue(column, values)` then updates each piece of a row in place; `column` is where the piece begins.
    /// Shape: `x [rows, inner]` → `[rows, columns]`.
    pub(super) fn matmul(&self, x: ArrayView2<f32>, epilogue: impl Fn(usize, &mut [f32]) + Sync) -> HostArray<Ix2> {
        let [y] = Self::matmul_each([self], x, |_, column, values| epilogue(column, values));
        y
    }

    /// [`PackedMatrix::matmul`] of several matrices and one `x`, side by side: `epilogue(which, column, values)`.
    /// Shape: `x [rows, inner]` → each `[rows, columns]`.
    pub(super) fn matmul_each<const N: usize>(
        matrices: [&Self; N],
        x: ArrayView2<f32>,
        epilogue: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> [HostArray<Ix2>; N] {
        let x = x.as_standard_layout();
        let mut y = matrices.map(|w| HostArray::from_pool(Dim((x.nrows(), w.columns))));
        let mut tasks = Vec::new();
        for (which, (w, y)) in matrices.into_iter().zip(&mut y).enumerate() {
            let width = w.columns_per_task(x.nrows());
            let blocks = y.axis_chunks_iter_mut(Axis(0), ROWS_PER_TASK);
            for (x, y) in x.axis_chunks_iter(Axis(0), ROWS_PER_TASK).zip(blocks) {
                let starts = (0..w.columns).step_by(width);
                let pieces = split(y, Axis(1), starts.clone().map(|start| width.min(w.columns - start)));
                tasks.extend(starts.zip(pieces).map(|(start, y)| (which, start, x, y)));
            }
        }
        tasks.sort_by_key(|&(which, start, ..)| (which, start)); // so that a thread uses weights again for the next rows
        tasks.into_par_iter().with_max_len(1).for_each(|(which, start, x, y)| {
            matrices[which].matmul_columns(start, x, y, |piece| epilogue(which, start, piece));
        });
        y
    }

    /// `y = x W` for the columns of one strip, on the calling thread. The rows of `y` may be pieces of longer ones.
    /// Shape: `x [rows, inner]`, `y [rows, width]`.
    pub(super) fn strip_matmul(&self, index: usize, x: ArrayView2<f32>, y: ArrayViewMut2<f32>) {
        self.matmul_columns(index * STRIP_WIDTH, x, y, |_| ());
    }

    /// Columns of a product that one thread computes. With few rows, smaller tasks leave no thread without work at the end.
    fn columns_per_task(&self, rows: usize) -> usize {
        match &self.strips {
            Strips::Panels(..) if rows <= FEW_ROWS => 2 * PANEL_WIDTH,
            Strips::Panels(..) | Strips::Library(_) => STRIP_WIDTH,
        }
    }

    /// `y = epilogue(x W)` for some columns from `start` on, which is the first one of a strip or of a panel.
    /// Shape: `x [rows, inner]`, contiguous row by row, `y [rows, up to STRIP_WIDTH]`.
    fn matmul_columns(&self, start: usize, x: ArrayView2<f32>, y: ArrayViewMut2<f32>, epilogue: impl Fn(&mut [f32])) {
        match &self.strips {
            Strips::Library(strips) => gemm::matmul(1.0, gemm::tensor(x), &strips[start / STRIP_WIDTH], y, epilogue),
            Strips::Panels(kernel, rows) => {
                let panels = start / PANEL_WIDTH..(start + y.ncols()).div_ceil(PANEL_WIDTH);
                kernel.matmul(x, &rows[panels.start * self.inner..panels.end * self.inner], y, epilogue);
            }
        }
    }
}

/// The panels of a matrix. Shape: `w [inner, columns]` → `[panels · inner]`.
fn panels(w: ArrayView2<f32>) -> Mapped<PanelRow> {
    let (inner, columns) = w.dim();
    Mapped::new(columns.div_ceil(PANEL_WIDTH) * inner, |rows: &mut [PanelRow]| {
        rows.par_chunks_exact_mut(inner).enumerate().for_each(|(panel, rows)| {
            let start = panel * PANEL_WIDTH;
            let w = w.slice(s![.., start..columns.min(start + PANEL_WIDTH)]);
            for (row, w) in rows.iter_mut().zip(w.outer_iter()) {
                row.iter_mut().zip(w).for_each(|(value, w)| *value = *w);
            }
        });
    })
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
    #[cfg(not(miri))]
    const SHAPES: [(usize, usize); 8] =
        [(1, 1), (3, 5), (7, 127), (33, 128), (300, 129), (255, 257), (257, 1), (768, 300)];
    /// Miri takes minutes for larger ones.
    #[cfg(miri)]
    const SHAPES: [(usize, usize); 4] = [(1, 1), (3, 5), (7, 33), (258, 2)];

    /// The library's kernel, and those of this processor.
    fn kernels() -> impl Iterator<Item = Option<Kernel>> {
        std::iter::once(None).chain(Kernel::available().into_iter().map(Some))
    }

    #[test]
    fn packed_weights_come_back_bit_by_bit() {
        let mut random = fastrand::Rng::new();
        println!("seed {}", random.get_seed());
        for (shape, kernel) in SHAPES.into_iter().flat_map(|shape| kernels().map(move |kernel| (shape, kernel))) {
            // Any bits: signed zeros, subnormal numbers, infinities, and numbers that are not a number.
            let w = Array2::from_shape_simple_fn(shape, || f32::from_bits(random.u32(..)));
            for w in [w.view(), w.t()] {
                let bits = |w: ArrayView2<f32>| w.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
                let packed = PackedMatrix::for_kernel(kernel, w);
                assert_eq!(bits(packed.to_array().view()), bits(w), "{kernel:?}: {:?}", w.dim());
                assert_eq!(packed.strip_widths().sum::<usize>(), w.ncols());
            }
        }
        let zeros = Array2::from_elem((2, 2), -0.0_f32);
        assert!(PackedMatrix::new(zeros.view()).to_array().iter().all(|w| w.is_sign_negative()));
    }

    /// The golden data was computed with one kernel, and users have others.
    #[test]
    fn products_are_those_of_float64_and_bit_identical_with_every_kernel_on_any_number_of_threads() {
        let mut random = fastrand::Rng::new();
        println!("seed {}", random.get_seed());
        let rows = if cfg!(miri) { vec![0, 1, 6, 7, 13, 14] } else { (0..=28).chain([63, 64, 65, 130]).collect() };
        for ((inner, columns), rows) in rows.into_iter().flat_map(|rows| SHAPES.map(|shape| (shape, rows))) {
            let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), || random.f32() - 0.5);
            let (x, w) = (matrix(rows, inner), matrix(inner, columns));
            let bias = Array1::from_iter((0..columns).map(|column| column as f32));
            let expected = x.mapv(f64::from).dot(&w.mapv(f64::from)) + &bias.mapv(f64::from);
            let mut former: Option<Array2<f32>> = None;
            for kernel in kernels() {
                let packed = PackedMatrix::for_kernel(kernel, w.view());
                let add_bias = |column: usize, y: &mut [f32]| {
                    y.iter_mut().zip(bias.iter().skip(column)).for_each(|(y, bias)| *y += bias);
                };
                let on = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| packed.matmul(x.view(), add_bias).into_owned())
                };
                let (one, three) = (on(1), on(3));
                assert_eq!(one, three);
                let error = (one.mapv(f64::from) - &expected).fold(0.0_f64, |largest, error| largest.max(error.abs()));
                let what = format!("{kernel:?}, {rows} × {inner} × {columns}");
                assert!(error <= 1e-6 * columns.max(inner) as f64, "{what}: {error:e}");
                let former = former.get_or_insert_with(|| one.clone());
                assert_eq!(one, *former, "{what}");
                let columns_first = PackedMatrix::for_kernel(kernel, w.t().as_standard_layout().t());
                assert_eq!(columns_first.matmul(x.as_standard_layout().view(), add_bias).into_owned(), one, "{what}");
            }
        }
    }
}
