//! Activations that a run does not store, computed from one that it stores.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayView2, ArrayViewD, Axis, Ix2, Ix3, IxDyn, s};

use super::activation::Activation;
use super::cached_activation::CachedActivation;
use super::on_device::OnDevice;
use super::transformer::{Attention, Block};
use crate::backend::Backend;
use crate::error::Result;
use crate::memory::{HostArray, LazyArray};

impl<B: Backend> OnDevice<B> {
    /// An activation of a layer that is computed when it is first read, from the activation that
    /// [`computed_from`](Activation::computed_from) names. Shape: as [`Activation`] lists.
    pub(super) fn derived(
        self: &Arc<Self>,
        activation: Activation,
        layer: usize,
        source: &Arc<CachedActivation>,
    ) -> LazyArray<IxDyn> {
        let (model, source) = (self.clone(), source.clone());
        LazyArray::new(move || {
            let (block, source) = (&model.transformer.blocks[layer], source.view()?);
            match activation {
                Activation::Result => Ok(HostArray::from(block.attn.results(&model.backend, source)?)),
                _ => block.neurons(&model.backend, source, activation == Activation::MlpPost),
            }
        })
    }
}

impl<B: Backend> Attention<B> {
    /// The output of each head, without `b_O`. Shape: `z [pos, n_heads, d_head]` → `[pos, n_heads, d_model]`.
    pub(super) fn results(&self, backend: &B, z: ArrayViewD<f32>) -> Result<ArrayD<f32>> {
        let z = z.into_dimensionality::<Ix3>().expect("a vector for each head");
        let (w_o, _) = self.output_weights(backend)?; // [n_heads, d_head, d_model]
        let mut results = ArrayD::zeros(IxDyn(&[z.dim().0, z.dim().1, w_o.dim().2]));
        for (head, mut result) in results.axis_iter_mut(Axis(1)).enumerate() {
            result.assign(&z.slice(s![.., head, ..]).dot(&w_o.index_axis(Axis(0), head)));
        }
        Ok(results)
    }
}

impl<B: Backend> Block<B> {
    /// The neurons of the MLP, before or after the activation function. Shape: `resid_mid [pos, d_model]` →
    /// `[pos, d_mlp]`.
    fn neurons(&self, backend: &B, resid_mid: ArrayViewD<f32>, after_act_fn: bool) -> Result<HostArray<IxDyn>> {
        let resid_mid: ArrayView2<f32> = resid_mid.into_dimensionality::<Ix2>().expect("a row for each token");
        let x = self.ln2.forward(backend, &backend.upload(resid_mid.to_owned())?)?;
        let neurons = if after_act_fn { self.mlp.post(backend, &x)? } else { self.mlp.pre(backend, &x)? };
        Ok(backend.download(&neurons)?.map(|neurons| neurons.into_dyn()))
    }
}
