//! The crate `attention-tokens`, under its own name, from the library that build.rs compiled.

#[cfg(not(rust_analyzer))]
extern crate attention_tokens;
#[cfg(not(rust_analyzer))]
pub use attention_tokens::*;

// rust-analyzer, which tells evcxr the types of variables, reads sources and no libraries: here are the crate's own.
#[cfg(rust_analyzer)]
include!("../sources/attention_tokens/lib.rs");
