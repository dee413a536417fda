//! Analysis of one run, by TransformerLens' names: the residual stream as a sum of components, the part of a logit that
//! each component writes, the logit lens, losses; and generation of text.

mod attribution;
mod generation;
mod layer_norm;
mod logit_lens;
mod loss;
mod perplexity;
mod residual_stream;

pub use generation::{GenerateOptions, Generated, NewToken};
pub use logit_lens::LogitLens;
pub use loss::log_probs;
pub use perplexity::{Perplexity, PerplexityOptions};
pub use residual_stream::ResidualStack;
