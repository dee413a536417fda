//! Attention of a batch: all prompts of one length at a time, so that a gpu has enough to do.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{DeviceRepr, LaunchAsync};
use ndarray::Dim;

use super::DeviceMatrix;
use super::cached::DeviceSlice;
use super::device::CudaGpu;
use super::error::CudaError;
use super::gemm::{Operand, Shape};
use super::kernels::{a_block_each, a_thread_each};
use super::memory::Memory;
use crate::backend::AttentionOutput;

/// Patterns of this many bytes are on the gpu at a time, or one prompt's if that is larger.
const PATTERN_BYTES: usize = 64 << 20;

/// `MOST_PROMPTS` of `kernels.cu`.
const MOST_PROMPTS: usize = 256;

/// `FirstRows` of `kernels.cu`.
#[repr(C)]
struct FirstRows([u32; MOST_PROMPTS]);

// SAFETY: a kernel's parameter is these numbers themselves, laid out as the kernel has them.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for FirstRows {}

/// See [`Backend::attention`](crate::backend::Backend::attention).
pub(super) fn attention(
    gpu: &Arc<CudaGpu>,
    qkv: [&DeviceMatrix; 3],
    n_heads: usize,
    prompts: &[Range<usize>],
    keep_pattern: bool,
) -> Result<AttentionOutput<DeviceMatrix>, CudaError> {
    let z = DeviceMatrix::unset(gpu, qkv[0].rows, qkv[0].columns)?;
    let mut kept = BTreeMap::new();
    for (pos, group) in groups(prompts, n_heads) {
        let first_rows: Vec<usize> = group.iter().map(|&prompt| prompts[prompt].start).collect();
        let pattern = Memory::unset::<f32>(gpu, group.len() * n_heads * pos * pos)?;
        let heads = Heads { gpu, qkv, n_heads, pos, pattern: &pattern, z: &z };
        match first_rows[..] {
            [first_row] => heads.of_one_prompt(first_row)?,
            _ => heads.of_prompts(&first_rows)?,
        }
        for (index, prompt) in group.into_iter().enumerate().filter(|_| keep_pattern) {
            let of_prompt = DeviceSlice { memory: &pattern, first: index * n_heads * pos * pos };
            kept.insert(prompt, of_prompt.keep(gpu, Dim((n_heads, pos, pos)))?);
        }
    }
    Ok(AttentionOutput { z, pattern: kept.into_values().collect() })
}

/// Prompts of one length, as many as there is room for, each with that length.
fn groups(prompts: &[Range<usize>], n_heads: usize) -> Vec<(usize, Vec<usize>)> {
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (prompt, rows) in prompts.iter().enumerate() {
        by_length.entry(rows.len()).or_default().push(prompt);
    }
    let cut = |(pos, prompts): (usize, Vec<usize>)| {
        let at_once = (PATTERN_BYTES / (size_of::<f32>() * n_heads * pos * pos)).clamp(1, MOST_PROMPTS);
        prompts.chunks(at_once).map(|group| (pos, group.to_vec())).collect::<Vec<_>>()
    };
    by_length.into_iter().flat_map(cut).collect()
}

/// The heads of some prompts of `pos` tokens.
struct Heads<'a> {
    gpu: &'a Arc<CudaGpu>,
    /// Shape: each `[rows, n_heads d_head]`, the rows of the whole batch.
    qkv: [&'a DeviceMatrix; 3],
    n_heads: usize,
    pos: usize,
    /// To be written. Shape: `[prompts, n_heads, query_pos, key_pos]`.
    pattern: &'a Memory,
    /// The rows of these prompts are to be written. Shape: `[rows, n_heads d_head]`.
    z: &'a DeviceMatrix,
}

impl Heads<'_> {
    /// Those of a single prompt lie at even distances.
    fn of_one_prompt(&self, first_row: usize) -> Result<(), CudaError> {
        let &Self { gpu, qkv: [q, k, v], n_heads, pos, pattern, z } = self;
        let of = |x| DeviceMatrix::heads(x, first_row, n_heads);
        let pattern = Operand { memory: pattern, first: 0, row: pos, next: pos * pos, transposed: false };
        self.attend([of(q), of(k), of(v), pattern, of(z)], n_heads, |factor, a, b, c, shape| {
            gpu.products(factor, a, b, c, shape)
        })
    }

    /// Those of several lie here and there: a kernel lists where.
    #[allow(unsafe_code)]
    fn of_prompts(&self, first_rows: &[usize]) -> Result<(), CudaError> {
        let &Self { gpu, qkv: [q, k, v], n_heads, pos, pattern, z } = self;
        let n = first_rows.len() * n_heads;
        let lists = Memory::unset::<u64>(gpu, 5 * n)?;
        let mut of = [0; MOST_PROMPTS];
        of.iter_mut().zip(first_rows).for_each(|(to, &row)| *to = row as u32);
        let (q, k, v, to) = (&q.memory, &k.memory, &v.memory, &z.memory);
        let [heads, d_head, rows, matrices] = [n_heads, z.columns / n_heads, pos, n].map(|size| size as u32);
        let parameters = (FirstRows(of), q, k, v, pattern, to, &lists, heads, d_head, rows, matrices);
        // SAFETY: the parameters are those of the kernel, and there is room for five addresses for each head.
        unsafe { gpu.kernels.list_heads.clone().launch(a_thread_each(n), parameters) }?;
        let listed = |index: usize, row| Operand { memory: &lists, first: index * n, row, next: 0, transposed: false };
        let [q, k, v, z_of_heads] = [0, 1, 2, 4].map(|index| listed(index, z.columns));
        self.attend([q, k, v, listed(3, pos), z_of_heads], n, |factor, a, b, c, shape| {
            // SAFETY: the rows of these prompts are in `q`, `k`, `v` and `z`, and their patterns in `pattern`.
            unsafe { gpu.products_of_listed(factor, a, b, c, shape) }
        })
    }

    /// `pattern = softmax(q kᵀ / √d_head)` and `z = pattern v`, for so many heads.
    #[allow(unsafe_code)]
    fn attend<'a>(
        &self,
        [q, k, v, pattern, z]: [Operand<'a>; 5],
        count: usize,
        products: impl Fn(f32, Operand<'a>, Operand<'a>, Operand<'a>, Shape) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let (pos, d_head) = (self.pos, self.z.columns / self.n_heads);
        let transposed_k = Operand { transposed: true, ..k };
        let scores = Shape { rows: pos, inner: d_head, columns: pos, count };
        products(1.0 / (d_head as f32).sqrt(), q, transposed_k, pattern, scores)?;
        let (softmax, blocks) = (self.gpu.kernels.causal_softmax.clone(), a_block_each(count * pos));
        // SAFETY: the parameters are those of the kernel, which has a block for each row of the scores.
        unsafe { softmax.launch(blocks, (self.pattern, pos as u32)) }?;
        products(1.0, pattern, v, z, Shape { rows: pos, inner: pos, columns: d_head, count })
    }
}
