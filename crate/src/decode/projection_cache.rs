//! A least-recently-used cache of decode tables with a memory limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::MatrixId;
use crate::error::Result;

/// Decode tables by the matrix of a head, with a memory limit.
pub(crate) struct ProjectionCache<T> {
    max_bytes: usize,
    tables: Mutex<LruTables<T>>,
}

/// The tables in the cache, with the time of the last use of each.
struct LruTables<T> {
    entries: HashMap<MatrixId, CacheEntry<T>>,
    bytes: usize,
    /// The number of uses so far: the time of `CacheEntry::last_used`.
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
        Self { max_bytes, tables: Mutex::new(LruTables { entries: HashMap::new(), bytes: 0, clock: 0 }) }
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
        for &id in ids {
            match self.lock().get(id) {
                Some(table) => drop(found.insert(id, table)),
                None if missing.contains(&id) => {}
                None => missing.push(id),
            }
        }
        if !missing.is_empty() {
            // `make` runs without the lock, so that other threads can use the cache meanwhile.
            for (&id, (bytes, table)) in missing.iter().zip(make(&missing)?) {
                let table = Arc::new(table);
                found.insert(id, table.clone());
                self.lock().insert(id, table, bytes, self.max_bytes);
            }
        }
        Ok(ids.iter().map(|id| found[id].clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, LruTables<T>> {
        // A panic under the lock cannot leave the map half changed.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> LruTables<T> {
    fn get(&mut self, id: MatrixId) -> Option<Arc<T>> {
        self.clock += 1;
        let entry = self.entries.get_mut(&id)?;
        entry.last_used = self.clock;
        Some(entry.table.clone())
    }

    fn insert(&mut self, id: MatrixId, table: Arc<T>, bytes: usize, max_bytes: usize) {
        if bytes > max_bytes {
            return;
        }
        self.clock += 1;
        let entry = CacheEntry { table, bytes, last_used: self.clock };
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(id, entry) {
            self.bytes -= old.bytes; // another thread has made the same table meanwhile
        }
        while self.bytes > max_bytes {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_used).map(|(&id, _)| id);
            let removed = oldest.and_then(|id| self.entries.remove(&id)).expect("memory is counted for entries only");
            self.bytes -= removed.bytes;
        }
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
    fn the_least_recently_used_table_is_dropped_first() {
        let cache = ProjectionCache::new(35);
        assert_eq!(heads_made(&cache, &[0, 1, 2]), [0, 1, 2]);
        assert!(heads_made(&cache, &[0, 0]).is_empty());
        assert_eq!(heads_made(&cache, &[3]), [3]); // drops 1
        assert!(heads_made(&cache, &[2, 0, 3]).is_empty());
        assert_eq!(heads_made(&cache, &[1, 1]), [1]); // drops 2
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
