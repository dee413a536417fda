//! The weights of a loaded model, copied to the host.

use ndarray::{Array2, Array3, Axis};

use super::gpt2::Gpt2;
use super::on_device::ModelOnDevice;
use crate::error::{Result, check_index};
use crate::weights::{BlockWeights, Weights};

impl Gpt2 {
    /// A copy of all weights, after the steps that [`processing`](Self::processing) returns. The model itself has them
    /// on its device only. [`w_q`](Self::w_q), [`w_k`](Self::w_k), [`w_v`](Self::w_v) and [`w_o`](Self::w_o) copy the
    /// weights of one head.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device fails.
    pub fn weights(&self) -> Result<Weights> {
        self.on_device().weights()
    }

    /// `W_Q` of a head: `model.W_Q[layer, head]` in TransformerLens. Shape: → `[d_model, d_head]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer or head that the model does not have,
    /// [`Error::Device`](crate::Error::Device).
    pub fn w_q(&self, layer: usize, head: usize) -> Result<Array2<f32>> {
        self.head_weights(layer, head, |model| model.w_q(layer))
    }

    /// `W_K` of a head: `model.W_K[layer, head]` in TransformerLens. Shape: → `[d_model, d_head]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer or head that the model does not have,
    /// [`Error::Device`](crate::Error::Device).
    pub fn w_k(&self, layer: usize, head: usize) -> Result<Array2<f32>> {
        self.head_weights(layer, head, |model| model.w_k(layer))
    }

    /// `W_V` of a head: `model.W_V[layer, head]` in TransformerLens. Shape: → `[d_model, d_head]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer or head that the model does not have,
    /// [`Error::Device`](crate::Error::Device).
    pub fn w_v(&self, layer: usize, head: usize) -> Result<Array2<f32>> {
        self.head_weights(layer, head, |model| model.w_v(layer))
    }

    /// `W_O` of a head: `model.W_O[layer, head]` in TransformerLens. Shape: → `[d_head, d_model]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer or head that the model does not have,
    /// [`Error::Device`](crate::Error::Device).
    pub fn w_o(&self, layer: usize, head: usize) -> Result<Array2<f32>> {
        self.head_weights(layer, head, |model| model.w_o(layer))
    }

    /// `W_E`, the token embedding: `model.W_E` in TransformerLens. A copy. Shape: → `[d_vocab, d_model]`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device fails.
    pub fn w_e(&self) -> Result<Array2<f32>> {
        self.on_device().w_e()
    }

    /// `W_U`, the unembedding: `model.W_U` in TransformerLens. A copy. Shape: → `[d_model, d_vocab]`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device fails.
    pub fn w_u(&self) -> Result<Array2<f32>> {
        self.on_device().w_u()
    }

    /// The weights of one transformer block, as in [`weights`](Self::weights).
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer that the model does not have,
    /// [`Error::Device`](crate::Error::Device).
    pub fn block_weights(&self, layer: usize) -> Result<BlockWeights> {
        check_index("layer", layer, "the model", self.config().n_layers)?;
        self.on_device().block_weights(layer)
    }

    /// The part of a layer's weights that belongs to a head. Shape: `[n_heads, rows, columns]` → `[rows, columns]`.
    fn head_weights(
        &self,
        layer: usize,
        head: usize,
        layer_weights: impl Fn(&dyn ModelOnDevice) -> Result<Array3<f32>>,
    ) -> Result<Array2<f32>> {
        self.config().check_head(layer, head)?;
        Ok(layer_weights(self.on_device())?.index_axis_move(Axis(0), head).as_standard_layout().into_owned())
    }
}
