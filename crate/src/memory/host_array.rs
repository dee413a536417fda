//! Arrays on the host.

use std::ops::{Deref, DerefMut};

use ndarray::{ArcArray, Array, Dimension};

use super::{acquire, release};

/// An array that may share its memory with others, for instance with the rest of a batch. What [`uninit`](Self::uninit)
/// made is used again when the last that shares it is dropped.
#[derive(Clone)]
pub(crate) struct HostArray<D: Dimension> {
    array: ArcArray<f32, D>,
    /// Whether its memory came from [`acquire`].
    pooled: bool,
}

impl<D: Dimension> HostArray<D> {
    /// Any numbers, to be written before they are read.
    pub(crate) fn uninit(shape: D) -> Self {
        let values = acquire(shape.size());
        let array = Array::from_shape_vec(shape, values).expect("as many values as the shape has");
        Self { array: array.into_shared(), pooled: true }
    }

    /// The same memory seen otherwise.
    pub(crate) fn map<E: Dimension>(self, see: impl FnOnce(ArcArray<f32, D>) -> ArcArray<f32, E>) -> HostArray<E> {
        HostArray { array: see(self.array.clone()), pooled: self.pooled }
    }

    /// Copies only if the memory is shared.
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
