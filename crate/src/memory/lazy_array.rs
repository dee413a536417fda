//! Arrays that are made, or brought to the host, when somebody looks at them.

use ndarray::{ArcArray, Dimension};

use super::HostArray;
use crate::error::Result;

/// An array that is to be kept, wherever it is: a closure that gives it. It may be asked again where it failed, holds what
/// it needs for that (memory of a card, for instance) until it is dropped, and starts no parallel work: it is asked under a
/// lock.
pub(crate) struct LazyArray<D: Dimension>(Box<dyn Fn() -> Result<HostArray<D>> + Send>);

impl<D: Dimension + 'static> LazyArray<D> {
    pub(crate) fn new(make: impl Fn() -> Result<HostArray<D>> + Send + 'static) -> Self {
        Self(Box::new(make))
    }

    /// The array.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if it cannot be brought to the host.
    pub(crate) fn compute(&self) -> Result<HostArray<D>> {
        (self.0)()
    }

    /// The same memory seen otherwise.
    pub(crate) fn map<E: Dimension + 'static>(
        self,
        see: impl Fn(ArcArray<f32, D>) -> ArcArray<f32, E> + Send + 'static,
    ) -> LazyArray<E> {
        LazyArray::new(move || Ok(self.compute()?.map(&see)))
    }
}

/// What is on the host already.
impl<D: Dimension + 'static> From<HostArray<D>> for LazyArray<D> {
    fn from(array: HostArray<D>) -> Self {
        Self::new(move || Ok(array.clone()))
    }
}
