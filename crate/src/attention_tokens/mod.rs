//! Attention tokens: what a head says about a prompt, in the model's own words.
//!
//! For a query at position *i* and a key at position *j ≤ i*, the element-wise product of the two vectors is sent
//! through the head's value and output weights to the residual stream and unembedded; the most likely token is the
//! *attention token* of that cell:
//!
//! ```text
//! c     = q_i ⊙ k_j                        [d_head]
//! r     = c P                              [d_model], P one of three projections
//! token = argmax_v (r · W_U[:, v] + b_U[v])          no final layer norm; the lowest id on a tie
//! ```
//!
//! The query, key and value token of a position are the same with `c = q_i`, `k_i`, `v_i`. `W_V`, `W_O`, `W_U` and
//! `b_U` are those of the model at hand, processed as it was loaded; no other bias enters.

mod decoding;
mod export;
mod head_data;
mod pattern;

pub(crate) use decoding::tokens_through;
pub use decoding::{DecodeOptions, all_heads_data, head_data, layer_data};
pub use head_data::{Feature, HeadData, PromptHeadData};
pub use pattern::unique_index_pattern;

/// The number of cells with key ≤ query of a prompt.
fn n_cells(pos: usize) -> usize {
    pos * (pos + 1) / 2
}
