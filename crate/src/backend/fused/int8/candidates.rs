//! Selects the tokens of a vector whose upper bound is not below the k-th best lower bound.

use std::sync::atomic::{AtomicU32, Ordering};

use super::quantize::VectorParams;

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
    /// Tokens with the upper bound on the logit of each.
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

    pub(super) fn get(&self) -> f32 {
        let bits = self.0.load(Ordering::Relaxed);
        f32::from_bits(if bits >> 31 == 0 { !bits } else { bits ^ 1 << 31 })
    }

    pub(super) fn raise(&self, to: f32) {
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
    pub(super) fn bound(&self) -> f32 {
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
    pub(super) fn push(&mut self, token: u32, low: f32, high: f32) {
        self.insert_lower_bound(low);
        self.candidates.push((token, high));
        if self.candidates.len() == MAX_CANDIDATES {
            self.prune();
        }
    }

    /// Appends the candidates of a list of other tokens.
    pub(super) fn append(&mut self, other: Self) {
        self.shared_bound = self.shared_bound.max(other.shared_bound);
        other.lower_bounds.into_iter().for_each(|low| self.insert_lower_bound(low));
        self.candidates.extend(other.candidates);
        self.all |= other.all;
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
        let mut tokens: Vec<u32> = candidates.map(|(token, _)| token).collect();
        tokens.sort_unstable();
        Candidates::Tokens(tokens)
    }

    /// The number of tokens in the list.
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether every token counts as a candidate, so that no more need to be added.
    pub(super) fn is_all(&self) -> bool {
        self.all
    }

    /// Takes over a bound that other tasks have found.
    pub(super) fn learn(&mut self, shared: &SharedBound) {
        self.shared_bound = self.shared_bound.max(shared.get());
    }
}
