//! Screening with products of floats, whose bounds are a thousand times narrower than those of 8-bit integers.

use ndarray::{Array2, ArrayView2, Axis, s};

use super::super::packed::{PackedMatrix, STRIP_WIDTH};
use super::candidates::Candidates;
use super::quantize::{ROUNDING, VectorParams, norm, round_up};
use super::scan::{Products, STRIPS_PER_BLOCK, Scan, TOKENS_PER_BLOCK, VECTORS_PER_BLOCK, tokens};

/// The candidates for the `k` best tokens of each vector; `norms` are at least those of the columns of `w`.
/// Shape: `w [inner, d_vocab]`, `norms [d_vocab]`, `x [n, inner]`, `bias [d_vocab]` → `[n]`.
pub(crate) fn candidates_by_floats(
    w: &PackedMatrix,
    norms: &[f32],
    x: ArrayView2<f32>,
    bias: &[f32],
    k: usize,
) -> Vec<Candidates> {
    // The rounding error of a sum of n float products is below n ε times the sum of their magnitudes.
    let relative_error = 1.01 * f32::EPSILON * w.dim().0 as f32 + ROUNDING as f32;
    let params = x.outer_iter().map(|x| VectorParams { scale: 0.0, relative_error, norm: round_up(norm(x)) });
    let params: Vec<VectorParams> = params.collect();
    let rows_per_block = params.len().clamp(1, VECTORS_PER_BLOCK);
    let largest_norm = norms.iter().copied().fold(0.0, f32::max);
    let no_error = [0.0; TOKENS_PER_BLOCK]; // of the columns, which are not quantized
    let scan = Scan { params: &params, rows_per_block, bias, k, largest_norm };
    let scratch = || Array2::zeros((rows_per_block, TOKENS_PER_BLOCK));
    scan.run(scratch, |block, index, products, scan_row| {
        // [rows, inner]
        let x = x.axis_chunks_iter(Axis(0), rows_per_block).nth(index).expect("a block of vectors");
        let tokens = tokens(block, bias.len());
        let mut products = products.slice_mut(s![..x.nrows(), ..tokens.len()]);
        let strips = products.axis_chunks_iter_mut(Axis(1), STRIP_WIDTH).enumerate();
        strips.for_each(|(strip, y)| w.strip_matmul(block * STRIPS_PER_BLOCK + strip, x, y));
        for (row, products) in products.outer_iter().enumerate() {
            let products = products.to_slice().expect("a row is contiguous");
            scan_row(row, Products::Floats(products), &no_error[..tokens.len()], &norms[tokens.clone()]);
        }
    })
}
