//! Going through a vector's logits, known up to a bound, for those that can be among the best.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::packed::WIDTH;
use super::quantize::OfVector;

/// Panels of tokens whose products lie in memory at a time.
pub(in crate::backend::fused) const PANELS: usize = 4;
/// Tokens whose products lie in memory at a time.
pub(in crate::backend::fused) const TOKENS: usize = PANELS * WIDTH;
/// So many tokens are looked at together, to see that none of them can be among the best.
const CHUNK: usize = 64;
/// A vector with more candidates than this is better screened in another way.
const MOST_CANDIDATES: usize = 2048;

/// The tokens that can be among the best of a vector, by ascending id.
pub(in crate::backend::fused) enum Candidates {
    Some(Vec<u32>),
    /// Too many for a list, or a vector whose bounds are not finite.
    All,
}

impl Candidates {
    pub(in crate::backend::fused) fn number(&self, d_vocab: usize) -> usize {
        match self {
            Candidates::Some(tokens) => tokens.len(),
            Candidates::All => d_vocab,
        }
    }
}

/// What is known of a vector's best tokens so far.
pub(in crate::backend::fused) struct Found {
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
pub(in crate::backend::fused) struct Sure(AtomicU32);

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
    pub(in crate::backend::fused) fn new(wanted: usize, x: &OfVector, largest_norm: f32) -> Self {
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
    pub(in crate::backend::fused) fn append(&mut self, later: Self) {
        self.floor = self.floor.max(later.floor);
        later.low.into_iter().for_each(|low| self.insert_low(low));
        self.candidates.extend(later.candidates);
        self.all |= later.all;
        if self.candidates.len() >= MOST_CANDIDATES {
            self.forget_the_hopeless();
        }
    }

    pub(in crate::backend::fused) fn finish(self) -> Candidates {
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
pub(in crate::backend::fused) enum Products<'a> {
    /// `correction` is to be added, then `step` and that of the vector are to be multiplied.
    Integers {
        products: &'a [i32],
        correction: &'a [i32],
        step: &'a [f32],
    },
    Floats(&'a [f32]),
}

/// Takes from the products of a block what can be among the best, and passes quickly over all the others.
pub(in crate::backend::fused) struct Look<'a> {
    pub(in crate::backend::fused) found: &'a mut Found,
    pub(in crate::backend::fused) sure: &'a Sure,
    pub(in crate::backend::fused) x: OfVector,
    pub(in crate::backend::fused) products: Products<'a>,
    pub(in crate::backend::fused) error: &'a [f32],
    pub(in crate::backend::fused) norm: &'a [f32],
    pub(in crate::backend::fused) bias: &'a [f32],
    pub(in crate::backend::fused) bias_rounding: f32,
    /// The first token of the block.
    pub(in crate::backend::fused) first: usize,
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
