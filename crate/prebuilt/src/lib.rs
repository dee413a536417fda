//! The crate `attention_tokens`, re-exported from the library that script.rs compiled.

#[cfg(not(rust_analyzer))]
extern crate attention_tokens;
#[cfg(not(rust_analyzer))]
pub use attention_tokens::*;

// rust-analyzer, which infers the types of variables for evcxr, reads sources and no compiled libraries.
#[cfg(rust_analyzer)]
include!("../sources/attention_tokens/lib.rs");
