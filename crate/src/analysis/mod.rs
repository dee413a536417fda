//! Analysis of one run, by TransformerLens' names: the residual stream as a sum of components, the part of a logit that
//! each component writes, the logit lens, losses. Analysis of heads: their circuits, read from the weights, and scores
//! of what they attend to and copy. And generation of text.

mod attribution;
mod circuits;
mod generation;
mod heads;
mod layer_norm;
mod logit_lens;
mod loss;
mod residual_stream;
mod unembedding;

pub use circuits::{
    CircuitEntries, CircuitKind, Composition, CompositionScores, Eigenvalues, FactoredMatrix, FactoredSvd, FullCircuit,
    MatrixEntry, RandomBaseline,
};
pub use generation::{GenerateOptions, Generated, NewToken};
pub use heads::{
    AttendsTo, DetectOptions, DetectionPattern, ErrorMeasure, HeadNames, HeadScore, HeadScores, NameHeadsOptions,
    NameMoverScores, RepeatedTokenScores, RepeatedTokens,
};
pub use logit_lens::LogitLens;
pub use loss::log_probs;
pub use residual_stream::ResidualStack;
