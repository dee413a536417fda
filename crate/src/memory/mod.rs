//! Memory for large arrays: fresh, or used again.
//!
//! The first touch of fresh memory costs as much as the sums that are written there, and a forward pass of a thousand
//! tokens keeps a gigabyte. So the memory of dropped activations is [`spare`] for the next run, and what is fresh is
//! asked for in [huge pages](fresh). What is computed elsewhere comes to the host when it is [looked at](kept).

mod host_array;
mod huge_pages;
mod lazy_array;
mod pool;

pub(crate) use host_array::HostArray;
pub(crate) use huge_pages::zeros;
pub(crate) use lazy_array::LazyArray;
pub(crate) use pool::clear_pool;
use pool::{acquire, release};
