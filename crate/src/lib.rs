//! GPT-2 interpretability in Rust notebooks: what each attention head says about a prompt, in the model's own words.
//!
//! For a query at position *i* and a key at position *j ≤ i* of a head, with `q_i`, `k_j` of shape `[d_head]`:
//!
//! ```text
//! attention token = argmax_v ((q_i ⊙ k_j) P W_U + b_U)[v]     P [d_head, d_model], W_U [d_model, d_vocab]
//! ```
//!
//! Text → tokens → [`Gpt2`] → [`ActivationCache`] → [`HeadData`] → pattern → [`Figure`]: data flows one way.
//!
//! | to | see |
//! |---|---|
//! | load a model | [`Gpt2::from_pretrained`], [`LoadOptions`], [`Processing`], [`Device`] |
//! | run it | [`Gpt2::forward`], [`Gpt2::run_with_cache`], [`RunOptions`], [`Activation`] |
//! | read its weights | [`Gpt2::weights`], [`Gpt2::w_v`], [`Gpt2::w_o`], [`Weights`], [`Gpt2Config`] |
//! | decode a head | [`head_data`], [`layer_data`], [`all_heads_data`], [`Projection`], [`unique_index_pattern`] |
//! | draw it | [`mod@notebook`]: the functions of the original notebook, and more; [`Figure`], [`Theme`], [`ColorScale`] |
//! | ask about all heads | [`mod@experiments`]: the original's claims, with controls |
//! | take it elsewhere | [`HeadData::write_csv`], [`HeadData::write_npz`], [`Table`], [`Figure::to_svg`] |
//!
//! ```
//! use attention_tokens::{notebook::*, prelude::*};
//!
//! let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
//! let run = run_prompts(&model, "The next sentence is false. The previous sentence is true.")?;
//! let data = calculate_attns(&run, 0, 1)?.prompt(0)?; // layer 0, head 1
//! let figure = plot_attns(&unique_index_pattern(&data.feature(Feature::Qk)));
//! add_token_labels(&add_axis_labels(&figure, &data)?, &data, Feature::Qk)?
//! # ;
//! # Ok::<(), Error>(())
//! ```

mod attention_tokens;
mod backend;
mod config;
mod decode;
mod error;
mod evcxr;
pub mod experiments;
mod memory;
mod model;
pub mod notebook;
mod plot;
mod pretrained;
mod tokenizer;
mod weights;

pub use attention_tokens::{
    DecodeOptions, Feature, HeadData, PromptHeadData, all_heads_data, head_data, layer_data, unique_index_pattern,
};
pub use backend::Device;
pub use config::{ActFn, Gpt2Config};
pub use decode::{Projection, TopTokens};
pub use error::{Error, Result};
pub use model::{Activation, ActivationCache, Gpt2, Prompts, RunOptions};
pub use plot::{ColorScale, Figure, Table, Theme};
pub use pretrained::LoadOptions;
pub use tokenizer::Tokenizer;
// evcxr writes down the type of every variable, so a notebook must be able to name it.
pub use {ndarray, plotly};

pub use weights::{BlockWeights, LayerNormWeights, Processing, Weights};

/// What a notebook needs in one line: `use attention_tokens::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Activation, ActivationCache, ColorScale, DecodeOptions, Device, Error, Feature, Figure, Gpt2, HeadData,
        LoadOptions, Processing, Projection, PromptHeadData, RunOptions, Table, Theme, all_heads_data, head_data,
        layer_data, unique_index_pattern,
    };
}
