//! Fresh memory.

/// `len` zeros.
///
/// The first touch of fresh memory costs a page fault for every 4 kB, as much as the sums that are written there; with
/// huge pages it is one for every 2 MB. Linux hands them out on request (where its setting is `madvise`, the usual one).
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    ask_for_huge_pages(&mut values);
    values
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn ask_for_huge_pages(values: &mut [f32]) {
    /// Below this there is hardly a whole huge page in it.
    const WORTH_ASKING: usize = 4 << 20;
    const PAGE: usize = 4096;
    let start = values.as_mut_ptr().addr();
    let end = start + size_of_val(values);
    if end - start < WORTH_ASKING {
        return;
    }
    let first_page = start.next_multiple_of(PAGE);
    let len = end / PAGE * PAGE - first_page;
    // SAFETY: the pages lie inside `values`, and the advice changes neither their content nor whether they may be read
    // and written. A kernel that does not know it says no, which is as good.
    unsafe {
        libc::madvise(values.as_mut_ptr().cast::<u8>().add(first_page - start).cast(), len, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_: &mut [f32]) {}
