//! Decodes the activations of a run into head data.

use ndarray::{Array2, Axis, Ix2, Ix3, s};

use super::head_data::{HeadData, PromptHeadData};
use super::n_cells;
use crate::decode::{Projection, Ranking, TopTokens, Vectors};
use crate::error::{Result, check_count, check_index};
use crate::model::{Activation, ActivationCache, Gpt2};

/// How to decode a head. By default through [`Projection::Notebook`], with the bias of the unembedding as in the original
/// notebook, and with the best token only.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let options = DecodeOptions::default().projection(Projection::Ov).unembed_bias(false).top_k(2);
/// # assert_eq!(options, DecodeOptions { projection: Projection::Ov, top_k: 2, unembed_bias: false });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The map from a vector to the residual stream.
    pub projection: Projection,
    /// Number of tokens for each vector, best first; at least 1.
    pub top_k: usize,
    /// Whether `b_U` is part of the logits. Where a vector is weak, every head gives `b_U`'s largest tokens; without it,
    /// a token depends on the head alone.
    pub unembed_bias: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { projection: Projection::default(), top_k: 1, unembed_bias: true }
    }
}

impl DecodeOptions {
    /// Sets [`projection`](Self::projection).
    pub fn projection(mut self, projection: Projection) -> Self {
        self.projection = projection;
        self
    }

    /// Sets [`top_k`](Self::top_k).
    pub fn top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Sets [`unembed_bias`](Self::unembed_bias).
    pub fn unembed_bias(mut self, unembed_bias: bool) -> Self {
        self.unembed_bias = unembed_bias;
        self
    }
}

/// The data of one head on every prompt of a cache. The cache must hold `Q`, `K`, `V` and `Pattern` of the layer.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let (_, cache) = model.run_with_cache("The next sentence is false.")?;
/// let data = head_data(&model, &cache, 0, 1, DecodeOptions::default())?.prompt(0)?;
/// assert_eq!(data.feature(Feature::Qk).dim(), (7, 7)); // [query_pos, key_pos]
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer or head that the model does not have,
/// [`Error::NotCached`](crate::Error::NotCached) if the cache lacks an activation,
/// [`Error::Shape`](crate::Error::Shape) if it comes from a model of another shape,
/// [`Error::Count`](crate::Error::Count) if `top_k` is 0, [`Error::Device`](crate::Error::Device) if the device fails.
pub fn head_data(
    model: &Gpt2,
    cache: &ActivationCache,
    layer: usize,
    head: usize,
    options: DecodeOptions,
) -> Result<HeadData> {
    let mut data = heads_data(model, cache, layer, &[head], options)?;
    Ok(data.pop().expect("one head was asked for"))
}

/// The data of every head, layer by layer: [`head_data`] for each. Shape: → `[n_layers n_heads]`.
///
/// # Errors
/// As for [`head_data`].
pub fn all_heads_data(model: &Gpt2, cache: &ActivationCache, options: DecodeOptions) -> Result<Vec<HeadData>> {
    let config = model.config();
    let mut data = Vec::with_capacity(config.n_layers * config.n_heads);
    for layer in 0..config.n_layers {
        data.extend(layer_data(model, cache, layer, options)?);
    }
    Ok(data)
}

/// The data of every head of a layer, head by head: [`head_data`] for each. Shape: → `[n_heads]`.
///
/// # Errors
/// As for [`head_data`].
pub fn layer_data(
    model: &Gpt2,
    cache: &ActivationCache,
    layer: usize,
    options: DecodeOptions,
) -> Result<Vec<HeadData>> {
    let heads: Vec<usize> = (0..model.config().n_heads).collect();
    heads_data(model, cache, layer, &heads, options)
}

/// The data of some heads of a layer, in the order of `heads`. Shape: `[n]` → `[n]`.
fn heads_data(
    model: &Gpt2,
    cache: &ActivationCache,
    layer: usize,
    heads: &[usize],
    options: DecodeOptions,
) -> Result<Vec<HeadData>> {
    let DecodeOptions { projection, top_k, unembed_bias } = options;
    check_count("DecodeOptions", "top_k", top_k, 1, None)?;
    check_index("layer", layer, "the model", model.config().n_layers)?;
    for &head in heads {
        check_index("head", head, "each layer", model.config().n_heads)?;
    }
    let ranking = Ranking { k: top_k, unembed_bias };
    let mut vectors = heads.iter().map(|&head| vectors_of_head(model, cache, layer, head));
    let top = model.on_device().decode_heads(layer, heads, projection, ranking, &mut vectors)?;
    let data_of_head = |(&head, top): (&usize, TopTokens)| {
        let mut start = 0;
        let prompts = (0..cache.n_prompts()).map(|prompt| {
            let input = cache.tokens()[prompt].clone();
            let pattern = cache.view_of_prompt(prompt, Activation::Pattern, layer)?; // [n_heads, query_pos, key_pos]
            let attn = pattern.index_axis(Axis(0), head).to_owned();
            let mut take = |rows: usize| {
                start += rows;
                top.rows(start - rows..start)
            };
            Ok(PromptHeadData {
                layer,
                head,
                projection,
                unembed_bias,
                attn: attn.into_dimensionality::<Ix2>().expect("a pattern has three axes"),
                qk: take(n_cells(input.len())),
                q: take(input.len()),
                k: take(input.len()),
                v: take(input.len()),
                input,
                interventions: cache.interventions(),
                model: model.name().to_owned(),
                labels: model.token_labels(),
            })
        });
        Ok(HeadData { layer, head, projection, unembed_bias, prompts: prompts.collect::<Result<_>>()? })
    };
    heads.iter().zip(top).map(data_of_head).collect()
}

/// The attention token of every cell of a head with key ≤ query, prompt by prompt and query by query, decoded through a
/// matrix `p` in place of a projection. Shape: `p [d_head, d_model]` → `[cells of all prompts]`.
pub(crate) fn tokens_through(
    model: &Gpt2,
    cache: &ActivationCache,
    [layer, head]: [usize; 2],
    p: Array2<f32>,
) -> Result<Vec<u32>> {
    let vectors = vectors_of_head(model, cache, layer, head)?;
    let top = model.on_device().decode_through(p, &vectors, Ranking { k: 1, unembed_bias: true })?;
    let mut start = 0;
    let mut tokens = Vec::new();
    for prompt in cache.tokens() {
        let end = start + n_cells(prompt.len());
        tokens.extend(top.tokens.slice(s![start..end, 0]));
        start = end + 3 * prompt.len(); // the cells are followed by q, k and v
    }
    Ok(tokens)
}

/// All vectors to decode for a head, prompt by prompt: `q ⊙ k` of the cells with key ≤ query, query by query, then `q`,
/// `k` and `v` of each position. Shape: → `[n, d_head]`.
fn vectors_of_head(model: &Gpt2, cache: &ActivationCache, layer: usize, head: usize) -> Result<Vectors> {
    cache.check_model(model, "decoding a cache")?;
    let d_head = model.config().d_head;
    let rows: usize = 3 * cache.tokens().iter().map(Vec::len).sum::<usize>();
    let ones = rows as u32; // the last row of the table
    let n: usize = cache.tokens().iter().map(|tokens| n_cells(tokens.len()) + 3 * tokens.len()).sum();
    let (mut table, mut pairs) = (Vec::with_capacity((rows + 1) * d_head), Vec::with_capacity(n));
    for prompt in 0..cache.n_prompts() {
        let rows_of_head = |activation| -> Result<_> {
            let all = cache.view_of_prompt(prompt, activation, layer)?;
            let all = all.into_dimensionality::<Ix3>().expect("q, k and v have three axes"); // [pos, n_heads, d_head]
            Ok(all.index_axis_move(Axis(1), head)) // [pos, d_head]
        };
        let first = (table.len() / d_head) as u32;
        for activation in [Activation::Q, Activation::K, Activation::V] {
            table.extend(rows_of_head(activation)?); // [pos, d_head]
        }
        let pos = cache.tokens()[prompt].len() as u32;
        let (q, k) = (first, first + pos);
        pairs.extend((0..pos).flat_map(|query| (0..=query).map(move |key| [q + query, k + key])));
        pairs.extend((first..first + 3 * pos).map(|row| [row, ones]));
    }
    table.resize(table.len() + d_head, 1.0);
    let table = Array2::from_shape_vec((rows + 1, d_head), table)
        .expect("a row for each query, key and value, and one of ones");
    Ok(Vectors::new(table, pairs))
}
