//! Heads' vocabularies: attention tokens counted over many prompts, shared tokens, a map of tokens.

mod counts;
mod embedding_map;
mod files;
mod shared_tokens;
mod sweep;

pub use counts::{Component, VocabularyCounts};
pub use embedding_map::{EmbeddingMap, MapMethod};
pub use shared_tokens::SharedTokens;
pub use sweep::{SweepEstimate, SweepOptions, SweepProgress, count_file, estimate_sweep};
