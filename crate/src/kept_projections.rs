//! Projections that were made ready for decoding, kept for the next time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::projection::Projection;

/// Whose projection it is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HeadId {
    pub(crate) layer: usize,
    pub(crate) head: usize,
    pub(crate) projection: Projection,
}

/// Keeps what was used last, within a bound on its memory.
pub(crate) struct KeptProjections<P> {
    max_bytes: usize,
    kept: Mutex<Kept<P>>,
}

struct Kept<P> {
    entries: HashMap<HeadId, Entry<P>>,
    bytes: usize,
    /// Grows with every use.
    clock: u64,
}

struct Entry<P> {
    projection: Arc<P>,
    bytes: usize,
    used: u64,
}

impl<P> KeptProjections<P> {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, kept: Mutex::new(Kept { entries: HashMap::new(), bytes: 0, clock: 0 }) }
    }

    /// The projections of some heads, in their order. `make` makes those that are missing, all in one call, and
    /// says how many bytes each takes.
    pub(crate) fn get(
        &self,
        ids: &[HeadId],
        make: impl FnOnce(&[HeadId]) -> Result<Vec<(usize, P)>>,
    ) -> Result<Vec<Arc<P>>> {
        let mut found: HashMap<HeadId, Arc<P>> = HashMap::new();
        let mut missing: Vec<HeadId> = Vec::new();
        for &id in ids {
            match self.lock().used(id) {
                Some(projection) => drop(found.insert(id, projection)),
                None if missing.contains(&id) => {}
                None => missing.push(id),
            }
        }
        if !missing.is_empty() {
            // Not under the lock: another thread may decode what is there.
            for (&id, (bytes, projection)) in missing.iter().zip(make(&missing)?) {
                let projection = Arc::new(projection);
                found.insert(id, projection.clone());
                self.lock().keep(id, projection, bytes, self.max_bytes);
            }
        }
        Ok(ids.iter().map(|id| found[id].clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Kept<P>> {
        // Nothing under the lock can leave the map half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Kept<P> {
    fn used(&mut self, id: HeadId) -> Option<Arc<P>> {
        self.clock += 1;
        let entry = self.entries.get_mut(&id)?;
        entry.used = self.clock;
        Some(entry.projection.clone())
    }

    fn keep(&mut self, id: HeadId, projection: Arc<P>, bytes: usize, max_bytes: usize) {
        if bytes > max_bytes {
            return;
        }
        self.clock += 1;
        let entry = Entry { projection, bytes, used: self.clock };
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(id, entry) {
            self.bytes -= old.bytes; // another thread made it meanwhile
        }
        while self.bytes > max_bytes {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(&id, _)| id);
            let removed = oldest.and_then(|id| self.entries.remove(&id)).expect("what takes memory is in the map");
            self.bytes -= removed.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(head: usize) -> HeadId {
        HeadId { layer: 0, head, projection: Projection::Notebook }
    }

    /// Asks for heads, each of 10 bytes, and gives those that had to be made.
    fn made_anew(kept: &KeptProjections<usize>, heads: &[usize]) -> Vec<usize> {
        let ids: Vec<HeadId> = heads.iter().copied().map(id).collect();
        let mut made = Vec::new();
        let got = kept.get(&ids, |missing| {
            made = missing.iter().map(|id| id.head).collect();
            Ok(missing.iter().map(|id| (10, id.head)).collect())
        });
        assert_eq!(got.unwrap().iter().map(|projection| **projection).collect::<Vec<_>>(), heads);
        let held = kept.lock();
        assert!(held.bytes <= kept.max_bytes);
        assert_eq!(held.bytes, 10 * held.entries.len());
        made
    }

    #[test]
    fn what_was_used_last_is_kept_within_the_bound() {
        let kept = KeptProjections::new(35);
        assert_eq!(made_anew(&kept, &[0, 1, 2]), [0, 1, 2]);
        assert!(made_anew(&kept, &[0, 0]).is_empty());
        assert_eq!(made_anew(&kept, &[3]), [3]); // in place of 1
        assert!(made_anew(&kept, &[2, 0, 3]).is_empty());
        assert_eq!(made_anew(&kept, &[1, 1]), [1]); // in place of 2
        assert!(made_anew(&kept, &[0, 3]).is_empty());
        assert_eq!(made_anew(&kept, &[5, 6, 7, 8, 9]), [5, 6, 7, 8, 9], "more than fit are still all given");
        assert!(made_anew(&kept, &[7, 8, 9]).is_empty());
    }

    #[test]
    fn without_memory_nothing_is_kept() {
        let kept = KeptProjections::new(0);
        assert_eq!(made_anew(&kept, &[1]), [1]);
        assert_eq!(made_anew(&kept, &[1]), [1]);
    }

    #[test]
    fn what_cannot_be_made_is_an_error_and_changes_nothing() {
        let kept: KeptProjections<usize> = KeptProjections::new(100);
        let problem = crate::Error::OutOfRange { what: "head", index: 1, owner: "x", len: 0 };
        assert!(kept.get(&[id(1)], |_| Err(problem)).is_err());
        assert_eq!(made_anew(&kept, &[1]), [1]);
    }
}
