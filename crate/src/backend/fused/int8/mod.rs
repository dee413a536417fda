//! Screening a vocabulary with 8-bit integers: which tokens can be among the best.

mod candidates;
mod quantize;
mod screen;

pub(super) use candidates::Candidates;
pub(super) use quantize::{Integers, norm};
pub(super) use screen::Screen;
