//! Logits, block by block: those of a long batch are more than many a gpu has room for.

use std::ops::Range;

use ndarray::{Array2, Dim};

use super::error::CudaError;
use super::kernels::Epilogue;
use super::{Cuda, CudaLinear, DeviceMatrix};
use crate::memory::HostArray;

/// Logits of this many bytes are on the gpu at a time.
const BYTES: usize = 64 << 20;

/// cuBLAS computes as many rows together, or a divisor of as many.
const TILE: usize = 128;

/// How many rows of logits are made at a time, of `n`.
pub(super) fn rows_at_once(n: usize, d_vocab: usize) -> usize {
    let most = (BYTES / (size_of::<f32>() * d_vocab)).max(1);
    if n <= most {
        n.max(1)
    } else if most < TILE {
        most
    } else {
        most / TILE * TILE
    }
}

/// See [`Backend::logits`](crate::backend::Backend::logits).
pub(super) fn logits(
    cuda: &Cuda,
    unembed: &CudaLinear,
    x: &DeviceMatrix,
    prompts: &[Range<usize>],
) -> Result<Vec<Array2<f32>>, CudaError> {
    let d_vocab = unembed.w.columns;
    let at_once = rows_at_once(x.rows, d_vocab);
    let block = DeviceMatrix::unset(&cuda.gpu, at_once, d_vocab)?;
    let unset = |rows: &Range<usize>| HostArray::from_pool(Dim((rows.len(), d_vocab))).into_owned();
    let mut all: Vec<Array2<f32>> = prompts.iter().map(unset).collect();
    for start in (0..x.rows).step_by(at_once) {
        let rows = start..(start + at_once).min(x.rows);
        x.product_of_rows(&cuda.gpu, rows.clone(), &unembed.w, &block)?;
        cuda.add_bias(&block.memory, &unembed.b, [rows.len(), d_vocab], 1, Epilogue::None)?;
        // The part of each prompt that is in this block.
        for (prompt, logits) in prompts.iter().zip(&mut all) {
            let part = prompt.start.max(rows.start)..prompt.end.min(rows.end);
            if !part.is_empty() {
                let values = logits.as_slice_mut().expect("a new array is contiguous");
                let of_prompt = (part.start - prompt.start) * d_vocab..(part.end - prompt.start) * d_vocab;
                block.memory.download((part.start - rows.start) * d_vocab, &mut values[of_prompt])?;
            }
        }
    }
    Ok(all)
}
