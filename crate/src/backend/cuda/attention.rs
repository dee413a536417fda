//! Attention of a batch. Prompts of equal length are computed together, to occupy the GPU.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{DeviceRepr, LaunchAsync};
use ndarray::Dim;

use super::DeviceMatrix;
use super::buffer::DeviceBuffer;
use super::cached::DeviceSlice;
use super::device::CudaGpu;
use super::edits::edit_cells;
use super::error::CudaError;
use super::gemm::{GemmShape, Operand};
use super::kernels::{block_per_row, thread_per_element};
use crate::backend::{AttentionOutput, CellEdits, Heads};

/// The size of the patterns that are computed together, unless one prompt's pattern is larger.
const PATTERN_BYTES: usize = 64 << 20;

/// `MAX_PROMPTS` in `kernels.cu`.
const MAX_PROMPTS: usize = 256;

/// `FirstRows` in `kernels.cu`.
#[repr(C)]
struct FirstRows([u32; MAX_PROMPTS]);

// SAFETY: the kernel takes this struct by value, and declares it with the same layout.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for FirstRows {}

/// See [`Backend::attention`](crate::backend::Backend::attention), and
/// [`Backend::edited_attention`](crate::backend::Backend::edited_attention) where there are `edits`, of each prompt or none.
/// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `z` the same, each pattern `[n_heads, query_pos, key_pos]`.
pub(super) fn attention(
    gpu: &Arc<CudaGpu>,
    qkv: [&DeviceMatrix; 3],
    heads: Heads,
    prompts: &[Range<usize>],
    keep_pattern: bool,
    edits: &[CellEdits],
) -> Result<AttentionOutput<DeviceMatrix>, CudaError> {
    let n_heads = heads.n_heads;
    let z = DeviceMatrix::uninit(gpu, qkv[0].rows, qkv[0].columns)?;
    let mut patterns = BTreeMap::new();
    for (pos, prompt_indices) in groups_of_equal_length(prompts, n_heads) {
        let first_rows: Vec<usize> = prompt_indices.iter().map(|&prompt| prompts[prompt].start).collect();
        let pattern = DeviceBuffer::uninit::<f32>(gpu, prompt_indices.len() * n_heads * pos * pos)?;
        let edits = prompt_indices.iter().filter_map(|&prompt| edits.get(prompt)).collect();
        let group = PromptGroup { gpu, qkv, heads, pos, edits, pattern: &pattern, z: &z };
        match first_rows[..] {
            [first_row] => group.attend_one(first_row)?,
            _ => group.attend_several(&first_rows)?,
        }
        for (index, prompt) in prompt_indices.into_iter().enumerate().filter(|_| keep_pattern) {
            let of_prompt = DeviceSlice { buffer: &pattern, offset: index * n_heads * pos * pos };
            patterns.insert(prompt, of_prompt.to_lazy(gpu, Dim((n_heads, pos, pos)))?);
        }
    }
    Ok(AttentionOutput { z, pattern: patterns.into_values().collect() })
}

/// The number of tokens and the indices of prompts of equal length, at most [`PATTERN_BYTES`] of patterns in a group.
fn groups_of_equal_length(prompts: &[Range<usize>], n_heads: usize) -> Vec<(usize, Vec<usize>)> {
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (prompt, rows) in prompts.iter().enumerate() {
        by_length.entry(rows.len()).or_default().push(prompt);
    }
    let split = |(pos, prompts): (usize, Vec<usize>)| {
        let max_prompts = (PATTERN_BYTES / (size_of::<f32>() * n_heads * pos * pos)).clamp(1, MAX_PROMPTS);
        prompts.chunks(max_prompts).map(|group| (pos, group.to_vec())).collect::<Vec<_>>()
    };
    by_length.into_iter().flat_map(split).collect()
}

/// Prompts of `pos` tokens each.
struct PromptGroup<'a> {
    gpu: &'a Arc<CudaGpu>,
    /// The rows of the whole batch. Shape: each `[rows, n_heads d_head]`.
    qkv: [&'a DeviceMatrix; 3],
    heads: Heads,
    pos: usize,
    /// The edits of each prompt, or none.
    edits: Vec<&'a CellEdits>,
    /// Output. Shape: `[prompts, n_heads, query_pos, key_pos]`.
    pattern: &'a DeviceBuffer,
    /// Output, in the rows of these prompts. Shape: `[rows, n_heads d_head]`.
    z: &'a DeviceMatrix,
}

impl PromptGroup<'_> {
    /// The heads of a single prompt are at equal distances in memory: strided products.
    fn attend_one(&self, first_row: usize) -> Result<(), CudaError> {
        let &Self { gpu, qkv: [q, k, v], heads: Heads { n_heads, .. }, pos, pattern, z, .. } = self;
        let heads = |x| DeviceMatrix::heads(x, first_row, n_heads);
        let pattern =
            Operand { buffer: pattern, offset: 0, row_stride: pos, matrix_stride: pos * pos, transposed: false };
        self.attend([heads(q), heads(k), heads(v), pattern, heads(z)], n_heads, |alpha, a, b, c, shape| {
            gpu.gemm(alpha, a, b, c, shape)
        })
    }

    /// The heads of several prompts are anywhere in the batch: products with lists of addresses, made by a kernel.
    #[allow(unsafe_code)]
    fn attend_several(&self, first_rows: &[usize]) -> Result<(), CudaError> {
        let &Self { gpu, qkv: [q, k, v], heads: Heads { n_heads, .. }, pos, pattern, z, .. } = self;
        let n = first_rows.len() * n_heads;
        let addresses = DeviceBuffer::uninit::<u64>(gpu, 5 * n)?; // [5, prompts, n_heads]
        let mut rows = FirstRows([0; MAX_PROMPTS]);
        rows.0.iter_mut().zip(first_rows).for_each(|(to, &row)| *to = row as u32);
        let sizes = [n_heads, z.columns / n_heads, pos, n].map(|size| size as u32);
        let [n_heads, d_head, pos_u32, n_u32] = sizes;
        let (q, k, v, z_buffer) = (&q.buffer, &k.buffer, &v.buffer, &z.buffer);
        let parameters = (rows, q, k, v, pattern, z_buffer, &addresses, n_heads, d_head, pos_u32, n_u32);
        // SAFETY: the parameters are those of the kernel, and `addresses` has room for five of them for each head.
        unsafe { gpu.kernels.list_head_addresses.clone().launch(thread_per_element(n), parameters) }?;
        let list = |index: usize, row_stride| Operand {
            buffer: &addresses,
            offset: index * n,
            row_stride,
            matrix_stride: 0,
            transposed: false,
        };
        let [q, k, v, z] = [0, 1, 2, 4].map(|index| list(index, z.columns));
        self.attend([q, k, v, list(3, pos), z], n, |alpha, a, b, c, shape| {
            // SAFETY: the kernel wrote addresses of these prompts' rows in `q`, `k`, `v` and `z`, and of their
            // patterns.
            unsafe { gpu.gemm_batched(alpha, a, b, c, shape) }
        })
    }

    /// `pattern = softmax(score_scale q kᵀ)` and `z = pattern v`, for `count` heads, with the edits of scores and patterns.
    /// Shape: `q`, `k`, `v` each `[count, pos, d_head]` → `pattern [count, pos, pos]`, `z [count, pos, d_head]`.
    #[allow(unsafe_code)]
    fn attend<'a>(
        &self,
        [q, k, v, pattern, z]: [Operand<'a>; 5],
        count: usize,
        gemm: impl Fn(f32, Operand<'a>, Operand<'a>, Operand<'a>, GemmShape) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let (pos, d_head) = (self.pos, self.z.columns / self.heads.n_heads);
        let k_transposed = Operand { transposed: true, ..k };
        let scores = GemmShape { rows: pos, inner: d_head, columns: pos, count };
        gemm(self.heads.score_scale, q, k_transposed, pattern, scores)?;
        let sizes = [self.heads.n_heads, pos];
        edit_cells(self.gpu, self.pattern, self.edits.iter().map(|edits| &edits.scores), sizes)?;
        let kernels = &self.gpu.kernels;
        let edited = self.edits.iter().any(|edits| !edits.scores.is_empty());
        let softmax = if edited { &kernels.edited_causal_softmax } else { &kernels.causal_softmax };
        // SAFETY: the parameters are those of either kernel, which has a block for each row of the scores.
        unsafe { softmax.clone().launch(block_per_row(count * pos), (self.pattern, pos as u32)) }?;
        edit_cells(self.gpu, self.pattern, self.edits.iter().map(|edits| &edits.pattern), sizes)?;
        gemm(1.0, pattern, v, z, GemmShape { rows: pos, inner: pos, columns: d_head, count })
    }
}
