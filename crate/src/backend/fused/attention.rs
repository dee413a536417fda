//! Causal attention, one head and one block of queries per task.

use std::ops::Range;

use ndarray::{Array3, ArrayView2, ArrayViewMut2, Axis, Dim, Ix2, Ix3};
use rayon::prelude::*;
use rten_gemm::{GemmInputB, PackedBMatrix};
use rten_simd::SimdOp;
use rten_tensor::{Matrix, MatrixLayout};
use rten_vecmath::Softmax;

use super::gemm::{self, COLUMNS_PER_TASK, ROWS_PER_TASK};
use super::split;
use crate::backend::{AttentionOutput, CellEdits, Heads};
use crate::memory::HostArray;

/// Queries per task.
const QUERIES_PER_TASK: usize = ROWS_PER_TASK;
/// Keys per product. Strips of keys after a block's last query are skipped, which saves almost half of the work of a
/// long prompt.
const KEYS_PER_STRIP: usize = COLUMNS_PER_TASK;

/// See [`Backend::attention`](crate::backend::Backend::attention).
/// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `z` the same, `pattern` each `[n_heads, query_pos, key_pos]`.
pub(super) fn attention(
    qkv: [ArrayView2<f32>; 3],
    heads: Heads,
    prompts: &[Range<usize>],
    keep_pattern: bool,
) -> AttentionOutput<HostArray<Ix2>> {
    attention_by(qkv, heads, prompts, keep_pattern, |_, _| PlainSoftmax)
}

/// See [`Backend::edited_attention`](crate::backend::Backend::edited_attention). Shape: as [`attention`].
pub(super) fn edited_attention(
    qkv: [ArrayView2<f32>; 3],
    heads: Heads,
    prompts: &[Range<usize>],
    keep_pattern: bool,
    edits: &[CellEdits],
) -> AttentionOutput<HostArray<Ix2>> {
    attention_by(qkv, heads, prompts, keep_pattern, |prompt, head| EditedSoftmax {
        edits: &edits[prompt],
        first_row: head * prompts[prompt].len(),
    })
}

/// What makes a row of the pattern of a row of scores. A type parameter, so that attention without edits pays nothing for
/// them.
trait ToPattern: Sync + Send {
    /// The scores of the keys that a query sees → its pattern, in place. Shape: `[query + 1]`.
    fn to_pattern(&self, query: usize, visible: &mut [f32]);
}

struct PlainSoftmax;

impl ToPattern for PlainSoftmax {
    #[inline(always)]
    fn to_pattern(&self, _: usize, visible: &mut [f32]) {
        Softmax::new_mut(visible).dispatch();
    }
}

/// Softmax between edits of one head's scores and of its pattern.
struct EditedSoftmax<'a> {
    edits: &'a CellEdits,
    /// The row of the head's first query.
    first_row: usize,
}

impl ToPattern for EditedSoftmax<'_> {
    fn to_pattern(&self, query: usize, visible: &mut [f32]) {
        let row = self.first_row + query;
        if self.edits.scores.apply(row, visible) && visible.iter().all(|&score| score == f32::NEG_INFINITY) {
            visible.fill(0.0); // a softmax would divide 0 by 0
        } else {
            Softmax::new_mut(visible).dispatch();
        }
        self.edits.pattern.apply(row, visible);
    }
}

/// Attention, with `to_pattern(prompt, head)` between scores and patterns.
/// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `z` the same, `pattern` each `[n_heads, query_pos, key_pos]`.
fn attention_by<P: ToPattern>(
    [q, k, v]: [ArrayView2<f32>; 3],
    Heads { n_heads, score_scale }: Heads,
    prompts: &[Range<usize>],
    keep_pattern: bool,
    to_pattern: impl Fn(usize, usize) -> P,
) -> AttentionOutput<HostArray<Ix2>> {
    let uninitialized = |rows: &Range<usize>| HostArray::from_pool(Dim((n_heads, rows.len(), rows.len())));
    let mut pattern: Vec<HostArray<Ix3>> = prompts.iter().filter(|_| keep_pattern).map(uninitialized).collect();
    let mut z = HostArray::from_pool(q.raw_dim());
    let d_head = q.ncols() / n_heads;

    let mut tasks = Vec::new();
    let mut patterns = pattern.iter_mut();
    let by_prompt = split(z.view_mut(), Axis(0), prompts.iter().map(Range::len));
    for (prompt, (rows, z)) in prompts.iter().zip(by_prompt).enumerate() {
        let mut pattern = patterns.next().map(|pattern| pattern.outer_iter_mut());
        let heads = split(z, Axis(1), (0..n_heads).map(|_| d_head)); // each [pos, d_head]
        tasks.extend(heads.into_iter().enumerate().map(|(head, z)| {
            let [q, k, v] = [q, k, v].map(|x| head_block(x, n_heads, head, rows));
            (q, k, v, z, pattern.as_mut().and_then(Iterator::next), to_pattern(prompt, head))
        }));
    }
    tasks.into_par_iter().for_each(|(q, k, v, z, pattern, to_pattern)| {
        attend(score_scale, [q, k, v], z, pattern, &to_pattern);
    });
    AttentionOutput { z, pattern: pattern.into_iter().map(HostArray::into).collect() }
}

/// See [`Backend::attn_scores`](crate::backend::Backend::attn_scores). The scores are bit-identical to those inside
/// [`attention`]. Shape: `q`, `k` each `[rows, n_heads d_head]` → `[n_heads, query_pos, key_pos]`.
pub(crate) fn attn_scores(
    q: ArrayView2<f32>,
    k: ArrayView2<f32>,
    Heads { n_heads, score_scale }: Heads,
    rows: Range<usize>,
) -> HostArray<Ix3> {
    let mut scores = HostArray::from_pool(Dim((n_heads, rows.len(), rows.len())));
    // On one thread: a cache computes scores while holding a lock, and a thread that waits inside rayon may steal a
    // task that wants the same lock.
    for (head, scores) in scores.outer_iter_mut().enumerate() {
        masked_scores(score_scale, [q, k].map(|x| head_block(x, n_heads, head, &rows)), scores);
    }
    scores
}

/// [`attn_scores`] of some heads, on all processors.
/// Shape: `q`, `k` each `[rows, n_heads d_head]` → `[which, query_pos, key_pos]`.
pub(super) fn attn_scores_of(
    q: ArrayView2<f32>,
    k: ArrayView2<f32>,
    Heads { n_heads, score_scale }: Heads,
    rows: Range<usize>,
    which: &[usize],
) -> Array3<f32> {
    let mut scores = Array3::zeros((which.len(), rows.len(), rows.len()));
    let tasks: Vec<_> = which.iter().zip(scores.outer_iter_mut()).collect();
    tasks.into_par_iter().for_each(|(&head, scores)| {
        masked_scores(score_scale, [q, k].map(|x| head_block(x, n_heads, head, &rows)), scores);
    });
    scores
}

/// The scores of one head in one prompt, −∞ where key > query.
/// Shape: `q`, `k` each `[pos, d_head]`, `scores [query_pos, key_pos]`.
fn masked_scores(score_scale: f32, [q, k]: [Matrix; 2], mut scores: ArrayViewMut2<f32>) {
    let keys = pack_strips(k, |strip| strip.transposed());
    for (index, mut scores) in scores.axis_chunks_iter_mut(Axis(0), QUERIES_PER_TASK).enumerate() {
        let first = index * QUERIES_PER_TASK;
        compute_scores(score_scale, q, &keys, first, scores.view_mut());
        for (query, mut row) in (first..).zip(scores.rows_mut()) {
            row.as_slice_mut().expect("a row is contiguous")[query + 1..].fill(f32::NEG_INFINITY);
        }
    }
}

/// One prompt's rows and one head's columns. Shape: `[rows, n_heads d_head]` → `[pos, d_head]`.
fn head_block<'a>(x: ArrayView2<'a, f32>, n_heads: usize, head: usize, rows: &Range<usize>) -> Matrix<'a> {
    let d_head = x.ncols() / n_heads;
    gemm::tensor(x).slice((rows.clone(), head * d_head..(head + 1) * d_head))
}

/// Packs keys or values, a strip of [`KEYS_PER_STRIP`] at a time.
/// Shape: `x [pos, d_head]` → each what `factor` makes of `[up to KEYS_PER_STRIP, d_head]`.
fn pack_strips<'a>(x: Matrix<'a>, factor: impl Fn(Matrix<'a>) -> Matrix<'a>) -> Vec<PackedBMatrix<f32>> {
    let pos = x.rows();
    let strip = |start: usize| x.slice((start..(start + KEYS_PER_STRIP).min(pos), ..));
    (0..pos).step_by(KEYS_PER_STRIP).map(|start| gemm::pack(factor(strip(start)))).collect()
}

/// Attention of one head in one prompt. Writes `z`, and the pattern if there is an array for it.
/// Shape: `q`, `k`, `v`, `z` each `[pos, d_head]`, `pattern [query_pos, key_pos]`.
fn attend(
    score_scale: f32,
    [q, k, v]: [Matrix; 3],
    mut z: ArrayViewMut2<f32>,
    mut pattern: Option<ArrayViewMut2<f32>>,
    to_pattern: &impl ToPattern,
) {
    let keys = pack_strips(k, |strip| strip.transposed()); // each [d_head, keys]
    let values = pack_strips(v, |strip| strip); // each [keys, d_head]
    let mut patterns = pattern.as_mut().map(|pattern| pattern.axis_chunks_iter_mut(Axis(0), QUERIES_PER_TASK));
    let blocks = z.axis_chunks_iter_mut(Axis(0), QUERIES_PER_TASK);
    let blocks: Vec<_> = blocks.map(|z| (z, patterns.as_mut().and_then(Iterator::next))).collect();
    blocks.into_par_iter().enumerate().for_each(|(index, (z, pattern))| {
        attend_block(score_scale, q, [&keys, &values], index * QUERIES_PER_TASK, z, pattern, to_pattern);
    });
}

/// [`attend`] for the block of queries that begins at `first`.
/// Shape: `q [pos, d_head]`, `z [queries, d_head]`, `pattern [queries, key_pos]`.
fn attend_block(
    score_scale: f32,
    q: Matrix,
    [keys, values]: [&[PackedBMatrix<f32>]; 2],
    first: usize,
    mut z: ArrayViewMut2<f32>,
    mut pattern: Option<ArrayViewMut2<f32>>,
    to_pattern: &impl ToPattern,
) {
    let (queries, pos) = (z.nrows(), q.rows());
    let mut scratch = HostArray::from_pool(Dim(if pattern.is_none() { (queries, pos) } else { (0, 0) }));
    let mut pattern = pattern.as_mut().map_or_else(|| scratch.view_mut(), |pattern| pattern.view_mut());
    compute_scores(score_scale, q, keys, first, pattern.view_mut());
    for (query, mut row) in (first..).zip(pattern.rows_mut()) {
        let (visible, masked) = row.as_slice_mut().expect("a row is contiguous").split_at_mut(query + 1);
        to_pattern.to_pattern(query, visible);
        masked.fill(0.0);
    }
    let pattern = gemm::tensor(pattern.view());
    let mut product = HostArray::from_pool(z.raw_dim());
    let y = product.as_slice_mut().expect("a new matrix is contiguous");
    for (index, values) in values[..visible_strips(first + queries)].iter().enumerate() {
        let start = index * KEYS_PER_STRIP;
        let pattern = pattern.slice((.., start..start + values.rows()));
        gemm::matmul_into(pattern, GemmInputB::Packed(values), y, index > 0); // [queries, keys] × [keys, d_head]
    }
    z.assign(&product);
}

/// The number of strips that have the keys before `end`.
fn visible_strips(end: usize) -> usize {
    end.div_ceil(KEYS_PER_STRIP)
}

/// The attention scores `score_scale q kᵀ` of the queries from `first` on, in every strip that they see. Scores of later
/// keys in these strips are computed too, and are to be masked.
/// Shape: `q [pos, d_head]`, `keys` each `[d_head, up to KEYS_PER_STRIP]` → `scores [queries, key_pos]`.
fn compute_scores(
    score_scale: f32,
    q: Matrix,
    keys: &[PackedBMatrix<f32>],
    first: usize,
    mut scores: ArrayViewMut2<f32>,
) {
    let end = first + scores.nrows();
    let q = q.slice((first..end, ..));
    let strips = scores.axis_chunks_iter_mut(Axis(1), KEYS_PER_STRIP);
    for (keys, scores) in keys[..visible_strips(end)].iter().zip(strips) {
        gemm::matmul(score_scale, q, keys, scores, |_| ()); // [queries, d_head] × [d_head, keys]
    }
}
