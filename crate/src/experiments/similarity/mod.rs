//! Whether inputs alike in structure or meaning give alike patterns of attention tokens.

mod measure;
mod paired_test;
mod permutation;

pub use measure::PatternMeasure;
pub use paired_test::{Controls, HeadSimilarity, PromptPair, SimilarityOptions, SimilarityTest, similarity_test};
