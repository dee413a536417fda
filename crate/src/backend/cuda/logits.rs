//! Logits, block by block: those of a long batch are larger than the memory of many GPUs.

use std::ops::Range;

use ndarray::{Array2, Dim};

use super::error::CudaError;
use super::kernels::Epilogue;
use super::{Cuda, CudaLinear, DeviceMatrix};
use crate::memory::HostArray;

/// The size of a block of logits on the GPU.
const BLOCK_BYTES: usize = 64 << 20;

/// cuBLAS computes tiles of this many rows, or of a divisor of it.
const TILE_ROWS: usize = 128;

/// The number of rows in a block of logits, for `n` rows in all. A multiple of [`TILE_ROWS`] where several tiles fit.
pub(super) fn rows_per_block(n: usize, d_vocab: usize) -> usize {
    let max_rows = (BLOCK_BYTES / (size_of::<f32>() * d_vocab)).max(1);
    if n <= max_rows {
        n.max(1)
    } else if max_rows < TILE_ROWS {
        max_rows
    } else {
        max_rows / TILE_ROWS * TILE_ROWS
    }
}

/// See [`Backend::logits`](crate::backend::Backend::logits). Shape: `[rows, d_model]` → each `[pos, d_vocab]`.
pub(super) fn logits(
    cuda: &Cuda,
    unembed: &CudaLinear,
    x: &DeviceMatrix,
    prompts: &[Range<usize>],
) -> Result<Vec<Array2<f32>>, CudaError> {
    let d_vocab = unembed.w.columns;
    let block_rows = rows_per_block(x.rows, d_vocab);
    let block = DeviceMatrix::uninit(&cuda.gpu, block_rows, d_vocab)?;
    let from_pool = |rows: &Range<usize>| HostArray::from_pool(Dim((rows.len(), d_vocab))).into_owned();
    let mut all: Vec<Array2<f32>> = prompts.iter().map(from_pool).collect();
    for start in (0..x.rows).step_by(block_rows) {
        let rows = start..(start + block_rows).min(x.rows);
        x.matmul_rows_into(&cuda.gpu, rows.clone(), &unembed.w, &block)?;
        cuda.add_bias(&block.buffer, &unembed.b, [rows.len(), d_vocab], 1, Epilogue::None)?;
        for (prompt, logits) in prompts.iter().zip(&mut all) {
            let common = prompt.start.max(rows.start)..prompt.end.min(rows.end);
            if !common.is_empty() {
                let values = logits.as_slice_mut().expect("a new array is contiguous");
                let in_prompt = (common.start - prompt.start) * d_vocab..(common.end - prompt.start) * d_vocab;
                block.buffer.download((common.start - rows.start) * d_vocab, &mut values[in_prompt])?;
            }
        }
    }
    Ok(all)
}
