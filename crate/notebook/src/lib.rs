//! Moved to `crate/prebuilt`: see build.rs.
