//! Which tokens can be among a vector's best, found out with integers of 8 bits.
//!
//! The logit of a token is `x · w + b`. With `x̂` and `ŵ`, whole multiples of a step, in place of `x` and `w`, products are
//! exact, need a quarter of the memory, and processors have instructions for them. By Cauchy and Schwarz
//!
//! ```text
//! |x · w − x̂ · ŵ| ≤ ‖x‖ ‖w − ŵ‖ + ‖x − x̂‖ ‖ŵ‖
//! ```
//!
//! so a token whose logit is below the k-th best even with the bound added is none of the k best: no token that is one
//! is ever lost. A few dozen of GPT-2's 50257 are left, whose logits are then computed as they should be. Where a column or
//! a vector has a few entries that are much larger than all others, the bounds are wide and leave too many: such vectors
//! are [screened with products of floats](Screen::candidates_by_floats), whose bounds are a thousand times narrower.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2, s};
use rayon::prelude::*;
use rten_gemm::{GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::super::gemm;
use super::super::packed::{PackedMatrix, WIDTH};
use super::candidates::{Candidates, Found, Look, PANELS, Products, Sure, TOKENS};
use super::quantize::{Integers, OfTokens, OfVector, ROUNDING, ROWS, RoundColumns, Rounded, norm, up, zero};

/// The columns `w` of all tokens, rounded, and how far they are from what they stand for.
pub(in crate::backend::fused) struct Screen {
    /// Blocks of [`TOKENS`] tokens. Shape of each: `[inner, up to TOKENS]`.
    blocks: Vec<PackedBMatrix<i8>>,
    of_tokens: OfTokens,
    /// To be added to a product, because integers that are not negative stand for those of `x̂`: what stands for zero,
    /// times the sum of the token's integers, taken away.
    correction: Vec<i32>,
    /// The largest that any token's `‖w‖` can be.
    largest_norm: f32,
}

impl Screen {
    /// The columns arrive panel by panel; `more_error` says how much further from the truth that of a token is. `None` if
    /// there are numbers that are not finite. Shape: `panel(i) [inner, up to WIDTH]`.
    pub(in crate::backend::fused) fn new<'a>(
        integers: &Integers,
        inner: usize,
        d_vocab: usize,
        panel: impl Fn(usize) -> CowArray<'a, f32, Ix2> + Sync,
        more_error: impl Fn(usize) -> f64 + Sync,
    ) -> Option<Self> {
        let arch = pulp::Arch::new();
        let zero = zero(integers);
        let block = |first: usize| {
            let tokens = TOKENS.min(d_vocab - first);
            let mut q = vec![0; inner * tokens];
            let mut of_tokens = OfTokens::zeros(tokens);
            for (index, start) in (0..tokens).step_by(WIDTH).enumerate() {
                let panel = panel(first / WIDTH + index);
                let of_panel = of_tokens.range(start..start + panel.ncols());
                arch.dispatch(RoundColumns { panel: panel.view(), q: &mut q[start..], stride: tokens, of_panel });
            }
            for (index, (error, norm)) in of_tokens.error.iter_mut().zip(&of_tokens.norm).enumerate() {
                let rounding = ROUNDING * (f64::from(*norm) + f64::from(*error));
                *error = up(f64::from(*error) + rounding + more_error(first + index));
            }
            let mut correction = vec![0; tokens];
            for q in q.chunks_exact(tokens) {
                correction.iter_mut().zip(q).for_each(|(sum, &q)| *sum -= zero * i32::from(q));
            }
            (integers.prepack_b(NdTensorView::from_data([inner, tokens], q.as_slice())), of_tokens, correction)
        };
        let firsts: Vec<usize> = (0..d_vocab).step_by(TOKENS).collect();
        let made: Vec<_> = firsts.into_par_iter().map(block).collect();
        let (mut blocks, mut of_tokens) = (Vec::with_capacity(made.len()), OfTokens::zeros(0));
        let mut correction = Vec::with_capacity(d_vocab);
        for (block, of_block, of_zero) in made {
            blocks.push(block);
            correction.extend(of_zero);
            of_tokens.step.extend(of_block.step);
            of_tokens.error.extend(of_block.error);
            of_tokens.norm.extend(of_block.norm);
        }
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        let all_finite = finite(&of_tokens.step) && finite(&of_tokens.error) && finite(&of_tokens.norm);
        let norms = of_tokens.norm.iter().zip(&of_tokens.error).map(|(norm, error)| norm + error);
        let largest_norm = norms.fold(0.0_f32, f32::max);
        all_finite.then_some(Self { blocks, of_tokens, correction, largest_norm })
    }

    /// The memory that a screen of such a size takes.
    pub(in crate::backend::fused) fn bytes(inner: usize, d_vocab: usize) -> usize {
        (inner + 4 * size_of::<f32>()) * d_vocab
    }

    /// At least the norm of a token's column.
    pub(in crate::backend::fused) fn norm(&self, token: usize) -> f64 {
        f64::from(self.of_tokens.norm[token]) + f64::from(self.of_tokens.error[token])
    }

    /// The tokens that can be among the `wanted` best of each vector. Shape: `x [n, inner]`, `bias [d_vocab]` → `[n]`.
    pub(in crate::backend::fused) fn candidates(
        &self,
        integers: &Integers,
        x: ArrayView2<f32>,
        bias: &[f32],
        wanted: usize,
    ) -> Vec<Candidates> {
        let Rounded { blocks, rows_a_block, rows } = Rounded::new(integers, x);
        let blank = || vec![0; TOKENS * rows_a_block];
        self.look_through(&rows, rows_a_block, bias, wanted, blank, |block, index, products, look| {
            let (rows, w) = (&blocks[index], &self.blocks[block]);
            let products = &mut products[..rows.rows() * w.cols()];
            let (x, w) = (GemmInputA::Packed(rows), GemmInputB::Packed(w));
            integers.gemm(products, x, w, GemmOptions::default()).expect("the shapes fit each other");
            let tokens = self.tokens(block);
            let [step, error, norm] = self.of_tokens.view(tokens.clone());
            let correction = &self.correction[tokens.clone()];
            for (row, products) in products.chunks_exact(tokens.len()).enumerate() {
                look(row, Products::Integers { products, correction, step }, error, norm);
            }
        })
    }

    /// As [`candidates`](Self::candidates), by products of floats with the columns themselves. Shape: `w [inner, d_vocab]`.
    pub(in crate::backend::fused) fn candidates_by_floats(
        &self,
        w: &PackedMatrix,
        x: ArrayView2<f32>,
        bias: &[f32],
        wanted: usize,
    ) -> Vec<Candidates> {
        // A sum of so many products of floats is off by less than so many ε times the sum of their magnitudes.
        let share = 1.01 * f32::EPSILON * w.dim().0 as f32 + ROUNDING as f32;
        let rows: Vec<OfVector> =
            x.outer_iter().map(|x| OfVector { step: 0.0, off: share, norm: up(norm(x)) }).collect();
        let panels: Vec<ArrayView2<f32>> = w.iter().collect();
        let rows_a_block = rows.len().clamp(1, ROWS);
        let blank = || Array2::zeros((rows_a_block, TOKENS));
        self.look_through(&rows, rows_a_block, bias, wanted, blank, |block, index, products, look| {
            let x = x.axis_chunks_iter(Axis(0), rows_a_block).nth(index).expect("a block of vectors");
            let mut width = 0;
            for panel in &panels[block * PANELS..((block + 1) * PANELS).min(panels.len())] {
                let end = width + panel.ncols();
                gemm::product(1.0, x, *panel, products.slice_mut(s![..x.nrows(), width..end]));
                width = end;
            }
            let [_, error, norm] = self.of_tokens.view(self.tokens(block));
            let error: Vec<f32> = error.iter().map(|error| error * share).collect();
            for (row, products) in products.outer_iter().take(x.nrows()).enumerate() {
                let products = &products.to_slice().expect("a row is contiguous")[..width];
                look(row, Products::Floats(products), &error, norm);
            }
        })
    }

    /// The tokens of a block.
    fn tokens(&self, block: usize) -> Range<usize> {
        block * TOKENS..((block + 1) * TOKENS).min(self.correction.len())
    }

    /// Goes through all tokens, block by block. `products(block of tokens, block of vectors, memory, look)` computes
    /// products and gives them to `look(vector of its block, products, error, norm)`.
    fn look_through<T: Send>(
        &self,
        rows: &[OfVector],
        rows_a_block: usize,
        bias: &[f32],
        wanted: usize,
        blank: impl Fn() -> T + Sync + Send,
        products: impl Fn(usize, usize, &mut T, &mut dyn FnMut(usize, Products, &[f32], &[f32])) + Sync + Send,
    ) -> Vec<Candidates> {
        let largest_bias = bias.iter().fold(0.0_f32, |most, b| most.max(b.abs()));
        let bias_rounding = ROUNDING as f32 * largest_bias + f32::MIN_POSITIVE;
        let arch = pulp::Arch::new();
        // What one run is sure of holds for the others.
        let sure: Vec<Sure> = rows.iter().map(|_| Sure::default()).collect();
        let begin = || rows.iter().map(|row| Found::new(wanted, row, self.largest_norm)).collect::<Vec<_>>();
        // rayon folds runs of neighbouring blocks and joins the runs in order. Every run begins without knowing how good
        // the best tokens are, so there should be few.
        let blocks = (0..self.blocks.len()).into_par_iter();
        let blocks_a_run = self.blocks.len().div_ceil(2 * rayon::current_num_threads());
        let folds = blocks.with_min_len(blocks_a_run).fold(
            || (begin(), blank()),
            |(mut found, mut memory), block| {
                let tokens = self.tokens(block);
                let (bias, first) = (&bias[tokens.clone()], tokens.start);
                for start in (0..rows.len()).step_by(rows_a_block) {
                    let mut look = |row: usize, products: Products, error: &[f32], norm: &[f32]| {
                        let row = start + row;
                        let (found, sure, x) = (&mut found[row], &sure[row], rows[row]);
                        arch.dispatch(Look { found, sure, x, products, error, norm, bias, bias_rounding, first });
                    };
                    products(block, start / rows_a_block, &mut memory, &mut look);
                }
                (found, memory)
            },
        );
        let join = |mut low: Vec<Found>, high: Vec<Found>| {
            low.iter_mut().zip(high).for_each(|(low, high)| low.append(high));
            low
        };
        let found = folds.map(|(found, _)| found).reduce_with(join).unwrap_or_else(begin);
        found.into_iter().map(Found::finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each vector, whether its two best tokens are among the candidates, and how many there are.
    fn check(candidates: &[Candidates], logits: &Array2<f64>) -> Vec<usize> {
        assert_eq!(candidates.len(), logits.nrows());
        let of_vector = |(candidates, logits): (&Candidates, ndarray::ArrayView1<f64>)| {
            let mut best: Vec<usize> = (0..logits.len()).collect();
            best.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            if let Candidates::Some(tokens) = candidates {
                assert!(best[..2].iter().all(|&token| tokens.contains(&(token as u32))));
                assert!(tokens.is_sorted());
            }
            candidates.number(logits.len())
        };
        candidates.iter().zip(logits.outer_iter()).map(of_vector).collect()
    }

    #[test]
    fn no_best_token_is_lost_and_floats_leave_few_where_integers_leave_many() {
        let mut random = fastrand::Rng::new();
        println!("seed {}", random.get_seed());
        let (n, inner, d_vocab) = (230, 70, 5001);
        let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), || random.f32() - 0.5);
        let (mut x, mut w, bias) = (matrix(n, inner), matrix(inner, d_vocab), matrix(1, d_vocab));
        let bias: Vec<f32> = bias.iter().map(|b| 0.1 * b).collect();
        // In a third of the vectors and in all columns there is a number that makes the steps too long for the others.
        w.row_mut(3).mapv_inplace(|w| 1e4 * w);
        x.column_mut(3).fill(0.0);
        x.slice_mut(s![..n / 3, 5]).fill(1e4);
        w.row_mut(5).mapv_inplace(|w| 1e-4 * w);
        let logits = x.mapv(f64::from).dot(&w.mapv(f64::from)) + &ndarray::arr1(&bias).mapv(f64::from);

        let (integers, panels) = (Integers::new(), PackedMatrix::new(w.view()));
        let views: Vec<ArrayView2<f32>> = panels.iter().collect();
        let screen = Screen::new(&integers, inner, d_vocab, |index| CowArray::from(views[index]), |_| 0.0).unwrap();
        let many = check(&screen.candidates(&integers, x.view(), &bias, 2), &logits);
        let few = check(&screen.candidates_by_floats(&panels, x.view(), &bias, 2), &logits);
        assert!(many.iter().all(|&number| number > 100), "{many:?}");
        assert!(few[n / 3..].iter().all(|&number| number < 20), "{few:?}");
    }
}
