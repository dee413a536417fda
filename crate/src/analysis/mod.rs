//! Analysis of one run, by TransformerLens' names: the residual stream as a sum of components, the part of a logit that
//! each component writes, the logit lens, losses, comparisons of logits, figures, files.

mod attribution;
mod cache_file;
mod comparison;
mod figures;
mod layer_norm;
mod logit_lens;
mod loss;
mod neurons;
mod residual_stream;
mod test_prompt;

pub use cache_file::write_npz;
pub use comparison::{kl_divergence, logit_diff, token_ranks};
pub use figures::LensColor;
pub use logit_lens::LogitLens;
pub use loss::log_probs;
pub use residual_stream::ResidualStack;
pub use test_prompt::{AnswerToken, PromptTest, RankedToken, test_prompt, test_prompt_options};
