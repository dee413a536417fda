//! Decoding: the products of many vectors with a folded projection, and the best tokens of each, block by block.

use std::sync::{Arc, OnceLock};

use cudarc::driver::LaunchAsync;
use ndarray::{Array2, ArrayView2};

use super::card::{Card, Memory, Operand, Problem, Shape};
use super::kernels::a_block_each;
use super::{CudaLinear, Matrix};
use crate::backend::TopTokens;
use crate::backend::top_tokens::wanted;

/// Logits of this many bytes are on the card at a time.
const LOGITS_BYTES: usize = 64 << 20;

/// Vectors with numbers above this may overflow, and do so otherwise in another order of the products: they go the plain way.
const LARGEST: f32 = 1e18;

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
#[allow(unsafe_code)]
pub(super) fn decode(
    card: &Arc<Card>,
    c: ArrayView2<f32>,
    projected: &Projected,
    unembed: &CudaLinear,
    k: usize,
) -> Result<TopTokens, Problem> {
    let (n, d_vocab) = (c.nrows(), unembed.w.columns);
    let wanted = wanted(k, d_vocab);
    let (mut found, mut their_logits) = (Array2::zeros((n, wanted)), Array2::zeros((n, wanted)));
    if n == 0 {
        return Ok(TopTokens::of_best(found, their_logits, k));
    }
    let fits = c.iter().all(|x| x.abs() < LARGEST);
    let c = Matrix::upload(card, c)?;
    let (x, w) = match fits {
        true => (c, projected.folded(card, unembed)?),
        false => (c.product(card, &projected.p)?, &unembed.w),
    };
    let rows_at_once = (LOGITS_BYTES / (size_of::<f32>() * d_vocab)).clamp(1, n);
    let logits = Matrix::unset(card, rows_at_once, d_vocab)?;
    let (tokens, best) = (Memory::unset::<u32>(card, n * wanted)?, Memory::unset::<f32>(card, n * wanted)?);
    for start in (0..n).step_by(rows_at_once) {
        let rows = rows_at_once.min(n - start);
        let shape = Shape { rows, inner: x.columns, columns: d_vocab, count: 1 };
        let x = Operand { first: start * x.columns, ..x.operand() };
        card.products(1.0, x, w.operand(), logits.operand(), shape)?;
        let parameters = (&logits.memory, &unembed.b, &tokens, &best, start as u64, d_vocab as u32, wanted as u32);
        // SAFETY: the parameters are those of the kernel, which has a block for each row; it writes `wanted` tokens and logits
        // of each, at most as many as there are tokens, behind those of the `start` rows before.
        unsafe { card.kernels.top_tokens.clone().launch(a_block_each(rows), parameters) }?;
    }
    // Only now, so that the card has all its work before anything waits for it.
    tokens.download(0, found.as_slice_mut().expect("a new array is contiguous"))?;
    best.download(0, their_logits.as_slice_mut().expect("a new array is contiguous"))?;
    Ok(TopTokens::of_best(found, their_logits, k))
}
