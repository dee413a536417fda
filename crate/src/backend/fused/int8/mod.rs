//! Screening the vocabulary with 8-bit integers: which tokens can be among the `k` best of a vector?
//!
//! The logit of a token is `x · w + b`, with a column `w` for each token. Decoding first scores the whole vocabulary
//! with 8-bit integers and keeps every token that the error bound cannot rule out, usually a few dozen of GPT-2's
//! 50257. Only their logits are computed in full precision, so the result is exact.
//!
//! 1. **Quantize** ([`quantize`]). Every column and every vector becomes a scale times 8-bit integers, `w ≈ ŵ` and
//!    `x ≈ x̂`. Products of integers are exact, need a quarter of the memory, and processors have instructions for
//!    them.
//! 2. **Bound** ([`screen`]). `x · w − x̂ · ŵ = x · (w − ŵ) + (x − x̂) · ŵ`, so by Cauchy-Schwarz
//!
//!    ```text
//!    |x · w − x̂ · ŵ| ≤ ‖x‖ ‖w − ŵ‖ + ‖x − x̂‖ ‖ŵ‖
//!    ```
//!
//!    which gives each logit a lower and an upper bound.
//! 3. **Select** ([`candidates`]). The k-th largest lower bound is a lower bound on the k-th best logit. A token whose
//!    upper bound is below it cannot be among the `k` best. All others are candidates.
//!
//! Most of the time goes into steps 2 and 3 of tokens that are no candidates. On processors with AVX2 or AVX-512, [`blocks`]
//! has the tokens of the largest columns first: `x · w` is at most `‖x‖ ‖w‖`, so once the k-th best lower bound is above
//! that for the rest of the columns, the rest of the vocabulary is not looked at. Its [`kernel`] compares sums while they
//! are in registers. Elsewhere the products of [`library`] are written to memory, and [`scan`] reads them again.
//!
//! If a column or a vector has a few entries that are much larger than the others, its scale is coarse, and the bounds
//! rule out too few tokens. Such vectors are [screened with products of floats](candidates_by_floats), whose
//! bounds are a thousand times narrower.

mod blocks;
mod candidates;
mod floats;
mod kernel;
mod library;
mod quantize;
mod scan;
mod screen;

pub(super) use candidates::Candidates;
pub(super) use floats::candidates_by_floats;
pub(super) use kernel::Kernel;
pub(super) use quantize::norm;
pub(super) use screen::Screen;
