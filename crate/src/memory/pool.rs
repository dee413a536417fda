//! Vectors that are not needed any more, kept for the next that are as long.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::zeros;

/// Shorter vectors are left to the allocator, which is good at them.
const SHORTEST: usize = 1 << 14;
/// More than this is never kept.
const MOST_BYTES: usize = 1 << 30;

static POOL: Mutex<Pool> = Mutex::new(Pool::new(MOST_BYTES));

/// `len` numbers, whatever they are: for memory that is written before it is read.
pub(crate) fn acquire(len: usize) -> Vec<f32> {
    // Fresh memory is asked for, and what gives way to it freed, after the lock is released.
    let (found, _given_up) = pool().acquire(len);
    let mut values = found.unwrap_or_else(|| zeros(len));
    if cfg!(test) {
        values.fill(f32::NAN); // whoever reads them shows it
    }
    values
}

/// Keeps the memory of a vector for [`acquire`], if it is worth it.
pub(crate) fn release(values: Vec<f32>) {
    let _given_up = pool().release(values);
}

/// Frees what is kept.
pub(crate) fn clear_pool() {
    let _given_up = std::mem::replace(&mut *pool(), Pool::new(MOST_BYTES));
}

fn pool() -> MutexGuard<'static, Pool> {
    // Nothing under the lock can leave it half changed.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Pool {
    /// The longest kept first.
    vectors: VecDeque<Vec<f32>>,
    bytes: usize,
    most_bytes: usize,
}

fn bytes_of(values: &Vec<f32>) -> usize {
    size_of::<f32>() * values.capacity()
}

impl Pool {
    const fn new(most_bytes: usize) -> Self {
        Self { vectors: VecDeque::new(), bytes: 0, most_bytes }
    }

    /// A vector that is long enough and at most a quarter too long. If there is none, as much as was asked for is given
    /// up, so that fresh memory and what is kept are together never more than was once in use.
    fn acquire(&mut self, len: usize) -> (Option<Vec<f32>>, Vec<Vec<f32>>) {
        if len < SHORTEST {
            return (None, Vec::new());
        }
        let fits = |values: &Vec<f32>| (len..=len + len / 4).contains(&values.capacity());
        let candidates = self.vectors.iter().enumerate().filter(|(_, values)| fits(values));
        let shortest = candidates.min_by_key(|(_, values)| values.capacity()).map(|(index, _)| index);
        match shortest.and_then(|index| self.vectors.remove(index)) {
            Some(mut values) => {
                self.bytes -= bytes_of(&values);
                values.resize(len, 0.0);
                (Some(values), Vec::new())
            }
            None => (None, self.give_up(size_of::<f32>() * len)),
        }
    }

    /// Gives what had to make room.
    fn release(&mut self, values: Vec<f32>) -> Vec<Vec<f32>> {
        let bytes = bytes_of(&values);
        if values.capacity() < SHORTEST || bytes > self.most_bytes {
            return vec![values];
        }
        self.bytes += bytes;
        self.vectors.push_back(values);
        self.give_up(self.bytes.saturating_sub(self.most_bytes))
    }

    /// Removes so many bytes at least, the longest kept first, as long as there are any.
    fn give_up(&mut self, bytes: usize) -> Vec<Vec<f32>> {
        let mut given_up = Vec::new();
        let mut left = bytes;
        while left > 0
            && let Some(values) = self.vectors.pop_front()
        {
            self.bytes -= bytes_of(&values);
            left = left.saturating_sub(bytes_of(&values));
            given_up.push(values);
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = SHORTEST;

    fn pool_of(lens: &[usize], most: usize) -> Pool {
        let mut pool = Pool::new(size_of::<f32>() * most);
        lens.iter().for_each(|&len| drop(pool.release(vec![1.0; len])));
        pool
    }

    fn lens(vectors: impl IntoIterator<Item = Vec<f32>>) -> Vec<usize> {
        vectors.into_iter().map(|values| values.len()).collect()
    }

    #[test]
    fn what_fits_best_is_taken_with_the_length_asked_for() {
        let mut pool = pool_of(&[5 * N, 4 * N + 2, 4 * N, 3 * N], 100 * N);
        let (found, given_up) = pool.acquire(4 * N + 1);
        let found = found.unwrap();
        assert_eq!((found.len(), found.capacity(), given_up.len()), (4 * N + 1, 4 * N + 2, 0));
        assert_eq!(lens(pool.vectors), [5 * N, 4 * N, 3 * N]);
        assert_eq!(pool.bytes, size_of::<f32>() * 12 * N);
    }

    #[test]
    fn what_does_not_fit_gives_way_to_fresh_memory() {
        let mut pool = pool_of(&[8 * N, N, 2 * N, 3 * N], 100 * N);
        let (found, given_up) = pool.acquire(6 * N); // 8 N is more than a quarter too long
        assert_eq!((found, lens(given_up)), (None, vec![8 * N]));
        let (found, given_up) = pool.acquire(4 * N);
        assert_eq!((found, lens(given_up)), (None, vec![N, 2 * N, 3 * N]));
        assert_eq!((pool.vectors.len(), pool.bytes), (0, 0));
    }

    #[test]
    fn it_never_keeps_more_than_its_bound_and_nothing_short() {
        let mut pool = pool_of(&[N, 2 * N, 3 * N, 9, 0], 6 * N);
        assert_eq!(lens(pool.release(vec![0.0; 2 * N])), [N, 2 * N]);
        assert_eq!(lens(pool.release(vec![0.0; 7 * N])), [7 * N]);
        assert_eq!((pool.acquire(9).0, pool.acquire(0).0), (None, None));
        assert_eq!(lens(pool.vectors), [3 * N, 2 * N]);
        assert_eq!(pool.bytes, size_of::<f32>() * 5 * N);
    }
}
