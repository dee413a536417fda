//! Decoding on the GPU: multiply vectors with a head's decode table, and find the best tokens of each, block by block.

use std::sync::{Arc, OnceLock};

use cudarc::driver::LaunchAsync;
use ndarray::{Array2, ArrayView2, Axis};

use super::buffer::DeviceBuffer;
use super::device::CudaGpu;
use super::error::CudaError;
use super::kernels::{block_per_row, thread_per_element};
use super::logits::rows_per_block;
use super::{CudaLinear, DeviceMatrix};
use crate::decode::{Ranking, TopTokens, UnembedBias, Vectors, n_ranked};

/// The size of the vectors that are on the GPU together.
const VECTOR_BYTES: usize = 64 << 20;

/// Products of values above this limit may overflow, and not in the same tokens for `(c P) W_U` as for `c (P W_U)`.
/// Such vectors are decoded as `(c P) W_U`, which is how the reference decodes all.
const MAX_FOLDED: f32 = 1e9;

/// A head's projection, and its product with the unembedding.
pub(crate) struct DecodeTable {
    /// Shape: `[d_head, d_model]`.
    p: DeviceMatrix,
    /// `P W_U`, computed when the head is first decoded. Decoding a vector takes `d_head` multiplications per token
    /// with it, and `d_model` with `W_U`. Shape: `[d_head, d_vocab]`.
    p_w_u: OnceLock<DeviceMatrix>,
}

impl DecodeTable {
    /// Shape: `[d_head, d_model]`.
    pub(super) fn upload(gpu: &Arc<CudaGpu>, p: ArrayView2<f32>) -> Result<Self, CudaError> {
        Ok(Self { p: DeviceMatrix::upload(gpu, p)?, p_w_u: OnceLock::new() })
    }

    /// The size in bytes, `P W_U` included.
    pub(super) fn bytes(&self, d_vocab: usize) -> usize {
        size_of::<f32>() * self.p.rows * (self.p.columns + d_vocab)
    }

    /// `P W_U`. Shape: → `[d_head, d_vocab]`.
    fn p_w_u(&self, gpu: &Arc<CudaGpu>, unembed: &CudaLinear) -> Result<&DeviceMatrix, CudaError> {
        if let Some(p_w_u) = self.p_w_u.get() {
            return Ok(p_w_u);
        }
        let p_w_u = self.p.matmul(gpu, &unembed.w)?;
        Ok(self.p_w_u.get_or_init(|| p_w_u)) // another thread may have stored the same product meanwhile
    }
}

/// See [`DecodeBackend::decode`](crate::decode::DecodeBackend::decode). Shape: `[n, d_head]` → `[n, k]`.
pub(super) fn decode(
    gpu: &Arc<CudaGpu>,
    vectors: &Vectors,
    table: &DecodeTable,
    unembed: &CudaLinear,
    ranking: Ranking,
) -> Result<TopTokens, CudaError> {
    let (n, d_head, n_ranked) = (vectors.len(), table.p.rows, n_ranked(ranking.k, unembed.w.columns));
    let other_bias = match ranking.bias {
        UnembedBias::Added => None,
        UnembedBias::LeftOut => Some(DeviceBuffer::upload(gpu, &vec![0.0_f32; unembed.w.columns])?),
        UnembedBias::Subtracted => {
            let mut b_u = vec![0.0_f32; unembed.w.columns];
            unembed.b.download(0, &mut b_u)?;
            b_u.iter_mut().for_each(|b| *b = -*b);
            Some(DeviceBuffer::upload(gpu, &b_u)?)
        }
    };
    let bias = other_bias.as_ref().unwrap_or(&unembed.b);
    let (mut tokens, mut logits) = (Array2::zeros((n, n_ranked)), Array2::zeros((n, n_ranked)));
    let folded = vectors.table().iter().all(|x| x.abs() < MAX_FOLDED);
    let widest = if folded { d_head } else { d_head.max(table.p.columns) };
    let block_rows = (VECTOR_BYTES / (size_of::<f32>() * widest)).max(1);
    let factors = DeviceMatrix::upload(gpu, vectors.table())?;
    let token_blocks = tokens.axis_chunks_iter_mut(Axis(0), block_rows);
    let logit_blocks = logits.axis_chunks_iter_mut(Axis(0), block_rows);
    for ((pairs, mut tokens), mut logits) in vectors.pairs().chunks(block_rows).zip(token_blocks).zip(logit_blocks) {
        let c = multiply_rows(gpu, &factors, pairs)?; // [block_rows, d_head]
        let best = if folded {
            best_tokens(gpu, &c, table.p_w_u(gpu, unembed)?, bias, n_ranked)?
        } else {
            best_tokens(gpu, &c.matmul(gpu, &table.p)?, &unembed.w, bias, n_ranked)?
        };
        let contiguous = "whole rows of a new array are contiguous";
        best.tokens.download(0, tokens.as_slice_mut().expect(contiguous))?;
        best.logits.download(0, logits.as_slice_mut().expect(contiguous))?;
    }
    Ok(TopTokens::from_ranked(tokens, logits, ranking.k))
}

/// The element-wise products of pairs of rows. Shape: `[rows, d_head]`, `[n]` → `[n, d_head]`.
#[allow(unsafe_code)]
fn multiply_rows(gpu: &Arc<CudaGpu>, factors: &DeviceMatrix, pairs: &[[u32; 2]]) -> Result<DeviceMatrix, CudaError> {
    let c = DeviceMatrix::uninit(gpu, pairs.len(), factors.columns)?;
    let n = c.rows * c.columns;
    let pairs = DeviceBuffer::upload(gpu, pairs)?;
    let parameters = (&factors.buffer, &pairs, &c.buffer, c.columns as u32, n as u32);
    // SAFETY: the parameters are those of the kernel, `c` has `n` elements, and `Vectors` has checked the row indices.
    unsafe { gpu.kernels.multiply_rows.clone().launch(thread_per_element(n), parameters) }?;
    Ok(c)
}

/// Shape: each `[n, n_ranked]`.
struct BestTokens {
    tokens: DeviceBuffer,
    logits: DeviceBuffer,
}

/// The best tokens of each row of `x w + b`. Issues the work and does not wait for it.
/// Shape: `x [n, inner]`, `w [inner, d_vocab]`, `b [d_vocab]` → each `[n, n_ranked]`.
#[allow(unsafe_code)]
fn best_tokens(
    gpu: &Arc<CudaGpu>,
    x: &DeviceMatrix,
    w: &DeviceMatrix,
    b: &DeviceBuffer,
    n_ranked: usize,
) -> Result<BestTokens, CudaError> {
    let (n, d_vocab) = (x.rows, w.columns);
    let block_rows = rows_per_block(n, d_vocab);
    let block = DeviceMatrix::uninit(gpu, block_rows, d_vocab)?;
    let tokens = DeviceBuffer::uninit::<u32>(gpu, n * n_ranked)?;
    let logits = DeviceBuffer::uninit::<f32>(gpu, n * n_ranked)?;
    for start in (0..n).step_by(block_rows) {
        let rows = start..(start + block_rows).min(n);
        x.matmul_rows_into(gpu, rows.clone(), w, &block)?;
        let parameters = (&block.buffer, b, &tokens, &logits, start as u64, d_vocab as u32, n_ranked as u32);
        // SAFETY: the parameters are those of the kernel, which has a block for each row. It writes `n_ranked` tokens
        // and logits of each row, at most `d_vocab` of them, after those of the `start` rows before.
        unsafe { gpu.kernels.top_tokens.clone().launch(block_per_row(rows.len()), parameters) }?;
    }
    Ok(BestTokens { tokens, logits })
}
