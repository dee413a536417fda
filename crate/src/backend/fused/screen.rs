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
use std::sync::atomic::{AtomicU32, Ordering};

use ndarray::{Array2, ArrayView1, ArrayView2, Axis, CowArray, Ix2, s};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedAMatrix, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::gemm;
use super::panels::{Panels, WIDTH};

/// Products of unsigned and signed integers of 8 bits.
pub(super) type Integers = GemmExecutor<u8, i8, i32>;

/// Panels of tokens whose products lie in memory at a time.
const PANELS: usize = 4;
/// Tokens whose products lie in memory at a time.
const TOKENS: usize = PANELS * WIDTH;
/// Vectors whose products lie in memory at a time: with [`TOKENS`], a fifth of the second-level cache.
const ROWS: usize = 192;
/// So many tokens are looked at together, to see that none of them can be among the best.
const CHUNK: usize = 64;
/// The largest multiple of a step that a token's column has.
const LARGEST: f32 = 127.0;
/// More than the rounding of the few operations that a bound and a logit take, as a share of what goes into them.
const ROUNDING: f64 = 1e-6;
/// A vector with more candidates than this is better screened in another way.
const MOST_CANDIDATES: usize = 2048;

/// The columns `w` of all tokens, rounded, and how far they are from what they stand for.
pub(super) struct Screen {
    /// Blocks of [`TOKENS`] tokens. Shape of each: `[inner, up to TOKENS]`.
    blocks: Vec<PackedBMatrix<i8>>,
    of_tokens: OfTokens,
    /// To be added to a product, because integers that are not negative stand for those of `x̂`: what stands for zero,
    /// times the sum of the token's integers, taken away.
    correction: Vec<i32>,
    /// The largest that any token's `‖w‖` can be.
    largest_norm: f32,
}

/// A number a token.
struct OfTokens {
    /// `ŵ` is so many times an integer.
    step: Vec<f32>,
    /// At least `‖w − ŵ‖`.
    error: Vec<f32>,
    /// At least `‖ŵ‖`.
    norm: Vec<f32>,
}

/// Vectors `x`, rounded, and how far they are from what they stand for.
struct Rounded {
    /// Of equal size: a short one at the end would be read through all tokens for little.
    blocks: Vec<PackedAMatrix<u8>>,
    rows_a_block: usize,
    rows: Vec<OfVector>,
}

#[derive(Clone, Copy)]
struct OfVector {
    step: f32,
    /// At least `‖x − x̂‖ / ‖x‖`.
    off: f32,
    /// At least `‖x‖`.
    norm: f32,
}

/// The tokens that can be among the best of a vector, by ascending id.
pub(super) enum Candidates {
    Some(Vec<u32>),
    /// Too many for a list, or a vector whose bounds are not finite.
    All,
}

impl Candidates {
    pub(super) fn number(&self, d_vocab: usize) -> usize {
        match self {
            Candidates::Some(tokens) => tokens.len(),
            Candidates::All => d_vocab,
        }
    }
}

impl Screen {
    /// The columns arrive panel by panel; `more_error` says how much further from the truth that of a token is. `None` if
    /// there are numbers that are not finite. Shape: `panel(i) [inner, up to WIDTH]`.
    pub(super) fn new<'a>(
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
    pub(super) fn bytes(inner: usize, d_vocab: usize) -> usize {
        (inner + 4 * size_of::<f32>()) * d_vocab
    }

    /// At least the norm of a token's column.
    pub(super) fn norm(&self, token: usize) -> f64 {
        f64::from(self.of_tokens.norm[token]) + f64::from(self.of_tokens.error[token])
    }

    /// The tokens that can be among the `wanted` best of each vector. Shape: `x [n, inner]`, `bias [d_vocab]` → `[n]`.
    pub(super) fn candidates(
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
    pub(super) fn candidates_by_floats(
        &self,
        w: &Panels,
        x: ArrayView2<f32>,
        bias: &[f32],
        wanted: usize,
    ) -> Vec<Candidates> {
        // A sum of so many products of floats is off by less than so many ε times the sum of their magnitudes.
        let share = 1.01 * f32::EPSILON * w.dim().0 as f32 + ROUNDING as f32;
        let norm = |x: ArrayView1<f32>| up(x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt());
        let rows: Vec<OfVector> = x.outer_iter().map(|x| OfVector { step: 0.0, off: share, norm: norm(x) }).collect();
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

/// The integer that stands for zero in a vector. Where the processor adds the products of two neighbours in 16 bits, 7 bits
/// on this side keep the sum within them.
fn zero(integers: &Integers) -> i32 {
    if integers.may_saturate() { 64 } else { 128 }
}

/// Not less than `x`.
fn up(x: f64) -> f32 {
    (x * (1.0 + ROUNDING)) as f32
}

impl OfTokens {
    fn zeros(n: usize) -> Self {
        Self { step: vec![0.0; n], error: vec![0.0; n], norm: vec![0.0; n] }
    }

    /// `step`, `error` and `norm`.
    fn range(&mut self, tokens: Range<usize>) -> [&mut [f32]; 3] {
        [&mut self.step, &mut self.error, &mut self.norm].map(|values| &mut values[tokens.clone()])
    }

    /// `step`, `error` and `norm`.
    fn view(&self, tokens: Range<usize>) -> [&[f32]; 3] {
        [&self.step, &self.error, &self.norm].map(|values| &values[tokens.clone()])
    }
}

/// Rounds the columns of a panel, side by side.
struct RoundColumns<'a> {
    /// Shape: `[inner, up to WIDTH]`.
    panel: ArrayView2<'a, f32>,
    /// A row of the panel every `stride` integers.
    q: &'a mut [i8],
    stride: usize,
    of_panel: [&'a mut [f32]; 3],
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
    fn new(integers: &Integers, x: ArrayView2<f32>) -> Self {
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

/// What is known of a vector's best tokens so far.
struct Found {
    /// The best lower bounds, in descending order; as many as are wanted, once there were as many tokens.
    low: Vec<f32>,
    wanted: usize,
    /// So many tokens as are wanted have a logit that is at least this: another run has seen them.
    floor: f32,
    /// Token and upper bound.
    candidates: Vec<(u32, f32)>,
    all: bool,
}

/// So many tokens as are wanted have a logit that is at least this, whoever has seen them.
struct Sure(AtomicU32);

impl Default for Sure {
    fn default() -> Self {
        Self(AtomicU32::new(Self::in_order(f32::NEG_INFINITY)))
    }
}

impl Sure {
    /// Integers in the order of the numbers.
    fn in_order(x: f32) -> u32 {
        let bits = x.to_bits();
        if x.is_sign_negative() { !bits } else { bits | 1 << 31 }
    }

    fn get(&self) -> f32 {
        let bits = self.0.load(Ordering::Relaxed);
        f32::from_bits(if bits >> 31 == 0 { !bits } else { bits ^ 1 << 31 })
    }

    fn raise(&self, to: f32) {
        self.0.fetch_max(Self::in_order(to), Ordering::Relaxed);
    }
}

impl Found {
    fn new(wanted: usize, x: &OfVector, largest_norm: f32) -> Self {
        // No bound and no logit comes near the largest float.
        let all = !(x.step.is_finite() && x.off <= 1.0 && x.norm * largest_norm.max(1.0) < f32::MAX / 16.0);
        Self { low: Vec::with_capacity(wanted + 1), wanted, floor: f32::NEG_INFINITY, candidates: Vec::new(), all }
    }

    /// So many tokens as are wanted have a logit that is at least this.
    #[inline(always)]
    fn sure(&self) -> f32 {
        if self.low.len() < self.wanted { self.floor } else { self.floor.max(self.low[self.wanted - 1]) }
    }

    #[inline(always)]
    fn insert_low(&mut self, low: f32) {
        if self.low.len() < self.wanted || low > self.low[self.wanted - 1] {
            let at = self.low.partition_point(|&other| other >= low);
            self.low.insert(at, low);
            self.low.truncate(self.wanted);
        }
    }

    fn forget_the_hopeless(&mut self) {
        let sure = self.sure();
        self.candidates.retain(|&(_, high)| high >= sure);
        if self.candidates.len() > MOST_CANDIDATES / 2 {
            self.all = true;
            self.candidates = Vec::new();
        }
    }

    fn push(&mut self, token: u32, low: f32, high: f32) {
        self.insert_low(low);
        self.candidates.push((token, high));
        if self.candidates.len() == MOST_CANDIDATES {
            self.forget_the_hopeless();
        }
    }

    /// Takes what was found among tokens of higher ids.
    fn append(&mut self, later: Self) {
        self.floor = self.floor.max(later.floor);
        later.low.into_iter().for_each(|low| self.insert_low(low));
        self.candidates.extend(later.candidates);
        self.all |= later.all;
        if self.candidates.len() >= MOST_CANDIDATES {
            self.forget_the_hopeless();
        }
    }

    fn finish(self) -> Candidates {
        let sure = self.sure();
        match self.all {
            true => Candidates::All,
            false => Candidates::Some(
                self.candidates.into_iter().filter(|&(_, high)| high >= sure).map(|(token, _)| token).collect(),
            ),
        }
    }
}

/// What a vector's logits are computed from, without bias, for a block of tokens.
#[derive(Clone, Copy)]
enum Products<'a> {
    /// `correction` is to be added, then `step` and that of the vector are to be multiplied.
    Integers {
        products: &'a [i32],
        correction: &'a [i32],
        step: &'a [f32],
    },
    Floats(&'a [f32]),
}

/// Takes from the products of a block what can be among the best, and passes quickly over all the others.
struct Look<'a> {
    found: &'a mut Found,
    sure: &'a Sure,
    x: OfVector,
    products: Products<'a>,
    error: &'a [f32],
    norm: &'a [f32],
    bias: &'a [f32],
    bias_rounding: f32,
    /// The first token of the block.
    first: usize,
}

impl pulp::WithSimd for Look<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { found, sure: shared, x, products, error, norm, bias, bias_rounding, first } = self;
        if found.all {
            return;
        }
        found.floor = shared.get();
        let mut sure = found.sure() - bias_rounding;
        let before = found.candidates.len();
        // In one operation where the processor has it; without, the standard library would take its time.
        let mul_add = |a: f32, b: f32, c: f32| if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) };
        let bound = |error: f32, norm: f32| mul_add(norm, x.off, error); // as a share of ‖x‖
        // Loops without branches, which the compiler turns into vector operations.
        let mut high = [0.0_f32; TOKENS];
        let of_tokens = error.iter().zip(norm).zip(bias);
        match products {
            Products::Integers { products, correction, step } => {
                let products = products.iter().zip(correction).zip(step);
                for (high, (((product, correction), &step), ((&error, &norm), &bias))) in
                    high.iter_mut().zip(products.zip(of_tokens))
                {
                    let integer = product + correction;
                    *high = mul_add(integer as f32 * step, x.step, mul_add(bound(error, norm), x.norm, bias));
                }
            }
            Products::Floats(products) => {
                for (high, (product, ((&error, &norm), &bias))) in high.iter_mut().zip(products.iter().zip(of_tokens)) {
                    *high = product + mul_add(bound(error, norm), x.norm, bias);
                }
            }
        }
        for (chunk, high) in high[..bias.len()].chunks(CHUNK).enumerate() {
            let above: u32 = high.iter().map(|&high| u32::from(high >= sure)).sum();
            if above == 0 {
                continue;
            }
            for (at, &high) in (chunk * CHUNK..).zip(high) {
                if high >= sure {
                    let bound = bound(error[at], norm[at]) * x.norm + bias_rounding;
                    found.push((first + at) as u32, high - 2.0 * bound, high + bias_rounding);
                    sure = found.sure() - bias_rounding;
                }
            }
        }
        if found.candidates.len() > before {
            shared.raise(found.sure());
        }
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

        let (integers, panels) = (Integers::new(), Panels::new(w.view()));
        let views: Vec<ArrayView2<f32>> = panels.iter().collect();
        let screen = Screen::new(&integers, inner, d_vocab, |index| CowArray::from(views[index]), |_| 0.0).unwrap();
        let many = check(&screen.candidates(&integers, x.view(), &bias, 2), &logits);
        let few = check(&screen.candidates_by_floats(&panels, x.view(), &bias, 2), &logits);
        assert!(many.iter().all(|&number| number > 100), "{many:?}");
        assert!(few[n / 3..].iter().all(|&number| number < 20), "{few:?}");
    }
}
