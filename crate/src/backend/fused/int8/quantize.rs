//! Quantization: columns and vectors as a scale times 8-bit integers, with the error of each.
//!
//! A column `w` becomes `ŵ = scale · q` with `q` from −127 to 127, a vector `x` becomes `x̂ = scale · (q − zero_point)`
//! with unsigned `q`. Instructions for 8-bit products multiply unsigned by signed integers.

use std::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::super::packed::STRIP_WIDTH;
use super::scan::TOKENS_PER_BLOCK;

/// The largest magnitude of a quantized weight.
const MAX_QUANTIZED: f32 = 127.0;
/// A relative margin above the float rounding of the few operations that compute a bound or a logit.
pub(super) const ROUNDING: f64 = 1e-6;

/// The scale, error bound and norm of each token's column.
pub(super) struct ColumnParams {
    /// `ŵ` is this times integers. Shape: `[tokens]`.
    pub(super) scale: Vec<f32>,
    /// At least `‖w − ŵ‖`. Shape: `[tokens]`.
    pub(super) error: Vec<f32>,
    /// At least `‖ŵ‖`. Shape: `[tokens]`.
    pub(super) norm: Vec<f32>,
}

/// Quantized columns, in the order of the vocabulary.
pub(super) struct QuantizedColumns {
    pub(super) inner: usize,
    /// The integers of [`TOKENS_PER_BLOCK`] tokens a block, row by row. Shape: each `[inner, up to TOKENS_PER_BLOCK]`.
    pub(super) blocks: Vec<Vec<i8>>,
    pub(super) columns: ColumnParams,
    /// What removes the zero point of `x̂` from a product: minus the zero point times the sum of the column's integers.
    /// Shape: `[d_vocab]`.
    pub(super) correction: Vec<i32>,
}

/// Quantized vectors.
pub(super) struct QuantizedVectors {
    /// Shape: `[n, inner]`.
    pub(super) q: Vec<u8>,
    /// Shape: `[n]`.
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

/// The Euclidean norm.
pub(crate) fn norm<'a>(values: impl IntoIterator<Item = &'a f32>) -> f64 {
    values.into_iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// Rounds to a float that is not less than `x`.
pub(super) fn round_up(x: f64) -> f32 {
    (x * (1.0 + ROUNDING)) as f32
}

/// The rounding error of adding a bias. Shape: `bias [d_vocab]`.
pub(super) fn bias_rounding(bias: &[f32]) -> f32 {
    let largest = bias.iter().fold(0.0_f32, |largest, b| largest.max(b.abs()));
    ROUNDING as f32 * largest + f32::MIN_POSITIVE
}

impl ColumnParams {
    pub(super) fn zeros(n: usize) -> Self {
        Self { scale: vec![0.0; n], error: vec![0.0; n], norm: vec![0.0; n] }
    }

    /// At least the norm of each column. Shape: → `[tokens]`.
    pub(super) fn norms(&self) -> Vec<f32> {
        let norms = self.norm.iter().zip(&self.error);
        norms.map(|(&norm, &error)| round_up(f64::from(norm) + f64::from(error))).collect()
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

impl QuantizedColumns {
    /// Quantizes a matrix, which arrives strip by strip. `None` if a weight is not finite.
    ///
    /// `extra_error(token)` is added to the error bound of a column, for a matrix that is rounded itself.
    /// Shape: `strip(i) [inner, up to STRIP_WIDTH]`.
    pub(super) fn new(
        zero_point: i32,
        inner: usize,
        d_vocab: usize,
        strip: impl Fn(usize) -> Array2<f32> + Sync,
        extra_error: impl Fn(usize) -> f64 + Sync,
    ) -> Option<Self> {
        let arch = pulp::Arch::new();
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
            (q, columns, correction)
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
        all_finite.then_some(Self { inner, blocks, columns, correction })
    }
}

impl QuantizedVectors {
    /// Quantizes the rows of a matrix. Shape: `x [n, inner]`.
    pub(super) fn new(zero_point: i32, x: ArrayView2<f32>) -> Self {
        let max_quantized = (zero_point - 1) as f32;
        let arch = pulp::Arch::new();
        let mut q = vec![0; x.len()];
        let tasks: Vec<_> = x.outer_iter().zip(q.chunks_exact_mut(x.ncols())).collect();
        let quantize = |(x, q): (ArrayView1<f32>, &mut [u8])| {
            let x = x.to_slice().expect("a row is contiguous");
            arch.dispatch(QuantizeVector { x, q, max_quantized, zero_point })
        };
        let params: Vec<VectorParams> = tasks.into_par_iter().with_min_len(16).map(quantize).collect();
        Self { q, params }
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
        // Loops of a constant length, which the compiler vectorizes.
        const LANES: usize = 16;
        let padded = |values: &[f32]| {
            let mut padded = [0.0_f32; LANES];
            padded[..values.len()].copy_from_slice(values);
            padded
        };
        let mut largest = [0.0_f32; LANES];
        for x in x.chunks(LANES) {
            largest.iter_mut().zip(padded(x)).for_each(|(largest, x)| *largest = largest.max(x.abs()));
        }
        let scale = largest.into_iter().fold(0.0, f32::max) / max_quantized;
        let inverse_scale = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let (mut squared_errors, mut squared_norms) = ([0.0_f64; LANES], [0.0_f64; LANES]);
        for (x, q) in x.chunks(LANES).zip(q.chunks_mut(LANES)) {
            let x = padded(x);
            let mut quantized = [0.0_f32; LANES];
            for lane in 0..LANES {
                quantized[lane] = (x[lane] * inverse_scale).round_ties_even().clamp(-max_quantized, max_quantized);
            }
            for lane in 0..LANES {
                let error = f64::from(x[lane]) - f64::from(quantized[lane]) * f64::from(scale);
                squared_errors[lane] += error * error;
                squared_norms[lane] += f64::from(x[lane]) * f64::from(x[lane]);
            }
            let integers = quantized.map(|quantized| (quantized as i32 + zero_point) as u8);
            q.copy_from_slice(&integers[..q.len()]);
        }
        let [error, norm] = [squared_errors, squared_norms].map(|squares| squares.iter().sum::<f64>().sqrt());
        let relative_error = if error == 0.0 { 0.0 } else { round_up(error / norm) };
        VectorParams { scale, relative_error, norm: round_up(norm) }
    }
}
