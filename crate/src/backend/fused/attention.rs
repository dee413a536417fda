//! Causal attention, one head and one block of queries per task.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, Dim, Ix2, Ix3, s};
use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::Softmax;

use super::{gemm, split};
use crate::backend::AttentionOutput;
use crate::memory::HostArray;

/// Queries per task. Keys after a block's last query are skipped, which saves almost half of the work of a long prompt.
const QUERIES_PER_TASK: usize = 128;

/// See [`Backend::attention`](crate::backend::Backend::attention).
/// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `z` the same, `pattern` each `[n_heads, query_pos, key_pos]`.
pub(super) fn attention(
    [q, k, v]: [ArrayView2<f32>; 3],
    n_heads: usize,
    prompts: &[Range<usize>],
    keep_pattern: bool,
) -> AttentionOutput<HostArray<Ix2>> {
    let uninitialized = |rows: &Range<usize>| HostArray::from_pool(Dim((n_heads, rows.len(), rows.len())));
    let mut pattern: Vec<HostArray<Ix3>> = prompts.iter().filter(|_| keep_pattern).map(uninitialized).collect();
    let mut z = HostArray::from_pool(q.raw_dim());

    let mut tasks = Vec::new();
    let mut patterns = pattern.iter_mut();
    for (rows, z) in prompts.iter().zip(split(z.view_mut(), Axis(0), prompts.iter().map(Range::len))) {
        let mut pattern = patterns.next().map(|pattern| split_by_block(pattern).into_iter());
        let heads = split(z, Axis(1), (0..n_heads).map(|_| q.ncols() / n_heads)); // each [pos, d_head]
        for (block, z) in query_blocks(n_heads, rows.len()).zip(heads.into_iter().flat_map(split_queries)) {
            let pattern = pattern.as_mut().and_then(Iterator::next);
            tasks.push((block.scores([q, k], n_heads, rows), block.visible(v, n_heads, rows), z, pattern));
        }
    }
    tasks.into_par_iter().for_each(|(scores, v, z, pattern)| scores.attend(v, z, pattern));
    AttentionOutput { z, pattern: pattern.into_iter().map(HostArray::into).collect() }
}

/// See [`Backend::attn_scores`](crate::backend::Backend::attn_scores). The scores are bit-identical to those inside
/// [`attention`]. Shape: `q`, `k` each `[rows, n_heads d_head]` → `[n_heads, query_pos, key_pos]`.
pub(crate) fn attn_scores(
    q: ArrayView2<f32>,
    k: ArrayView2<f32>,
    n_heads: usize,
    rows: Range<usize>,
) -> HostArray<Ix3> {
    let mut scores = HostArray::from_pool(Dim((n_heads, rows.len(), rows.len())));
    // On one thread: a cache computes scores while holding a lock, and a thread that waits inside rayon may steal a
    // task that wants the same lock.
    for (block, mut scores) in query_blocks(n_heads, rows.len()).zip(split_by_block(&mut scores)) {
        block.scores([q, k], n_heads, &rows).compute_into(scores.slice_mut(s![.., ..block.queries.end]));
        for (query, mut row) in block.queries.zip(scores.rows_mut()) {
            row.slice_mut(s![query + 1..]).fill(f32::NEG_INFINITY);
        }
    }
    scores
}

/// A range of one head's queries.
struct QueryBlock {
    head: usize,
    queries: Range<usize>,
}

/// The blocks of a prompt, head by head.
fn query_blocks(n_heads: usize, pos: usize) -> impl Iterator<Item = QueryBlock> {
    let starts = move || (0..pos).step_by(QUERIES_PER_TASK);
    let block = move |head, start| QueryBlock { head, queries: start..(start + QUERIES_PER_TASK).min(pos) };
    (0..n_heads).flat_map(move |head| starts().map(move |start| block(head, start)))
}

/// Splits the rows of one head into its [`query_blocks`]. Shape: `[pos, columns]` → each `[queries, columns]`.
fn split_queries(x: ArrayViewMut2<'_, f32>) -> Vec<ArrayViewMut2<'_, f32>> {
    let sizes: Vec<usize> = query_blocks(1, x.nrows()).map(|block| block.queries.len()).collect();
    split(x, Axis(0), sizes.into_iter())
}

/// Splits a pattern or scores into [`query_blocks`].
/// Shape: `[n_heads, query_pos, key_pos]` → each `[queries, key_pos]`.
fn split_by_block(by_head: &mut HostArray<Ix3>) -> Vec<ArrayViewMut2<'_, f32>> {
    by_head.outer_iter_mut().flat_map(split_queries).collect()
}

impl QueryBlock {
    /// The block's queries, and the keys up to its last query.
    /// Shape: `q`, `k` each `[rows, n_heads d_head]` → `[queries, d_head]`, `[keys, d_head]`.
    fn scores<'a>(&self, [q, k]: [ArrayView2<'a, f32>; 2], n_heads: usize, rows: &Range<usize>) -> BlockScores<'a> {
        let queries = self.queries.clone();
        let q = self.head_columns(q, n_heads, rows).slice_move(s![queries.clone(), ..]);
        BlockScores { q, k: self.visible(k, n_heads, rows), first_query: queries.start }
    }

    /// The keys or values up to the block's last query. Shape: `[rows, n_heads d_head]` → `[keys, d_head]`.
    fn visible<'a>(&self, x: ArrayView2<'a, f32>, n_heads: usize, rows: &Range<usize>) -> ArrayView2<'a, f32> {
        self.head_columns(x, n_heads, rows).slice_move(s![..self.queries.end, ..])
    }

    /// One prompt's rows and one head's columns. Shape: `[rows, n_heads d_head]` → `[pos, d_head]`.
    fn head_columns<'a>(&self, x: ArrayView2<'a, f32>, n_heads: usize, rows: &Range<usize>) -> ArrayView2<'a, f32> {
        let d_head = x.ncols() / n_heads;
        x.slice_move(s![rows.clone(), self.head * d_head..(self.head + 1) * d_head])
    }
}

/// The attention scores of a block, `q kᵀ / √d_head`.
struct BlockScores<'a> {
    /// Shape: `[queries, d_head]`.
    q: ArrayView2<'a, f32>,
    /// Shape: `[keys, d_head]`.
    k: ArrayView2<'a, f32>,
    first_query: usize,
}

impl BlockScores<'_> {
    /// Writes the scores of all cells, including those to be masked. Shape: → `scores [queries, keys]`.
    fn compute_into(&self, scores: ArrayViewMut2<f32>) {
        let d_head = self.q.ncols() as f32;
        gemm::matmul(1.0 / d_head.sqrt(), self.q, self.k.t(), scores); // [queries, d_head] × [d_head, keys]
    }

    /// Writes `z`, and the pattern if there is an array for it.
    /// Shape: `v [keys, d_head]` → `z [queries, d_head]`, `pattern [queries, key_pos]`.
    fn attend(&self, v: ArrayView2<f32>, z: ArrayViewMut2<f32>, mut pattern: Option<ArrayViewMut2<f32>>) {
        let keys = self.k.nrows();
        let mut scratch = HostArray::from_pool(Dim(if pattern.is_none() { (z.nrows(), keys) } else { (0, 0) }));
        let mut pattern = match &mut pattern {
            Some(pattern) => {
                let (visible, mut masked) = pattern.view_mut().split_at(Axis(1), keys);
                masked.fill(0.0);
                visible
            }
            None => scratch.view_mut(),
        }; // [queries, keys]
        self.compute_into(pattern.view_mut());
        for (index, mut row) in pattern.rows_mut().into_iter().enumerate() {
            let (visible, masked) =
                row.as_slice_mut().expect("a row is contiguous").split_at_mut(self.first_query + index + 1);
            Softmax::new_mut(visible).dispatch();
            masked.fill(0.0);
        }
        gemm::matmul(1.0, pattern.view(), v, z); // [queries, keys] × [keys, d_head]
    }
}
