//! Arrays that are computed, or copied from a device, when they are first read.

use ndarray::{ArcArray, Dimension};

use super::HostArray;
use crate::error::Result;

/// A lazily computed array.
///
/// The closure owns whatever it needs (device memory or the model, for instance), and can be called again after a
/// failure. Two threads that read the array for the first time at once may both call it.
pub(crate) struct LazyArray<D: Dimension>(Box<dyn Fn() -> Result<HostArray<D>> + Send + Sync>);

impl<D: Dimension + 'static> LazyArray<D> {
    /// An array of any shape that `compute` returns.
    pub(crate) fn new(compute: impl Fn() -> Result<HostArray<D>> + Send + Sync + 'static) -> Self {
        Self(Box::new(compute))
    }

    /// Computes the array, or copies it to the host. Shape: → that of the array.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device fails.
    pub(crate) fn compute(&self) -> Result<HostArray<D>> {
        (self.0)()
    }

    /// Reshapes or slices the array, once it is computed, without copying it. Shape: any → that of the view.
    pub(crate) fn map<E: Dimension + 'static>(
        self,
        view: impl Fn(ArcArray<f32, D>) -> ArcArray<f32, E> + Send + Sync + 'static,
    ) -> LazyArray<E> {
        LazyArray::new(move || Ok(self.compute()?.map(&view)))
    }
}

impl<D: Dimension + 'static> From<HostArray<D>> for LazyArray<D> {
    /// An array that is on the host already.
    fn from(array: HostArray<D>) -> Self {
        Self::new(move || Ok(array.clone()))
    }
}
