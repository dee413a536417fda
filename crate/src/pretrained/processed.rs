//! A checkpoint's weights, processed as they are read.

use ndarray::Array2;

use super::checkpoint::Checkpoint;
use crate::error::Result;
use crate::weights::{BlockWeights, Processing, UnembedWeights};

/// Gives the processed weights piece by piece, so that a device can take each before the next is read: they never lie in
/// memory twice as a whole.
pub(crate) struct ProcessedCheckpoint {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) steps: Processing,
}

impl ProcessedCheckpoint {
    /// `w_e [d_vocab, d_model]` and `w_pos [n_ctx, d_model]`.
    pub(crate) fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)> {
        let (mut w_e, mut w_pos) = self.checkpoint.embeddings()?;
        self.steps.process_embedding(&mut w_e);
        self.steps.process_embedding(&mut w_pos);
        Ok((w_e, w_pos))
    }

    pub(crate) fn block(&self, layer: usize) -> Result<BlockWeights> {
        let mut block = self.checkpoint.block(layer)?;
        self.steps.process_block(&mut block, layer)?;
        Ok(block)
    }

    pub(crate) fn unembed(&self) -> Result<UnembedWeights> {
        let mut unembed = self.checkpoint.unembed()?;
        self.steps.process_unembed(&mut unembed);
        Ok(unembed)
    }
}
