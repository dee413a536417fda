//! Large arrays in memory that the operating system maps for them alone.

use std::marker::PhantomData;
use std::ops::Deref;

use bytemuck::Pod;
use memmap2::MmapMut;

/// A huge page of x86-64, on Linux.
const HUGE_PAGE: usize = 2 << 20;

/// An array that lives as long as a model, in huge pages if Linux grants them.
///
/// An allocator may hand out memory that was used before, in pages of 4 kB; a product that reads its weights from such pages
/// takes up to 1.4 times as long, because the processor finds the next page's address late. This array's memory is new, and
/// begins where a huge page does.
pub(crate) struct Mapped<T> {
    map: MmapMut,
    /// Where the array begins, in bytes.
    start: usize,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Mapped<T> {
    /// `len` zeros, which `fill` overwrites. Shape: → `[len]`.
    pub(crate) fn new(len: usize, fill: impl FnOnce(&mut [T])) -> Self {
        let bytes = len.checked_mul(size_of::<T>()).expect("an array that fits the memory");
        let map = MmapMut::map_anon(bytes + HUGE_PAGE);
        let mut map = map.unwrap_or_else(|_| panic!("out of memory: the system gave no {bytes} bytes for an array"));
        let start = map.as_ptr().align_offset(HUGE_PAGE);
        #[cfg(target_os = "linux")]
        {
            // The rest of the last huge page would be lost, so less than half of one stays in pages of 4 kB.
            let huge_pages = (bytes + HUGE_PAGE / 2) / HUGE_PAGE;
            let len = (huge_pages * HUGE_PAGE).min(map.len() - start);
            // Miri does not know the call.
            if len > 0 && cfg!(not(miri)) {
                let _ = map.advise_range(memmap2::Advice::HugePage, start, len); // an older kernel refuses it
            }
        }
        fill(bytemuck::cast_slice_mut(&mut map[start..start + bytes]));
        Self { map, start, len, of: PhantomData }
    }
}

impl<T: Pod> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[self.start..self.start + self.len * size_of::<T>()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_hold_what_was_written_at_any_length() {
        let row = HUGE_PAGE / size_of::<[u32; 32]>();
        for len in [1, 2, 31, row - 1, row, row + 1, row + row / 2, 3 * row + 7] {
            let array: Mapped<[u32; 32]> = Mapped::new(len, |values| {
                assert_eq!((values.len(), values[len - 1]), (len, [0; 32]));
                values.iter_mut().enumerate().for_each(|(index, value)| *value = [index as u32; 32]);
            });
            assert_eq!(array.len(), len);
            assert!(array.iter().enumerate().all(|(index, value)| *value == [index as u32; 32]));
            assert_eq!(array.as_ptr().addr() % HUGE_PAGE, 0);
        }
    }
}
