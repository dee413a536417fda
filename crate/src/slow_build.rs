//! A build that is slower than it need be says so.

use std::sync::Once;

/// Prints a line, once a process, if this crate was built with debug assertions. A notebook's kernel builds it so unless it
/// is told otherwise, and then everything takes several times as long.
pub(crate) fn notice() {
    static ONCE: Once = Once::new();
    if cfg!(debug_assertions) {
        ONCE.call_once(|| {
            eprintln!(
                "attention-tokens was built with debug assertions and runs several times slower than it can: in a program \
                 use `cargo run --release`; in a notebook start the kernel with CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false, \
                 CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false and CARGO_PROFILE_DEV_OPT_LEVEL=3 in its environment, as \
                 `cargo xtask lab` does"
            );
        });
    }
}
