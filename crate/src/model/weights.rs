//! The weights of a loaded model, copied to the host.

use std::path::Path;

use ndarray::{Array2, Array3, Axis};

use super::gpt2::Gpt2;
use super::on_device::ModelOnDevice;
use crate::error::{Result, check_index};
use crate::pretrained::save_processed;
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

    /// Saves the processed weights in a folder, with the model's configuration and tokenizer, so that
    /// [`from_pretrained`](Self::from_pretrained) loads them without processing them again, from the folder's path and
    /// with the same [`processing`](Self::processing). Interventions are left out.
    ///
    /// The folder is made if it is not there; an earlier model that this function saved in it is replaced. It gets copies of
    /// `config.json` and the tokenizer's files, and `processed.safetensors`: float32 tensors with the names and shapes of
    /// TransformerLens' state dict. In Python, for a `HookedTransformer` of the same shape:
    /// `model.load_state_dict(safetensors.torch.load_file(path), strict=False)`.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("letters", LoadOptions::default())?;
    /// let folder = tempfile::tempdir()?;
    /// model.save_processed(folder.path())?;
    /// let loaded = Gpt2::from_pretrained(folder.path().to_str().unwrap(), LoadOptions::default())?;
    /// assert_eq!(loaded.forward("a b c")?, model.forward("a b c")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write) for a folder that holds another model or cannot be written to,
    /// [`Error::Io`](crate::Error::Io) if the files that the model was loaded from are gone,
    /// [`Error::Device`](crate::Error::Device) if the device fails.
    pub fn save_processed(&self, folder: impl AsRef<Path>) -> Result<()> {
        save_processed(folder.as_ref(), self.files(), self.processing(), || self.weights())
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
