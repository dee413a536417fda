//! The weights of a GPT-2 on the host, in TransformerLens' layout, and weight processing.

mod process;
mod processed;
mod random;
mod svd;

use ndarray::{Array1, Array2, Array3};

use crate::error::Result;
pub use process::Processing;
pub(crate) use processed::ProcessedWeights;
pub(crate) use random::{RandomWeights, normal};
pub(crate) use svd::svd_of_product;

/// The weights of a model, after the processing that it was loaded with.
#[derive(Clone, Debug)]
pub struct Weights {
    /// `W_E`, the token embedding. Shape: `[d_vocab, d_model]`.
    pub w_e: Array2<f32>,
    /// `W_pos`, the position embedding. Shape: `[n_ctx, d_model]`.
    pub w_pos: Array2<f32>,
    /// The transformer blocks. Index: layer.
    pub blocks: Vec<BlockWeights>,
    /// Scale and shift of the final layer norm; `None` once they are folded into `w_u` and `b_u`.
    pub ln_final: Option<LayerNormWeights>,
    /// `W_U`, the unembedding. Shape: `[d_model, d_vocab]`.
    pub w_u: Array2<f32>,
    /// `b_U`. Shape: `[d_vocab]`. GPT-2 has none, so it is zero before processing.
    pub b_u: Array1<f32>,
}

/// The weights of a model before processing, one part at a time.
pub(crate) trait RawWeights: Send + Sync {
    /// `W_E` and `W_pos`. Shape: → `[d_vocab, d_model]`, `[n_ctx, d_model]`.
    fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)>;

    /// The weights of one block.
    fn block(&self, layer: usize) -> Result<BlockWeights>;

    /// The unembedding. The columns of `w_u` are contiguous.
    fn unembed(&self) -> Result<UnembedWeights>;
}

/// The final layer norm and the unembedding, as in [`Weights`].
pub(crate) struct UnembedWeights {
    pub(crate) ln_final: Option<LayerNormWeights>,
    /// Shape: `[d_model, d_vocab]`.
    pub(crate) w_u: Array2<f32>,
    /// Shape: `[d_vocab]`.
    pub(crate) b_u: Array1<f32>,
}

/// The weights of one transformer block.
#[derive(Clone, Debug)]
pub struct BlockWeights {
    /// Scale and shift of the layer norm before attention; `None` once folded.
    pub ln1: Option<LayerNormWeights>,
    /// `W_Q`. Shape: `[n_heads, d_model, d_head]`.
    pub w_q: Array3<f32>,
    /// `b_Q`. Shape: `[n_heads, d_head]`.
    pub b_q: Array2<f32>,
    /// `W_K`. Shape: `[n_heads, d_model, d_head]`.
    pub w_k: Array3<f32>,
    /// `b_K`. Shape: `[n_heads, d_head]`.
    pub b_k: Array2<f32>,
    /// `W_V`. Shape: `[n_heads, d_model, d_head]`.
    pub w_v: Array3<f32>,
    /// `b_V`. Shape: `[n_heads, d_head]`.
    pub b_v: Array2<f32>,
    /// `W_O`. Shape: `[n_heads, d_head, d_model]`.
    pub w_o: Array3<f32>,
    /// `b_O`. Shape: `[d_model]`.
    pub b_o: Array1<f32>,
    /// Scale and shift of the layer norm before the MLP; `None` once folded.
    pub ln2: Option<LayerNormWeights>,
    /// `W_in`. Shape: `[d_model, d_mlp]`.
    pub w_in: Array2<f32>,
    /// `b_in`. Shape: `[d_mlp]`.
    pub b_in: Array1<f32>,
    /// `W_out`. Shape: `[d_mlp, d_model]`.
    pub w_out: Array2<f32>,
    /// `b_out`. Shape: `[d_model]`.
    pub b_out: Array1<f32>,
}

/// Scale and shift of a layer norm: `y = w ⊙ (x − mean) / √(variance + eps) + b`.
#[derive(Clone, Debug)]
pub struct LayerNormWeights<T = f32> {
    /// Scale. Shape: `[d_model]`.
    pub w: Array1<T>,
    /// Shift. Shape: `[d_model]`.
    pub b: Array1<T>,
}

impl<T: Copy> LayerNormWeights<T> {
    /// Converts the weights to another number type. Shape: each `[d_model]`.
    fn map<U>(&self, f: fn(T) -> U) -> LayerNormWeights<U> {
        LayerNormWeights { w: self.w.mapv(f), b: self.b.mapv(f) }
    }
}
