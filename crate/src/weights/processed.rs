//! The weights of a model, processed as they are read.

use ndarray::Array2;

use super::{BlockWeights, Processing, RawWeights, UnembedWeights};
use crate::error::Result;

/// Raw weights and the steps of their processing. Weights are returned one block at a time, so that a device can
/// upload each before the next is read: memory never holds two copies of the whole model.
pub(crate) struct ProcessedWeights {
    pub(crate) raw: Box<dyn RawWeights>,
    pub(crate) steps: Processing,
}

impl ProcessedWeights {
    /// `W_E` and `W_pos`. Shape: → `[d_vocab, d_model]`, `[n_ctx, d_model]`.
    ///
    /// # Errors
    /// Here and below: [`Error::Io`](crate::Error::Io), [`Error::Tensor`](crate::Error::Tensor) for numbers that are
    /// not finite, [`Error::Svd`](crate::Error::Svd) for a block whose factors cannot be refactored.
    pub(crate) fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)> {
        let (mut w_e, mut w_pos) = self.raw.embeddings()?;
        self.steps.process_embedding(&mut w_e);
        self.steps.process_embedding(&mut w_pos);
        Ok((w_e, w_pos))
    }

    /// The weights of one block, in the shapes of [`BlockWeights`].
    pub(crate) fn block(&self, layer: usize) -> Result<BlockWeights> {
        let mut block = self.raw.block(layer)?;
        self.steps.process_block(&mut block, layer)?;
        Ok(block)
    }

    /// The unembedding, in the shapes of [`UnembedWeights`].
    pub(crate) fn unembed(&self) -> Result<UnembedWeights> {
        let mut unembed = self.raw.unembed()?;
        self.steps.process_unembed(&mut unembed);
        Ok(unembed)
    }
}
