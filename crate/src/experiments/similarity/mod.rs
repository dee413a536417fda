//! Similarity of patterns: do prompts of similar structure or meaning give similar patterns of attention tokens?

mod design;
mod measure;
mod paired_test;

pub use design::{Controls, PromptPair, SimilarityOptions};
pub use measure::PatternMeasure;
pub use paired_test::{HeadSimilarity, SimilarityTest, similarity_test};
