//! A cache of decode tables with a memory limit, which keeps what fits when heads are gone through again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::MatrixId;
use crate::error::Result;

/// Decode tables by the matrix of a head, with a memory limit.
pub(crate) struct ProjectionCache<T> {
    max_bytes: usize,
    tables: Mutex<Tables<T>>,
}

/// The tables in the cache, with the time of the last use of each.
///
/// A new table replaces the one that was not used for the longest time, with one exception: if the matrix of the new table
/// was itself asked for before that, its table is not kept. Without the exception, a cache that is smaller than all heads
/// would never have a table in time when heads are gone through in order, because each is replaced before its next turn.
struct Tables<T> {
    entries: HashMap<MatrixId, CacheEntry<T>>,
    bytes: usize,
    /// When each matrix was last asked for, whether it has a table or not.
    asked: HashMap<MatrixId, u64>,
    /// The number of requests so far: the time of `CacheEntry::last_used` and of `asked`.
    clock: u64,
}

struct CacheEntry<T> {
    table: Arc<T>,
    bytes: usize,
    last_used: u64,
}

impl<T> ProjectionCache<T> {
    /// An empty cache; with `max_bytes` 0 it never holds a table.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let tables = Tables { entries: HashMap::new(), bytes: 0, asked: HashMap::new(), clock: 0 };
        Self { max_bytes, tables: Mutex::new(tables) }
    }

    /// The tables of some matrices, in the order of `ids`. `make` is called at most once, with those that are not in the
    /// cache, and returns for each its size in bytes and its table.
    pub(crate) fn get_or_insert_with(
        &self,
        ids: &[MatrixId],
        make: impl FnOnce(&[MatrixId]) -> Result<Vec<(usize, T)>>,
    ) -> Result<Vec<Arc<T>>> {
        let mut found: HashMap<MatrixId, Arc<T>> = HashMap::new();
        let mut missing: Vec<MatrixId> = Vec::new();
        let mut asked_before: Vec<Option<u64>> = Vec::new();
        for &id in ids {
            if missing.contains(&id) {
                continue;
            }
            match self.lock().get(id) {
                Ok(table) => drop(found.insert(id, table)),
                Err(before) => {
                    missing.push(id);
                    asked_before.push(before);
                }
            }
        }
        if !missing.is_empty() {
            // `make` runs without the lock, so that other threads can use the cache meanwhile.
            for ((&id, before), (bytes, table)) in missing.iter().zip(asked_before).zip(make(&missing)?) {
                let table = Arc::new(table);
                found.insert(id, table.clone());
                self.lock().insert(id, table, bytes, before, self.max_bytes);
            }
        }
        Ok(ids.iter().map(|id| found[id].clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Tables<T>> {
        // A panic under the lock cannot leave the map half changed.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Tables<T> {
    /// The table of a matrix; if there is none, when it was asked for before, if it was.
    fn get(&mut self, id: MatrixId) -> Result<Arc<T>, Option<u64>> {
        self.clock += 1;
        let before = self.asked.insert(id, self.clock);
        let entry = self.entries.get_mut(&id).ok_or(before)?;
        entry.last_used = self.clock;
        Ok(entry.table.clone())
    }

    /// Keeps the table of a matrix that had been asked for at the time `before`, if at all.
    fn insert(&mut self, id: MatrixId, table: Arc<T>, bytes: usize, before: Option<u64>, max_bytes: usize) {
        if let Some(old) = self.entries.remove(&id) {
            self.bytes -= old.bytes; // another thread has made the same table meanwhile
        }
        let mut oldest: Vec<(u64, MatrixId, usize)> =
            self.entries.iter().map(|(&id, entry)| (entry.last_used, id, entry.bytes)).collect();
        oldest.sort_unstable_by_key(|&(last_used, ..)| last_used);
        // The tables that must go, so that this one fits.
        let (mut leaving, mut left) = (Vec::new(), self.bytes);
        for (last_used, id, bytes_of_old) in oldest {
            if left + bytes <= max_bytes {
                break;
            }
            if before.is_some_and(|before| last_used > before) {
                return;
            }
            leaving.push(id);
            left -= bytes_of_old;
        }
        if left + bytes > max_bytes {
            return;
        }
        leaving.iter().for_each(|id| drop(self.entries.remove(id)));
        self.bytes = left;
        self.clock += 1;
        self.bytes += bytes;
        self.entries.insert(id, CacheEntry { table, bytes, last_used: self.clock });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Map, Reading};

    fn id(head: usize) -> MatrixId {
        MatrixId::new([0, head], Map::Notebook, Reading::NOTEBOOK)
    }

    /// Gets the tables of heads, 10 bytes each, and returns the heads whose table was made.
    fn heads_made(cache: &ProjectionCache<usize>, heads: &[usize]) -> Vec<usize> {
        let ids: Vec<MatrixId> = heads.iter().copied().map(id).collect();
        let mut made = Vec::new();
        let got = cache.get_or_insert_with(&ids, |missing| {
            made = missing.iter().map(|id| id.head).collect();
            Ok(missing.iter().map(|id| (10, id.head)).collect())
        });
        assert_eq!(got.unwrap().iter().map(|table| **table).collect::<Vec<_>>(), heads);
        let tables = cache.lock();
        assert!(tables.bytes <= cache.max_bytes);
        assert_eq!(tables.bytes, 10 * tables.entries.len());
        made
    }

    #[test]
    fn going_through_all_heads_again_and_again_keeps_what_fits() {
        let all: Vec<usize> = (0..12).collect();
        // One head at a time, three at a time, and all in one call.
        for at_once in [1, 3, 12] {
            let cache = ProjectionCache::new(85);
            let pass = || all.chunks(at_once).map(|heads| heads_made(&cache, heads).len()).sum::<usize>();
            assert_eq!([pass(), pass(), pass(), pass()], [12, 4, 4, 4], "{at_once} at once");
            // Other heads take over once they are used more.
            let other = [20, 21, 22, 23];
            for _ in 0..2 {
                other.chunks(at_once.min(4)).for_each(|heads| drop(heads_made(&cache, heads)));
            }
            assert!(heads_made(&cache, &other).is_empty());
        }
    }

    #[test]
    fn a_head_that_is_used_again_at_once_is_kept() {
        let cache = ProjectionCache::new(35);
        heads_made(&cache, &[0, 1, 2]);
        assert_eq!(heads_made(&cache, &[3]), [3]); // drops 0
        assert_eq!(heads_made(&cache, &[0]), [0]); // 1 was asked for later than 0: it stays
        assert_eq!(heads_made(&cache, &[0]), [0]); // 0 was asked for later than 1: it replaces 1
        assert!(heads_made(&cache, &[0, 2, 3]).is_empty());
    }

    #[test]
    fn the_least_recently_used_table_is_dropped_first() {
        let cache = ProjectionCache::new(35);
        assert_eq!(heads_made(&cache, &[0, 1, 2]), [0, 1, 2]);
        assert!(heads_made(&cache, &[0, 0]).is_empty());
        assert_eq!(heads_made(&cache, &[3]), [3]); // drops 1
        assert!(heads_made(&cache, &[2, 0, 3]).is_empty());
        assert_eq!(heads_made(&cache, &[1, 1]), [1]); // is not kept: 2 was asked for later
        assert_eq!(heads_made(&cache, &[1]), [1]); // drops 2
        assert!(heads_made(&cache, &[0, 3]).is_empty());
        assert_eq!(heads_made(&cache, &[5, 6, 7, 8, 9]), [5, 6, 7, 8, 9], "all are returned, even if not all fit");
        assert!(heads_made(&cache, &[7, 8, 9]).is_empty());
    }

    #[test]
    fn a_limit_of_zero_disables_the_cache() {
        let cache = ProjectionCache::new(0);
        assert_eq!(heads_made(&cache, &[1]), [1]);
        assert_eq!(heads_made(&cache, &[1]), [1]);
    }

    #[test]
    fn a_failed_table_is_an_error_and_leaves_the_cache_unchanged() {
        let cache: ProjectionCache<usize> = ProjectionCache::new(100);
        let problem = crate::Error::OutOfRange { what: "head", index: 1, owner: "x", len: 0 };
        assert!(cache.get_or_insert_with(&[id(1)], |_| Err(problem)).is_err());
        assert_eq!(heads_made(&cache, &[1]), [1]);
    }
}
