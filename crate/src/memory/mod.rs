//! Memory for large arrays: fresh, or used again.
//!
//! The first touch of fresh memory costs as much as the sums that are written there, and a forward pass of a thousand
//! tokens keeps a gigabyte. So the memory of dropped activations is [`spare`] for the next run, and what is fresh is
//! asked for in [huge pages](fresh). What is computed elsewhere comes to the host when it is [looked at](kept).

mod fresh;
mod host_array;
mod kept;
mod spare;

pub(crate) use fresh::zeros;
pub(crate) use host_array::HostArray;
pub(crate) use kept::Kept;
pub(crate) use spare::forget_spare;
use spare::{give_back, take};
