//! Analysis of one run, by TransformerLens' names: the residual stream as a sum of components, the part of a logit that
//! each component writes, the logit lens, losses, comparisons of logits, with figures and files. Analysis of heads: their
//! circuits, read from the weights, and scores of what they attend to and copy. And generation of text.

mod attribution;
mod cache_file;
mod circuits;
mod comparison;
mod figures;
mod generation;
mod heads;
mod layer_norm;
mod lens_differences;
mod logit_lens;
mod loss;
mod neurons;
#[cfg(feature = "npz")]
mod npz;
mod perplexity;
mod residual_stream;
mod test_prompt;
mod unembedding;

pub use circuits::{
    CircuitEntries, CircuitKind, Composition, CompositionScores, Eigenvalues, FactoredMatrix, FactoredSvd, FullCircuit,
    MatrixEntry, RandomBaseline,
};
pub use comparison::{kl_divergence, logit_diff, token_ranks};
pub use figures::LensColor;
pub(crate) use figures::bound_of;
pub(crate) use generation::most_likely;
pub use generation::{GenerateOptions, Generated, NewToken};
pub use heads::{
    AttendsTo, DetectOptions, DetectionPattern, ErrorMeasure, HeadNames, HeadScore, HeadScores, NameHeadsOptions,
    NameMoverScores, RepeatedTokenScores,
};
pub use lens_differences::LensDifferences;
pub use logit_lens::{LensScale, LogitLens};
pub use loss::log_probs;
pub(crate) use loss::{log_sum_exp, token_loss};
#[cfg(feature = "npz")]
pub use npz::write_npz;
pub use perplexity::{Perplexity, PerplexityOptions};
pub use residual_stream::ResidualStack;
pub use test_prompt::{AnswerToken, PromptTest, RankedToken, test_prompt, test_prompt_options};
