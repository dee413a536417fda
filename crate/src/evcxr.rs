//! How something shows itself as the last expression of an evcxr cell: by a method `evcxr_display` that prints it.

/// What is printed becomes output of these types, all of one cell in one bundle.
pub(crate) fn show(contents: &[(&str, &str)]) {
    for (mime, content) in contents {
        println!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT");
    }
}
