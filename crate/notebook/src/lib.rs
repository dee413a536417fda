//! Moved to `crate/prebuilt`.

// rustc's own error is all that evcxr shows. Of a build script that fails, it shows everything that cargo printed.
compile_error!(
    "crate/notebook was renamed to crate/prebuilt. Load the library with \
     `:dep attention_tokens_prebuilt = { path = \"…/crate/prebuilt\" }`, and keep the rest of the path and the features"
);
