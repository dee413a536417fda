//! The residual stream of a run, as it accumulates and as a sum of components.

use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut3, Axis, s, stack};
use rayon::prelude::*;

use crate::error::{Error, Result, check_count, check_position};
use crate::model::{Activation, ActivationCache, Gpt2};

/// Vectors of the residual stream with their names: the `residual_stack` and the labels that TransformerLens returns.
#[derive(Clone, Debug, PartialEq)]
pub struct ResidualStack {
    /// The name of each component, as in TransformerLens: `"embed"`, `"0_attn_out"`, `"L2H5"`, `"3_mid"`.
    pub labels: Vec<String>,
    /// The positions of the prompt that the stack has: all of them, unless some were chosen. Shape: `[pos]`.
    pub positions: Vec<usize>,
    /// Shape: `[component, pos, d_model]`.
    pub values: Array3<f32>,
}

impl ResidualStack {
    /// The component with this label. Shape: → `[pos, d_model]`.
    pub fn component(&self, label: &str) -> Option<Array2<f32>> {
        let component = self.labels.iter().position(|name| name == label)?;
        self.values.outer_iter().nth(component).map(|values| values.to_owned())
    }

    fn from_views(named: Vec<(String, ArrayView2<f32>)>) -> Self {
        let (labels, views): (Vec<String>, Vec<ArrayView2<f32>>) = named.into_iter().unzip();
        let values = stack(Axis(0), &views).expect("the components of a run have one shape");
        Self { labels, positions: (0..values.dim().1).collect(), values }
    }

    /// Adds a component at the end. Shape: `[pos, d_model]`.
    pub(super) fn push(&mut self, label: &str, values: ArrayView2<f32>) {
        self.labels.push(label.into());
        self.values.push(Axis(0), values).expect("the components of a run have one shape");
    }
}

/// The residual stream of a run of one prompt. A run of several is split by [`prompt`](ActivationCache::prompt).
impl ActivationCache {
    /// The residual stream before each layer below `layer`, with `incl_mid` also between its attention and its MLP, and
    /// then before `layer` itself: TransformerLens' `accumulated_resid`. `None` means after the last layer, which is
    /// labelled `final_post`. Reads [`ResidPre`](Activation::ResidPre), [`ResidMid`](Activation::ResidMid) and
    /// [`ResidPost`](Activation::ResidPost). Shape: → `[component, pos, d_model]`.
    ///
    /// # Errors
    /// [`Error::Count`] for a layer that the model does not have, and those of
    /// [`get`](Self::get).
    pub fn accumulated_resid(&self, layer: Option<usize>, incl_mid: bool) -> Result<ResidualStack> {
        let layer = self.checked_layer("accumulated_resid", layer)?;
        let mut named = Vec::new();
        for below in 0..layer {
            named.push((format!("{below}_pre"), self.matrix(Activation::ResidPre, below)?));
            if incl_mid {
                named.push((format!("{below}_mid"), self.matrix(Activation::ResidMid, below)?));
            }
        }
        let label = if layer == self.n_layers() { "final_post".into() } else { format!("{layer}_pre") };
        named.push((label, self.resid_before(layer)?));
        Ok(ResidualStack::from_views(named))
    }

    /// The components whose sum is the residual stream before `layer`: the embeddings of tokens and positions, then the
    /// outputs of attention and MLP of each layer below. TransformerLens' `decompose_resid`. `None` means after the last
    /// layer. Reads [`AttnOut`](Activation::AttnOut) and [`MlpOut`](Activation::MlpOut).
    /// Shape: → `[component, pos, d_model]`.
    ///
    /// # Errors
    /// As for [`accumulated_resid`](Self::accumulated_resid).
    pub fn decompose_resid(&self, model: &Gpt2, layer: Option<usize>) -> Result<ResidualStack> {
        self.check_model(model, "decompose_resid")?;
        let layer = self.checked_layer("decompose_resid", layer)?;
        let (embed, pos_embed) = self.embeddings(model)?;
        let mut named = vec![("embed".into(), embed.view()), ("pos_embed".into(), pos_embed.view())];
        for below in 0..layer {
            named.push((format!("{below}_attn_out"), self.matrix(Activation::AttnOut, below)?));
            named.push((format!("{below}_mlp_out"), self.matrix(Activation::MlpOut, below)?));
        }
        Ok(ResidualStack::from_views(named))
    }

    /// The output of every head of the layers below `layer`, without the bias `b_O`: TransformerLens'
    /// `stack_head_results`. `None` means of all layers. With `incl_remainder`, the component `remainder` is the rest of
    /// the residual stream before `layer`. Reads [`Z`](Activation::Z), or [`Result`](Activation::Result) if an intervention changed it, and for the
    /// remainder the residual stream.
    /// Shape: → `[component, pos, d_model]`.
    ///
    /// # Errors
    /// As for [`accumulated_resid`](Self::accumulated_resid), and [`Error::Device`].
    pub fn stack_head_results(
        &self,
        model: &Gpt2,
        layer: Option<usize>,
        incl_remainder: bool,
    ) -> Result<ResidualStack> {
        self.check_model(model, "stack_head_results")?;
        let layer = self.checked_layer("stack_head_results", layer)?;
        let config = model.config();
        let positions = self.positions(None)?;
        let mut values = Array3::zeros((layer * config.n_heads, positions.len(), config.d_model));
        self.fill_head_results(model, &positions, values.view_mut())?;
        let mut stack = ResidualStack { labels: head_labels(layer, config.n_heads), positions, values };
        if incl_remainder {
            let resid = self.resid_before(layer)?;
            let remainder = &resid - &stack.values.sum_axis(Axis(0));
            stack.push("remainder", remainder.view());
        }
        Ok(stack)
    }

    /// The outputs of the heads of the first layers at some positions.
    /// Shape: `positions [pos]`, `stack [layers n_heads, pos, d_model]`.
    pub(super) fn fill_head_results(
        &self,
        model: &Gpt2,
        positions: &[usize],
        mut stack: ArrayViewMut3<f32>,
    ) -> Result<()> {
        let mut by_layer: Vec<_> = stack.axis_chunks_iter_mut(Axis(0), model.config().n_heads).collect();
        // Where an intervention changed the results, they do not follow from z.
        if self.is_edited(Activation::Result) {
            return by_layer.iter_mut().enumerate().try_for_each(|(layer, results)| {
                let edited = self.cube(Activation::Result, layer)?.select(Axis(0), positions); // [pos, n_heads, d_model]
                results.assign(&edited.permuted_axes([1, 0, 2]));
                Ok(())
            });
        }
        by_layer.par_iter_mut().enumerate().try_for_each(|(layer, results)| {
            let z = self.cube(Activation::Z, layer)?.select(Axis(0), positions);
            let w_o = model.on_device().w_o(layer)?;
            for (head, mut result) in results.outer_iter_mut().enumerate() {
                let w_o = w_o.index_axis(Axis(0), head);
                result.assign(&z.slice(s![.., head, ..]).dot(&w_o)); // [pos, d_head] × [d_head, d_model]
            }
            Ok(())
        })
    }

    /// The indices of positions, negative ones counted from the end; `None` for all. Shape: → `[pos]`.
    pub(super) fn positions(&self, positions: Option<&[isize]>) -> Result<Vec<usize>> {
        let len = self.one_prompt()?.len();
        match positions {
            None => Ok((0..len).collect()),
            Some(positions) => positions.iter().map(|&position| check_position(position, 0, len)).collect(),
        }
    }

    /// [`Error::Shape`] unless the stack has the shape of this run at its positions.
    pub(super) fn check_stack(&self, model: &Gpt2, stack: &ResidualStack, function: &'static str) -> Result<()> {
        self.check_model(model, function)?;
        let len = self.one_prompt()?.len();
        if let Some(&position) = stack.positions.iter().find(|&&position| position >= len) {
            return Err(Error::Position { position: position.try_into().unwrap_or(isize::MAX), prompt: 0, len });
        }
        let expected = vec![stack.labels.len(), stack.positions.len(), model.config().d_model];
        if stack.values.shape() != expected {
            return Err(Error::Shape {
                what: format!("{function}: the stack"),
                axes: "[component, pos, d_model]",
                expected,
                found: stack.values.shape().to_vec(),
                hint: "a label for each component, and the stack of this run",
            });
        }
        Ok(())
    }

    /// The residual stream before a layer; before `n_layers` it is that after the last. Shape: → `[pos, d_model]`.
    pub(super) fn resid_before(&self, layer: usize) -> Result<ArrayView2<'_, f32>> {
        match layer.checked_sub(1) {
            Some(last) if layer == self.n_layers() => self.matrix(Activation::ResidPost, last),
            _ => self.matrix(Activation::ResidPre, layer),
        }
    }

    /// The embedding of each token and of its position: `hook_embed` and `hook_pos_embed` in TransformerLens.
    /// Shape: → each `[pos, d_model]`.
    ///
    /// # Errors
    /// [`Error::SeveralPrompts`], [`Error::Shape`] for a cache of
    /// another model, [`Error::Device`].
    pub fn embeddings(&self, model: &Gpt2) -> Result<(Array2<f32>, Array2<f32>)> {
        self.check_model(model, "embeddings")?;
        model.on_device().embedding_rows(self.one_prompt()?)
    }

    /// The layer, `n_layers` in the place of `None`.
    pub(super) fn checked_layer(&self, what: &'static str, layer: Option<usize>) -> Result<usize> {
        let layer = layer.unwrap_or(self.n_layers());
        check_count(what, "layer", layer, 0, Some(self.n_layers()))?;
        Ok(layer)
    }
}

/// The labels of all heads of the first layers: `L0H0`, `L0H1`, ….
pub(super) fn head_labels(n_layers: usize, n_heads: usize) -> Vec<String> {
    (0..n_layers).flat_map(|layer| (0..n_heads).map(move |head| format!("L{layer}H{head}"))).collect()
}
