//! Quantization: columns and vectors as a scale times 8-bit integers, with the error of each.
//!
//! A column `w` becomes `ŵ = scale · q` with `q` from −127 to 127, a vector `x` becomes `x̂ = scale · (q − zero_point)`
//! with unsigned `q`. Instructions for 8-bit products multiply unsigned by signed integers.

use std::ops::Range;

use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, PackedAMatrix};
use rten_tensor::NdTensorView;

use super::super::packed::STRIP_WIDTH;

/// Matrix products of unsigned and signed 8-bit integers, summed in 32 bits.
pub(crate) type Int8Gemm = GemmExecutor<u8, i8, i32>;

/// The largest magnitude of a quantized weight.
const MAX_QUANTIZED: f32 = 127.0;
/// A relative margin above the float rounding of the few operations that compute a bound or a logit.
pub(super) const ROUNDING: f64 = 1e-6;
/// Vectors per block: their products with a block of tokens take a fifth of the L2 cache.
pub(super) const VECTORS_PER_BLOCK: usize = 192;

/// The scale, error bound and norm of each token's column.
pub(super) struct ColumnParams {
    /// `ŵ` is this times integers. Shape: `[tokens]`.
    pub(super) scale: Vec<f32>,
    /// At least `‖w − ŵ‖`. Shape: `[tokens]`.
    pub(super) error: Vec<f32>,
    /// At least `‖ŵ‖`. Shape: `[tokens]`.
    pub(super) norm: Vec<f32>,
}

/// Quantized vectors, in blocks.
pub(super) struct QuantizedVectors {
    /// Blocks of equal size (the last may be smaller by a few rows): a short last block would cost a pass over all
    /// tokens for little.
    pub(super) blocks: Vec<PackedAMatrix<u8>>,
    pub(super) rows_per_block: usize,
    pub(super) params: Vec<VectorParams>,
}

/// The scale, error bound and norm of a vector.
#[derive(Clone, Copy)]
pub(super) struct VectorParams {
    /// `x̂` is this times integers.
    pub(super) scale: f32,
    /// At least `‖x − x̂‖ / ‖x‖`.
    pub(super) relative_error: f32,
    /// At least `‖x‖`.
    pub(super) norm: f32,
}

/// The integer that represents zero in a quantized vector.
///
/// Some processors add the products of two neighbors in 16 bits. There, vectors use 7 bits, and no sum saturates.
pub(super) fn zero_point(int8: &Int8Gemm) -> i32 {
    if int8.may_saturate() { 64 } else { 128 }
}

/// The Euclidean norm.
pub(crate) fn norm<'a>(values: impl IntoIterator<Item = &'a f32>) -> f64 {
    values.into_iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// Rounds to a float that is not less than `x`.
pub(super) fn round_up(x: f64) -> f32 {
    (x * (1.0 + ROUNDING)) as f32
}

impl ColumnParams {
    pub(super) fn zeros(n: usize) -> Self {
        Self { scale: vec![0.0; n], error: vec![0.0; n], norm: vec![0.0; n] }
    }

    /// `scale`, `error` and `norm` of a range of tokens. Shape: → each `[tokens]`.
    pub(super) fn range_mut(&mut self, tokens: Range<usize>) -> [&mut [f32]; 3] {
        [&mut self.scale, &mut self.error, &mut self.norm].map(|values| &mut values[tokens.clone()])
    }

    /// `scale`, `error` and `norm` of a range of tokens. Shape: → each `[tokens]`.
    pub(super) fn range(&self, tokens: Range<usize>) -> [&[f32]; 3] {
        [&self.scale, &self.error, &self.norm].map(|values| &values[tokens.clone()])
    }
}

/// Quantizes the columns of a strip.
pub(super) struct QuantizeColumns<'a> {
    /// Shape: `[inner, up to STRIP_WIDTH]`.
    pub(super) strip: ArrayView2<'a, f32>,
    /// The quantized strip; its rows are `stride` integers apart.
    pub(super) q: &'a mut [i8],
    pub(super) stride: usize,
    /// `scale`, `error` and `norm`. Shape: each `[up to STRIP_WIDTH]`.
    pub(super) params: [&'a mut [f32]; 3],
}

impl pulp::WithSimd for QuantizeColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { strip, q, stride, params: [scale, error, norm] } = self;
        // Loops of a constant length, which the compiler vectorizes.
        let padded = |values: ArrayView1<'_, f32>| {
            let mut padded = [0.0_f32; STRIP_WIDTH];
            padded[..values.len()].copy_from_slice(values.to_slice().expect("a row of a strip is contiguous"));
            padded
        };
        let mut largest = [0.0_f32; STRIP_WIDTH];
        for values in strip.outer_iter() {
            largest.iter_mut().zip(padded(values)).for_each(|(largest, w)| *largest = largest.max(w.abs()));
        }
        let scales = largest.map(|largest| largest / MAX_QUANTIZED);
        let inverse_scales = scales.map(|scale| if scale > 0.0 { 1.0 / scale } else { 0.0 });
        let (mut squared_errors, mut squared_norms) = ([0.0_f64; STRIP_WIDTH], [0.0_f64; STRIP_WIDTH]);
        for (values, q) in strip.outer_iter().zip(q.chunks_mut(stride)) {
            let w = padded(values);
            let mut quantized = [0.0_f32; STRIP_WIDTH];
            for at in 0..STRIP_WIDTH {
                quantized[at] = (w[at] * inverse_scales[at]).round_ties_even().clamp(-MAX_QUANTIZED, MAX_QUANTIZED);
            }
            for at in 0..STRIP_WIDTH {
                let dequantized = f64::from(quantized[at]) * f64::from(scales[at]);
                let error = f64::from(w[at]) - dequantized;
                squared_errors[at] += error * error;
                squared_norms[at] += dequantized * dequantized;
            }
            q.iter_mut().zip(&quantized[..strip.ncols()]).for_each(|(q, quantized)| *q = *quantized as i8);
        }
        scale.iter_mut().zip(scales).for_each(|(to, scale)| *to = scale);
        error.iter_mut().zip(squared_errors).for_each(|(to, square)| *to = round_up(square.sqrt()));
        norm.iter_mut().zip(squared_norms).for_each(|(to, square)| *to = round_up(square.sqrt()));
    }
}

impl QuantizedVectors {
    /// Quantizes the rows of a matrix. Shape: `x [n, inner]`.
    pub(super) fn new(int8: &Int8Gemm, x: ArrayView2<f32>) -> Self {
        let zero_point = zero_point(int8);
        let max_quantized = (zero_point - 1) as f32;
        let arch = pulp::Arch::new();
        let mut q = vec![0; x.len()];
        let tasks: Vec<_> = x.outer_iter().zip(q.chunks_exact_mut(x.ncols())).collect();
        let quantize = |(x, q): (ArrayView1<f32>, &mut [u8])| {
            let x = x.to_slice().expect("a row is contiguous");
            arch.dispatch(QuantizeVector { x, q, max_quantized, zero_point })
        };
        let params: Vec<VectorParams> = tasks.into_par_iter().with_min_len(16).map(quantize).collect();
        let q = ArrayView2::from_shape(x.dim(), &q).expect("as many integers as floats"); // [n, inner]
        let pack = |q: ArrayView2<u8>| {
            let values = q.to_slice().expect("a range of rows is contiguous");
            int8.prepack_a(NdTensorView::from_data([q.nrows(), q.ncols()], values))
        };
        let rows_per_block = params.len().div_ceil(params.len().div_ceil(VECTORS_PER_BLOCK).max(1)).max(1);
        Self { blocks: q.axis_chunks_iter(Axis(0), rows_per_block).map(pack).collect(), rows_per_block, params }
    }
}

/// Quantizes a vector.
struct QuantizeVector<'a> {
    /// Shape: `[inner]`.
    x: &'a [f32],
    /// Shape: `[inner]`.
    q: &'a mut [u8],
    /// The largest distance of a quantized value from the zero point.
    max_quantized: f32,
    zero_point: i32,
}

impl pulp::WithSimd for QuantizeVector<'_> {
    type Output = VectorParams;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> VectorParams {
        let Self { x, q, max_quantized, zero_point } = self;
        let scale = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs())) / max_quantized;
        let inverse_scale = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let (mut squared_errors, mut squared_norms) = ([0.0_f64; 8], [0.0_f64; 8]);
        for (x, q) in x.chunks(8).zip(q.chunks_mut(8)) {
            for (lane, (&x, q)) in x.iter().zip(q).enumerate() {
                let quantized = (x * inverse_scale).round_ties_even().clamp(-max_quantized, max_quantized);
                *q = (quantized as i32 + zero_point) as u8;
                let error = f64::from(x) - f64::from(quantized) * f64::from(scale);
                squared_errors[lane] += error * error;
                squared_norms[lane] += f64::from(x) * f64::from(x);
            }
        }
        let [error, norm] = [squared_errors, squared_norms].map(|squares| squares.iter().sum::<f64>().sqrt());
        let relative_error = if error == 0.0 { 0.0 } else { round_up(error / norm) };
        VectorParams { scale, relative_error, norm: round_up(norm) }
    }
}
