//! The coarse operations that GPT-2 and decoding need, as one trait.
//!
//! The model ([`crate::transformer`]) and the decoding are written once over [`Backend`]; where and how the numbers
//! are computed is an implementation of it. [`Dfdx`] has every operation for every dfdx device and is what the others
//! are held against; [`Fused`] is the fast one for this machine's processors.
//!
//! Activations are matrices of `[rows, columns]`. The prompts of a batch lie below each other, row by row, without
//! padding; only attention looks at where one ends and the next begins.

#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod dfdx;
mod fused;
#[cfg(test)]
mod tests;
mod top_tokens;
mod vectors;

use std::ops::Range;

use ndarray::{Array1, Array2, Ix2, Ix3, s};

#[cfg(feature = "cuda")]
pub(crate) use self::cuda::Cuda;
pub(crate) use self::dfdx::Dfdx;
pub(crate) use self::fused::Fused;
use crate::config::ActFn;
use crate::error::Result;
use crate::memory::{HostArray, Kept};
use crate::weights::LayerNormWeights;
pub use device::Device;
pub(crate) use device::DeviceKind;
pub use top_tokens::TopTokens;
pub(crate) use top_tokens::TopTokensBuilder;
pub(crate) use vectors::Vectors;

/// Whether [`Device::cuda`] is in this build, and a GPU can be used.
fn cuda_is_available() -> bool {
    #[cfg(feature = "cuda")]
    let available = Cuda::open(0).is_ok();
    #[cfg(not(feature = "cuda"))]
    let available = false;
    available
}

/// What attention computes.
pub(crate) struct Attention<T> {
    /// Shape: `[rows, n_heads d_head]`.
    pub(crate) z: T,
    /// A prompt each, `[n_heads, query_pos, key_pos]`. Empty if not kept.
    pub(crate) pattern: Vec<Kept<Ix3>>,
}

/// A place to compute. Shapes are the caller's responsibility: they are checked before a backend is called.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Whether this machine's processors are free while it computes.
    const IS_A_CARD: bool = false;

    /// A matrix `[rows, columns]` on the device.
    type Tensor;
    /// The token and position embeddings on the device.
    type Embedding: Send + Sync;
    /// A layer norm on the device.
    type LayerNorm: Send + Sync;
    /// A weight matrix and a bias on the device.
    type Linear: Send + Sync;
    /// The unembedding on the device.
    type Unembed: Send + Sync;
    /// A head's projection on the device, with whatever makes decoding fast.
    type Projected: Send + Sync;

    /// Puts `w_e [d_vocab, d_model]` and `w_pos [n_ctx, d_model]` on the device.
    fn embedding(&self, w_e: Array2<f32>, w_pos: Array2<f32>) -> Result<Self::Embedding>;
    /// Puts a layer norm on the device; without weights it only centres and scales.
    fn layer_norm(&self, weights: Option<&LayerNormWeights>, eps: f64) -> Result<Self::LayerNorm>;
    /// Puts `w [in, out]` and `b [out]` on the device.
    fn linear(&self, w: Array2<f32>, b: Array1<f32>) -> Result<Self::Linear>;
    /// Puts three of one shape there, which are applied together, by [`apply_each`](Self::apply_each).
    fn linears(&self, parts: [(Array2<f32>, Array1<f32>); 3]) -> Result<[Self::Linear; 3]> {
        let [q, k, v] = parts.map(|(w, b)| self.linear(w, b));
        Ok([q?, k?, v?])
    }
    /// Copies `w_e` and `w_pos` back to the host, bit by bit.
    fn embedding_weights(&self, embedding: &Self::Embedding) -> Result<(Array2<f32>, Array2<f32>)>;
    /// Copies `w` and `b` back to the host, bit by bit.
    fn linear_weights(&self, linear: &Self::Linear) -> Result<(Array2<f32>, Array1<f32>)>;

    /// `W_E[token] + W_pos[position]`, a row each. Shape: `[rows]`, `[rows]` → `[rows, d_model]`.
    fn embed(&self, embedding: &Self::Embedding, tokens: &[u32], positions: &[usize]) -> Result<Self::Tensor>;
    /// Shape: `[rows, d_model]` → the same.
    fn normalize(&self, norm: &Self::LayerNorm, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// `x W + b`. Shape: `[rows, in]` → `[rows, out]`.
    fn apply(&self, linear: &Self::Linear, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// [`apply`](Self::apply) for each of three that [`linears`](Self::linears) made.
    fn apply_each(&self, linears: &[Self::Linear; 3], x: &Self::Tensor) -> Result<[Self::Tensor; 3]> {
        let [q, k, v] = linears.each_ref().map(|linear| self.apply(linear, x));
        Ok([q?, k?, v?])
    }
    /// `act_fn(x W + b)`. Shape: `[rows, in]` → `[rows, out]`.
    fn apply_with_activation(&self, linear: &Self::Linear, act_fn: ActFn, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// Shape: both the same.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;
    /// Causal attention within each prompt: `pattern = softmax(q kᵀ / √d_head)` over keys ≤ query, `z = pattern v`.
    /// Shape: `qkv`: each `[rows, n_heads d_head]`; `prompts`: the rows of each.
    fn attention(
        &self,
        qkv: [&Self::Tensor; 3],
        n_heads: usize,
        prompts: &[Range<usize>],
        keep_pattern: bool,
    ) -> Result<Attention<Self::Tensor>>;
    /// The `q kᵀ / √d_head` of one prompt, whose rows these are; −∞ where key > query. Shape: `q`, `k` as for
    /// [`attention`](Self::attention).
    fn attn_scores(&self, q: &Self::Tensor, k: &Self::Tensor, n_heads: usize, rows: Range<usize>) -> Result<Kept<Ix3>>;
    /// A matrix on the host. Where it is there already, it is shared, not copied.
    fn download(&self, x: &Self::Tensor) -> Result<HostArray<Ix2>>;
    /// The rows of each prompt, for a cache. A device may leave them where they are until somebody looks at them.
    fn keep(&self, x: &Self::Tensor, prompts: &[Range<usize>]) -> Result<Vec<Kept<Ix2>>> {
        let x = self.download(x)?;
        let own = |rows: &Range<usize>| x.clone().map(|x| x.slice_move(s![rows.clone(), ..])); // shares the batch's memory
        Ok(prompts.iter().map(|rows| own(rows).into()).collect())
    }

    /// Puts `w_u [d_model, d_vocab]` and `b_u [d_vocab]` on the device.
    fn unembed(&self, w_u: Array2<f32>, b_u: Array1<f32>) -> Result<Self::Unembed>;
    /// Copies `w_u` and `b_u` back to the host, bit by bit.
    fn unembed_weights(&self, unembed: &Self::Unembed) -> Result<(Array2<f32>, Array1<f32>)>;
    /// `x W_U + b_U` on the host, a prompt each. Shape: `[rows, d_model]` → `[pos, d_vocab]`.
    fn logits(&self, unembed: &Self::Unembed, x: &Self::Tensor, prompts: &[Range<usize>]) -> Result<Vec<Array2<f32>>>;

    /// Puts a projection `p [d_head, d_model]` on the device.
    fn projected(&self, p: Array2<f32>) -> Result<Self::Projected>;
    /// The most memory that a projection may come to take.
    fn projected_bytes(projected: &Self::Projected, unembed: &Self::Unembed) -> usize;
    /// The `k` most likely tokens of `c P W_U + b_U`, a row each, for vectors `c [n, d_head]`. Ties go to the lowest
    /// token id.
    fn decode(&self, c: &Vectors, projected: &Self::Projected, unembed: &Self::Unembed, k: usize) -> Result<TopTokens>;
}

/// The rows of each prompt, for a person to keep.
fn own_rows(x: HostArray<Ix2>, prompts: &[Range<usize>]) -> Vec<Array2<f32>> {
    match prompts {
        [_] => vec![x.into_owned()],
        _ => prompts.iter().map(|rows| x.slice(s![rows.clone(), ..]).to_owned()).collect(),
    }
}
