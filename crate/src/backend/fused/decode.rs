//! Decoding: tokens that can be among the best are found with integers ([`int8`](super::int8)), and their logits are
//! computed as if nothing else had been done.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array1, Array2, ArrayView2, Axis, CowArray, Dim};
use rayon::prelude::*;

use super::int8::{Candidates, Integers, Screen, norm};
use super::{FusedLinear, gemm};
use crate::decode::TopTokensBuilder;
use crate::decode::{TopTokens, Vectors};
use crate::memory::HostArray;

/// Vectors that are decoded in one pass over the vocabulary, which bounds what their candidates take.
const ROWS_A_PASS: usize = 1024;
/// A product of 8-bit integers costs a quarter of one of floats, so after so many vectors times `d_head` a head has cost as
/// much as folding it, which would have made each of them many times as fast.
const VECTORS_WORTH_FOLDING: usize = 4;
/// A head whose vectors have more candidates than this is folded the next time: sums over all of `d_model` have no outliers.
const CANDIDATES_A_VECTOR: usize = 512;

/// `W_U` and `b_U`.
pub(crate) struct FusedUnembed {
    /// `W_Uᵀ`: single tokens are looked up here. Shape: `[d_vocab, d_model]`.
    by_token: Array2<f32>,
    b_u: Array1<f32>,
    /// The same for products with whole columns: made when they are first asked for.
    linear: OnceLock<FusedLinear>,
    /// Made when a head is first decoded; `None` if the numbers are not all finite.
    screen: OnceLock<Option<Screen>>,
}

/// A head's projection.
pub(crate) struct DecodeTable {
    /// Shape: `[d_head, d_model]`.
    p: Array2<f32>,
    /// Of `P W_U`, once the head has decoded enough vectors: a product of it costs `d_head` multiplications, of the
    /// unembedding `d_model`.
    folded: OnceLock<Option<Screen>>,
    /// How many vectors.
    decoded: AtomicUsize,
}

impl FusedUnembed {
    pub(super) fn new(w_u: Array2<f32>, b_u: Array1<f32>) -> Self {
        // Checkpoints have it by token, so there is nothing to copy.
        let by_token = w_u.reversed_axes();
        let by_token =
            if by_token.is_standard_layout() { by_token } else { by_token.as_standard_layout().into_owned() };
        Self { by_token, b_u, linear: OnceLock::new(), screen: OnceLock::new() }
    }

    pub(super) fn weights(&self) -> (Array2<f32>, Array1<f32>) {
        (self.by_token.t().as_standard_layout().into_owned(), self.b_u.clone())
    }

    pub(super) fn d_vocab(&self) -> usize {
        self.b_u.len()
    }

    pub(super) fn linear(&self) -> &FusedLinear {
        get_or_make(&self.linear, || FusedLinear::new(self.by_token.t(), self.b_u.clone()))
    }

    fn bias(&self) -> &[f32] {
        self.b_u.as_slice().expect("a bias is contiguous")
    }

    /// `None` if its numbers are not all finite.
    fn screen(&self, integers: &Integers) -> Option<&Screen> {
        let make = || {
            let (d_model, d_vocab) = self.linear().w.dim();
            if !self.bias().iter().all(|b| b.is_finite()) {
                return None;
            }
            let panels: Vec<ArrayView2<f32>> = self.linear().w.iter().collect();
            Screen::new(integers, d_model, d_vocab, |index| CowArray::from(panels[index]), |_| 0.0)
        };
        get_or_make(&self.screen, make).as_ref()
    }

    /// The logit of a token: exact products, added in `f64` in an order that depends on nothing but `d_model`.
    fn logit(&self, arch: pulp::Arch, r: &[f32], token: u32) -> f32 {
        let w = self.by_token.row(token as usize).to_slice().expect("a row is contiguous");
        let b = f64::from(self.b_u[token as usize]);
        (arch.dispatch(Dot(r, w)) + b) as f32
    }
}

/// As [`OnceLock::get_or_init`], but what `make` does is not done under a lock: it waits for other threads inside rayon, and
/// may take up a task meanwhile that wants the same.
fn get_or_make<T>(place: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    if let Some(made) = place.get() {
        return made;
    }
    let made = make();
    place.get_or_init(|| made) // another thread may have been first, with the same
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl pulp::WithSimd for Dot<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> f64 {
        const LANES: usize = 32;
        let mut lanes = [0.0_f64; LANES];
        let ((x, x_rest), (y, y_rest)) = (self.0.as_chunks::<LANES>(), self.1.as_chunks::<LANES>());
        for (x, y) in x.iter().zip(y) {
            for lane in 0..LANES {
                lanes[lane] += f64::from(x[lane]) * f64::from(y[lane]);
            }
        }
        let rest = x_rest.iter().zip(y_rest).map(|(&x, &y)| f64::from(x) * f64::from(y));
        lanes.into_iter().chain(rest).sum()
    }
}

impl DecodeTable {
    pub(super) fn new(p: Array2<f32>) -> Self {
        Self { p, folded: OnceLock::new(), decoded: Default::default() }
    }

    /// The memory that it takes once it is folded.
    pub(super) fn bytes(&self, d_vocab: usize) -> usize {
        size_of::<f32>() * self.p.len() + Screen::bytes(self.p.nrows(), d_vocab)
    }

    /// The screen of `P W_U`, if it is there or time to make it: `n` more vectors are to be decoded.
    fn folded(&self, integers: &Integers, unembed: &FusedUnembed, w_u: &Screen, n: usize) -> Option<&Screen> {
        let before = self.decoded.fetch_add(n, Ordering::Relaxed);
        let (d_head, d_model) = self.p.dim();
        if self.folded.get().is_none() && before.saturating_add(n) < VECTORS_WORTH_FOLDING * d_head {
            return None;
        }
        let make = || {
            let panels: Vec<ArrayView2<f32>> = unembed.linear().w.iter().collect();
            let panel = |index: usize| {
                let mut product = Array2::zeros((d_head, panels[index].ncols()));
                gemm::product(1.0, self.p.view(), panels[index], product.view_mut());
                CowArray::from(product)
            };
            // Sums of n products of floats are off by less than n ε times the sum of the products' magnitudes: those of
            // `P W_U`, of d_model products, and of `c P`, of d_head. By Cauchy and Schwarz, as a share of ‖c‖:
            let share = 1.01 * f64::from(f32::EPSILON) * (d_model + d_head) as f64 * norm(&self.p);
            Screen::new(integers, d_head, unembed.d_vocab(), panel, |token| share * w_u.norm(token))
        };
        get_or_make(&self.folded, make).as_ref()
    }
}

/// See [`DecodeBackend::decode`](crate::decode::DecodeBackend::decode).
pub(super) fn decode(vectors: &Vectors, table: &DecodeTable, unembed: &FusedUnembed, k: usize) -> TopTokens {
    let integers = &Integers::new();
    let bias = unembed.bias();
    let arch = pulp::Arch::new();
    let mut top = TopTokensBuilder::new(0, k, bias.len());
    for start in (0..vectors.len()).step_by(ROWS_A_PASS) {
        let c = vectors.make(start..(start + ROWS_A_PASS).min(vectors.len()));
        let c = c.view();
        let mut r = HostArray::uninit(Dim((c.nrows(), table.p.ncols())));
        gemm::product(1.0, c, table.p.view(), r.view_mut());
        let candidates = candidates(integers, c, r.view(), table, unembed, top.n_ranked());
        let best = |(candidates, r): (Candidates, &[f32])| {
            let mut best = TopTokensBuilder::new(1, k, bias.len());
            let mut push = |token| best.push_token(0, token, unembed.logit(arch, r, token));
            match candidates {
                Candidates::Some(tokens) => tokens.into_iter().for_each(&mut push),
                Candidates::All => (0..bias.len() as u32).for_each(&mut push),
            }
            best
        };
        let r = r.as_slice().expect("a product is contiguous").chunks_exact(table.p.ncols());
        let tasks: Vec<_> = candidates.into_iter().zip(r).collect();
        let best: Vec<TopTokensBuilder> = tasks.into_par_iter().with_min_len(4).map(best).collect();
        best.into_iter().for_each(|best| top.extend(best));
    }
    top.finish()
}

/// The tokens that can be among the `wanted` best of each vector. Shape: `c [n, d_head]`, `r [n, d_model]` → `[n]`.
fn candidates(
    integers: &Integers,
    c: ArrayView2<f32>,
    r: ArrayView2<f32>,
    table: &DecodeTable,
    unembed: &FusedUnembed,
    wanted: usize,
) -> Vec<Candidates> {
    let bias = unembed.bias();
    let Some(whole) = unembed.screen(integers) else { return c.outer_iter().map(|_| Candidates::All).collect() };
    let mut candidates = match table.folded(integers, unembed, whole, c.nrows()) {
        Some(folded) => folded.candidates(integers, c, bias, wanted),
        None => {
            let candidates = whole.candidates(integers, r, bias, wanted);
            let number: usize = candidates.iter().map(|of_vector| of_vector.number(bias.len())).sum();
            if number > CANDIDATES_A_VECTOR * candidates.len() {
                table.decoded.store(usize::MAX / 2, Ordering::Relaxed);
            }
            candidates
        }
    };
    let all = |(row, candidates): (usize, &Candidates)| matches!(candidates, Candidates::All).then_some(row);
    let rows: Vec<usize> = candidates.iter().enumerate().filter_map(all).collect();
    if !rows.is_empty() {
        let r = r.select(Axis(0), &rows);
        let by_floats = whole.candidates_by_floats(&unembed.linear().w, r.view(), bias, wanted);
        rows.into_iter().zip(by_floats).for_each(|(row, better)| candidates[row] = better);
    }
    candidates
}
