fn main() {
    println!(
        "cargo::error=the compiled library moved: write `:dep attention_tokens_prebuilt = {{ path = \"…/crate/prebuilt\" }}` \
         in place of `attention_tokens_notebook = {{ path = \"…/crate/notebook\" }}`"
    );
}
