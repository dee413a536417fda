// The README is the front page, but for rustdoc only: so an edit of the README recompiles nothing, and rust-analyzer,
// which reads this file through `include!` in crate/prebuilt, does not look for it. The first definition of a link
// applies, so those of readme-links.md, which are relative to target/doc/attention_tokens/, come first.
#![cfg_attr(doc, doc = include_str!("../readme-links.md"))]
#![cfg_attr(doc, doc = include_str!("../README.md"))]
//!
//! # The library
//!
//! The attention token of a head for a query at position *i* and a key at position *j ≤ i*, `q_i` and `k_j` of shape
//! `[d_head]`:
//!
//! ```text
//! argmax_v ((q_i ⊙ k_j) P W_U + b_U)[v]     P [d_head, d_model], a Projection; W_U [d_model, d_vocab]
//! ```
//!
//! Data flows one way: text → tokens → [`Gpt2`] → [`ActivationCache`] → [`HeadData`] → pattern → [`Figure`].
//!
//! | task | items |
//! |---|---|
//! | load a model | [`Gpt2::from_pretrained`], [`LoadOptions`], [`Processing`], [`Device`] |
//! | run it | [`Gpt2::forward`], [`Gpt2::run_with_cache`], [`RunOptions`], [`Activation`] |
//! | change a run | [`Intervention`], [`HookPoint`], [`Gpt2::run_with_hooks`], [`RunOptions::hooks`], [`Gpt2::hooked`] |
//! | ask what a run depends on | [`mod@patching`]: activation patching, ablation, knock-outs, paths; [`Metric`] |
//! | read its weights | [`Gpt2::weights`], [`Gpt2::w_v`], [`Gpt2::w_o`], [`Weights`], [`Gpt2Config`] |
//! | decode a head | [`head_data`], [`layer_data`], [`all_heads_data`], [`Reading`], [`Projection`], [`unique_index_pattern`] |
//! | test a prompt | [`test_prompt`], [`Gpt2::loss`], [`Gpt2::logits_at`], [`token_ranks`], [`kl_divergence`], [`Gpt2::get_token_position`] |
//! | ask what writes a logit | [`ActivationCache::logit_lens`], [`ActivationCache::logit_attrs`], [`ActivationCache::head_logit_attrs`], [`ActivationCache::neuron_logit_attrs`], [`ResidualStack`] |
//! | find heads | [`Gpt2::repeated_token_scores`], [`Gpt2::detect_head`], [`Gpt2::name_heads`], [`Gpt2::name_mover_scores`], [`HeadScores`] |
//! | read circuits | [`Gpt2::qk`], [`Gpt2::ov`], [`Gpt2::full_ov`], [`Gpt2::copying_scores`], [`Gpt2::all_composition_scores`], [`FactoredMatrix`] |
//! | continue a text, score one | [`Gpt2::generate`], [`GenerateOptions`], [`Gpt2::perplexity`] |
//! | take prompts of a known task | [`mod@datasets`]: indirect objects, greater-than, docstrings, repeated tokens, text files |
//! | draw it | [`mod@notebook`]: the original notebook's functions, and more; [`Figure`], [`Theme`], [`Look`], [`ColorScale`] |
//! | draw any array, attention patterns | [`imshow`], [`line()`], [`scatter`], [`ActivationCache::plot_attention`], [`ActivationCache::plot_attention_lines`] |
//! | take a prediction apart | [`experiments::receipt()`], [`experiments::Receipt::strike`], [`experiments::said_written_needed()`] |
//! | ask about all heads | [`mod@experiments`]: the original's claims, with controls |
//! | export it | [`HeadData::write_csv`], [`HeadData::write_npz`], [`Table`], [`Figure::write_html`], [`Figure::write_svg`], [`ActivationCache::write_safetensors`], [`write_npz`] |

mod analysis;
mod attention_tokens;
mod backend;
mod config;
pub mod datasets;
mod decode;
mod error;
mod evcxr;
pub mod experiments;
mod files;
mod memory;
mod model;
pub mod notebook;
pub mod patching;
mod plot;
mod pretrained;
mod random;
mod terminal;
mod tokenizer;
mod weights;

pub use analysis::*;
pub use attention_tokens::{
    DecodeOptions, Feature, HeadData, OfOnePrompt, PromptHeadData, all_heads_data, head_data, layer_data,
    unique_index_pattern,
};
pub use backend::Device;
pub use config::{ActFn, Gpt2Config};
pub use decode::{Basis, MatchedDirections, Projection, Reading, Signs, TopTokens};
pub use error::{Error, Result};
pub use model::{
    Activation, ActivationCache, EditValues, Gpt2, HookContext, HookPoint, Intervention, Occurrence, Prompts,
    RunOptions,
};
pub use patching::{Metric, Sweep};
pub use plot::{ColorScale, Figure, Figures, Look, MatrixPlot, PlotArray, Table, Theme, XyPlot, imshow, line, scatter};
pub use pretrained::LoadOptions;
pub use tokenizer::Tokenizer;
pub use weights::{BlockWeights, LayerNormWeights, Processing, Weights};
// evcxr writes out the type of every variable, so a notebook must be able to name the types of these crates.
pub use {ndarray, plotly};

/// The items that most notebooks need, to import together.
///
/// ```
/// use attention_tokens::{notebook::*, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, "The next sentence is false. The previous sentence is true.")?;
/// let data = calculate_attns(&run, 0, 1)?.prompt(0)?; // layer 0, head 1, the first prompt
/// plot_head(&data)
/// # ;
/// # Ok::<(), Error>(())
/// ```
pub mod prelude {
    pub use crate::datasets::RepeatedTokens;
    pub use crate::{
        Activation, ActivationCache, ColorScale, Composition, DecodeOptions, DetectOptions, DetectionPattern, Device,
        Error, FactoredMatrix, Feature, Figure, GenerateOptions, Gpt2, HeadData, HeadScores, HookPoint, Intervention,
        LensColor, LensScale, LoadOptions, Look, Metric, NameHeadsOptions, Processing, Projection, PromptHeadData,
        Reading, RunOptions, Table, Theme, all_heads_data, head_data, imshow, layer_data, line, scatter, test_prompt,
        unique_index_pattern,
    };
}
