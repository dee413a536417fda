//! Reference-counted arrays on the host, with memory from the buffer pool.

use std::ops::{Deref, DerefMut};

use ndarray::{ArcArray, Array, Dimension};

use super::{acquire, release};

/// A reference-counted array on the host. Clones and slices share its memory, as the prompts of a batch do.
///
/// Memory that came [from the pool](Self::from_pool) returns to it when the last array that shares it is dropped.
#[derive(Clone)]
pub(crate) struct HostArray<D: Dimension> {
    array: ArcArray<f32, D>,
    /// Whether the memory belongs to the pool.
    pooled: bool,
}

impl<D: Dimension> HostArray<D> {
    /// An array in memory from the pool. Its values are initialized but arbitrary: write each before reading it.
    /// Shape: → `shape`.
    pub(crate) fn from_pool(shape: D) -> Self {
        let values = acquire(shape.size());
        let array = Array::from_shape_vec(shape, values).expect("as many values as the shape has");
        Self { array: array.into_shared(), pooled: true }
    }

    /// Reshapes or slices the array without copying it. Shape: any → that of the view.
    pub(crate) fn map<E: Dimension>(self, view: impl FnOnce(ArcArray<f32, D>) -> ArcArray<f32, E>) -> HostArray<E> {
        HostArray { array: view(self.array.clone()), pooled: self.pooled }
    }

    /// An owned array, copied only if the memory is shared. Shape: any → the same.
    pub(crate) fn into_owned(mut self) -> Array<f32, D> {
        self.pooled = false;
        std::mem::take(&mut self.array).into_owned()
    }
}

impl<D: Dimension> From<Array<f32, D>> for HostArray<D> {
    fn from(array: Array<f32, D>) -> Self {
        Self { array: array.into_shared(), pooled: false }
    }
}

impl<D: Dimension> Deref for HostArray<D> {
    type Target = ArcArray<f32, D>;

    fn deref(&self) -> &ArcArray<f32, D> {
        &self.array
    }
}

impl<D: Dimension> DerefMut for HostArray<D> {
    fn deref_mut(&mut self) -> &mut ArcArray<f32, D> {
        &mut self.array
    }
}

impl<D: Dimension> Drop for HostArray<D> {
    fn drop(&mut self) {
        if self.pooled
            && let Ok(array) = std::mem::take(&mut self.array).try_into_owned_nocopy()
        {
            release(array.into_raw_vec_and_offset().0);
        }
    }
}
