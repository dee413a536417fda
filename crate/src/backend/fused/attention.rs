//! Causal attention, a head and a block of queries at a time.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, Dim, Ix2, Ix3, s};
use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::Softmax;

use super::{gemm, split};
use crate::backend::AttentionOutput;
use crate::memory::HostArray;

/// Queries that one task computes. Keys beyond the last of them are not looked at, which saves almost half of the work
/// where a prompt has many blocks.
const QUERIES: usize = 128;

/// See [`Backend::attention`](crate::backend::Backend::attention).
pub(super) fn attention(
    [q, k, v]: [ArrayView2<f32>; 3],
    n_heads: usize,
    prompts: &[Range<usize>],
    keep_pattern: bool,
) -> AttentionOutput<HostArray<Ix2>> {
    let square = |rows: &Range<usize>| HostArray::uninit(Dim((n_heads, rows.len(), rows.len())));
    let mut pattern: Vec<HostArray<Ix3>> = prompts.iter().filter(|_| keep_pattern).map(square).collect();
    let mut z = HostArray::uninit(q.raw_dim());

    let mut tasks = Vec::new();
    let mut patterns = pattern.iter_mut();
    for (rows, z) in prompts.iter().zip(split(z.view_mut(), Axis(0), prompts.iter().map(Range::len))) {
        let mut pattern = patterns.next().map(|pattern| in_blocks(pattern).into_iter());
        let heads = split(z, Axis(1), (0..n_heads).map(|_| q.ncols() / n_heads));
        for (block, z) in blocks(n_heads, rows.len()).zip(heads.into_iter().flat_map(in_query_blocks)) {
            let pattern = pattern.as_mut().and_then(Iterator::next);
            tasks.push((block.of([q, k], n_heads, rows), block.keys_of(v, n_heads, rows), z, pattern));
        }
    }
    tasks.into_par_iter().for_each(|(scores, v, z, pattern)| scores.attend(v, z, pattern));
    AttentionOutput { z, pattern: pattern.into_iter().map(HostArray::into).collect() }
}

/// See [`Backend::attn_scores`](crate::backend::Backend::attn_scores). The same numbers, bit by bit, as those that
/// [`attention`] works with.
pub(crate) fn attn_scores(
    q: ArrayView2<f32>,
    k: ArrayView2<f32>,
    n_heads: usize,
    rows: Range<usize>,
) -> HostArray<Ix3> {
    let mut scores = HostArray::uninit(Dim((n_heads, rows.len(), rows.len())));
    // On this thread alone: a cache computes them under a lock, and a thread that waits for others inside rayon may take up
    // a task that wants the same lock.
    for (block, mut scores) in blocks(n_heads, rows.len()).zip(in_blocks(&mut scores)) {
        block.of([q, k], n_heads, &rows).write(scores.slice_mut(s![.., ..block.queries.end]));
        for (query, mut row) in block.queries.zip(scores.rows_mut()) {
            row.slice_mut(s![query + 1..]).fill(f32::NEG_INFINITY);
        }
    }
    scores
}

/// Some queries of one head.
struct Block {
    head: usize,
    queries: Range<usize>,
}

/// The blocks of a prompt, head by head.
fn blocks(n_heads: usize, pos: usize) -> impl Iterator<Item = Block> {
    let starts = move || (0..pos).step_by(QUERIES);
    let block = move |head, start| Block { head, queries: start..(start + QUERIES).min(pos) };
    (0..n_heads).flat_map(move |head| starts().map(move |start| block(head, start)))
}

/// Rows as [`blocks`] has the queries of a head.
fn in_query_blocks(x: ArrayViewMut2<'_, f32>) -> Vec<ArrayViewMut2<'_, f32>> {
    let sizes: Vec<usize> = blocks(1, x.nrows()).map(|block| block.queries.len()).collect();
    split(x, Axis(0), sizes.into_iter())
}

/// A square of each head, cut as [`blocks`]. Shape: `[n_heads, query_pos, key_pos]` → each `[queries, key_pos]`.
fn in_blocks(squares: &mut HostArray<Ix3>) -> Vec<ArrayViewMut2<'_, f32>> {
    squares.outer_iter_mut().flat_map(in_query_blocks).collect()
}

impl Block {
    /// The queries and the keys up to the last of them.
    fn of<'a>(&self, [q, k]: [ArrayView2<'a, f32>; 2], n_heads: usize, rows: &Range<usize>) -> Scores<'a> {
        let queries = self.queries.clone();
        let q = self.head_of(q, n_heads, rows).slice_move(s![queries.clone(), ..]);
        Scores { q, k: self.keys_of(k, n_heads, rows), first_query: queries.start }
    }

    /// Keys or values up to the last query. Shape: `[rows, n_heads d_head]` → `[keys, d_head]`.
    fn keys_of<'a>(&self, x: ArrayView2<'a, f32>, n_heads: usize, rows: &Range<usize>) -> ArrayView2<'a, f32> {
        self.head_of(x, n_heads, rows).slice_move(s![..self.queries.end, ..])
    }

    fn head_of<'a>(&self, x: ArrayView2<'a, f32>, n_heads: usize, rows: &Range<usize>) -> ArrayView2<'a, f32> {
        let d_head = x.ncols() / n_heads;
        x.slice_move(s![rows.clone(), self.head * d_head..(self.head + 1) * d_head])
    }
}

/// The attention scores of a block.
struct Scores<'a> {
    /// Shape: `[queries, d_head]`.
    q: ArrayView2<'a, f32>,
    /// Shape: `[keys, d_head]`.
    k: ArrayView2<'a, f32>,
    first_query: usize,
}

impl Scores<'_> {
    /// The scores of all cells, also those that are masked. Shape: `[queries, keys]`.
    fn write(&self, to: ArrayViewMut2<f32>) {
        let d_head = self.q.ncols() as f32;
        gemm::product(1.0 / d_head.sqrt(), self.q, self.k.t(), to);
    }

    /// Shape: `v [keys, d_head]`, `z [queries, d_head]`, `pattern`, if it is kept, `[queries, key_pos]`.
    fn attend(&self, v: ArrayView2<f32>, z: ArrayViewMut2<f32>, mut pattern: Option<ArrayViewMut2<f32>>) {
        let keys = self.k.nrows();
        let mut scratch = HostArray::uninit(Dim(if pattern.is_none() { (z.nrows(), keys) } else { (0, 0) }));
        let mut pattern = match &mut pattern {
            Some(pattern) => {
                let (seen, mut masked) = pattern.view_mut().split_at(Axis(1), keys);
                masked.fill(0.0);
                seen
            }
            None => scratch.view_mut(),
        };
        self.write(pattern.view_mut());
        for (index, mut row) in pattern.rows_mut().into_iter().enumerate() {
            let (seen, masked) =
                row.as_slice_mut().expect("a row is contiguous").split_at_mut(self.first_query + index + 1);
            Softmax::new_mut(seen).dispatch();
            masked.fill(0.0);
        }
        gemm::product(1.0, pattern.view(), v, z);
    }
}
