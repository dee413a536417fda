//! GPT-2: load, tokenize, run, read its weights and activations.

mod activation;
mod activation_arrays;
mod activation_cache;
mod cache_contents;
mod cached_activation;
mod decoding;
mod derived;
mod device_weights;
mod edited_run;
mod gpt2;
mod hooked;
mod interventions;
mod key_value_cache;
mod layer_norm;
mod on_device;
mod partial_runs;
mod prompts;
mod recorder;
mod run_options;
mod single_tokens;
mod sizes;
mod text;
mod transformer;
mod variants;
mod weights;

pub use activation::Activation;
pub use activation_cache::ActivationCache;
pub use gpt2::Gpt2;
pub(crate) use interventions::FREEZE_LAYER_NORM;
pub use interventions::{EditValues, HookContext, HookPoint, Intervention};
pub(crate) use key_value_cache::KeyValueCache;
pub(crate) use layer_norm::layer_norm_scale;
pub use prompts::Prompts;
pub use run_options::RunOptions;
pub use text::Occurrence;
pub(crate) use variants::{BaseRun, FinalRows, Variant};
