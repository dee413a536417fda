//! Host memory for large arrays.
//!
//! A forward pass of a thousand tokens caches a gigabyte of activations, and touching new memory for the first time
//! costs as much as the arithmetic that fills it. Buffers of dropped activations are therefore [pooled](pool) for the
//! next run, and new ones are allocated in [huge pages](huge_pages), as [weights](Mapped) are. A [`LazyArray`] is
//! computed, or copied from a device, when it is first read.

mod host_array;
mod huge_pages;
mod lazy_array;
mod machine;
mod mapped;
mod pool;

pub(crate) use host_array::HostArray;
pub(crate) use huge_pages::zeros;
pub(crate) use lazy_array::LazyArray;
pub(crate) use machine::machine_bytes;
pub(crate) use mapped::Mapped;
pub(crate) use pool::clear_pool;
use pool::{acquire, release};
