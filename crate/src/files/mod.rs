//! Files: their kinds, writing them at once, locks, digests.

mod digest;
mod kind;
mod lock;
mod replace;

pub(crate) use digest::hexadecimal;
pub(crate) use kind::*;
pub(crate) use lock::{Lock, is_at, try_lock};
pub(crate) use replace::replace;
