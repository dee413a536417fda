//! Vocabularies of heads: attention tokens counted over prompts or a file of prompts, shared tokens, a map of their
//! embeddings.

mod counts;
mod dataframes;
mod embedding_map;
mod identity;
mod prompt_file;
mod rank_frequency;
mod shared_tokens;
mod state;
mod state_lock;
mod sweep;
mod unembed_bias;

pub use counts::{Component, VocabularyCounts};
pub use embedding_map::{EmbeddingMap, MapMethod};
pub use identity::CountIdentity;
pub(super) use prompt_file::PromptFile;
pub(super) use rank_frequency::ranked;
pub use shared_tokens::SharedTokens;
pub(super) use state::Place;
pub use sweep::{SweepEstimate, SweepOptions, SweepProgress, count_file, estimate_sweep};
pub use unembed_bias::{SharedVocabulary, UnembedBiasShare};
