//! A model on a device: the transformer, its backend, and the decoder of its heads, behind one type for all devices.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array1, Array2, Array3, Axis, s};

use super::activation::Activation;
use super::activation_cache::ActivationCache;
use super::decoding::HeadDecoding;
use super::key_value_cache::KeyValueCache;
use super::recorder::Recorder;
use super::run_options::RunPlan;
use super::single_tokens::SingleTokens;
use super::sizes::Sizes;
use super::transformer::Transformer;
use super::variants::VariantInput;
use crate::backend::Backend;
use crate::config::Gpt2Config;
use crate::decode::{HeadDecoder, Ranking, Vectors};
use crate::error::Result;
use crate::weights::{BlockWeights, ProcessedWeights, Weights};

/// A model whose device is known at run time. Callers check layers and heads.
pub(crate) trait ModelOnDevice: HeadDecoding + SingleTokens + Send + Sync {
    /// Runs a batch of token ids, and returns the logits of each prompt if the plan asks for them.
    /// Shape: `[prompt][pos]` → `[prompt] [pos, d_vocab]`.
    fn run(
        self: Arc<Self>,
        prompts: Vec<Vec<u32>>,
        plan: &RunPlan,
    ) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)>;

    /// Runs new tokens of each prompt, which follow the positions in `past`, and adds these to it. Returns the logits after
    /// the last token of each prompt. Shape: `[prompt][pos]`, no prompt without tokens → `[prompt, d_vocab]`.
    fn run_with_past(
        self: Arc<Self>,
        tokens: Vec<Vec<u32>>,
        past: &mut KeyValueCache,
        plan: &RunPlan,
    ) -> Result<Array2<f32>>;

    /// The most likely token after the last one of each prompt, as [`run_with_past`](Self::run_with_past) would give it. On
    /// the CPU it takes a quarter of the time to read `W_U`: the vocabulary is screened as for the decoding of heads.
    /// Shape: `[prompt][pos]`, no prompt without tokens → `[prompt]`.
    fn most_likely_with_past(
        self: Arc<Self>,
        tokens: Vec<Vec<u32>>,
        past: &mut KeyValueCache,
        plan: &RunPlan,
    ) -> Result<Vec<u32>>;

    /// Runs variants of a run. Returns the rows after the final layer norm. Shape: → `[prompt] [1 or pos, d_model]`.
    fn run_variants(self: Arc<Self>, input: VariantInput, plan: &RunPlan) -> Result<Vec<Array2<f32>>>;

    /// The logits of rows after the final layer norm. Shape: `[rows, d_model]` → `[rows, d_vocab]`.
    fn logits_of_normalized(&self, normalized: Array2<f32>) -> Result<Array2<f32>>;

    /// The columns of `W_U` of some tokens, and their entries of `b_U`. Shape: `[n]` → `[n, d_model]`, `[n]`.
    fn unembed_columns(&self, tokens: &[u32]) -> Result<(Array2<f32>, Array1<f32>)>;

    /// Copies all weights to the host.
    fn weights(&self) -> Result<Weights>;

    /// Copies the weights of a block to the host.
    fn block_weights(&self, layer: usize) -> Result<BlockWeights>;

    /// The final layer norm and the unembedding of rows of the residual stream.
    /// Shape: `[rows, d_model]` → `[rows, d_vocab]`.
    fn unembed(&self, resid: Array2<f32>) -> Result<Array2<f32>>;

    /// The embeddings of the tokens of one prompt, and of their positions. Shape: `[pos]` → each `[pos, d_model]`.
    fn embedding_rows(&self, tokens: &[u32]) -> Result<(Array2<f32>, Array2<f32>)>;

    /// The columns of `W_U` of some tokens, times the final layer norm's `w` where that is not folded into them.
    /// Shape: `[n]` → `[n, d_model]`.
    fn residual_directions(&self, tokens: &[u32]) -> Result<Array2<f32>>;

    /// Copies the token embedding to the host. Shape: → `[d_vocab, d_model]`.
    fn w_e(&self) -> Result<Array2<f32>>;

    /// Copies the unembedding to the host. Shape: → `[d_model, d_vocab]`.
    fn w_u(&self) -> Result<Array2<f32>>;

    /// Copies `W_Q` of a layer to the host. Shape: → `[n_heads, d_model, d_head]`.
    fn w_q(&self, layer: usize) -> Result<Array3<f32>>;

    /// Copies `W_K` of a layer to the host. Shape: → `[n_heads, d_model, d_head]`.
    fn w_k(&self, layer: usize) -> Result<Array3<f32>>;

    /// Copies `W_out` and `b_out` of a layer to the host. Shape: → `[d_mlp, d_model]`, `[d_model]`.
    fn mlp_output(&self, layer: usize) -> Result<(Array2<f32>, Array1<f32>)>;

    /// Copies `b_O` of a layer to the host. Shape: → `[d_model]`.
    fn b_o(&self, layer: usize) -> Result<Array1<f32>>;

    /// Copies `W_V` of a layer to the host. Shape: → `[n_heads, d_model, d_head]`.
    fn w_v(&self, layer: usize) -> Result<Array3<f32>>;

    /// Copies `W_O` of a layer to the host. Shape: → `[n_heads, d_head, d_model]`.
    fn w_o(&self, layer: usize) -> Result<Array3<f32>>;
}

/// A model on the device of `B`.
pub(super) struct OnDevice<B: Backend> {
    pub(super) backend: B,
    pub(super) transformer: Transformer<B>,
    pub(super) decoder: HeadDecoder<B>,
    pub(super) sizes: Arc<Sizes>,
    /// The epsilon of the layer norms.
    eps: f64,
}

impl<B: Backend> OnDevice<B> {
    /// Reads, processes and uploads the weights piece by piece. `decode_cache_bytes` bounds the memory of decode
    /// tables.
    pub(super) fn new(
        backend: B,
        config: &Gpt2Config,
        weights: &ProcessedWeights,
        decode_cache_bytes: usize,
    ) -> Result<Self> {
        let transformer = Transformer::upload(&backend, config, weights)?;
        let (decoder, sizes) = (HeadDecoder::new(decode_cache_bytes), Arc::new(Sizes::of(config)));
        Ok(Self { transformer, decoder, sizes, backend, eps: config.eps })
    }

    /// The epsilon of the layer norms.
    pub(super) fn eps(&self) -> f64 {
        self.eps
    }

    /// The rows after the final layer norm. Shape: `[rows, d_model]` → the same.
    fn normalized(&self, resid: &B::Tensor, recorder: &Recorder<B>) -> Result<B::Tensor> {
        recorder.layer_norm(&self.transformer.ln_final, Activation::ResidPost, resid)
    }

    /// Runs new tokens of each prompt, which follow the positions in `past`, and adds these to it. Returns the rows after
    /// the final layer norm, at the last token of each prompt. Shape: `[prompt][pos]` → `[prompt, d_model]`.
    fn last_normalized(
        self: &Arc<Self>,
        tokens: Vec<Vec<u32>>,
        past: &mut KeyValueCache,
        plan: &RunPlan,
    ) -> Result<Array2<f32>> {
        let Self { backend, transformer, sizes, .. } = &**self;
        let all_tokens = tokens.concat();
        let positions = |(prompt, new): (usize, &Vec<u32>)| past.len(prompt)..past.len(prompt) + new.len();
        let positions: Vec<usize> = tokens.iter().enumerate().flat_map(positions).collect();
        let mut recorder = Recorder::new(self, plan, ActivationCache::new(tokens, sizes.clone())).with_past(past);
        let resid = backend.embed(&transformer.embedding, &all_tokens, &positions)?; // [rows, d_model]
        let resid = transformer.forward(backend, resid, plan.blocks(), &mut recorder)?;
        recorder.in_layer(transformer.blocks.len().saturating_sub(1)); // also where no block ran
        let last: Vec<usize> = recorder.prompts().iter().map(|rows| rows.end - 1).collect();
        if recorder.freezes(Activation::ResidPost) {
            return Ok(backend.download(&self.normalized(&resid, &recorder)?)?.select(Axis(0), &last));
        }
        let last = take_rows(backend, &resid, &last)?;
        Ok(backend.download(&transformer.ln_final.forward(backend, &last)?)?.into_owned())
    }

    /// See [`ModelOnDevice::run`].
    fn run_here(
        self: &Arc<Self>,
        prompts: Vec<Vec<u32>>,
        plan: &RunPlan,
    ) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)> {
        let Self { backend, transformer, sizes, .. } = &**self;
        let tokens = prompts.concat();
        let positions: Vec<usize> = prompts.iter().flat_map(|prompt| 0..prompt.len()).collect();
        let mut cache = ActivationCache::new(prompts, sizes.clone()).with_interventions(plan.edits.descriptions());
        for (prompt, reads, position, scale) in plan.edits.held_scales() {
            cache.hold_scale(prompt, reads, position, scale);
        }
        let mut recorder = Recorder::new(self, plan, cache);
        let resid = match &plan.resid {
            Some(resid) => backend.upload(resid.clone())?,
            None => backend.embed(&transformer.embedding, &tokens, &positions)?,
        }; // [rows, d_model]
        let resid = transformer.forward(backend, resid, plan.blocks(), &mut recorder)?;
        recorder.in_layer(transformer.blocks.len().saturating_sub(1)); // also where no block ran
        if !plan.logits {
            return Ok((None, recorder.into_cache()));
        }
        let all = recorder.prompts().to_vec();
        let (normalized, prompts) = match &plan.logits_at {
            Some(positions) if recorder.freezes(Activation::ResidPost) => {
                select_rows(backend, &self.normalized(&resid, &recorder)?, &all, positions)?
            }
            Some(positions) => {
                let (resid, prompts) = select_rows(backend, &resid, &all, positions)?;
                (transformer.ln_final.forward(backend, &resid)?, prompts)
            }
            None => (self.normalized(&resid, &recorder)?, all),
        }; // [rows, d_model]
        let logits = backend.logits(&transformer.unembed, &normalized, &prompts)?;
        Ok((Some(logits), recorder.into_cache()))
    }

    /// See [`ModelOnDevice::run_variants`].
    fn run_variants_here(self: &Arc<Self>, input: VariantInput, plan: &RunPlan) -> Result<Vec<Array2<f32>>> {
        let Self { backend, transformer, sizes, .. } = &**self;
        let VariantInput { tokens, first, resid, mut past, last_only } = input;
        let resid = match resid {
            Some(resid) => backend.upload(resid)?,
            None => {
                let positions = tokens.iter().zip(&first).flat_map(|(tokens, &first)| first..first + tokens.len());
                backend.embed(&transformer.embedding, &tokens.concat(), &positions.collect::<Vec<_>>())?
            }
        };
        let mut recorder = Recorder::new(self, plan, ActivationCache::new(tokens, sizes.clone()));
        if last_only {
            recorder = recorder.narrowed_in_last_layer(transformer.blocks.len());
        }
        if let Some(past) = &mut past {
            recorder = recorder.with_past(past);
        }
        let resid = transformer.forward(backend, resid, plan.blocks(), &mut recorder)?;
        recorder.in_layer(transformer.blocks.len().saturating_sub(1)); // also where no block ran
        let normalized = backend.download(&self.normalized(&resid, &recorder)?)?;
        let rows = recorder.prompts().iter();
        Ok(rows
            .map(|rows| {
                let start = if last_only { rows.end - 1 } else { rows.start };
                normalized.slice(s![start..rows.end, ..]).to_owned()
            })
            .collect())
    }
}

impl<B: Backend> ModelOnDevice for OnDevice<B> {
    fn run(
        self: Arc<Self>,
        prompts: Vec<Vec<u32>>,
        plan: &RunPlan,
    ) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)> {
        self.backend.on_threads(|| self.run_here(prompts, plan))
    }

    fn run_variants(self: Arc<Self>, input: VariantInput, plan: &RunPlan) -> Result<Vec<Array2<f32>>> {
        self.backend.on_threads(|| self.run_variants_here(input, plan))
    }

    fn logits_of_normalized(&self, normalized: Array2<f32>) -> Result<Array2<f32>> {
        let rows = 0..normalized.nrows();
        let x = self.backend.upload(normalized)?;
        Ok(self.backend.logits(&self.transformer.unembed, &x, &[rows])?.remove(0))
    }

    fn unembed_columns(&self, tokens: &[u32]) -> Result<(Array2<f32>, Array1<f32>)> {
        let columns = self.backend.unembed_columns(&self.transformer.unembed, &indices(tokens))?;
        // The logits of a vector of zeros are `b_U`.
        let b_u = self.logits_of_normalized(Array2::zeros((1, self.sizes.d_model)))?;
        Ok((columns, b_u.select(Axis(1), &indices(tokens)).remove_axis(Axis(0))))
    }

    fn run_with_past(
        self: Arc<Self>,
        tokens: Vec<Vec<u32>>,
        past: &mut KeyValueCache,
        plan: &RunPlan,
    ) -> Result<Array2<f32>> {
        self.backend.on_threads(|| {
            let normalized = self.last_normalized(tokens, past, plan)?;
            self.logits_of_normalized(normalized)
        })
    }

    fn most_likely_with_past(
        self: Arc<Self>,
        tokens: Vec<Vec<u32>>,
        past: &mut KeyValueCache,
        plan: &RunPlan,
    ) -> Result<Vec<u32>> {
        let mut rows = self.backend.on_threads(|| self.last_normalized(tokens, past, plan))?;
        let (n, d_model) = rows.dim();
        // Each vector is the product of a row and of ones, and goes to the residual stream unchanged.
        rows.push_row(Array1::ones(d_model).view()).expect("a row of the same length");
        let vectors = Vectors::new(rows, (0..n as u32).map(|row| [row, n as u32]).collect());
        let top = self.decode_through(Array2::eye(d_model), &vectors, Ranking::new(1, true))?;
        Ok(top.tokens.column(0).to_vec())
    }

    fn weights(&self) -> Result<Weights> {
        self.transformer.weights(&self.backend)
    }

    fn block_weights(&self, layer: usize) -> Result<BlockWeights> {
        self.transformer.blocks[layer].weights(&self.backend)
    }

    fn unembed(&self, resid: Array2<f32>) -> Result<Array2<f32>> {
        let Self { backend, transformer, .. } = self;
        let rows = 0..resid.nrows();
        let normalized = transformer.ln_final.forward(backend, &backend.upload(resid)?)?;
        Ok(backend.logits(&transformer.unembed, &normalized, &[rows])?.remove(0))
    }

    fn embedding_rows(&self, tokens: &[u32]) -> Result<(Array2<f32>, Array2<f32>)> {
        self.backend.embedding_rows(&self.transformer.embedding, &indices(tokens))
    }

    fn residual_directions(&self, tokens: &[u32]) -> Result<Array2<f32>> {
        let directions = self.backend.unembed_columns(&self.transformer.unembed, &indices(tokens))?;
        Ok(match &self.transformer.ln_final.weights {
            Some(ln) => directions * &ln.w,
            None => directions,
        })
    }

    fn w_e(&self) -> Result<Array2<f32>> {
        Ok(self.backend.embedding_weights(&self.transformer.embedding)?.0)
    }

    fn w_u(&self) -> Result<Array2<f32>> {
        Ok(self.backend.unembed_weights(&self.transformer.unembed)?.0)
    }

    fn w_q(&self, layer: usize) -> Result<Array3<f32>> {
        let attn = &self.transformer.blocks[layer].attn;
        let [w_q, _, _] = &attn.w_qkv;
        Ok(attn.input_weights(&self.backend, w_q)?.0)
    }

    fn w_k(&self, layer: usize) -> Result<Array3<f32>> {
        let attn = &self.transformer.blocks[layer].attn;
        let [_, w_k, _] = &attn.w_qkv;
        Ok(attn.input_weights(&self.backend, w_k)?.0)
    }

    fn mlp_output(&self, layer: usize) -> Result<(Array2<f32>, Array1<f32>)> {
        self.backend.linear_weights(&self.transformer.blocks[layer].mlp.w_out)
    }

    fn b_o(&self, layer: usize) -> Result<Array1<f32>> {
        Ok(self.transformer.blocks[layer].attn.output_weights(&self.backend)?.1)
    }

    fn w_v(&self, layer: usize) -> Result<Array3<f32>> {
        let attn = &self.transformer.blocks[layer].attn;
        let [_, _, w_v] = &attn.w_qkv;
        Ok(attn.input_weights(&self.backend, w_v)?.0)
    }

    fn w_o(&self, layer: usize) -> Result<Array3<f32>> {
        Ok(self.transformer.blocks[layer].attn.output_weights(&self.backend)?.0)
    }
}

/// The rows of chosen positions, and the rows of each prompt among them. Shape: `x [rows, d_model]`, `prompts [prompt]`,
/// `positions [prompt][position]` → `[n, d_model]`, `[prompt]`.
fn select_rows<B: Backend>(
    backend: &B,
    x: &B::Tensor,
    prompts: &[Range<usize>],
    positions: &[Vec<usize>],
) -> Result<(B::Tensor, Vec<Range<usize>>)> {
    let (mut rows, mut chosen) = (Vec::new(), Vec::with_capacity(prompts.len()));
    for (prompt, positions) in prompts.iter().zip(positions) {
        chosen.push(rows.len()..rows.len() + positions.len());
        rows.extend(positions.iter().map(|position| prompt.start + position));
    }
    // Through the host: the residual stream is small beside the logits.
    Ok((take_rows(backend, x, &rows)?, chosen))
}

/// Some rows of a matrix. Shape: `[rows, columns]` → `[n, columns]`.
pub(super) fn take_rows<B: Backend>(backend: &B, x: &B::Tensor, rows: &[usize]) -> Result<B::Tensor> {
    backend.upload(backend.download(x)?.select(Axis(0), rows))
}

/// Token ids as indices of rows or columns. Shape: → `[n]`.
fn indices(tokens: &[u32]) -> Vec<usize> {
    tokens.iter().map(|&token| token as usize).collect()
}
