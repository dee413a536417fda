#[cfg(rust_analyzer)]
include!("../sources/plotly/lib.rs");
