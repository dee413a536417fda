//! Goes through the vocabulary block by block, where products are written to memory before they are compared.

use std::ops::Range;

use rayon::prelude::*;

use super::super::packed::STRIP_WIDTH;
use super::candidates::{CandidateList, Candidates, SharedBound};
use super::quantize::{VectorParams, bias_rounding};

/// Strips whose products are in memory at a time.
pub(super) const STRIPS_PER_BLOCK: usize = 2;
/// Tokens whose products are in memory at a time.
pub(super) const TOKENS_PER_BLOCK: usize = STRIPS_PER_BLOCK * STRIP_WIDTH;
/// Vectors per block: their products with a block of tokens take a fifth of the L2 cache.
pub(super) const VECTORS_PER_BLOCK: usize = 192;
/// Tokens whose upper bounds are compared together, so that chunks without a candidate are skipped.
const CHUNK: usize = 64;

/// Vectors, and the vocabulary that they are multiplied with.
pub(super) struct Scan<'a> {
    /// Shape: `[n]`.
    pub(super) params: &'a [VectorParams],
    pub(super) rows_per_block: usize,
    /// Shape: `[d_vocab]`.
    pub(super) bias: &'a [f32],
    pub(super) k: usize,
    /// At least the norm of every column.
    pub(super) largest_norm: f32,
}

impl Scan<'_> {
    /// Returns the candidates of each vector. Shape: → `[n]`.
    ///
    /// `compute(block of tokens, block of vectors, scratch, scan_row)` computes the products of two blocks, and calls
    /// `scan_row(row in the block of vectors, products, error, norm)` for each vector. Shape: `error`, `norm` each
    /// `[tokens]`.
    pub(super) fn run<T: Send>(
        &self,
        scratch: impl Fn() -> T + Sync + Send,
        compute: impl Fn(usize, usize, &mut T, &mut dyn FnMut(usize, Products, &[f32], &[f32])) + Sync + Send,
    ) -> Vec<Candidates> {
        let &Self { params, rows_per_block, bias, k, largest_norm } = self;
        let bias_rounding = bias_rounding(bias);
        let arch = pulp::Arch::new();
        // A bound that one task finds holds for all of them.
        let shared: Vec<SharedBound> = params.iter().map(|_| SharedBound::default()).collect();
        let empty = || params.iter().map(|x| CandidateList::new(k, x, largest_norm)).collect::<Vec<_>>();
        // Each rayon task folds a range of consecutive blocks. A task starts without bounds of its own, so there are only
        // two per thread.
        let number_of_blocks = bias.len().div_ceil(TOKENS_PER_BLOCK);
        let blocks = (0..number_of_blocks).into_par_iter();
        let blocks_per_task = number_of_blocks.div_ceil(2 * rayon::current_num_threads());
        let folds = blocks.with_min_len(blocks_per_task).fold(
            || (empty(), scratch()),
            |(mut lists, mut scratch), block| {
                let tokens = tokens(block, bias.len());
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

/// The tokens of a block.
pub(super) fn tokens(block: usize, d_vocab: usize) -> Range<usize> {
    block * TOKENS_PER_BLOCK..((block + 1) * TOKENS_PER_BLOCK).min(d_vocab)
}

/// `x · w` of one vector and a block of tokens, approximately.
#[derive(Clone, Copy)]
pub(super) enum Products<'a> {
    /// `x̂ · ŵ = (products + correction) · scale · x.scale`. Shape: each `[tokens]`.
    Integers { products: &'a [i32], correction: &'a [i32], scale: &'a [f32] },
    /// Shape: `[tokens]`.
    Floats(&'a [f32]),
}

/// Adds the candidates of a block of tokens to a vector's list, and skips all other tokens a chunk at a time.
struct ScanLogits<'a> {
    list: &'a mut CandidateList,
    shared: &'a SharedBound,
    x: VectorParams,
    products: Products<'a>,
    /// The error of a product, relative to `‖x‖`, that is due to `w`. Shape: `[tokens]`.
    error: &'a [f32],
    /// At least `‖ŵ‖`. Shape: `[tokens]`.
    norm: &'a [f32],
    /// Shape: `[tokens]`.
    bias: &'a [f32],
    /// The rounding error of adding the bias.
    bias_rounding: f32,
    /// The first token of the block.
    first: usize,
}

impl pulp::WithSimd for ScanLogits<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { list, shared, x, products, error, norm, bias, bias_rounding, first } = self;
        if list.is_all() {
            return;
        }
        list.learn(shared);
        let mut threshold = list.bound() - bias_rounding;
        let before = list.len();
        // Without a fused instruction, `f32::mul_add` calls a slow library function.
        let mul_add = |a: f32, b: f32, c: f32| if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) };
        let relative_bound = |error: f32, norm: f32| mul_add(norm, x.relative_error, error); // relative to ‖x‖
        // Loops without branches, which the compiler vectorizes.
        let mut high = [0.0_f32; TOKENS_PER_BLOCK];
        let params = error.iter().zip(norm).zip(bias);
        match products {
            Products::Integers { products, correction, scale } => {
                let products = products.iter().zip(correction).zip(scale);
                for (high, (((product, correction), &scale), ((&error, &norm), &bias))) in
                    high.iter_mut().zip(products.zip(params))
                {
                    let integer = product + correction;
                    let bound_and_bias = mul_add(relative_bound(error, norm), x.norm, bias);
                    *high = mul_add(integer as f32 * scale, x.scale, bound_and_bias);
                }
            }
            Products::Floats(products) => {
                for (high, (product, ((&error, &norm), &bias))) in high.iter_mut().zip(products.iter().zip(params)) {
                    *high = product + mul_add(relative_bound(error, norm), x.norm, bias);
                }
            }
        }
        for (chunk, high) in high[..bias.len()].chunks(CHUNK).enumerate() {
            let above: u32 = high.iter().map(|&high| u32::from(high >= threshold)).sum();
            if above == 0 {
                continue;
            }
            for (at, &high) in (chunk * CHUNK..).zip(high) {
                if high >= threshold {
                    let bound = relative_bound(error[at], norm[at]) * x.norm + bias_rounding;
                    list.push((first + at) as u32, high - 2.0 * bound, high + bias_rounding);
                    threshold = list.bound() - bias_rounding;
                }
            }
        }
        if list.len() > before {
            shared.raise(list.bound());
        }
    }
}
