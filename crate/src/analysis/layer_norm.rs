//! The layer norms of a run: their scales, also where an intervention held them, and components of the residual stream as the layer norm passes them on.

use ndarray::{Array1, ArrayView2, ArrayViewMut2, Axis};

use super::residual_stream::ResidualStack;
use crate::error::{Result, check_index};
use crate::model::{Activation, ActivationCache, Gpt2, layer_norm_scale};

impl ActivationCache {
    /// The scale of the layer norm before the attention of a layer, `√(variance + eps)` of the residual stream:
    /// `blocks.{layer}.ln1.hook_scale` in TransformerLens. Shape: → `[pos]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a cache of another model, and those of [`get`](Self::get).
    pub fn ln1_scale(&self, model: &Gpt2, layer: usize) -> Result<Array1<f32>> {
        self.check_model(model, "ln1_scale")?;
        self.scale_of((layer, Activation::ResidPre), model)
    }

    /// The scale of the layer norm before the MLP of a layer: `blocks.{layer}.ln2.hook_scale` in TransformerLens.
    /// Shape: → `[pos]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a cache of another model, and those of [`get`](Self::get).
    pub fn ln2_scale(&self, model: &Gpt2, layer: usize) -> Result<Array1<f32>> {
        self.check_model(model, "ln2_scale")?;
        self.scale_of((layer, Activation::ResidMid), model)
    }

    /// The scale of the layer norm before the unembedding: `ln_final.hook_scale` in TransformerLens. Shape: → `[pos]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a cache of another model, and those of [`get`](Self::get).
    pub fn ln_final_scale(&self, model: &Gpt2) -> Result<Array1<f32>> {
        self.check_model(model, "ln_final_scale")?;
        self.scale_of((self.n_layers().saturating_sub(1), Activation::ResidPost), model)
    }

    /// The scale of the layer norm that reads an activation of a layer, which the run may have held.
    /// Shape: → `[pos]`.
    fn scale_of(&self, (layer, reads): (usize, Activation), model: &Gpt2) -> Result<Array1<f32>> {
        let mut scale = scale(self.matrix(reads, layer)?, model);
        for (position, scale) in scale.iter_mut().enumerate() {
            *scale = self.held_scale(0, (layer, reads), position).unwrap_or(*scale);
        }
        Ok(scale)
    }

    /// What a layer norm makes of each component: centered, and divided by the scale that the whole residual stream had.
    /// TransformerLens' `apply_ln_to_stack`. The layer norm is the one before `layer`'s attention, with `mlp_input`
    /// before its MLP, and for `None` the one before the unembedding. Shape: → as `stack`.
    ///
    /// As in TransformerLens, the weights of the layer norm are not applied: they are part of the next weights, unless
    /// the model was loaded without [`fold_ln`](crate::Processing::fold_ln).
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer that the model does not have,
    /// [`Error::Shape`](crate::Error::Shape) for a cache of another model or a stack that is not of this run, and those
    /// of [`get`](Self::get).
    pub fn apply_ln_to_stack(
        &self,
        model: &Gpt2,
        stack: &ResidualStack,
        layer: Option<usize>,
        mlp_input: bool,
    ) -> Result<ResidualStack> {
        self.check_stack(model, stack, "apply_ln_to_stack")?;
        let scale = match layer {
            None => self.ln_final_scale(model)?,
            Some(layer) => {
                check_index("layer", layer, "the model", self.n_layers())?;
                if mlp_input { self.ln2_scale(model, layer)? } else { self.ln1_scale(model, layer)? }
            }
        };
        let scale = scale.select(Axis(0), &stack.positions);
        let mut stack = stack.clone();
        stack.values.outer_iter_mut().for_each(|component| center_and_divide(component, &scale));
        Ok(stack)
    }
}

/// `√(variance + eps)` of each row, computed in `f64`. Shape: `x [pos, d_model]` → `[pos]`.
pub(super) fn scale(x: ArrayView2<f32>, model: &Gpt2) -> Array1<f32> {
    x.map_axis(Axis(1), |row| layer_norm_scale(row, model.config().eps))
}

/// Shape: `x [pos, d_model]`, `scale [pos]`.
pub(super) fn center_and_divide(mut x: ArrayViewMut2<f32>, scale: &Array1<f32>) {
    for (mut row, scale) in x.rows_mut().into_iter().zip(scale) {
        let mean = row.mean().unwrap_or_default();
        row.mapv_inplace(|x| (x - mean) / scale);
    }
}
