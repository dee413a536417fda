//! Queries, keys and values of tokens by themselves, without a prompt.

use ndarray::{Array2, Array3, Axis};

use super::gpt2::Gpt2;
use super::on_device::OnDevice;
use crate::backend::Backend;
use crate::error::Result;

/// The part of [`ModelOnDevice`](super::on_device::ModelOnDevice) that needs no prompt. Callers check layers and tokens.
pub(crate) trait SingleTokens {
    /// The queries, keys and values of a layer for tokens without a prompt, from
    ///
    /// ```text
    /// resid = W_E[token] + mean over positions of W_pos, and in layers ≥ 1: resid + MLP_0(LN2_0(resid))
    /// ```
    ///
    /// through the layer norm of the layer. Attention of earlier layers and MLPs after the first add nothing.
    /// Shape: `[n]` → each `[n, n_heads, d_head]`.
    fn qkv_of_tokens(&self, layer: usize, tokens: &[u32]) -> Result<[Array3<f32>; 3]>;
}

impl<B: Backend> SingleTokens for OnDevice<B> {
    fn qkv_of_tokens(&self, layer: usize, tokens: &[u32]) -> Result<[Array3<f32>; 3]> {
        let Self { backend, transformer, sizes, .. } = self;
        // A prompt as long as the context has every position.
        let (_, w_pos) = backend.embedding_rows(&transformer.embedding, &vec![0; sizes.n_ctx])?;
        let mean = w_pos.mapv(f64::from).mean_axis(Axis(0)).expect("a context of at least one position");
        let mean = mean.mapv(|x| x as f32); // [d_model]
        let mut resid = Array2::zeros((0, sizes.d_model));
        for tokens in tokens.chunks(sizes.n_ctx) {
            let tokens: Vec<usize> = tokens.iter().map(|&token| token as usize).collect();
            let (rows, _) = backend.embedding_rows(&transformer.embedding, &tokens)?;
            resid.append(Axis(0), rows.view()).expect("rows of d_model");
        }
        resid += &mean;
        let mut resid = backend.upload(resid)?; // [n, d_model]
        if layer > 0 {
            let block = &transformer.blocks[0];
            let post = block.mlp.post(backend, &block.ln2.forward(backend, &resid)?)?;
            resid = backend.add(&resid, &backend.linear(&block.mlp.w_out, &post)?)?;
        }
        let block = &transformer.blocks[layer];
        let qkv = backend.linear_qkv(&block.attn.w_qkv, &block.ln1.forward(backend, &resid)?)?; // each [n, n_heads d_head]
        let [q, k, v] = qkv.each_ref().map(|x| {
            let x = backend.download(x)?.into_owned();
            let shape = (x.nrows(), sizes.n_heads, x.ncols() / sizes.n_heads);
            Ok(x.into_shape_with_order(shape).expect("heads side by side"))
        });
        Ok([q?, k?, v?])
    }
}

impl Gpt2 {
    /// The queries, keys and values of a head for tokens without a prompt, as [`SingleTokens::qkv_of_tokens`] defines them.
    /// Interventions of the model change nothing. Shape: `[n]` → each `[n, d_head]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer, head or token that the model does not have,
    /// [`Error::Device`](crate::Error::Device) if the device fails.
    pub(crate) fn qkv_of_tokens(&self, layer: usize, head: usize, tokens: &[u32]) -> Result<[Array2<f32>; 3]> {
        self.config().check_head(layer, head)?;
        self.check_tokens(tokens)?;
        let qkv = self.on_device().qkv_of_tokens(layer, tokens)?;
        Ok(qkv.map(|x| x.index_axis_move(Axis(1), head).as_standard_layout().into_owned()))
    }
}
