//! Attention of few queries over many kept keys and values, one head of one prompt per task.

use std::ops::Range;

use ndarray::{ArrayViewMut2, Axis, Ix2};
use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::Softmax;

use super::{row, split};
use crate::backend::{Heads, KeyValues};
use crate::memory::HostArray;

/// Numbers that are added up side by side.
const LANES: usize = 16;

/// See [`Backend::attention_with_past`](crate::backend::Backend::attention_with_past). `past` has the keys and values of
/// the new rows already. Shape: `q [rows, n_heads d_head]` → the same.
pub(super) fn attention_with_past(
    q: &HostArray<Ix2>,
    Heads { n_heads, score_scale }: Heads,
    prompts: &[Range<usize>],
    past: &[KeyValues],
) -> HostArray<Ix2> {
    let mut z = HostArray::from_pool(q.raw_dim());
    let d_head = q.ncols() / n_heads;
    let mut tasks = Vec::new();
    for ((rows, past), z) in prompts.iter().zip(past).zip(split(z.view_mut(), Axis(0), prompts.iter().map(Range::len)))
    {
        let heads = split(z, Axis(1), (0..n_heads).map(|_| d_head)); // each [pos, d_head]
        tasks
            .extend(heads.into_iter().enumerate().map(|(head, z)| (head * d_head..(head + 1) * d_head, rows, past, z)));
    }
    let arch = pulp::Arch::new();
    tasks.into_par_iter().for_each(|(columns, rows, past, z)| {
        arch.dispatch(AttendHead { q, score_scale, columns, rows, past, z });
    });
    z
}

/// One head of one prompt.
struct AttendHead<'a> {
    /// The queries of the whole batch. Shape: `[rows, n_heads d_head]`.
    q: &'a HostArray<Ix2>,
    score_scale: f32,
    /// The columns of the head.
    columns: Range<usize>,
    /// The rows of the prompt. They are its last positions.
    rows: &'a Range<usize>,
    past: &'a KeyValues,
    /// Shape: `[rows of the prompt, d_head]`.
    z: ArrayViewMut2<'a, f32>,
}

impl pulp::WithSimd for AttendHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let (k, v) = (self.past.k(), self.past.v());
        let [k, v] = [&k, &v].map(|x| x.as_slice().expect("kept rows are contiguous"));
        let n_columns = self.q.ncols();
        let first = self.past.len() - self.rows.len();
        let mut scores = Vec::with_capacity(self.past.len());
        for ((query, index), mut z) in (first..).zip(self.rows.clone()).zip(self.z.rows_mut()) {
            let q = &row(self.q, index)[self.columns.clone()];
            scores.clear();
            let keys = k.chunks_exact(n_columns).take(query + 1);
            scores.extend(keys.map(|k| self.score_scale * dot(q, &k[self.columns.clone()])));
            Softmax::new_mut(&mut scores).dispatch();
            let z = z.as_slice_mut().expect("a piece of a row is contiguous");
            z.fill(0.0);
            for (&weight, v) in scores.iter().zip(v.chunks_exact(n_columns)) {
                z.iter_mut().zip(&v[self.columns.clone()]).for_each(|(z, v)| *z += weight * v);
            }
        }
    }
}

/// `x · y`, in an order that depends on the length alone. Shape: both `[n]`.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f32>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f32>()
}
