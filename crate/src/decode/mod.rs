//! A head's vectors → their most likely tokens, on any device.
//!
//! ```text
//! logits = c P W_U + b_U        c [n, d_head], P [d_head, d_model], W_U [d_model, d_vocab]
//! ```
//!
//! [`Projection`] has the choices of `P`, [`Vectors`] the rows `c`, and [`HeadDecoder`] what a head needs to decode fast.

mod head_decoder;
mod projection;
mod projection_cache;
mod top_tokens;
mod vectors;

pub(crate) use head_decoder::{DecodeBackend, HeadDecoder};
pub use projection::Projection;
pub(crate) use projection_cache::HeadId;
pub use top_tokens::TopTokens;
pub(crate) use top_tokens::TopTokensBuilder;
#[cfg(feature = "cuda")]
pub(crate) use top_tokens::n_ranked;
pub(crate) use vectors::Vectors;
