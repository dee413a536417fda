//! Decoding: the most likely tokens of a head's vectors, on any device.
//!
//! ```text
//! logits = c P W_U + b_U        c [n, d_head], P [d_head, d_model], W_U [d_model, d_vocab]
//! ```
//!
//! A [`Reading`] is the choice of `c` and `P`, and of what else decides a token. [`Vectors`] computes the rows of `c`,
//! [`MatrixId`] computes `P`, [`MatchedBasis`] the coordinates that [`Projection::Matched`] takes, and [`HeadDecoder`]
//! caches a decode table for each matrix of a head, so that it is decoded faster the next time.

mod head_decoder;
mod head_matrix;
mod matched;
mod projection;
mod projection_cache;
mod ranking;
mod reading;
mod top_tokens;
mod vectors;

pub(crate) use head_decoder::{DecodeBackend, HeadDecoder};
pub(crate) use head_matrix::{ColumnChange, Map, MatrixId, matrix};
pub use matched::MatchedDirections;
pub(crate) use matched::{MatchedBasis, MatchedCoordinates};
pub use projection::Projection;
pub(crate) use ranking::Ranking;
#[cfg(feature = "cuda")]
pub(crate) use ranking::UnembedBias;
pub use reading::{Basis, Reading, Signs};
pub use top_tokens::TopTokens;
pub(crate) use top_tokens::TopTokensBuilder;
#[cfg(feature = "cuda")]
pub(crate) use top_tokens::n_ranked;
pub(crate) use vectors::Vectors;
