//! A pool of buffers that dropped arrays leave for later arrays of about the same length.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::zeros;

/// Shorter buffers are not pooled: the allocator handles them well.
const MIN_LEN: usize = 1 << 14;
/// The pool never holds more memory than this.
const MAX_BYTES: usize = 1 << 30;

static POOL: Mutex<Pool> = Mutex::new(Pool::new(MAX_BYTES));

/// A buffer of `len` arbitrary values, from the pool if one fits. Write each value before reading it. Shape: → `[len]`.
pub(crate) fn acquire(len: usize) -> Vec<f32> {
    // Memory is allocated, and evicted buffers are freed, after the lock is released.
    let (found, _evicted) = lock_pool().acquire(len);
    let mut values = found.unwrap_or_else(|| zeros(len));
    if cfg!(test) {
        values.fill(f32::NAN); // so that a read before the first write shows in a test
    }
    values
}

/// Returns a buffer to the pool for a later [`acquire`]. One that is too short or too long is freed.
pub(crate) fn release(values: Vec<f32>) {
    let _evicted = lock_pool().release(values);
}

/// Frees every buffer in the pool.
pub(crate) fn clear_pool() {
    let _evicted = std::mem::replace(&mut *lock_pool(), Pool::new(MAX_BYTES));
}

fn lock_pool() -> MutexGuard<'static, Pool> {
    // A panic under the lock cannot leave the pool half changed.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Pool {
    /// Oldest first.
    buffers: VecDeque<Vec<f32>>,
    bytes: usize,
    max_bytes: usize,
}

/// The size in bytes of a buffer's allocation.
fn bytes_of(values: &Vec<f32>) -> usize {
    size_of::<f32>() * values.capacity()
}

impl Pool {
    const fn new(max_bytes: usize) -> Self {
        Self { buffers: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Removes the shortest buffer that holds `len` values and is at most a quarter longer. Also returns evicted
    /// buffers.
    ///
    /// If none fits, the oldest buffers are evicted until the requested size is free. Memory in the pool and memory in
    /// use together therefore never exceed the peak of memory in use.
    fn acquire(&mut self, len: usize) -> (Option<Vec<f32>>, Vec<Vec<f32>>) {
        if len < MIN_LEN {
            return (None, Vec::new());
        }
        let fits = |values: &Vec<f32>| (len..=len + len / 4).contains(&values.capacity());
        let candidates = self.buffers.iter().enumerate().filter(|(_, values)| fits(values));
        let shortest = candidates.min_by_key(|(_, values)| values.capacity()).map(|(index, _)| index);
        match shortest.and_then(|index| self.buffers.remove(index)) {
            Some(mut values) => {
                self.bytes -= bytes_of(&values);
                values.resize(len, 0.0);
                (Some(values), Vec::new())
            }
            None => (None, self.evict(size_of::<f32>() * len)),
        }
    }

    /// Adds a buffer, and returns the buffers evicted for it, or the buffer itself if it is too short or too long.
    fn release(&mut self, values: Vec<f32>) -> Vec<Vec<f32>> {
        let bytes = bytes_of(&values);
        if values.capacity() < MIN_LEN || bytes > self.max_bytes {
            return vec![values];
        }
        self.bytes += bytes;
        self.buffers.push_back(values);
        self.evict(self.bytes.saturating_sub(self.max_bytes))
    }

    /// Removes the oldest buffers until at least this many bytes are removed or the pool is empty.
    fn evict(&mut self, bytes: usize) -> Vec<Vec<f32>> {
        let mut evicted = Vec::new();
        let mut left = bytes;
        while left > 0
            && let Some(values) = self.buffers.pop_front()
        {
            self.bytes -= bytes_of(&values);
            left = left.saturating_sub(bytes_of(&values));
            evicted.push(values);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = MIN_LEN;

    fn pool_of(lens: &[usize], max_len: usize) -> Pool {
        let mut pool = Pool::new(size_of::<f32>() * max_len);
        lens.iter().for_each(|&len| drop(pool.release(vec![1.0; len])));
        pool
    }

    fn lens(buffers: impl IntoIterator<Item = Vec<f32>>) -> Vec<usize> {
        buffers.into_iter().map(|values| values.len()).collect()
    }

    #[test]
    fn acquire_returns_the_shortest_buffer_that_fits_with_the_requested_length() {
        let mut pool = pool_of(&[5 * N, 4 * N + 2, 4 * N, 3 * N], 100 * N);
        let (found, evicted) = pool.acquire(4 * N + 1);
        let found = found.unwrap();
        assert_eq!((found.len(), found.capacity(), evicted.len()), (4 * N + 1, 4 * N + 2, 0));
        assert_eq!(lens(pool.buffers), [5 * N, 4 * N, 3 * N]);
        assert_eq!(pool.bytes, size_of::<f32>() * 12 * N);
    }

    #[test]
    fn without_a_fit_the_oldest_buffers_are_evicted() {
        let mut pool = pool_of(&[8 * N, N, 2 * N, 3 * N], 100 * N);
        let (found, evicted) = pool.acquire(6 * N); // 8 N is more than a quarter too long
        assert_eq!((found, lens(evicted)), (None, vec![8 * N]));
        let (found, evicted) = pool.acquire(4 * N);
        assert_eq!((found, lens(evicted)), (None, vec![N, 2 * N, 3 * N]));
        assert_eq!((pool.buffers.len(), pool.bytes), (0, 0));
    }

    #[test]
    fn the_pool_respects_its_limit_and_rejects_short_buffers() {
        let mut pool = pool_of(&[N, 2 * N, 3 * N, 9, 0], 6 * N);
        assert_eq!(lens(pool.release(vec![0.0; 2 * N])), [N, 2 * N]);
        assert_eq!(lens(pool.release(vec![0.0; 7 * N])), [7 * N]);
        assert_eq!((pool.acquire(9).0, pool.acquire(0).0), (None, None));
        assert_eq!(lens(pool.buffers), [3 * N, 2 * N]);
        assert_eq!(pool.bytes, size_of::<f32>() * 5 * N);
    }
}
