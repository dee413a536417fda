//! How the numbers of an activation change.

use std::sync::Arc;

use ndarray::{Array, ArrayD, ArrayViewD, Dimension, IxDyn};

use super::hook_point::HookPoint;
use crate::model::ActivationCache;

/// Numbers to set or to add: one for all, or an array that is broadcast to the selected part of each prompt's activation.
///
/// Shape: `[pos, d_model]`, `[pos, n_heads, d_head]` or `[n_heads, query_pos, key_pos]`, each axis as long as the
/// selection or 1; leading axes may be missing.
#[derive(Clone, Debug)]
pub struct EditValues(pub(super) ArrayD<f32>);

impl From<f32> for EditValues {
    fn from(value: f32) -> Self {
        Self(ArrayD::from_elem(IxDyn(&[]), value))
    }
}

impl<D: Dimension> From<Array<f32, D>> for EditValues {
    fn from(values: Array<f32, D>) -> Self {
        Self(values.into_dyn())
    }
}

impl<D: Dimension> From<&Array<f32, D>> for EditValues {
    fn from(values: &Array<f32, D>) -> Self {
        Self(values.to_owned().into_dyn())
    }
}

/// The place of the array that a closure changes.
#[derive(Clone, Debug)]
pub struct HookContext {
    /// The activation and the layer.
    pub point: HookPoint,
    /// The index of the prompt in its batch.
    pub prompt: usize,
    /// The token ids of the prompt, up to the last position of the run. Shape: `[pos]`.
    pub tokens: Vec<u32>,
}

/// A closure of [`Intervention::hook`](super::Intervention::hook).
pub(super) type Closure = Arc<dyn Fn(ArrayD<f32>, &HookContext) -> ArrayD<f32> + Send + Sync>;

/// An edit before it meets a model and prompts.
#[derive(Clone)]
pub(super) enum Edit {
    Scale(f32),
    Set(EditValues),
    Add(EditValues),
    /// The values of a cache, prompt by prompt.
    Patch(Arc<ActivationCache>),
    /// The mean over the prompts of a cache, or over those of each prompt's group.
    Mean(Arc<ActivationCache>, Option<Vec<usize>>),
    /// The values of another prompt of a cache, drawn at random.
    Resample(Arc<ActivationCache>, u64),
    Hook(Closure),
    /// The scale that the layer norm after the residual stream had in a cache.
    FreezeLayerNorm(Arc<ActivationCache>),
}

/// The index of the first NaN of an array, or infinite number unless it is −∞ and the array has scores.
pub(super) fn not_finite(values: ArrayViewD<f32>, scores: bool) -> Option<(Vec<usize>, f32)> {
    let allowed = |x: f32| x.is_finite() || (scores && x == f32::NEG_INFINITY);
    let (index, &x) = values.indexed_iter().find(|(_, x)| !allowed(**x))?;
    Some((index.as_array_view().to_vec(), x))
}
