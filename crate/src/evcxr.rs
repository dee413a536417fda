//! Display of values in evcxr notebooks, and a warning about slow builds of this crate.

use std::sync::Once;

/// Prints contents by MIME type in evcxr's format. evcxr sends everything that one cell prints as one MIME bundle.
///
/// A type whose method `evcxr_display` calls this is displayed as the last expression of a cell.
pub(crate) fn show(contents: &[(&str, &str)]) {
    for (mime, content) in contents {
        println!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT");
    }
}

/// Warns once per process if this crate was built with debug assertions, which make it several times slower. evcxr
/// builds it so unless the kernel's environment sets another profile.
pub(crate) fn warn_of_debug_build() {
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
