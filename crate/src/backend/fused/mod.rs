//! The CPU backend, with fused operations.
//!
//! Matrix products of [packed weights](packed) use [kernels of our own](tile) where the processor has AVX2 or AVX-512, and
//! `rten-gemm` elsewhere, as all products of attention do. Element-wise operations use SIMD (`rten-vecmath`), and rayon
//! spreads everything over all processors.
//!
//! Work is split by shapes alone, and one thread computes each piece, so results are bit-identical for any number of
//! threads.

mod attention;
mod attention_with_past;
mod decode;
mod gemm;
mod int8;
mod packed;
mod tile;

use std::ops::Range;

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayViewMut2, Axis, Dim, Ix2, Ix3, s};
use rayon::prelude::*;
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_vecmath::{ApproxGelu, Gelu, Normalize, NormalizeOptions, Silu, Sum, SumSquareSub, Tanh};

#[cfg(feature = "cuda")]
pub(super) use self::attention::attn_scores;
use self::decode::{DecodeTable, FusedUnembed};
use self::packed::PackedMatrix;
use super::{AttentionOutput, Backend, CellEdits, Edit, Heads, KeyValues, split_by_prompt};
use crate::config::ActFn;
use crate::decode::{DecodeBackend, Ranking, TopTokens, Vectors};
use crate::error::Result;
use crate::memory::{HostArray, LazyArray, clear_pool};
use crate::weights::LayerNormWeights;

/// The fewest rows per task of a row-wise operation: fewer are not worth another thread.
const MIN_ROWS_PER_TASK: usize = 16;

/// The CPU backend. Dropping it clears the buffer pool.
pub(crate) struct Fused(());

impl Drop for Fused {
    fn drop(&mut self) {
        clear_pool(); // useless without a model; another model refills it
    }
}

impl Fused {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

/// Token and position embeddings.
pub(crate) struct FusedEmbedding {
    /// Shape: `[d_vocab, d_model]`.
    w_e: Array2<f32>,
    /// Shape: `[n_ctx, d_model]`.
    w_pos: Array2<f32>,
}

/// A layer norm, with or without weights.
pub(crate) struct FusedLayerNorm {
    /// Scale and shift. Shape: each `[d_model]`.
    weights: Option<(Vec<f32>, Vec<f32>)>,
    eps: f32,
}

/// A weight matrix, packed, and its bias.
pub(crate) struct FusedLinear {
    /// Shape: `[in, out]`.
    w: PackedMatrix,
    /// Shape: `[out]`.
    b: Array1<f32>,
}

impl FusedLinear {
    /// Shape: `w [in, out]`, `b [out]`.
    fn new(w: ArrayView2<f32>, b: Array1<f32>) -> Self {
        Self { w: PackedMatrix::new(w), b }
    }

    /// `act_fn(x W + b)`. `act_fn` is called with pieces of rows, and updates them in place.
    /// Shape: `[rows, in]` → `[rows, out]`.
    fn forward(&self, x: &HostArray<Ix2>, act_fn: impl Fn(&mut [f32]) + Sync) -> HostArray<Ix2> {
        let epilogue = |column: usize, y: &mut [f32]| {
            self.add_bias(column, y);
            act_fn(y);
        };
        self.w.matmul(x.view(), epilogue)
    }

    /// Adds the bias to a piece of a row, which begins at `column`.
    fn add_bias(&self, column: usize, y: &mut [f32]) {
        let b = self.b.as_slice().expect("a bias is contiguous");
        y.iter_mut().zip(&b[column..]).for_each(|(y, b)| *y += b);
    }
}

/// `act_fn` of each number of a piece of a row, in place.
#[inline(always)]
fn activate_row(act_fn: ActFn, y: &mut [f32]) {
    match act_fn {
        ActFn::GeluNew => ApproxGelu {}.map_mut(y),
        ActFn::Gelu => Gelu {}.map_mut(y),
        ActFn::Relu => y.iter_mut().for_each(|y| *y = y.max(0.0)),
        ActFn::Silu => Silu {}.map_mut(y),
        ActFn::Tanh => Tanh {}.map_mut(y),
    }
}

/// `act_fn` of each number, in place. Shape: `[rows, columns]`, contiguous.
pub(super) fn activate(act_fn: ActFn, mut x: ArrayViewMut2<f32>) {
    let columns = x.ncols().max(1);
    let x = x.as_slice_mut().expect("activations are contiguous");
    let rows = x.par_chunks_exact_mut(columns).with_min_len(MIN_ROWS_PER_TASK);
    rows.for_each(|row| activate_row(act_fn, row));
}

/// Splits a view into pieces of the given sizes along an axis. Shape: `[rows, columns]` → each `[size, columns]` or
/// `[rows, size]`.
fn split<'a>(
    view: ArrayViewMut2<'a, f32>,
    axis: Axis,
    sizes: impl Iterator<Item = usize>,
) -> Vec<ArrayViewMut2<'a, f32>> {
    let mut rest = Some(view);
    let piece = |size| {
        let (piece, left) = rest.take()?.split_at(axis, size);
        rest = Some(left);
        Some(piece)
    };
    sizes.map_while(piece).collect()
}

/// A new matrix, filled in parallel: `fill_row(index, row)` writes each row. Shape: → `[rows, columns]`.
fn map_rows(rows: usize, columns: usize, fill_row: impl Fn(usize, &mut [f32]) + Sync + Send) -> HostArray<Ix2> {
    let mut y = HostArray::from_pool(Dim((rows, columns)));
    let values = y.as_slice_mut().expect("a new matrix is contiguous");
    let by_row = values.par_chunks_exact_mut(columns.max(1)).with_min_len(MIN_ROWS_PER_TASK).enumerate();
    by_row.for_each(|(index, y)| fill_row(index, y));
    y
}

/// One row. Shape: `[rows, columns]` → `[columns]`.
fn row(x: &HostArray<Ix2>, index: usize) -> &[f32] {
    let columns = x.ncols();
    &x.as_slice().expect("activations are contiguous")[index * columns..(index + 1) * columns]
}

impl Backend for Fused {
    type Tensor = HostArray<Ix2>;
    type Embedding = FusedEmbedding;
    type LayerNorm = FusedLayerNorm;
    type Linear = FusedLinear;

    fn on_threads<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        rayon::scope(|_| run())
    }

    fn upload_embedding(&self, w_e: Array2<f32>, w_pos: Array2<f32>) -> Result<FusedEmbedding> {
        Ok(FusedEmbedding { w_e, w_pos })
    }

    fn upload_layer_norm(&self, weights: Option<&LayerNormWeights>, eps: f64) -> Result<FusedLayerNorm> {
        Ok(FusedLayerNorm { weights: weights.map(|ln| (ln.w.to_vec(), ln.b.to_vec())), eps: eps as f32 })
    }

    fn upload_linear(&self, w: Array2<f32>, b: Array1<f32>) -> Result<FusedLinear> {
        Ok(FusedLinear::new(w.view(), b))
    }

    fn embedding_weights(&self, embedding: &FusedEmbedding) -> Result<(Array2<f32>, Array2<f32>)> {
        Ok((embedding.w_e.clone(), embedding.w_pos.clone()))
    }

    fn linear_weights(&self, linear: &FusedLinear) -> Result<(Array2<f32>, Array1<f32>)> {
        Ok((linear.w.to_array(), linear.b.clone()))
    }

    fn embedding_rows(&self, embedding: &FusedEmbedding, tokens: &[usize]) -> Result<(Array2<f32>, Array2<f32>)> {
        let w_pos = embedding.w_pos.slice(s![..tokens.len(), ..]);
        Ok((embedding.w_e.select(Axis(0), tokens), w_pos.to_owned()))
    }

    fn unembed_columns(&self, unembed: &FusedUnembed, tokens: &[usize]) -> Result<Array2<f32>> {
        Ok(unembed.columns(tokens))
    }

    fn upload(&self, x: Array2<f32>) -> Result<HostArray<Ix2>> {
        Ok(x.into())
    }

    fn embed(&self, embedding: &FusedEmbedding, tokens: &[u32], positions: &[usize]) -> Result<HostArray<Ix2>> {
        let (w_e, w_pos) = (&embedding.w_e, &embedding.w_pos);
        Ok(map_rows(tokens.len(), w_e.ncols(), |index, y| {
            let (token, position) = (w_e.row(tokens[index] as usize), w_pos.row(positions[index]));
            y.iter_mut().zip(token.iter().zip(position)).for_each(|(y, (token, position))| *y = token + position);
        }))
    }

    fn layer_norm(&self, norm: &FusedLayerNorm, x: &HostArray<Ix2>) -> Result<HostArray<Ix2>> {
        let n = x.ncols() as f32;
        Ok(map_rows(x.nrows(), x.ncols(), |index, y| {
            y.copy_from_slice(row(x, index));
            let mean = Sum::new(y).dispatch() / n;
            let variance = SumSquareSub::new(y, mean).dispatch() / n;
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: 1.0 / (variance + norm.eps).sqrt(),
                element_scale: norm.weights.as_ref().map(|(w, _)| w.as_slice()),
                element_bias: norm.weights.as_ref().map(|(_, b)| b.as_slice()),
                ..Default::default()
            };
            Normalize::new_mut(y, options).dispatch();
        }))
    }

    fn linear(&self, linear: &FusedLinear, x: &HostArray<Ix2>) -> Result<HostArray<Ix2>> {
        Ok(linear.forward(x, |_| ()))
    }

    fn linear_qkv(&self, linears: &[FusedLinear; 3], x: &HostArray<Ix2>) -> Result<[HostArray<Ix2>; 3]> {
        let matrices = linears.each_ref().map(|linear| &linear.w);
        Ok(PackedMatrix::matmul_each(matrices, x.view(), |which, column, y| linears[which].add_bias(column, y)))
    }

    fn linear_act(&self, linear: &FusedLinear, act_fn: ActFn, x: &HostArray<Ix2>) -> Result<HostArray<Ix2>> {
        Ok(match act_fn {
            ActFn::GeluNew => linear.forward(x, |y| activate_row(ActFn::GeluNew, y)),
            ActFn::Gelu => linear.forward(x, |y| activate_row(ActFn::Gelu, y)),
            ActFn::Relu => linear.forward(x, |y| activate_row(ActFn::Relu, y)),
            ActFn::Silu => linear.forward(x, |y| activate_row(ActFn::Silu, y)),
            ActFn::Tanh => linear.forward(x, |y| activate_row(ActFn::Tanh, y)),
        })
    }

    fn activate(&self, act_fn: ActFn, mut x: HostArray<Ix2>) -> Result<HostArray<Ix2>> {
        activate(act_fn, x.view_mut());
        Ok(x)
    }

    /// In place, unless a cache shares the memory.
    fn edit(&self, mut x: HostArray<Ix2>, edit: Edit) -> Result<HostArray<Ix2>> {
        (edit.on_host)(x.view_mut())?;
        Ok(x)
    }

    fn add(&self, a: &HostArray<Ix2>, b: &HostArray<Ix2>) -> Result<HostArray<Ix2>> {
        Ok(map_rows(a.nrows(), a.ncols(), |index, y| {
            let terms = row(a, index).iter().zip(row(b, index));
            y.iter_mut().zip(terms).for_each(|(y, (a, b))| *y = a + b);
        }))
    }

    fn attention(
        &self,
        qkv: [&HostArray<Ix2>; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        keep_pattern: bool,
    ) -> Result<AttentionOutput<HostArray<Ix2>>> {
        Ok(attention::attention(qkv.map(|x| x.view()), heads, prompts, keep_pattern))
    }

    fn edited_attention(
        &self,
        qkv: [&HostArray<Ix2>; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        keep_pattern: bool,
        edits: &[CellEdits],
    ) -> Result<AttentionOutput<HostArray<Ix2>>> {
        Ok(attention::edited_attention(qkv.map(|x| x.view()), heads, prompts, keep_pattern, edits))
    }

    fn attention_with_past(
        &self,
        qkv: [&HostArray<Ix2>; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        past: &mut [KeyValues],
    ) -> Result<HostArray<Ix2>> {
        let first_run = past.iter().all(|past| past.len() == 0);
        for (rows, past) in prompts.iter().zip(&mut *past) {
            let [k, v] = [qkv[1], qkv[2]].map(|x| x.slice(s![rows.clone(), ..]));
            past.push(k, v);
        }
        if first_run {
            return Ok(self.attention(qkv, heads, prompts, false)?.z);
        }
        Ok(attention_with_past::attention_with_past(qkv[0], heads, prompts, past))
    }

    /// Scores are as large as the pattern and rarely read, so the lazy array owns the queries and keys instead.
    fn attn_scores(
        &self,
        q: &HostArray<Ix2>,
        k: &HostArray<Ix2>,
        heads: Heads,
        rows: Range<usize>,
    ) -> Result<LazyArray<Ix3>> {
        let (q, k) = (q.clone(), k.clone());
        Ok(LazyArray::new(move || Ok(attention::attn_scores(q.view(), k.view(), heads, rows.clone()))))
    }

    fn attn_scores_of(
        &self,
        q: &HostArray<Ix2>,
        k: &HostArray<Ix2>,
        heads: Heads,
        rows: Range<usize>,
        which: &[usize],
    ) -> Result<Array3<f32>> {
        Ok(attention::attn_scores_of(q.view(), k.view(), heads, rows, which))
    }

    fn download(&self, x: &HostArray<Ix2>) -> Result<HostArray<Ix2>> {
        Ok(x.clone())
    }

    fn upload_unembed(&self, w_u: Array2<f32>, b_u: Array1<f32>) -> Result<FusedUnembed> {
        Ok(FusedUnembed::new(w_u, b_u))
    }

    fn unembed_weights(&self, unembed: &FusedUnembed) -> Result<(Array2<f32>, Array1<f32>)> {
        Ok(unembed.weights())
    }

    fn logits(&self, unembed: &FusedUnembed, x: &HostArray<Ix2>, prompts: &[Range<usize>]) -> Result<Vec<Array2<f32>>> {
        Ok(split_by_prompt(self.linear(unembed.linear(), x)?, prompts))
    }
}

impl DecodeBackend for Fused {
    type Unembed = FusedUnembed;
    type DecodeTable = DecodeTable;

    fn upload_projection(&self, p: Array2<f32>) -> Result<DecodeTable> {
        Ok(DecodeTable::new(p))
    }

    fn decode_table_bytes(table: &DecodeTable, unembed: &FusedUnembed) -> usize {
        table.bytes(unembed.d_vocab())
    }

    fn decode(&self, c: &Vectors, table: &DecodeTable, unembed: &FusedUnembed, ranking: Ranking) -> Result<TopTokens> {
        Ok(decode::decode(c, table, unembed, ranking))
    }
}
