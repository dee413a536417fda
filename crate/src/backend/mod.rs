//! The operations that GPT-2 and decoding need, as one trait, and the devices that implement it.
//!
//! The transformer ([`crate::model`]) and decoding ([`crate::decode`]) are written once over [`Backend`].
//!
//! | backend | device | |
//! |---|---|---|
//! | [`Dfdx`] | CPU, CUDA | every operation by dfdx: the plain implementation, which is the reference for the others |
//! | [`Fused`] | CPU | the default: fused operations on all processors of the host |
//! | `Cuda` | CUDA | cuBLAS and the project's own kernels |
//!
//! Activations are matrices of `[rows, columns]`. The prompts of a batch follow each other row by row, without padding;
//! only attention distinguishes them.

#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod dfdx;
mod edits;
mod fused;
mod key_values;
#[cfg(test)]
mod tests;

use std::ops::Range;

use ndarray::{Array1, Array2, Array3, Axis, Ix2, Ix3, s};

#[cfg(feature = "cuda")]
pub(crate) use self::cuda::Cuda;
pub(crate) use self::dfdx::Dfdx;
pub(crate) use self::edits::{CellEdits, Change, Edit, RowEdits, softmax};
pub(crate) use self::fused::Fused;
pub(crate) use self::key_values::KeyValues;
use crate::config::ActFn;
use crate::decode::DecodeBackend;
use crate::error::Result;
use crate::memory::{HostArray, LazyArray};
use crate::weights::LayerNormWeights;
pub use device::Device;
pub(crate) use device::DeviceKind;

/// Whether this build supports [`Device::cuda`], and the first GPU can be used.
fn cuda_is_available() -> bool {
    #[cfg(feature = "cuda")]
    let available = Cuda::open(0).is_ok();
    #[cfg(not(feature = "cuda"))]
    let available = false;
    available
}

/// The output of [`Backend::attention`].
pub(crate) struct AttentionOutput<T> {
    /// Shape: `[rows, n_heads d_head]`.
    pub(crate) z: T,
    /// The pattern of each prompt; empty if `keep_pattern` is false. Shape: each `[n_heads, query_pos, key_pos]`.
    pub(crate) pattern: Vec<LazyArray<Ix3>>,
}

/// The heads of a layer, side by side in the columns of `q`, `k`, `v` and `z`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) n_heads: usize,
    /// The number that products of queries and keys are multiplied with: 1/√d_head in GPT-2.
    pub(crate) score_scale: f32,
}

/// A device's operations. Callers check shapes and indices first.
///
/// Functions named `upload_…` copy weights to the device, those named `…_weights` copy them back, bit for bit. The
/// others compute.
pub(crate) trait Backend: DecodeBackend + Sized + 'static {
    /// A matrix `[rows, columns]` on the device.
    type Tensor;
    /// The token and position embeddings on the device.
    type Embedding: Send + Sync;
    /// A layer norm on the device.
    type LayerNorm: Send + Sync;
    /// A weight matrix and a bias on the device.
    type Linear: Send + Sync;

    /// Calls a function that calls many operations. On the CPU it runs on one of the threads that compute them: another
    /// thread would go to sleep and be woken for each.
    fn on_threads<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        run()
    }

    /// Shape: `w_e [d_vocab, d_model]`, `w_pos [n_ctx, d_model]`.
    fn upload_embedding(&self, w_e: Array2<f32>, w_pos: Array2<f32>) -> Result<Self::Embedding>;
    /// A layer norm; one without weights only centers and scales.
    fn upload_layer_norm(&self, weights: Option<&LayerNormWeights>, eps: f64) -> Result<Self::LayerNorm>;
    /// Shape: `w [in, out]`, `b [out]`.
    fn upload_linear(&self, w: Array2<f32>, b: Array1<f32>) -> Result<Self::Linear>;
    /// The weights of queries, keys and values, which [`linear_qkv`](Self::linear_qkv) applies together.
    /// Shape: each `[d_model, n_heads d_head]`, `[n_heads d_head]`.
    fn upload_linear_qkv(&self, parts: [(Array2<f32>, Array1<f32>); 3]) -> Result<[Self::Linear; 3]> {
        let [q, k, v] = parts.map(|(w, b)| self.upload_linear(w, b));
        Ok([q?, k?, v?])
    }
    /// Shape: `w_u [d_model, d_vocab]`, `b_u [d_vocab]`.
    fn upload_unembed(&self, w_u: Array2<f32>, b_u: Array1<f32>) -> Result<Self::Unembed>;

    /// `w_e` and `w_pos`. Shape: → `[d_vocab, d_model]`, `[n_ctx, d_model]`.
    fn embedding_weights(&self, embedding: &Self::Embedding) -> Result<(Array2<f32>, Array2<f32>)>;
    /// `w` and `b`. Shape: → `[in, out]`, `[out]`.
    fn linear_weights(&self, linear: &Self::Linear) -> Result<(Array2<f32>, Array1<f32>)>;
    /// `w_u` and `b_u`. Shape: → `[d_model, d_vocab]`, `[d_vocab]`.
    fn unembed_weights(&self, unembed: &Self::Unembed) -> Result<(Array2<f32>, Array1<f32>)>;

    /// The rows of `w_e` of some tokens, and the first rows of `w_pos`. Shape: `[pos]` → each `[pos, d_model]`.
    fn embedding_rows(&self, embedding: &Self::Embedding, tokens: &[usize]) -> Result<(Array2<f32>, Array2<f32>)> {
        let (w_e, w_pos) = self.embedding_weights(embedding)?;
        Ok((w_e.select(Axis(0), tokens), w_pos.slice_move(s![..tokens.len(), ..])))
    }
    /// The columns of `w_u` of some tokens. Shape: `[n]` → `[n, d_model]`.
    fn unembed_columns(&self, unembed: &Self::Unembed, tokens: &[usize]) -> Result<Array2<f32>> {
        Ok(self.unembed_weights(unembed)?.0.select(Axis(1), tokens).reversed_axes())
    }

    /// Copies rows of activations to the device. Shape: `[rows, columns]` → the same.
    fn upload(&self, x: Array2<f32>) -> Result<Self::Tensor>;
    /// `W_E[token] + W_pos[position]`, a row for each token. Shape: `[rows]`, `[rows]` → `[rows, d_model]`.
    fn embed(&self, embedding: &Self::Embedding, tokens: &[u32], positions: &[usize]) -> Result<Self::Tensor>;
    /// `(x − mean) / √(variance + eps) ⊙ w + b`. Shape: `[rows, d_model]` → the same.
    fn layer_norm(&self, norm: &Self::LayerNorm, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// `x W + b`. Shape: `[rows, in]` → `[rows, out]`.
    fn linear(&self, linear: &Self::Linear, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// [`linear`](Self::linear) with the weights that [`upload_linear_qkv`](Self::upload_linear_qkv) returned.
    /// Shape: `[rows, d_model]` → each `[rows, n_heads d_head]`.
    fn linear_qkv(&self, linears: &[Self::Linear; 3], x: &Self::Tensor) -> Result<[Self::Tensor; 3]> {
        let [q, k, v] = linears.each_ref().map(|linear| self.linear(linear, x));
        Ok([q?, k?, v?])
    }
    /// `act_fn(x W + b)`. Shape: `[rows, in]` → `[rows, out]`.
    fn linear_act(&self, linear: &Self::Linear, act_fn: ActFn, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// `act_fn(x)`, of a linear layer's output that was edited. By default on the host. Shape: any → the same.
    fn activate(&self, act_fn: ActFn, x: Self::Tensor) -> Result<Self::Tensor> {
        let mut on_host = |x: ndarray::ArrayViewMut2<f32>| {
            fused::activate(act_fn, x);
            Ok(())
        };
        self.edit(x, Edit::on_host(&mut on_host))
    }
    /// `x` after an edit of some of its numbers. By default a copy on the host is edited. Shape: `[rows, columns]` → the
    /// same.
    fn edit(&self, x: Self::Tensor, edit: Edit) -> Result<Self::Tensor> {
        edits::edit_on_host(self, x, edit)
    }
    /// `a + b`. Shape: all the same.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;
    /// Causal attention within each prompt: `pattern = softmax(score_scale q kᵀ)` over keys ≤ query, `z = pattern v`.
    /// `prompts` has the rows of each prompt; the pattern is returned if `keep_pattern` is true.
    /// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `z` the same, each pattern `[n_heads, query_pos, key_pos]`.
    fn attention(
        &self,
        qkv: [&Self::Tensor; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        keep_pattern: bool,
    ) -> Result<AttentionOutput<Self::Tensor>>;
    /// [`attention`](Self::attention) with edits of the scores before the softmax, and of the pattern after it. A row of
    /// scores that is −∞ everywhere gives a pattern of zeros. `edits` has an element for each prompt. By default on the host.
    /// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `z` the same, each pattern `[n_heads, query_pos, key_pos]`.
    fn edited_attention(
        &self,
        qkv: [&Self::Tensor; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        keep_pattern: bool,
        edits: &[CellEdits],
    ) -> Result<AttentionOutput<Self::Tensor>> {
        edits::attention_on_host(self, qkv, heads, prompts, keep_pattern, edits)
    }
    /// [`attention`](Self::attention) of new rows of each prompt, which follow the positions in `past`, over those and
    /// themselves: `z`. Adds the new keys and values to `past`, which has an element for each prompt.
    /// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → the same.
    ///
    /// By default a run of `attention` over all positions, with zeros as the queries of those in `past`.
    fn attention_with_past(
        &self,
        qkv: [&Self::Tensor; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        past: &mut [KeyValues],
    ) -> Result<Self::Tensor> {
        let first_run = past.iter().all(|past| past.len() == 0);
        let (q, k, v) = (self.download(qkv[0])?, self.download(qkv[1])?, self.download(qkv[2])?);
        for (rows, past) in prompts.iter().zip(&mut *past) {
            past.push(k.slice(s![rows.clone(), ..]), v.slice(s![rows.clone(), ..]));
        }
        if first_run {
            return Ok(self.attention(qkv, heads, prompts, false)?.z);
        }
        let columns = q.ncols();
        let ends = past.iter().scan(0, |end, past| {
            *end += past.len();
            Some(*end)
        });
        let all: Vec<Range<usize>> = ends.zip(&*past).map(|(end, past)| end - past.len()..end).collect();
        let new: Vec<Range<usize>> = all.iter().zip(prompts).map(|(all, new)| all.end - new.len()..all.end).collect();
        let mut queries = Array2::zeros((all.last().map_or(0, |last| last.end), columns)); // [all positions, columns]
        for (new, rows) in new.iter().zip(prompts) {
            queries.slice_mut(s![new.clone(), ..]).assign(&q.slice(s![rows.clone(), ..]));
        }
        let keys = key_values::concatenate(columns, past.iter().map(KeyValues::k));
        let values = key_values::concatenate(columns, past.iter().map(KeyValues::v));
        let (q, k, v) = (self.upload(queries)?, self.upload(keys)?, self.upload(values)?);
        let z = self.download(&self.attention([&q, &k, &v], heads, &all, false)?.z)?;
        self.upload(key_values::concatenate(columns, new.iter().map(|new| z.slice(s![new.clone(), ..]))))
    }
    /// `score_scale q kᵀ` of the prompt with these rows; −∞ where key > query.
    /// Shape: `q`, `k` each `[rows, n_heads d_head]` → `[n_heads, query_pos, key_pos]`.
    fn attn_scores(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        heads: Heads,
        rows: Range<usize>,
    ) -> Result<LazyArray<Ix3>>;
    /// [`attn_scores`](Self::attn_scores) of some heads, computed at once.
    /// Shape: `q`, `k` each `[rows, n_heads d_head]` → `[which, query_pos, key_pos]`.
    fn attn_scores_of(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        heads: Heads,
        rows: Range<usize>,
        which: &[usize],
    ) -> Result<Array3<f32>> {
        Ok(self.attn_scores(q, k, heads, rows)?.compute()?.select(Axis(0), which))
    }
    /// `x W_U + b_U` on the host, for each prompt. Shape: `[rows, d_model]` → each `[pos, d_vocab]`.
    fn logits(&self, unembed: &Self::Unembed, x: &Self::Tensor, prompts: &[Range<usize>]) -> Result<Vec<Array2<f32>>>;

    /// Copies a matrix to the host, or shares its memory there. Shape: `[rows, columns]` → the same.
    fn download(&self, x: &Self::Tensor) -> Result<HostArray<Ix2>>;
    /// The rows of each prompt, for a cache. A device may postpone the copy to the host until an array is first read.
    /// Shape: `[rows, columns]` → each `[pos, columns]`.
    fn lazy_rows(&self, x: &Self::Tensor, prompts: &[Range<usize>]) -> Result<Vec<LazyArray<Ix2>>> {
        let x = self.download(x)?;
        // The slices share the batch's memory.
        let of_prompt = |rows: &Range<usize>| x.clone().map(|x| x.slice_move(s![rows.clone(), ..]));
        Ok(prompts.iter().map(|rows| of_prompt(rows).into()).collect())
    }
}

/// The rows of each prompt as arrays of their own. Shape: `[rows, columns]` → each `[pos, columns]`.
fn split_by_prompt(x: HostArray<Ix2>, prompts: &[Range<usize>]) -> Vec<Array2<f32>> {
    match prompts {
        [_] => vec![x.into_owned()],
        _ => prompts.iter().map(|rows| x.slice(s![rows.clone(), ..]).to_owned()).collect(),
    }
}
