//! Decoding: the products of many vectors with a folded projection, and the best tokens of each, block by block.

use std::sync::{Arc, OnceLock};

use cudarc::driver::LaunchAsync;
use ndarray::{Array2, ArrayView2, Axis};

use super::device::CudaGpu;
use super::error::CudaError;
use super::kernels::{a_block_each, a_thread_each};
use super::logits::rows_at_once;
use super::memory::Memory;
use super::{CudaLinear, DeviceMatrix};
use crate::decode::n_ranked;
use crate::decode::{TopTokens, Vectors};

/// Vectors of this many bytes are on the gpu at a time, and as many bytes of logits.
const VECTORS_BYTES: usize = 64 << 20;

/// Products of rows with numbers above this may overflow later, and do so otherwise in another order: they go the plain way.
const LARGEST: f32 = 1e9;

/// A head's projection.
pub(crate) struct DecodeTable {
    /// Shape: `[d_head, d_model]`.
    p: DeviceMatrix,
    /// `P W_U`, made when the head is first decoded: a product of it costs `d_head` multiplications, of the unembedding
    /// `d_model`. Shape: `[d_head, d_vocab]`.
    folded: OnceLock<DeviceMatrix>,
}

impl DecodeTable {
    pub(super) fn upload(gpu: &Arc<CudaGpu>, p: ArrayView2<f32>) -> Result<Self, CudaError> {
        Ok(Self { p: DeviceMatrix::upload(gpu, p)?, folded: OnceLock::new() })
    }

    /// The memory that it takes once it is folded.
    pub(super) fn bytes(&self, d_vocab: usize) -> usize {
        size_of::<f32>() * self.p.rows * (self.p.columns + d_vocab)
    }

    fn folded(&self, gpu: &Arc<CudaGpu>, unembed: &CudaLinear) -> Result<&DeviceMatrix, CudaError> {
        if let Some(folded) = self.folded.get() {
            return Ok(folded);
        }
        let folded = self.p.product(gpu, &unembed.w)?;
        Ok(self.folded.get_or_init(|| folded)) // another thread may have been first, with the same
    }
}

/// See [`Backend::decode`](crate::backend::Backend::decode).
pub(super) fn decode(
    gpu: &Arc<CudaGpu>,
    vectors: &Vectors,
    table: &DecodeTable,
    unembed: &CudaLinear,
    k: usize,
) -> Result<TopTokens, CudaError> {
    let (n, d_head, wanted) = (vectors.len(), table.p.rows, n_ranked(k, unembed.w.columns));
    let (mut tokens, mut logits) = (Array2::zeros((n, wanted)), Array2::zeros((n, wanted)));
    let fits = vectors.table().iter().all(|x| x.abs() < LARGEST);
    let widest = if fits { d_head } else { d_head.max(table.p.columns) };
    let at_once = (VECTORS_BYTES / (size_of::<f32>() * widest)).max(1);
    let table = DeviceMatrix::upload(gpu, vectors.table())?;
    let their_tokens = tokens.axis_chunks_iter_mut(Axis(0), at_once);
    let their_logits = logits.axis_chunks_iter_mut(Axis(0), at_once);
    for ((pairs, mut tokens), mut logits) in vectors.pairs().chunks(at_once).zip(their_tokens).zip(their_logits) {
        let c = made_of(gpu, &table, pairs)?;
        let best = match fits {
            true => best_of(gpu, &c, table.folded(gpu, unembed)?, &unembed.b, wanted)?,
            false => best_of(gpu, &c.product(gpu, &table.p)?, &unembed.w, &unembed.b, wanted)?,
        };
        let whole_rows = "whole rows of a new array are contiguous";
        best.tokens.download(0, tokens.as_slice_mut().expect(whole_rows))?;
        best.logits.download(0, logits.as_slice_mut().expect(whole_rows))?;
    }
    Ok(TopTokens::from_ranked(tokens, logits, k))
}

/// Vectors. Shape: → `[n, d_head]`.
#[allow(unsafe_code)]
fn made_of(gpu: &Arc<CudaGpu>, table: &DeviceMatrix, pairs: &[[u32; 2]]) -> Result<DeviceMatrix, CudaError> {
    let c = DeviceMatrix::unset(gpu, pairs.len(), table.columns)?;
    let n = c.rows * c.columns;
    let pairs = Memory::upload(gpu, pairs)?;
    let parameters = (&table.memory, &pairs, &c.memory, c.columns as u32, n as u32);
    // SAFETY: the parameters are those of the kernel, `c` has n numbers, and every pair is of rows of the table.
    unsafe { gpu.kernels.multiply_rows.clone().launch(a_thread_each(n), parameters) }?;
    Ok(c)
}

/// Shape: each `[n, wanted]`.
struct Best {
    tokens: Memory,
    logits: Memory,
}

/// The best tokens of each row of `x w + b`. Asks the gpu for all of it, and waits for none.
#[allow(unsafe_code)]
fn best_of(
    gpu: &Arc<CudaGpu>,
    x: &DeviceMatrix,
    w: &DeviceMatrix,
    b: &Memory,
    wanted: usize,
) -> Result<Best, CudaError> {
    let (n, d_vocab) = (x.rows, w.columns);
    let at_once = rows_at_once(n, d_vocab);
    let block = DeviceMatrix::unset(gpu, at_once, d_vocab)?;
    let best = Best { tokens: Memory::unset::<u32>(gpu, n * wanted)?, logits: Memory::unset::<f32>(gpu, n * wanted)? };
    for start in (0..n).step_by(at_once) {
        let rows = start..(start + at_once).min(n);
        x.product_of_rows(gpu, rows.clone(), w, &block)?;
        let Best { tokens, logits } = &best;
        let parameters = (&block.memory, b, tokens, logits, start as u64, d_vocab as u32, wanted as u32);
        // SAFETY: the parameters are those of the kernel, which has a block for each row; it writes `wanted` tokens and logits
        // of each, at most as many as there are tokens, behind those of the `start` rows before.
        unsafe { gpu.kernels.top_tokens.clone().launch(a_block_each(rows.len()), parameters) }?;
    }
    Ok(best)
}
