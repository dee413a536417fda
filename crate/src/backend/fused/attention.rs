//! Causal attention, a head and a block of queries at a time.

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::Softmax;

use super::{gemm, split};
use crate::backend::{Attention, KeepAttention};
use crate::memory;

/// Queries that one task computes. Keys beyond the last of them are not looked at, which saves almost half of the work
/// where a prompt has many blocks.
const QUERIES: usize = 128;

/// See [`Backend::attention`](crate::backend::Backend::attention).
pub(super) fn attention(
    qkv: [ArrayView2<f32>; 3],
    n_heads: usize,
    prompts: &[Range<usize>],
    keep: KeepAttention,
) -> Attention<Array2<f32>> {
    let [q, k, v] = qkv;
    let d_head = q.ncols() / n_heads;
    let squares = |kept: bool| -> Vec<Array3<f32>> {
        let square = |rows: &Range<usize>| memory::cube((n_heads, rows.len(), rows.len()));
        prompts.iter().filter(|_| kept).map(square).collect()
    };
    let mut z = memory::matrix(q.dim());
    let (mut attn_scores, mut pattern) = (squares(keep.attn_scores), squares(keep.pattern));

    let mut tasks = Vec::new();
    let (mut scores_of_prompts, mut patterns_of_prompts) = (attn_scores.iter_mut(), pattern.iter_mut());
    for (rows, z) in prompts.iter().zip(split(z.view_mut(), Axis(0), prompts.iter().map(Range::len))) {
        let starts = (0..rows.len()).step_by(QUERIES);
        let blocks: Vec<Range<usize>> = starts.map(|start| start..(start + QUERIES).min(rows.len())).collect();
        let mut scores_of_heads = scores_of_prompts.next().map(|x| x.outer_iter_mut());
        let mut patterns_of_heads = patterns_of_prompts.next().map(|x| x.outer_iter_mut());
        for (head, z) in split(z, Axis(1), (0..n_heads).map(|_| d_head)).into_iter().enumerate() {
            let own = s![rows.clone(), head * d_head..(head + 1) * d_head];
            let qkv = [q, k, v].map(|x| x.slice_move(own.clone()));
            let mut scores = scores_of_heads.as_mut().and_then(Iterator::next).map(|x| in_blocks(x, &blocks));
            let mut pattern = patterns_of_heads.as_mut().and_then(Iterator::next).map(|x| in_blocks(x, &blocks));
            for (queries, z) in blocks.iter().zip(in_blocks(z, &blocks)) {
                let scores = scores.as_mut().and_then(Iterator::next);
                let pattern = pattern.as_mut().and_then(Iterator::next);
                tasks.push(Task { qkv, queries: queries.clone(), z, scores, pattern });
            }
        }
    }
    tasks.into_par_iter().for_each(Task::run);
    Attention { z, attn_scores, pattern }
}

fn in_blocks<'a>(x: ArrayViewMut2<'a, f32>, blocks: &[Range<usize>]) -> std::vec::IntoIter<ArrayViewMut2<'a, f32>> {
    split(x, Axis(0), blocks.iter().map(Range::len)).into_iter()
}

/// A block of the queries of one head on one prompt.
struct Task<'a> {
    /// The head's, of the whole prompt. Shape: `[pos, d_head]`.
    qkv: [ArrayView2<'a, f32>; 3],
    queries: Range<usize>,
    /// Shape: `[queries, d_head]`.
    z: ArrayViewMut2<'a, f32>,
    /// If kept. Shape: `[queries, pos]`.
    scores: Option<ArrayViewMut2<'a, f32>>,
    /// If kept; zeros. Shape: `[queries, pos]`.
    pattern: Option<ArrayViewMut2<'a, f32>>,
}

impl Task<'_> {
    fn run(self) {
        let Self { qkv: [q, k, v], queries, z, mut scores, mut pattern } = self;
        let keys = queries.end;
        let d_head = q.ncols() as f32;
        let mut scratch = Array2::zeros(if pattern.is_none() { (queries.len(), keys) } else { (0, 0) });
        // At first this holds the scores. Shape: [queries, keys].
        let mut pattern = match &mut pattern {
            Some(pattern) => pattern.slice_mut(s![.., ..keys]),
            None => scratch.view_mut(),
        };
        let (k, v) = (k.slice(s![..keys, ..]), v.slice(s![..keys, ..]));
        gemm::product(1.0 / d_head.sqrt(), q.slice(s![queries.clone(), ..]), k.t(), pattern.view_mut());
        for (index, mut row) in pattern.rows_mut().into_iter().enumerate() {
            let seen = queries.start + index + 1;
            let row = row.as_slice_mut().expect("a row is contiguous");
            if let Some(scores) = &mut scores {
                let mut scores = scores.row_mut(index);
                let scores = scores.as_slice_mut().expect("a row is contiguous");
                scores[..seen].copy_from_slice(&row[..seen]);
                scores[seen..].fill(f32::NEG_INFINITY);
            }
            Softmax::new_mut(&mut row[..seen]).dispatch();
            row[seen..].fill(0.0);
        }
        gemm::product(1.0, pattern.view(), v, z);
    }
}
