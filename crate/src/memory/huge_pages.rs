//! New buffers in huge pages.

/// `len` zeros, in huge pages if Linux grants them (with its usual setting, `madvise`, it does). Shape: → `[len]`.
///
/// The first touch of new memory costs a page fault per 4 kB, as much time as the arithmetic whose results are written
/// there. Huge pages make it one fault per 2 MB.
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    advise_huge_pages(&mut values);
    values
}

#[cfg(all(target_os = "linux", not(miri)))] // Miri does not know the call.
#[allow(unsafe_code)]
fn advise_huge_pages(values: &mut [f32]) {
    /// A smaller buffer hardly contains a whole huge page.
    const MIN_BYTES: usize = 4 << 20;
    const PAGE: usize = 4096;
    let start = values.as_mut_ptr().addr();
    let end = start + size_of_val(values);
    if end - start < MIN_BYTES {
        return;
    }
    let first_page = start.next_multiple_of(PAGE);
    let len = end / PAGE * PAGE - first_page;
    // SAFETY: the pages are inside `values`, and the advice changes neither their content nor their protection. A
    // kernel that does not support it returns an error, which is harmless.
    unsafe {
        libc::madvise(values.as_mut_ptr().cast::<u8>().add(first_page - start).cast(), len, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn advise_huge_pages(_: &mut [f32]) {}
