//! Selects the tokens of a vector whose upper bound is not below the k-th best lower bound.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::packed::STRIP_WIDTH;
use super::quantize::VectorParams;

/// Strips whose products are in memory at a time.
pub(super) const STRIPS_PER_BLOCK: usize = 2;
/// Tokens whose products are in memory at a time.
pub(super) const TOKENS_PER_BLOCK: usize = STRIPS_PER_BLOCK * STRIP_WIDTH;
/// Tokens whose upper bounds are compared together, so that chunks without a candidate are skipped.
const CHUNK: usize = 64;
/// A list of this length is pruned. If more than half of it remains, the bounds rule out too little to be useful.
const MAX_CANDIDATES: usize = 2048;

/// The tokens that can be among the `k` best of a vector.
pub(crate) enum Candidates {
    /// By ascending id.
    Tokens(Vec<u32>),
    /// The whole vocabulary: too many tokens for a list, or bounds that are not finite.
    All,
}

impl Candidates {
    /// The number of candidates.
    pub(crate) fn len(&self, d_vocab: usize) -> usize {
        match self {
            Candidates::Tokens(tokens) => tokens.len(),
            Candidates::All => d_vocab,
        }
    }
}

/// The candidates of one vector among the tokens that one task has scanned.
pub(super) struct CandidateList {
    /// The `k` best lower bounds so far, in descending order.
    lower_bounds: Vec<f32>,
    k: usize,
    /// The last value read from the vector's [`SharedBound`].
    shared_bound: f32,
    /// Tokens by ascending id, with the upper bound on the logit of each.
    candidates: Vec<(u32, f32)>,
    /// Whether every token counts as a candidate.
    all: bool,
}

/// A lower bound on the k-th best logit, shared between threads.
pub(super) struct SharedBound(AtomicU32);

impl Default for SharedBound {
    fn default() -> Self {
        Self(AtomicU32::new(Self::to_ordered_bits(f32::NEG_INFINITY)))
    }
}

impl SharedBound {
    /// Maps floats to integers of the same order, so that `fetch_max` works.
    fn to_ordered_bits(x: f32) -> u32 {
        let bits = x.to_bits();
        if x.is_sign_negative() { !bits } else { bits | 1 << 31 }
    }

    fn get(&self) -> f32 {
        let bits = self.0.load(Ordering::Relaxed);
        f32::from_bits(if bits >> 31 == 0 { !bits } else { bits ^ 1 << 31 })
    }

    fn raise(&self, to: f32) {
        self.0.fetch_max(Self::to_ordered_bits(to), Ordering::Relaxed);
    }
}

impl CandidateList {
    /// An empty list for the vector `x`; `largest_norm` is at least the norm of every column.
    pub(super) fn new(k: usize, x: &VectorParams, largest_norm: f32) -> Self {
        // Bounds hold only if no logit and no bound comes near the largest float.
        let bounded =
            x.scale.is_finite() && x.relative_error <= 1.0 && x.norm * largest_norm.max(1.0) < f32::MAX / 16.0;
        let lower_bounds = Vec::with_capacity(k + 1);
        Self { lower_bounds, k, shared_bound: f32::NEG_INFINITY, candidates: Vec::new(), all: !bounded }
    }

    /// A lower bound on the k-th best logit of the whole vocabulary.
    #[inline(always)]
    fn bound(&self) -> f32 {
        if self.lower_bounds.len() < self.k {
            self.shared_bound
        } else {
            self.shared_bound.max(self.lower_bounds[self.k - 1])
        }
    }

    #[inline(always)]
    fn insert_lower_bound(&mut self, low: f32) {
        if self.lower_bounds.len() < self.k || low > self.lower_bounds[self.k - 1] {
            let at = self.lower_bounds.partition_point(|&other| other >= low);
            self.lower_bounds.insert(at, low);
            self.lower_bounds.truncate(self.k);
        }
    }

    /// Removes the candidates that the bound has ruled out since they were added.
    fn prune(&mut self) {
        let bound = self.bound();
        self.candidates.retain(|&(_, high)| high >= bound);
        if self.candidates.len() > MAX_CANDIDATES / 2 {
            self.all = true;
            self.candidates = Vec::new();
        }
    }

    /// Adds a token whose logit is between `low` and `high`.
    fn push(&mut self, token: u32, low: f32, high: f32) {
        self.insert_lower_bound(low);
        self.candidates.push((token, high));
        if self.candidates.len() == MAX_CANDIDATES {
            self.prune();
        }
    }

    /// Appends the candidates of a list whose tokens have higher ids.
    pub(super) fn append(&mut self, later: Self) {
        self.shared_bound = self.shared_bound.max(later.shared_bound);
        later.lower_bounds.into_iter().for_each(|low| self.insert_lower_bound(low));
        self.candidates.extend(later.candidates);
        self.all |= later.all;
        if self.candidates.len() >= MAX_CANDIDATES {
            self.prune();
        }
    }

    /// The candidates that the bound does not rule out.
    pub(super) fn finish(self) -> Candidates {
        let bound = self.bound();
        if self.all {
            return Candidates::All;
        }
        let candidates = self.candidates.into_iter().filter(|&(_, high)| high >= bound);
        Candidates::Tokens(candidates.map(|(token, _)| token).collect())
    }
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
pub(super) struct ScanLogits<'a> {
    pub(super) list: &'a mut CandidateList,
    pub(super) shared: &'a SharedBound,
    pub(super) x: VectorParams,
    pub(super) products: Products<'a>,
    /// The error of a product, relative to `‖x‖`, that is due to `w`. Shape: `[tokens]`.
    pub(super) error: &'a [f32],
    /// At least `‖ŵ‖`. Shape: `[tokens]`.
    pub(super) norm: &'a [f32],
    /// Shape: `[tokens]`.
    pub(super) bias: &'a [f32],
    /// The rounding error of adding the bias.
    pub(super) bias_rounding: f32,
    /// The first token of the block.
    pub(super) first: usize,
}

impl pulp::WithSimd for ScanLogits<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { list, shared, x, products, error, norm, bias, bias_rounding, first } = self;
        if list.all {
            return;
        }
        list.shared_bound = shared.get();
        let mut threshold = list.bound() - bias_rounding;
        let before = list.candidates.len();
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
        if list.candidates.len() > before {
            shared.raise(list.bound());
        }
    }
}
