//! A quantized matrix, and the products and error bounds that rule out most of a vocabulary. The [module](super)
//! explains the method.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use rten_gemm::{GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::super::gemm;
use super::super::packed::{PackedMatrix, STRIP_WIDTH};
use super::candidates::{
    CandidateList, Candidates, Products, STRIPS_PER_BLOCK, ScanLogits, SharedBound, TOKENS_PER_BLOCK,
};
use super::quantize::{
    ColumnParams, Int8Gemm, QuantizeColumns, QuantizedVectors, ROUNDING, VECTORS_PER_BLOCK, VectorParams, norm,
    round_up, zero_point,
};

/// A quantized matrix `[inner, d_vocab]` with an error bound for each column.
pub(crate) struct Screen {
    /// Blocks of [`TOKENS_PER_BLOCK`] tokens. Shape: each `[inner, up to TOKENS_PER_BLOCK]`.
    blocks: Vec<PackedBMatrix<i8>>,
    columns: ColumnParams,
    /// Removes the zero point of `x̂` from a product: minus the zero point times the sum of the column's integers.
    /// Shape: `[d_vocab]`.
    correction: Vec<i32>,
    /// At least the norm of every column.
    largest_norm: f32,
}

impl Screen {
    /// Quantizes a matrix, which arrives strip by strip. `None` if a weight is not finite.
    ///
    /// `extra_error(token)` is added to the error bound of a column, for a matrix that is rounded itself.
    /// Shape: `strip(i) [inner, up to STRIP_WIDTH]`.
    pub(crate) fn new(
        int8: &Int8Gemm,
        inner: usize,
        d_vocab: usize,
        strip: impl Fn(usize) -> Array2<f32> + Sync,
        extra_error: impl Fn(usize) -> f64 + Sync,
    ) -> Option<Self> {
        let arch = pulp::Arch::new();
        let zero_point = zero_point(int8);
        let block = |first: usize| {
            let tokens = TOKENS_PER_BLOCK.min(d_vocab - first);
            let mut q = vec![0; inner * tokens]; // [inner, tokens]
            let mut columns = ColumnParams::zeros(tokens);
            for (index, start) in (0..tokens).step_by(STRIP_WIDTH).enumerate() {
                let strip = strip(first / STRIP_WIDTH + index);
                let params = columns.range_mut(start..start + strip.ncols());
                arch.dispatch(QuantizeColumns { strip: strip.view(), q: &mut q[start..], stride: tokens, params });
            }
            for (index, (error, norm)) in columns.error.iter_mut().zip(&columns.norm).enumerate() {
                let rounding = ROUNDING * (f64::from(*norm) + f64::from(*error));
                *error = round_up(f64::from(*error) + rounding + extra_error(first + index));
            }
            let mut correction = vec![0; tokens];
            for q in q.chunks_exact(tokens) {
                correction.iter_mut().zip(q).for_each(|(sum, &q)| *sum -= zero_point * i32::from(q));
            }
            (int8.prepack_b(NdTensorView::from_data([inner, tokens], q.as_slice())), columns, correction)
        };
        let starts: Vec<usize> = (0..d_vocab).step_by(TOKENS_PER_BLOCK).collect();
        let quantized: Vec<_> = starts.into_par_iter().map(block).collect();
        let (mut blocks, mut columns) = (Vec::with_capacity(quantized.len()), ColumnParams::zeros(0));
        let mut correction = Vec::with_capacity(d_vocab);
        for (block, block_columns, block_correction) in quantized {
            blocks.push(block);
            correction.extend(block_correction);
            columns.scale.extend(block_columns.scale);
            columns.error.extend(block_columns.error);
            columns.norm.extend(block_columns.norm);
        }
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        let all_finite = finite(&columns.scale) && finite(&columns.error) && finite(&columns.norm);
        let norms = columns.norm.iter().zip(&columns.error).map(|(norm, error)| norm + error);
        let largest_norm = norms.fold(0.0_f32, f32::max);
        all_finite.then_some(Self { blocks, columns, correction, largest_norm })
    }

    /// The size in bytes of a screen of this shape.
    pub(crate) fn bytes(inner: usize, d_vocab: usize) -> usize {
        (inner + 4 * size_of::<f32>()) * d_vocab
    }

    /// At least the norm of a token's column.
    pub(crate) fn norm(&self, token: usize) -> f64 {
        f64::from(self.columns.norm[token]) + f64::from(self.columns.error[token])
    }

    /// The candidates for the `k` best tokens of each vector. Shape: `x [n, inner]`, `bias [d_vocab]` → `[n]`.
    pub(crate) fn candidates(&self, int8: &Int8Gemm, x: ArrayView2<f32>, bias: &[f32], k: usize) -> Vec<Candidates> {
        let QuantizedVectors { blocks, rows_per_block, params } = QuantizedVectors::new(int8, x);
        let scratch = || vec![0; TOKENS_PER_BLOCK * rows_per_block];
        self.scan(&params, rows_per_block, bias, k, scratch, |block, index, products, scan_row| {
            let (x, w) = (&blocks[index], &self.blocks[block]);
            let products = &mut products[..x.rows() * w.cols()]; // [rows, tokens]
            let (x, w) = (GemmInputA::Packed(x), GemmInputB::Packed(w));
            int8.gemm(products, x, w, GemmOptions::default()).expect("the shapes fit each other");
            let tokens = self.tokens(block);
            let [scale, error, norm] = self.columns.range(tokens.clone());
            let correction = &self.correction[tokens.clone()];
            for (row, products) in products.chunks_exact(tokens.len()).enumerate() {
                scan_row(row, Products::Integers { products, correction, scale }, error, norm);
            }
        })
    }

    /// [`candidates`](Self::candidates), with float products of the columns themselves.
    /// Shape: `w [inner, d_vocab]`, `x [n, inner]`, `bias [d_vocab]` → `[n]`.
    pub(crate) fn candidates_by_floats(
        &self,
        w: &PackedMatrix,
        x: ArrayView2<f32>,
        bias: &[f32],
        k: usize,
    ) -> Vec<Candidates> {
        // The rounding error of a sum of n float products is below n ε times the sum of their magnitudes.
        let relative_error = 1.01 * f32::EPSILON * w.dim().0 as f32 + ROUNDING as f32;
        let params = x.outer_iter().map(|x| VectorParams { scale: 0.0, relative_error, norm: round_up(norm(x)) });
        let params: Vec<VectorParams> = params.collect();
        let rows_per_block = params.len().clamp(1, VECTORS_PER_BLOCK);
        let scratch = || Array2::zeros((rows_per_block, TOKENS_PER_BLOCK));
        self.scan(&params, rows_per_block, bias, k, scratch, |block, index, products, scan_row| {
            // [rows, inner]
            let x = x.axis_chunks_iter(Axis(0), rows_per_block).nth(index).expect("a block of vectors");
            let strips = w.strips().chunks(STRIPS_PER_BLOCK).nth(block).expect("a block of strips");
            let tokens = self.tokens(block);
            let mut products = products.slice_mut(s![..x.nrows(), ..tokens.len()]);
            for (strip, products) in strips.iter().zip(products.axis_chunks_iter_mut(Axis(1), STRIP_WIDTH)) {
                gemm::matmul(1.0, gemm::tensor(x), strip, products, |_| ());
            }
            let [_, error, norm] = self.columns.range(tokens);
            let error: Vec<f32> = error.iter().map(|error| error * relative_error).collect();
            for (row, products) in products.outer_iter().enumerate() {
                let products = products.to_slice().expect("a row is contiguous");
                scan_row(row, Products::Floats(products), &error, norm);
            }
        })
    }

    /// The tokens of a block.
    fn tokens(&self, block: usize) -> Range<usize> {
        block * TOKENS_PER_BLOCK..((block + 1) * TOKENS_PER_BLOCK).min(self.correction.len())
    }

    /// Scans the vocabulary block by block, and returns the candidates of each vector.
    /// Shape: `params [n]`, `bias [d_vocab]` → `[n]`.
    ///
    /// `compute(block of tokens, block of vectors, scratch, scan_row)` computes the products of two blocks, and calls
    /// `scan_row(row in the block of vectors, products, error, norm)` for each vector. Shape: `error`, `norm` each
    /// `[tokens]`.
    fn scan<T: Send>(
        &self,
        params: &[VectorParams],
        rows_per_block: usize,
        bias: &[f32],
        k: usize,
        scratch: impl Fn() -> T + Sync + Send,
        compute: impl Fn(usize, usize, &mut T, &mut dyn FnMut(usize, Products, &[f32], &[f32])) + Sync + Send,
    ) -> Vec<Candidates> {
        let largest_bias = bias.iter().fold(0.0_f32, |largest, b| largest.max(b.abs()));
        let bias_rounding = ROUNDING as f32 * largest_bias + f32::MIN_POSITIVE;
        let arch = pulp::Arch::new();
        // A bound that one task finds holds for all of them.
        let shared: Vec<SharedBound> = params.iter().map(|_| SharedBound::default()).collect();
        let empty = || params.iter().map(|x| CandidateList::new(k, x, self.largest_norm)).collect::<Vec<_>>();
        // Each rayon task folds a range of consecutive blocks, and the lists are joined in order. A task starts without
        // bounds of its own, so there are only two per thread.
        let blocks = (0..self.blocks.len()).into_par_iter();
        let blocks_per_task = self.blocks.len().div_ceil(2 * rayon::current_num_threads());
        let folds = blocks.with_min_len(blocks_per_task).fold(
            || (empty(), scratch()),
            |(mut lists, mut scratch), block| {
                let tokens = self.tokens(block);
                let (bias, first) = (&bias[tokens.clone()], tokens.start);
                for start in (0..params.len()).step_by(rows_per_block) {
                    let mut scan_row = |row: usize, products: Products, error: &[f32], norm: &[f32]| {
                        let row = start + row;
                        let (list, shared, x) = (&mut lists[row], &shared[row], params[row]);
                        arch.dispatch(ScanLogits {
                            list,
                            shared,
                            x,
                            products,
                            error,
                            norm,
                            bias,
                            bias_rounding,
                            first,
                        });
                    };
                    compute(block, start / rows_per_block, &mut scratch, &mut scan_row);
                }
                (lists, scratch)
            },
        );
        let join = |mut lists: Vec<CandidateList>, later: Vec<CandidateList>| {
            lists.iter_mut().zip(later).for_each(|(list, later)| list.append(later));
            lists
        };
        let lists = folds.map(|(lists, _)| lists).reduce_with(join).unwrap_or_else(empty);
        lists.into_iter().map(CandidateList::finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the two best tokens of each vector are candidates, and returns the number of candidates of each.
    /// Shape: `logits [n, d_vocab]`.
    fn check(candidates: &[Candidates], logits: &Array2<f64>) -> Vec<usize> {
        assert_eq!(candidates.len(), logits.nrows());
        let check_vector = |(candidates, logits): (&Candidates, ndarray::ArrayView1<f64>)| {
            let mut best: Vec<usize> = (0..logits.len()).collect();
            best.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            if let Candidates::Tokens(tokens) = candidates {
                assert!(best[..2].iter().all(|&token| tokens.contains(&(token as u32))));
                assert!(tokens.is_sorted());
            }
            candidates.len(logits.len())
        };
        candidates.iter().zip(logits.outer_iter()).map(check_vector).collect()
    }

    #[test]
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

        let (int8, packed) = (Int8Gemm::new(), PackedMatrix::new(w.view()));
        let strips: Vec<ArrayView2<f32>> = w.axis_chunks_iter(Axis(1), STRIP_WIDTH).collect();
        let screen = Screen::new(&int8, inner, d_vocab, |index| strips[index].to_owned(), |_| 0.0).unwrap();
        let many = check(&screen.candidates(&int8, x.view(), &bias, 2), &logits);
        let few = check(&screen.candidates_by_floats(&packed, x.view(), &bias, 2), &logits);
        assert!(many.iter().all(|&number| number > 100), "{many:?}");
        assert!(few[n / 3..].iter().all(|&number| number < 20), "{few:?}");
    }
}
