//! Options for loading a model: device, weight processing, decoding cache, revision, cache folder.

use std::path::PathBuf;

use crate::backend::Device;
use crate::weights::Processing;

/// Options for loading a model: the keyword arguments of TransformerLens' `from_pretrained`.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let as_in_the_original = LoadOptions::default()
///     .fold_ln(true)
///     .center_writing_weights(true)
///     .center_unembed(true)
///     .refactor_factored_attn_matrices(true);
/// let as_hugging_face_has_it = LoadOptions::default().no_processing();
/// # let _ = (as_in_the_original, as_hugging_face_has_it);
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    pub(crate) processing: Processing,
    pub(crate) device: Device,
    /// `None` is the device's default.
    pub(crate) decode_cache_bytes: Option<usize>,
    pub(crate) revision: Option<String>,
    pub(crate) cache_dir: Option<PathBuf>,
}

impl LoadOptions {
    /// See [`Processing::fold_ln`]. Default: on.
    pub fn fold_ln(mut self, on: bool) -> Self {
        self.processing.fold_ln = on;
        self
    }

    /// See [`Processing::center_writing_weights`]. Default: on.
    pub fn center_writing_weights(mut self, on: bool) -> Self {
        self.processing.center_writing_weights = on;
        self
    }

    /// See [`Processing::center_unembed`]. Default: on.
    pub fn center_unembed(mut self, on: bool) -> Self {
        self.processing.center_unembed = on;
        self
    }

    /// See [`Processing::fold_value_biases`]. Default: on.
    pub fn fold_value_biases(mut self, on: bool) -> Self {
        self.processing.fold_value_biases = on;
        self
    }

    /// See [`Processing::refactor_factored_attn_matrices`]. Default: on.
    pub fn refactor_factored_attn_matrices(mut self, on: bool) -> Self {
        self.processing.refactor_factored_attn_matrices = on;
        self
    }

    /// All five steps of weight processing at once. Default: all on.
    pub fn processing(mut self, processing: Processing) -> Self {
        self.processing = processing;
        self
    }

    /// The weights as Hugging Face has them: TransformerLens' `from_pretrained_no_processing`.
    pub fn no_processing(self) -> Self {
        self.processing(Processing::none())
    }

    /// The device that computes. Default: [`Device::cpu`].
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Memory limit in bytes for the per-head decoding cache. Default: for the CPU a quarter of the memory of the machine
    /// or container where Linux tells it, else 2 GB; for a GPU 2 GB. All heads take 0.7 GB on the CPU for GPT-2 small, and
    /// 5.5 GB for GPT-2 xl, in one projection.
    ///
    /// On the CPU, a head that has decoded `4 d_head` vectors (in GPT-2 small, the second prompt of 13 tokens) gets a
    /// cached table of `P W_U` in 8 bits, about `(d_head + 20) d_vocab` bytes (4.4 MB in GPT-2 small); it gets one
    /// earlier if its vectors have many candidates for the best token. The table only selects candidates; their logits
    /// are computed in full precision. On a GPU the table is in `f32` and made with the first vector; it takes `4
    /// d_head (d_model + d_vocab)` bytes of the GPU's memory (13 MB in GPT-2 small).
    ///
    /// Least recently used tables are dropped first, except that going through more heads than fit keeps what fits; 0
    /// disables the cache, so that decoding a head again takes as long as the first time.
    pub fn decode_cache_bytes(mut self, bytes: usize) -> Self {
        self.decode_cache_bytes = Some(bytes);
        self
    }

    /// The branch, tag or commit of a model on the Hub. Default: `main`.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// The folder of the Hugging Face cache. Default, as in Python: `HF_HUB_CACHE`, else `HF_HOME/hub`, else
    /// `~/.cache/huggingface/hub`.
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }
}
