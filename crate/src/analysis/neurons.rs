//! Neurons: their outputs in the residual stream, and the logits that they write.

use ndarray::{Array2, Array3, ArrayViewMut3, Axis, s};
use rayon::prelude::*;

use super::residual_stream::{ResidualStack, head_labels};
use crate::error::{Error, Result};
use crate::model::{Activation, ActivationCache, Gpt2};

/// The largest stack of neurons, in bytes. GPT-2 small takes 113 MB for each position.
const MAX_STACK_BYTES: usize = 4 << 30;

/// Neurons in a run of one prompt. A run of several is split by [`prompt`](ActivationCache::prompt).
impl ActivationCache {
    /// The output of every neuron of the layers below `layer`, its activation times its row of `W_out`: TransformerLens'
    /// `stack_neuron_results`, labelled `L0N0`. `None` means of all layers. `positions` chooses positions, negative ones
    /// from the end; `None` for all. With `incl_remainder`, the component `remainder` is the rest of the residual stream
    /// before `layer`. Reads [`MlpPost`](Activation::MlpPost), and for the remainder the residual stream.
    /// Shape: → `[component, pos, d_model]`.
    ///
    /// In GPT-2 small a position takes 113 MB. [`neuron_logit_attrs`](Self::neuron_logit_attrs) needs no stack.
    ///
    /// # Errors
    /// [`Error::Count`] for a layer that the model does not have, or a stack of more than 4 GiB, [`Error::Position`],
    /// [`Error::Shape`] for a cache of another model, [`Error::Device`], and those of [`get`](Self::get).
    pub fn stack_neuron_results(
        &self,
        model: &Gpt2,
        layer: Option<usize>,
        positions: Option<&[isize]>,
        incl_remainder: bool,
    ) -> Result<ResidualStack> {
        self.check_model(model, "stack_neuron_results")?;
        let layer = self.checked_layer("stack_neuron_results", layer)?;
        let (positions, d_mlp) = (self.positions(positions)?, model.config().d_mlp);
        let n = layer * d_mlp;
        let dim = (n + usize::from(incl_remainder), positions.len(), model.config().d_model);
        check_bytes("stack_neuron_results", dim)?;
        let (mut values, mut labels) = (Array3::zeros(dim), neuron_labels(layer, d_mlp));
        self.fill_neuron_results(model, &positions, values.slice_mut(s![..n, .., ..]))?;
        if incl_remainder {
            let resid = self.resid_before(layer)?.select(Axis(0), &positions);
            let remainder = resid - values.slice(s![..n, .., ..]).sum_axis(Axis(0));
            values.index_axis_mut(Axis(0), n).assign(&remainder);
            labels.push("remainder".into());
        }
        Ok(ResidualStack { labels, positions, values })
    }

    /// Everything that the residual stream before `layer` is the sum of: the output of each head (`L0H0`), of each neuron
    /// (`L0N0`) or, without `expand_neurons`, of each MLP (`0_mlp_out`), then `embed`, `pos_embed` and `bias`, the sum of
    /// the biases `b_O` and, with `expand_neurons`, `b_out`. TransformerLens' `get_full_resid_decomposition`. `None`
    /// means after the last layer. `positions` chooses positions, negative ones from the end; `None` for all.
    /// Shape: → `[component, pos, d_model]`.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("Monday, Tuesday,")?;
    /// let stack = cache.get_full_resid_decomposition(&model, None, true, Some(&[-1]))?;
    /// let config = model.config();
    /// let n = config.n_layers * (config.n_heads + config.d_mlp) + 3;
    /// assert_eq!(stack.values.dim(), (n, 1, config.d_model));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`stack_neuron_results`](Self::stack_neuron_results).
    pub fn get_full_resid_decomposition(
        &self,
        model: &Gpt2,
        layer: Option<usize>,
        expand_neurons: bool,
        positions: Option<&[isize]>,
    ) -> Result<ResidualStack> {
        const FUNCTION: &str = "get_full_resid_decomposition";
        self.check_model(model, FUNCTION)?;
        let (layer, positions, config) =
            (self.checked_layer(FUNCTION, layer)?, self.positions(positions)?, model.config());
        let (n_heads, n_mlp) = (layer * config.n_heads, layer * if expand_neurons { config.d_mlp } else { 1 });
        let dim = (n_heads + n_mlp + 3, positions.len(), config.d_model);
        check_bytes(FUNCTION, dim)?;
        let (mut values, mut labels) = (Array3::zeros(dim), head_labels(layer, config.n_heads));
        self.fill_head_results(model, &positions, values.slice_mut(s![..n_heads, .., ..]))?;
        let mut of_mlps = values.slice_mut(s![n_heads..n_heads + n_mlp, .., ..]);
        if expand_neurons {
            labels.extend(neuron_labels(layer, config.d_mlp));
            self.fill_neuron_results(model, &positions, of_mlps)?;
        } else {
            for (layer, mut mlp_out) in of_mlps.outer_iter_mut().enumerate() {
                labels.push(format!("{layer}_mlp_out"));
                mlp_out.assign(&self.matrix(Activation::MlpOut, layer)?.select(Axis(0), &positions));
            }
        }
        let (embed, pos_embed) = self.embeddings(model)?;
        let mut bias = Array2::zeros((1, config.d_model));
        for layer in 0..layer {
            bias += &model.on_device().b_o(layer)?;
            if expand_neurons {
                bias += &model.on_device().mlp_output(layer)?.1;
            }
        }
        let rest = [("embed", embed.select(Axis(0), &positions)), ("pos_embed", pos_embed.select(Axis(0), &positions))];
        for (label, rows) in rest.into_iter().chain([("bias", bias)]) {
            values.index_axis_mut(Axis(0), labels.len()).assign(&rows); // the bias is the same at all positions
            labels.push(label.into());
        }
        Ok(ResidualStack { labels, positions, values })
    }

    /// The logit that each neuron writes at each position, without building
    /// [`stack_neuron_results`](Self::stack_neuron_results); with `incorrect_token`, the difference to that token's.
    /// Shape: → `[layer, neuron, pos]`.
    ///
    /// # Errors
    /// As for [`logit_attrs`](Self::logit_attrs).
    pub fn neuron_logit_attrs(&self, model: &Gpt2, token: u32, incorrect_token: Option<u32>) -> Result<Array3<f32>> {
        self.check_model(model, "neuron_logit_attrs")?;
        let direction = model.centered_direction(token, incorrect_token)?;
        let scale = self.ln_final_scale(model)?; // [pos]
        let mut attrs = Array3::zeros((self.n_layers(), model.config().d_mlp, scale.len()));
        let mut by_layer: Vec<_> = attrs.outer_iter_mut().collect();
        by_layer.par_iter_mut().enumerate().try_for_each(|(layer, attrs)| {
            let through_w_out = model.on_device().mlp_output(layer)?.0.dot(&direction); // [d_mlp]
            let post = self.matrix(Activation::MlpPost, layer)?; // [pos, d_mlp]
            attrs.assign(&(&post.t() * &through_w_out.insert_axis(Axis(1)) / &scale));
            Ok(())
        })?;
        Ok(attrs)
    }

    /// The outputs of the neurons of the first layers at some positions.
    /// Shape: `positions [pos]`, `stack [layers d_mlp, pos, d_model]`.
    fn fill_neuron_results(&self, model: &Gpt2, positions: &[usize], mut stack: ArrayViewMut3<f32>) -> Result<()> {
        let mut by_layer: Vec<_> = stack.axis_chunks_iter_mut(Axis(0), model.config().d_mlp).collect();
        by_layer.par_iter_mut().enumerate().try_for_each(|(layer, results)| {
            let post = self.matrix(Activation::MlpPost, layer)?.select(Axis(0), positions); // [pos, d_mlp]
            let (w_out, _) = model.on_device().mlp_output(layer)?; // [d_mlp, d_model]
            for ((mut result, w_out), post) in results.outer_iter_mut().zip(w_out.rows()).zip(post.columns()) {
                for (mut result, &post) in result.rows_mut().into_iter().zip(post) {
                    result.zip_mut_with(&w_out, |result, w| *result = post * w);
                }
            }
            Ok(())
        })
    }
}

/// The labels of all neurons of the first layers: `L0N0`, `L0N1`, ….
fn neuron_labels(n_layers: usize, d_mlp: usize) -> Vec<String> {
    (0..n_layers).flat_map(|layer| (0..d_mlp).map(move |neuron| format!("L{layer}N{neuron}"))).collect()
}

/// [`Error::Count`] for a stack of more than [`MAX_STACK_BYTES`].
fn check_bytes(function: &'static str, (components, pos, d_model): (usize, usize, usize)) -> Result<()> {
    let bytes = components.saturating_mul(pos).saturating_mul(d_model).saturating_mul(size_of::<f32>());
    if bytes <= MAX_STACK_BYTES {
        return Ok(());
    }
    Err(Error::Count {
        function,
        what: format!("bytes of a stack of {components} components at {pos} positions"),
        found: bytes,
        min: 0,
        max: Some(MAX_STACK_BYTES),
        hint: Some("choose fewer positions, or take neuron_logit_attrs, which needs no stack"),
    })
}
