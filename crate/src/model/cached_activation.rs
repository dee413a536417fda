//! One activation in a cache, which is computed or copied to the host when it is first read.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ndarray::{ArrayViewD, IxDyn};

use crate::error::Result;
use crate::memory::{HostArray, LazyArray};

/// One activation of one prompt, computed or copied to the host when it is first read.
pub(super) struct CachedActivation {
    array: OnceLock<HostArray<IxDyn>>,
    /// The source of `array`; `None` after the first read, so that no memory is held twice.
    source: Mutex<Option<Arc<LazyArray<IxDyn>>>>,
}

impl CachedActivation {
    /// Shape: as [`Activation`](super::Activation) lists.
    pub(super) fn new(values: LazyArray<IxDyn>) -> Self {
        Self { array: OnceLock::new(), source: Mutex::new(Some(Arc::new(values))) }
    }

    /// The values, computed or copied to the host if this is the first read. Shape: → as
    /// [`Activation`](super::Activation) lists.
    pub(super) fn view(&self) -> Result<ArrayViewD<'_, f32>> {
        if self.array.get().is_none() {
            // The lock is not held meanwhile: a thread that waits for rayon takes up other work, which may read this
            // activation.
            let source = self.lock().clone();
            if let Some(source) = source {
                let array = source.compute()?; // after an error, the next read tries again
                self.array.get_or_init(|| array);
                *self.lock() = None;
            }
        }
        Ok(self.array.get().expect("the array is set before its source is dropped").view())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<LazyArray<IxDyn>>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
