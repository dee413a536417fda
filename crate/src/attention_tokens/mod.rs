//! Attention tokens: the products of a head's queries and keys, decoded into the model's vocabulary.
//!
//! For a query at position *i* and a key at position *j ≤ i*, the element-wise product of the two vectors is mapped to
//! the residual stream by the head's value and output weights, and unembedded. The most likely token is the *attention
//! token* of this cell of the attention pattern:
//!
//! ```text
//! c     = q_i ⊙ k_j                        [d_head]
//! r     = c P                              [d_model], P of a projection
//! token = argmax_v (r · W_U[:, v] + b_U[v])          no final layer norm; the lowest id on a tie
//! ```
//!
//! A [`Reading`](crate::Reading) is one choice of projection, basis, bias and normalization; the projections
//! [`Matched`](crate::Projection::Matched) and [`Written`](crate::Projection::Written) read a cell in a way that no change
//! of the head's basis changes. The query, key and value token of a position are the same with `c = q_i`, `k_i`, `v_i`. `W_V`, `W_O`, `W_U` and
//! `b_U` are the weights of the loaded model, after weight processing; no other bias is added.

mod decoding;
mod export;
#[cfg(feature = "npz")]
mod export_npz;
mod head_data;
mod of_one_prompt;
mod pairs;
mod pattern;
mod streams;

pub use decoding::{DecodeOptions, all_heads_data, head_data, layer_data};
pub(crate) use decoding::{tokens_in_basis, tokens_of_row};
pub(crate) use head_data::run_caption;
pub use head_data::{Feature, HeadData, PromptHeadData};
pub use of_one_prompt::OfOnePrompt;
pub(crate) use pairs::tokens_of_pairs;
pub use pattern::unique_index_pattern;

/// The number of cells with key ≤ query of a prompt.
fn n_cells(pos: usize) -> usize {
    pos * (pos + 1) / 2
}
