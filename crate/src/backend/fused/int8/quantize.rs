//! Columns and vectors as whole multiples of a step, and how far they are then from what they stand for.

use std::ops::Range;

use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, PackedAMatrix};
use rten_tensor::NdTensorView;

use super::super::packed::WIDTH;

/// Products of unsigned and signed integers of 8 bits.
pub(in crate::backend::fused) type Integers = GemmExecutor<u8, i8, i32>;

/// The largest multiple of a step that a token's column has.
const LARGEST: f32 = 127.0;
/// More than the rounding of the few operations that a bound and a logit take, as a share of what goes into them.
pub(in crate::backend::fused) const ROUNDING: f64 = 1e-6;
/// Vectors whose products lie in memory at a time: with those of a block of tokens, a fifth of the second-level cache.
pub(in crate::backend::fused) const ROWS: usize = 192;

/// A number a token.
pub(in crate::backend::fused) struct OfTokens {
    /// `ŵ` is so many times an integer.
    pub(in crate::backend::fused) step: Vec<f32>,
    /// At least `‖w − ŵ‖`.
    pub(in crate::backend::fused) error: Vec<f32>,
    /// At least `‖ŵ‖`.
    pub(in crate::backend::fused) norm: Vec<f32>,
}

/// Vectors `x`, rounded, and how far they are from what they stand for.
pub(in crate::backend::fused) struct Rounded {
    /// Of equal size: a short one at the end would be read through all tokens for little.
    pub(in crate::backend::fused) blocks: Vec<PackedAMatrix<u8>>,
    pub(in crate::backend::fused) rows_a_block: usize,
    pub(in crate::backend::fused) rows: Vec<OfVector>,
}

#[derive(Clone, Copy)]
pub(in crate::backend::fused) struct OfVector {
    pub(in crate::backend::fused) step: f32,
    /// At least `‖x − x̂‖ / ‖x‖`.
    pub(in crate::backend::fused) off: f32,
    /// At least `‖x‖`.
    pub(in crate::backend::fused) norm: f32,
}

/// The integer that stands for zero in a vector. Where the processor adds the products of two neighbours in 16 bits, 7 bits
/// on this side keep the sum within them.
pub(in crate::backend::fused) fn zero(integers: &Integers) -> i32 {
    if integers.may_saturate() { 64 } else { 128 }
}

/// The Euclidean norm.
pub(in crate::backend::fused) fn norm<'a>(values: impl IntoIterator<Item = &'a f32>) -> f64 {
    values.into_iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// Not less than `x`.
pub(in crate::backend::fused) fn up(x: f64) -> f32 {
    (x * (1.0 + ROUNDING)) as f32
}

impl OfTokens {
    pub(in crate::backend::fused) fn zeros(n: usize) -> Self {
        Self { step: vec![0.0; n], error: vec![0.0; n], norm: vec![0.0; n] }
    }

    /// `step`, `error` and `norm`.
    pub(in crate::backend::fused) fn range(&mut self, tokens: Range<usize>) -> [&mut [f32]; 3] {
        [&mut self.step, &mut self.error, &mut self.norm].map(|values| &mut values[tokens.clone()])
    }

    /// `step`, `error` and `norm`.
    pub(in crate::backend::fused) fn view(&self, tokens: Range<usize>) -> [&[f32]; 3] {
        [&self.step, &self.error, &self.norm].map(|values| &values[tokens.clone()])
    }
}

/// Rounds the columns of a panel, side by side.
pub(in crate::backend::fused) struct RoundColumns<'a> {
    /// Shape: `[inner, up to WIDTH]`.
    pub(in crate::backend::fused) panel: ArrayView2<'a, f32>,
    /// A row of the panel every `stride` integers.
    pub(in crate::backend::fused) q: &'a mut [i8],
    pub(in crate::backend::fused) stride: usize,
    pub(in crate::backend::fused) of_panel: [&'a mut [f32]; 3],
}

impl pulp::WithSimd for RoundColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { panel, q, stride, of_panel: [step, error, norm] } = self;
        // Loops of a length that the compiler knows become vector operations.
        let wide = |values: ArrayView1<'_, f32>| {
            let mut wide = [0.0_f32; WIDTH];
            wide[..values.len()].copy_from_slice(values.to_slice().expect("a row of a panel is contiguous"));
            wide
        };
        let mut largest = [0.0_f32; WIDTH];
        for values in panel.outer_iter() {
            largest.iter_mut().zip(wide(values)).for_each(|(largest, w)| *largest = largest.max(w.abs()));
        }
        let steps = largest.map(|largest| largest / LARGEST);
        let per_step = steps.map(|step| if step > 0.0 { 1.0 / step } else { 0.0 });
        let (mut errors, mut norms) = ([0.0_f64; WIDTH], [0.0_f64; WIDTH]);
        for (values, q) in panel.outer_iter().zip(q.chunks_mut(stride)) {
            let w = wide(values);
            let mut whole = [0.0_f32; WIDTH];
            for at in 0..WIDTH {
                whole[at] = (w[at] * per_step[at]).round_ties_even().clamp(-LARGEST, LARGEST);
            }
            for at in 0..WIDTH {
                let rounded = f64::from(whole[at]) * f64::from(steps[at]);
                let off = f64::from(w[at]) - rounded;
                errors[at] += off * off;
                norms[at] += rounded * rounded;
            }
            q.iter_mut().zip(&whole[..panel.ncols()]).for_each(|(q, whole)| *q = *whole as i8);
        }
        step.iter_mut().zip(steps).for_each(|(to, step)| *to = step);
        error.iter_mut().zip(errors).for_each(|(to, square)| *to = up(square.sqrt()));
        norm.iter_mut().zip(norms).for_each(|(to, square)| *to = up(square.sqrt()));
    }
}

impl Rounded {
    pub(in crate::backend::fused) fn new(integers: &Integers, x: ArrayView2<f32>) -> Self {
        let zero = zero(integers);
        let largest = (zero - 1) as f32;
        let arch = pulp::Arch::new();
        let mut q = vec![0; x.len()];
        let tasks: Vec<_> = x.outer_iter().zip(q.chunks_exact_mut(x.ncols())).collect();
        let round = |(x, q): (ArrayView1<f32>, &mut [u8])| {
            let x = x.to_slice().expect("a row is contiguous");
            arch.dispatch(RoundVector { x, q, largest, zero })
        };
        let rows: Vec<OfVector> = tasks.into_par_iter().with_min_len(16).map(round).collect();
        let q = ArrayView2::from_shape(x.dim(), &q).expect("as many as the vectors have");
        let pack = |q: ArrayView2<u8>| {
            let values = q.to_slice().expect("rows that lie below each other");
            integers.prepack_a(NdTensorView::from_data([q.nrows(), q.ncols()], values))
        };
        let rows_a_block = rows.len().div_ceil(rows.len().div_ceil(ROWS).max(1)).max(1);
        Self { blocks: q.axis_chunks_iter(Axis(0), rows_a_block).map(pack).collect(), rows_a_block, rows }
    }
}

/// Rounds a vector to multiples of a step, and adds what stands for zero.
struct RoundVector<'a> {
    x: &'a [f32],
    q: &'a mut [u8],
    largest: f32,
    zero: i32,
}

impl pulp::WithSimd for RoundVector<'_> {
    type Output = OfVector;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> OfVector {
        let Self { x, q, largest, zero } = self;
        let step = x.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / largest;
        let per_step = if step > 0.0 { 1.0 / step } else { 0.0 };
        let (mut errors, mut norms) = ([0.0_f64; 8], [0.0_f64; 8]);
        for (x, q) in x.chunks(8).zip(q.chunks_mut(8)) {
            for (lane, (&x, q)) in x.iter().zip(q).enumerate() {
                let whole = (x * per_step).round_ties_even().clamp(-largest, largest);
                *q = (whole as i32 + zero) as u8;
                let off = f64::from(x) - f64::from(whole) * f64::from(step);
                errors[lane] += off * off;
                norms[lane] += f64::from(x) * f64::from(x);
            }
        }
        let [error, norm] = [errors, norms].map(|squares| squares.iter().sum::<f64>().sqrt());
        OfVector { step, off: if error == 0.0 { 0.0 } else { up(error / norm) }, norm: up(norm) }
    }
}
