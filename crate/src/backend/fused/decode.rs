//! Decoding on the CPU: screens the vocabulary with 8-bit integers ([`int8`](super::int8)), then computes the logits of
//! the few candidate tokens in full precision, so the result is exact.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array1, Array2, ArrayView2, Axis, Dim};
use rayon::prelude::*;
use rten_gemm::GemmInputB;

use super::int8::{Candidates, Kernel, Screen, candidates_by_floats, norm};
use super::packed::STRIP_WIDTH;
use super::{FusedLinear, gemm};
use crate::decode::{Ranking, TopTokens, TopTokensBuilder, Vectors};
use crate::memory::HostArray;

/// Vectors per pass over the vocabulary. It bounds the memory of their candidates.
const VECTORS_PER_PASS: usize = 2048;
/// `P W_U` is computed and quantized once a head has decoded this many vectors times `d_head`. It costs about as much
/// as screening that many vectors with `W_U`, because an 8-bit product costs a quarter of a float product, and makes
/// each later vector many times as fast.
const P_W_U_AFTER: usize = 4;
/// If the vectors of a head have more candidates than this on average, `P W_U` is computed the next time: its columns
/// are sums over all of `d_model`, so they have no outliers.
const P_W_U_ABOVE_CANDIDATES: usize = 512;

/// `W_U` and `b_U`.
pub(crate) struct FusedUnembed {
    /// `W_Uᵀ`, for the logits of single tokens. Shape: `[d_vocab, d_model]`.
    w_u_t: Array2<f32>,
    /// Shape: `[d_vocab]`.
    b_u: Array1<f32>,
    /// The same weights for whole products; made on first use.
    linear: OnceLock<FusedLinear>,
    /// Screens with `W_U`, and at least the norm of each of its columns; made on first use, `None` if a weight is not
    /// finite.
    screen: OnceLock<Option<(Screen, Vec<f32>)>>,
}

/// A head's projection, and its product with the unembedding once that is worthwhile.
pub(crate) struct DecodeTable {
    /// Shape: `[d_head, d_model]`.
    p: Array2<f32>,
    /// Screens with `P W_U`, which takes `d_head` multiplications per logit instead of `d_model`; made once the head
    /// has decoded enough vectors, `None` if a number is not finite.
    p_w_u: OnceLock<Option<Screen>>,
    /// The number of vectors decoded so far.
    decoded: AtomicUsize,
}

impl FusedUnembed {
    /// Shape: `w_u [d_model, d_vocab]`, `b_u [d_vocab]`.
    pub(super) fn new(w_u: Array2<f32>, b_u: Array1<f32>) -> Self {
        // Checkpoints store W_Uᵀ, so this usually copies nothing.
        let w_u_t = w_u.reversed_axes();
        let w_u_t = if w_u_t.is_standard_layout() { w_u_t } else { w_u_t.as_standard_layout().into_owned() };
        Self { w_u_t, b_u, linear: OnceLock::new(), screen: OnceLock::new() }
    }

    /// Shape: → `[d_model, d_vocab]`, `[d_vocab]`.
    pub(super) fn weights(&self) -> (Array2<f32>, Array1<f32>) {
        (self.w_u_t.t().as_standard_layout().into_owned(), self.b_u.clone())
    }

    /// The columns of `W_U` of some tokens. Shape: → `[n, d_model]`.
    pub(super) fn columns(&self, tokens: &[usize]) -> Array2<f32> {
        self.w_u_t.select(Axis(0), tokens)
    }

    pub(super) fn d_vocab(&self) -> usize {
        self.b_u.len()
    }

    pub(super) fn linear(&self) -> &FusedLinear {
        get_or_init_unlocked(&self.linear, || FusedLinear::new(self.w_u_t.t(), self.b_u.clone()))
    }

    /// `b_U`. Shape: → `[d_vocab]`.
    fn bias(&self) -> &[f32] {
        self.b_u.as_slice().expect("a bias is contiguous")
    }

    /// `None` if a weight is not finite.
    fn screen(&self) -> Option<&(Screen, Vec<f32>)> {
        let init = || {
            if !self.bias().iter().all(|b| b.is_finite()) {
                return None;
            }
            let (d_vocab, d_model) = self.w_u_t.dim();
            let strips: Vec<ArrayView2<f32>> = self.w_u_t.axis_chunks_iter(Axis(0), STRIP_WIDTH).collect();
            let strip = |index: usize| strips[index].t().as_standard_layout().into_owned();
            Screen::new(Kernel::fastest(), d_model, d_vocab, strip, |_| 0.0)
        };
        get_or_init_unlocked(&self.screen, init).as_ref()
    }

    /// The logit of one token: exact products, summed in `f64`, in an order that depends on `d_model` alone.
    /// Shape: `r [d_model]`, `bias [d_vocab]`.
    fn logit(&self, arch: pulp::Arch, r: &[f32], bias: &[f32], token: u32) -> f32 {
        let w = self.w_u_t.row(token as usize).to_slice().expect("a row is contiguous");
        let b = f64::from(bias[token as usize]);
        (arch.dispatch(DotF64(r, w)) + b) as f32
    }
}

/// [`OnceLock::get_or_init`], but `init` runs without the lock: it uses rayon, and a thread that waits inside rayon may
/// steal a task that wants the same cell.
fn get_or_init_unlocked<T>(cell: &OnceLock<T>, init: impl FnOnce() -> T) -> &T {
    if let Some(value) = cell.get() {
        return value;
    }
    let value = init();
    cell.get_or_init(|| value) // another thread may have stored the same value meanwhile
}

/// `x · y` in `f64`. Shape: `[n]`, `[n]`.
struct DotF64<'a>(&'a [f32], &'a [f32]);

impl pulp::WithSimd for DotF64<'_> {
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
    /// Shape: `p [d_head, d_model]`.
    pub(super) fn new(p: Array2<f32>) -> Self {
        Self { p, p_w_u: OnceLock::new(), decoded: Default::default() }
    }

    /// The size in bytes once `P W_U` is screened with.
    pub(super) fn bytes(&self, d_vocab: usize) -> usize {
        size_of::<f32>() * self.p.len() + Screen::bytes(self.p.nrows(), d_vocab)
    }

    /// The screen of `P W_U`, computed if that is worthwhile now that `n` more vectors are decoded; else `None`.
    fn p_w_u(&self, unembed: &FusedUnembed, norms_of_w_u: &[f32], n: usize) -> Option<&Screen> {
        let before = self.decoded.fetch_add(n, Ordering::Relaxed);
        let (d_head, d_model) = self.p.dim();
        if self.p_w_u.get().is_none() && before.saturating_add(n) < P_W_U_AFTER * d_head {
            return None;
        }
        let init = || {
            let (p, w_u) = (self.p.as_standard_layout(), &unembed.linear().w);
            let strip = |index: usize| {
                let width = w_u.strip_widths().nth(index).expect("a strip of the vocabulary");
                let mut product = Array2::zeros((d_head, width));
                w_u.strip_matmul(index, p.view(), product.view_mut()); // [d_head, d_model] × [d_model, width]
                product
            };
            // The rounding error of a sum of n float products is below n ε times the sum of their magnitudes. Here two
            // sums are rounded: P W_U (d_model products) and c P (d_head products). By Cauchy-Schwarz, relative to ‖c‖:
            let relative_error = 1.01 * f64::from(f32::EPSILON) * (d_model + d_head) as f64 * norm(&self.p);
            let extra_error = |token: usize| relative_error * f64::from(norms_of_w_u[token]);
            let screen = Screen::new(Kernel::fastest(), d_head, unembed.d_vocab(), strip, extra_error);
            screen.map(|(screen, _)| screen)
        };
        get_or_init_unlocked(&self.p_w_u, init).as_ref()
    }
}

/// See [`DecodeBackend::decode`](crate::decode::DecodeBackend::decode). Shape: `vectors [n, d_head]` → `[n, k]`.
pub(super) fn decode(vectors: &Vectors, table: &DecodeTable, unembed: &FusedUnembed, ranking: Ranking) -> TopTokens {
    let k = ranking.k;
    let bias: &[f32] = &ranking.bias(unembed.bias());
    let arch = pulp::Arch::new();
    let mut top = TopTokensBuilder::new(0, k, bias.len());
    for start in (0..vectors.len()).step_by(VECTORS_PER_PASS) {
        let c = vectors.compute(start..(start + VECTORS_PER_PASS).min(vectors.len()));
        let c = c.view(); // [vectors, d_head]
        let mut r = HostArray::from_pool(Dim((c.nrows(), table.p.ncols())));
        let values = r.as_slice_mut().expect("a new matrix is contiguous");
        let p = GemmInputB::Unpacked(gemm::tensor(table.p.view()));
        gemm::matmul_into(gemm::tensor(c), p, values, false); // [vectors, d_model]
        let candidates = candidates(c, r.view(), table, unembed, bias, top.n_ranked());
        let rank = |(candidates, r): (Candidates, &[f32])| {
            let mut ranked = TopTokensBuilder::new(1, k, bias.len());
            let mut push = |token| ranked.push_token(0, token, unembed.logit(arch, r, bias, token));
            match candidates {
                Candidates::Tokens(tokens) => tokens.into_iter().for_each(&mut push),
                Candidates::All => (0..bias.len() as u32).for_each(&mut push),
            }
            ranked
        };
        let r = r.as_slice().expect("a product is contiguous").chunks_exact(table.p.ncols());
        let tasks: Vec<_> = candidates.into_iter().zip(r).collect();
        let ranked: Vec<TopTokensBuilder> = tasks.into_par_iter().with_min_len(4).map(rank).collect();
        ranked.into_iter().for_each(|ranked| top.extend(ranked));
    }
    top.finish()
}

/// The candidates for the `k` best tokens of each vector. Shape: `c [n, d_head]`, `r [n, d_model]`, `bias [d_vocab]` →
/// `[n]`.
fn candidates(
    c: ArrayView2<f32>,
    r: ArrayView2<f32>,
    table: &DecodeTable,
    unembed: &FusedUnembed,
    bias: &[f32],
    k: usize,
) -> Vec<Candidates> {
    let Some((w_u, norms)) = unembed.screen() else { return c.outer_iter().map(|_| Candidates::All).collect() };
    let mut candidates = match table.p_w_u(unembed, norms, c.nrows()) {
        Some(p_w_u) => p_w_u.candidates(c, bias, k),
        None => {
            let candidates = w_u.candidates(r, bias, k);
            let total: usize = candidates.iter().map(|candidates| candidates.len(bias.len())).sum();
            if total > P_W_U_ABOVE_CANDIDATES * candidates.len() {
                table.decoded.store(usize::MAX / 2, Ordering::Relaxed);
            }
            candidates
        }
    };
    // Vectors whose int8 bounds exclude too few tokens are screened again, with floats.
    let all = |(row, candidates): (usize, &Candidates)| matches!(candidates, Candidates::All).then_some(row);
    let rows: Vec<usize> = candidates.iter().enumerate().filter_map(all).collect();
    if !rows.is_empty() {
        let r = r.select(Axis(0), &rows); // [rows, d_model]
        let fewer = candidates_by_floats(&unembed.linear().w, norms, r.view(), bias, k);
        rows.into_iter().zip(fewer).for_each(|(row, fewer)| candidates[row] = fewer);
    }
    candidates
}
