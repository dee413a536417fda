//! Decoding: the most likely tokens of a head's vectors, on any device.
//!
//! ```text
//! logits = c P W_U + b_U        c [n, d_head], P [d_head, d_model], W_U [d_model, d_vocab]
//! ```
//!
//! [`Vectors`] computes the rows of `c`, [`Projection`] computes `P`, and [`HeadDecoder`] caches a decode table for
//! each head, so that it is decoded faster the next time.

mod head_decoder;
mod projection;
mod projection_cache;
mod ranking;
mod top_tokens;
mod vectors;

pub(crate) use head_decoder::{DecodeBackend, HeadDecoder};
pub use projection::Projection;
pub(crate) use projection_cache::HeadId;
pub(crate) use ranking::Ranking;
pub use top_tokens::TopTokens;
pub(crate) use top_tokens::TopTokensBuilder;
#[cfg(feature = "cuda")]
pub(crate) use top_tokens::n_ranked;
pub(crate) use vectors::Vectors;
