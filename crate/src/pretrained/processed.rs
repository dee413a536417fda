//! The weights of a checkpoint, processed as they are read.

use ndarray::Array2;

use super::checkpoint::Checkpoint;
use crate::error::Result;
use crate::weights::{BlockWeights, Processing, UnembedWeights};

/// A checkpoint and the steps of its weight processing. Weights are returned one block at a time, so that a device can
/// upload each before the next is read: memory never holds two copies of the whole model.
pub(crate) struct ProcessedCheckpoint {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) steps: Processing,
}

impl ProcessedCheckpoint {
    /// `W_E` and `W_pos`. Shape: → `[d_vocab, d_model]`, `[n_ctx, d_model]`.
    ///
    /// # Errors
    /// Here and below: [`Error::Io`](crate::Error::Io), [`Error::Tensor`](crate::Error::Tensor) for numbers that are
    /// not finite, [`Error::Svd`](crate::Error::Svd) for a block whose factors cannot be refactored.
    pub(crate) fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)> {
        let (mut w_e, mut w_pos) = self.checkpoint.embeddings()?;
        self.steps.process_embedding(&mut w_e);
        self.steps.process_embedding(&mut w_pos);
        Ok((w_e, w_pos))
    }

    /// The weights of one block, in the shapes of [`BlockWeights`].
    pub(crate) fn block(&self, layer: usize) -> Result<BlockWeights> {
        let mut block = self.checkpoint.block(layer)?;
        self.steps.process_block(&mut block, layer)?;
        Ok(block)
    }

    /// The unembedding, in the shapes of [`UnembedWeights`].
    pub(crate) fn unembed(&self) -> Result<UnembedWeights> {
        let mut unembed = self.checkpoint.unembed()?;
        self.steps.process_unembed(&mut unembed);
        Ok(unembed)
    }
}
