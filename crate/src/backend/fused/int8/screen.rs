//! A quantized matrix, and the products and error bounds that rule out most of a vocabulary. The [module](super)
//! explains the method.

use ndarray::{Array2, ArrayView2};

use super::blocks::Blocks;
use super::candidates::Candidates;
use super::kernel::Kernel;
use super::library::PackedColumns;
use super::quantize::QuantizedColumns;

/// A quantized matrix `[inner, d_vocab]` with an error bound for each column.
pub(crate) struct Screen {
    kernel: Kernel,
    columns: Columns,
}

/// The integers as the kernel reads them.
enum Columns {
    Library(PackedColumns),
    Blocks(Blocks),
}

impl Screen {
    /// Quantizes a matrix, which arrives strip by strip. `None` if a weight is not finite. Also returns at least the norm
    /// of each column.
    ///
    /// `extra_error(token)` is added to the error bound of a column, for a matrix that is rounded itself.
    /// Shape: `strip(i) [inner, up to STRIP_WIDTH]` → norms `[d_vocab]`.
    pub(crate) fn new(
        kernel: Kernel,
        inner: usize,
        d_vocab: usize,
        strip: impl Fn(usize) -> Array2<f32> + Sync,
        extra_error: impl Fn(usize) -> f64 + Sync,
    ) -> Option<(Self, Vec<f32>)> {
        let quantized = QuantizedColumns::new(kernel.zero_point(), inner, d_vocab, strip, extra_error)?;
        let norms = quantized.columns.norms();
        let columns = match kernel {
            Kernel::Library => Columns::Library(PackedColumns::new(quantized)),
            _ => Columns::Blocks(Blocks::new(kernel, &quantized)),
        };
        Some((Self { kernel, columns }, norms))
    }

    /// The most bytes that a screen of this shape takes.
    pub(crate) fn bytes(inner: usize, d_vocab: usize) -> usize {
        PackedColumns::bytes(inner, d_vocab).max(Blocks::bytes(inner, d_vocab))
    }

    /// The candidates for the `k` best tokens of each vector. Shape: `x [n, inner]`, `bias [d_vocab]` → `[n]`.
    pub(crate) fn candidates(&self, x: ArrayView2<f32>, bias: &[f32], k: usize) -> Vec<Candidates> {
        match &self.columns {
            Columns::Library(columns) => columns.candidates(self.kernel.zero_point(), x, bias, k),
            Columns::Blocks(blocks) => blocks.candidates(x, bias, k),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Axis, s};

    use super::super::super::packed::{PackedMatrix, STRIP_WIDTH};
    use super::super::candidates_by_floats;
    use super::*;

    /// The screen of a matrix, and at least the norm of each column. Shape: `w [inner, d_vocab]`.
    fn screen(kernel: Kernel, w: &Array2<f32>) -> (Screen, Vec<f32>) {
        let strips: Vec<ArrayView2<f32>> = w.axis_chunks_iter(Axis(1), STRIP_WIDTH).collect();
        Screen::new(kernel, w.nrows(), w.ncols(), |index| strips[index].to_owned(), |_| 0.0).unwrap()
    }

    /// Checks that the `k` best tokens of each vector are candidates, and returns the number of candidates of each.
    /// Shape: `logits [n, d_vocab]`.
    fn check(candidates: &[Candidates], logits: &Array2<f64>, k: usize) -> Vec<usize> {
        assert_eq!(candidates.len(), logits.nrows());
        let check_vector = |(candidates, logits): (&Candidates, ndarray::ArrayView1<f64>)| {
            let mut best: Vec<usize> = (0..logits.len()).collect();
            best.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            if let Candidates::Tokens(tokens) = candidates {
                assert!(best.iter().take(k).all(|&token| tokens.contains(&(token as u32))));
                assert!(tokens.is_sorted());
            }
            candidates.len(logits.len())
        };
        candidates.iter().zip(logits.outer_iter()).map(check_vector).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri hours; the next test runs the same kernels")]
    fn no_best_token_is_ruled_out_and_floats_leave_fewer_candidates_than_integers() {
        let mut random = fastrand::Rng::new();
        println!("seed {}", random.get_seed());
        let (n, inner, d_vocab) = (230, 70, 5001);
        let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), || random.f32() - 0.5);
        let (mut x, mut w, bias) = (matrix(n, inner), matrix(inner, d_vocab), matrix(1, d_vocab));
        let bias: Vec<f32> = bias.iter().map(|b| 0.1 * b).collect();
        // All columns and a third of the vectors have an outlier, for which the scale is too coarse for the other
        // entries.
        w.row_mut(3).mapv_inplace(|w| 1e4 * w);
        x.column_mut(3).fill(0.0);
        x.slice_mut(s![..n / 3, 5]).fill(1e4);
        w.row_mut(5).mapv_inplace(|w| 1e-4 * w);
        let logits = x.mapv(f64::from).dot(&w.mapv(f64::from)) + &ndarray::arr1(&bias).mapv(f64::from);
        for kernel in Kernel::available() {
            let (screen, norms) = screen(kernel, &w);
            let many = check(&screen.candidates(x.view(), &bias, 2), &logits, 2);
            let packed = PackedMatrix::new(w.view());
            let few = check(&candidates_by_floats(&packed, &norms, x.view(), &bias, 2), &logits, 2);
            assert!(many.iter().all(|&number| number > 100), "{kernel:?}: {many:?}");
            assert!(few[n / 3..].iter().all(|&number| number < 20), "{few:?}");
        }
    }

    #[test]
    fn every_kernel_keeps_the_best_tokens_and_few_others() {
        let mut random = fastrand::Rng::new();
        println!("seed {}", random.get_seed());
        let shapes = [(1, 1, 1), (1, 3, 31), (7, 4, 32), (8, 5, 33), (9, 64, 1000), (130, 64, 4099), (700, 17, 640)];
        let (biases, threads) = ([(0.01, 2), (0.0, 1), (10.0, 3)], [3, 1, 64]);
        // The others take Miri hours.
        let (n_shapes, n_biases, n_threads) = if cfg!(miri) { (4, 1, 1) } else { (7, 3, 3) };
        let (shapes, biases, threads) = (&shapes[..n_shapes], &biases[..n_biases], &threads[..n_threads]);
        for &(n, inner, d_vocab) in shapes {
            let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), || random.f32() - 0.5);
            let (mut x, mut w, bias) = (matrix(n, inner), matrix(inner, d_vocab), matrix(1, d_vocab));
            // Columns of very different size, equal ones, and one of zeros: most of the vocabulary can be left out.
            for (token, mut column) in w.columns_mut().into_iter().enumerate() {
                column *= 0.5_f32.powi((token % 7) as i32) * if token % 11 == 5 { 0.0 } else { 1.0 };
            }
            if d_vocab > 20 {
                let column = w.column(d_vocab / 2).to_owned();
                w.column_mut(d_vocab - 1).assign(&column);
            }
            x.row_mut(n / 2).fill(0.0);
            x.row_mut(n - 1).mapv_inplace(|x| 1e-20 * x);
            let limit = if inner < 16 { d_vocab } else { 10 + d_vocab / 10 };
            for &(size_of_bias, k) in biases {
                let bias: Vec<f32> = bias.iter().map(|b| size_of_bias * b).collect();
                let logits = x.mapv(f64::from).dot(&w.mapv(f64::from)) + &ndarray::arr1(&bias).mapv(f64::from);
                for kernel in Kernel::available() {
                    for &threads in threads {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                        let candidates = pool.install(|| screen(kernel, &w).0.candidates(x.view(), &bias, k));
                        let numbers = check(&candidates, &logits, k);
                        // Vectors without direction: every token, or every one with the largest bias, is as good as another.
                        let plain = numbers.iter().enumerate().filter(|&(row, _)| row != n / 2 && row != n - 1);
                        for (row, &number) in plain {
                            assert!(number <= limit, "{kernel:?}, {n} × {inner} × {d_vocab}, row {row}: {number}");
                        }
                    }
                }
            }
        }
    }
}
