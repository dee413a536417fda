//! Decoding: the products of many vectors with a folded projection, and the best tokens of each, block by block.

use std::sync::{Arc, OnceLock};

use cudarc::driver::LaunchAsync;
use ndarray::{Array2, ArrayView2, Axis};

use super::card::Card;
use super::kernels::{a_block_each, a_thread_each};
use super::logits::rows_at_once;
use super::memory::Memory;
use super::problem::Problem;
use super::{CudaLinear, Matrix};
use crate::backend::top_tokens::wanted;
use crate::backend::{TopTokens, Vectors};

/// Vectors of this many bytes are on the card at a time, and as many bytes of logits.
const VECTORS_BYTES: usize = 64 << 20;

/// Products of rows with numbers above this may overflow later, and do so otherwise in another order: they go the plain way.
const LARGEST: f32 = 1e9;

/// A head's projection.
pub(crate) struct Projected {
    /// Shape: `[d_head, d_model]`.
    p: Matrix,
    /// `P W_U`, made when the head is first decoded: a product of it costs `d_head` multiplications, of the unembedding
    /// `d_model`. Shape: `[d_head, d_vocab]`.
    folded: OnceLock<Matrix>,
}

impl Projected {
    pub(super) fn upload(card: &Arc<Card>, p: ArrayView2<f32>) -> Result<Self, Problem> {
        Ok(Self { p: Matrix::upload(card, p)?, folded: OnceLock::new() })
    }

    /// The memory that it takes once it is folded.
    pub(super) fn bytes(&self, d_vocab: usize) -> usize {
        size_of::<f32>() * self.p.rows * (self.p.columns + d_vocab)
    }

    fn folded(&self, card: &Arc<Card>, unembed: &CudaLinear) -> Result<&Matrix, Problem> {
        if let Some(folded) = self.folded.get() {
            return Ok(folded);
        }
        let folded = self.p.product(card, &unembed.w)?;
        Ok(self.folded.get_or_init(|| folded)) // another thread may have been first, with the same
    }
}

/// See [`Backend::decode`](crate::backend::Backend::decode).
pub(super) fn decode(
    card: &Arc<Card>,
    vectors: &Vectors,
    projected: &Projected,
    unembed: &CudaLinear,
    k: usize,
) -> Result<TopTokens, Problem> {
    let (n, d_head, wanted) = (vectors.len(), projected.p.rows, wanted(k, unembed.w.columns));
    let (mut tokens, mut logits) = (Array2::zeros((n, wanted)), Array2::zeros((n, wanted)));
    let fits = vectors.table().iter().all(|x| x.abs() < LARGEST);
    let widest = if fits { d_head } else { d_head.max(projected.p.columns) };
    let at_once = (VECTORS_BYTES / (size_of::<f32>() * widest)).max(1);
    let table = Matrix::upload(card, vectors.table())?;
    let their_tokens = tokens.axis_chunks_iter_mut(Axis(0), at_once);
    let their_logits = logits.axis_chunks_iter_mut(Axis(0), at_once);
    for ((pairs, mut tokens), mut logits) in vectors.pairs().chunks(at_once).zip(their_tokens).zip(their_logits) {
        let c = made_of(card, &table, pairs)?;
        let best = match fits {
            true => best_of(card, &c, projected.folded(card, unembed)?, &unembed.b, wanted)?,
            false => best_of(card, &c.product(card, &projected.p)?, &unembed.w, &unembed.b, wanted)?,
        };
        let whole_rows = "whole rows of a new array are contiguous";
        best.tokens.download(0, tokens.as_slice_mut().expect(whole_rows))?;
        best.logits.download(0, logits.as_slice_mut().expect(whole_rows))?;
    }
    Ok(TopTokens::of_best(tokens, logits, k))
}

/// Vectors. Shape: → `[n, d_head]`.
#[allow(unsafe_code)]
fn made_of(card: &Arc<Card>, table: &Matrix, pairs: &[[u32; 2]]) -> Result<Matrix, Problem> {
    let c = Matrix::unset(card, pairs.len(), table.columns)?;
    let n = c.rows * c.columns;
    let pairs = Memory::upload(card, pairs)?;
    let parameters = (&table.memory, &pairs, &c.memory, c.columns as u32, n as u32);
    // SAFETY: the parameters are those of the kernel, `c` has n numbers, and every pair is of rows of the table.
    unsafe { card.kernels.multiply_rows.clone().launch(a_thread_each(n), parameters) }?;
    Ok(c)
}

/// Shape: each `[n, wanted]`.
struct Best {
    tokens: Memory,
    logits: Memory,
}

/// The best tokens of each row of `x w + b`. Asks the card for all of it, and waits for none.
#[allow(unsafe_code)]
fn best_of(card: &Arc<Card>, x: &Matrix, w: &Matrix, b: &Memory, wanted: usize) -> Result<Best, Problem> {
    let (n, d_vocab) = (x.rows, w.columns);
    let at_once = rows_at_once(n, d_vocab);
    let block = Matrix::unset(card, at_once, d_vocab)?;
    let best =
        Best { tokens: Memory::unset::<u32>(card, n * wanted)?, logits: Memory::unset::<f32>(card, n * wanted)? };
    for start in (0..n).step_by(at_once) {
        let rows = start..(start + at_once).min(n);
        x.product_of_rows(card, rows.clone(), w, &block)?;
        let Best { tokens, logits } = &best;
        let parameters = (&block.memory, b, tokens, logits, start as u64, d_vocab as u32, wanted as u32);
        // SAFETY: the parameters are those of the kernel, which has a block for each row; it writes `wanted` tokens and logits
        // of each, at most as many as there are tokens, behind those of the `start` rows before.
        unsafe { card.kernels.top_tokens.clone().launch(a_block_each(rows.len()), parameters) }?;
    }
    Ok(best)
}
