#[cfg(rust_analyzer)]
include!("../sources/ndarray/lib.rs");
