//! GPT-2: load, tokenize, run, read its weights and activations.

mod activation;
mod activation_cache;
mod cached_activation;
mod derived;
mod device_weights;
mod gpt2;
mod key_value_cache;
mod on_device;
mod partial_runs;
mod prompts;
mod recorder;
mod run_options;
mod sizes;
mod text;
mod transformer;
mod weights;

pub use activation::Activation;
pub use activation_cache::ActivationCache;
pub use gpt2::Gpt2;
pub(crate) use key_value_cache::KeyValueCache;
pub use prompts::Prompts;
pub use run_options::RunOptions;
pub use text::Occurrence;
