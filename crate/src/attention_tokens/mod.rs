//! Attention tokens: what a head says about a prompt, in the model's own words.
//!
//! For a query at position *i* and a key at position *j ≤ i*, the element-wise product of the two vectors is sent
//! through the head's value and output weights to the residual stream and unembedded; the most likely token is the
//! *attention token* of that cell:
//!
//! ```text
//! c     = q_i ⊙ k_j                        [d_head]
//! r     = c P                              [d_model], P one of three projections
//! token = argmax_v (r · W_U[:, v] + b_U[v])          no final layer norm; the lowest id on a tie
//! ```
//!
//! The query, key and value token of a position are the same with `c = q_i`, `k_i`, `v_i`. `W_V`, `W_O`, `W_U` and
//! `b_U` are those of the model at hand, processed as it was loaded; no other bias enters.

mod export;

use ndarray::{Array2, Array4, Axis, Ix2, Ix3, s};

use crate::decode::Projection;
use crate::decode::{TopTokens, Vectors};
use crate::error::{Error, Result, check_count, check_index};
use crate::model::Gpt2;
use crate::model::{Activation, ActivationCache};
use crate::tokenizer::TokenLabels;

/// How to decode a head. [`Projection::Notebook`] and the best token alone by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The way to the residual stream.
    pub projection: Projection,
    /// How many tokens to keep of each vector, best first; at least 1.
    pub top_k: usize,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { projection: Projection::default(), top_k: 1 }
    }
}

/// The columns of a head's data, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// The token id at the key position.
    Input,
    /// The attention pattern.
    Attn,
    /// The attention token of query and key.
    Qk,
    /// The token of the key position's query vector.
    Q,
    /// The token of the key position's key vector.
    K,
    /// The token of the key position's value vector.
    V,
}

impl Feature {
    /// All features, in the order of [`HeadData::to_array`]'s last axis.
    pub const ALL: [Feature; 6] = [Feature::Input, Feature::Attn, Feature::Qk, Feature::Q, Feature::K, Feature::V];

    /// `"input"`, `"attn"`, `"qk"`, `"q"`, `"k"`, `"v"`: the original's column names.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Input => "input",
            Feature::Attn => "attn",
            Feature::Qk => "qk",
            Feature::Q => "q",
            Feature::K => "k",
            Feature::V => "v",
        }
    }
}

/// What one head does with every prompt of a batch.
#[derive(Clone, Debug)]
pub struct HeadData {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// The projection that the tokens were decoded with.
    pub projection: Projection,
    /// A prompt each, in the order of the batch.
    pub prompts: Vec<PromptHeadData>,
}

/// What one head does with one prompt.
#[derive(Clone, Debug)]
pub struct PromptHeadData {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// The projection that the tokens were decoded with.
    pub projection: Projection,
    /// The token ids of the prompt. Shape: `[pos]`.
    pub input: Vec<u32>,
    /// The attention pattern; 0 where key > query. Shape: `[query_pos, key_pos]`.
    pub attn: Array2<f32>,
    /// The attention tokens, a row for each cell with key ≤ query, query by query:
    /// [`cell`](Self::cell) gives the row of a cell. `n = pos (pos + 1) / 2`.
    pub qk: TopTokens,
    /// The tokens of the query vectors, a row for each position.
    pub q: TopTokens,
    /// The tokens of the key vectors, a row for each position.
    pub k: TopTokens,
    /// The tokens of the value vectors, a row for each position.
    pub v: TopTokens,
    labels: TokenLabels,
}

impl HeadData {
    /// Number of prompts in the batch.
    pub fn n_prompts(&self) -> usize {
        self.prompts.len()
    }

    /// The data of one prompt of the batch.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the batch has no such prompt.
    pub fn prompt(&self, prompt: usize) -> Result<PromptHeadData> {
        check_index("prompt", prompt, "the batch", self.prompts.len())?;
        Ok(self.prompts[prompt].clone())
    }

    pub(crate) fn prompts(&self) -> &[PromptHeadData] {
        &self.prompts
    }

    /// The original notebook's array. Cells with key > query, and padding behind shorter prompts, are −1 in every
    /// feature; the features are in the order of [`Feature::ALL`]. (Token ids below 2²⁴ are exact in `f32`.)
    /// Shape: → `[batch, query, key, feature]`.
    pub fn to_array(&self) -> Array4<f32> {
        let longest = self.prompts.iter().map(|prompt| prompt.input.len()).max().unwrap_or(0);
        let mut array = Array4::from_elem((self.prompts.len(), longest, longest, Feature::ALL.len()), -1.0);
        for (prompt, mut array) in self.prompts.iter().zip(array.outer_iter_mut()) {
            let pos = prompt.input.len();
            for (index, feature) in Feature::ALL.into_iter().enumerate() {
                array.slice_mut(s![..pos, ..pos, index]).assign(&prompt.feature(feature));
            }
        }
        array
    }
}

impl PromptHeadData {
    /// Number of positions.
    pub fn n_pos(&self) -> usize {
        self.input.len()
    }

    /// The row of [`qk`](Self::qk) that belongs to a cell, `None` where key > query or beyond the prompt.
    pub fn cell(&self, query: usize, key: usize) -> Option<usize> {
        (key <= query && query < self.n_pos()).then(|| n_cells(query) + key)
    }

    /// The cells with key ≤ query, as (query, key), query by query: those that there is data of.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        (0..self.n_pos()).flat_map(|query| (0..=query).map(move |key| (query, key)))
    }

    /// Which head it is.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.layer, self.head)
    }

    /// Which head it is, and how its tokens were decoded.
    pub(crate) fn caption(&self) -> String {
        format!("head {}, projection {}", self.name(), self.projection.name())
    }

    /// A feature of every cell, −1 where key > query. Shape: → `[query_pos, key_pos]`.
    pub fn feature(&self, feature: Feature) -> Array2<f32> {
        let best = |top: &TopTokens, row: usize| top.tokens[[row, 0]] as f32;
        let pos = self.n_pos();
        Array2::from_shape_fn((pos, pos), |(query, key)| match self.cell(query, key) {
            None => -1.0,
            Some(cell) => match feature {
                Feature::Input => self.input[key] as f32,
                Feature::Attn => self.attn[[query, key]],
                Feature::Qk => best(&self.qk, cell),
                Feature::Q => best(&self.q, key),
                Feature::K => best(&self.k, key),
                Feature::V => best(&self.v, key),
            },
        })
    }

    /// The attention tokens of a query, from the first key to its own position.
    pub(crate) fn tokens_of_query(&self, query: usize) -> Vec<u32> {
        let first = n_cells(query);
        self.qk.tokens.slice(s![first..=first + query, 0]).to_vec()
    }

    /// The attention token of every cell with key ≤ query, `None` elsewhere. Shape: → `[query_pos, key_pos]`.
    pub fn attention_tokens(&self) -> Array2<Option<u32>> {
        let pos = self.n_pos();
        Array2::from_shape_fn((pos, pos), |(query, key)| Some(self.qk.tokens[[self.cell(query, key)?, 0]]))
    }

    /// A token's text as it is, or `#` and its id where it has none.
    pub(crate) fn token_text(&self, token: u32) -> String {
        self.labels.text(token)
    }

    /// How a figure shows a token: its text, with `<nl>` for a newline, `<sp>` for a lone space, `<tab>` for a tab and
    /// `EOS` for `<|endoftext|>`. A token that has no text (no tokenizer, or an id beyond it) shows as `#` and its id.
    pub fn token_label(&self, token: u32) -> String {
        self.labels.label(token)
    }
}

/// The data of one head on every prompt of a cache, which must hold its layer's `Q`, `K`, `V` and `Pattern`.
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
/// [`Error::OutOfRange`] for a layer or head that the model does not have, [`Error::NotCached`] if the cache lacks
/// an activation, [`Error::Shape`] if it comes from a model of another shape, [`Error::Count`] if `top_k` is 0,
/// [`Error::Device`] if the device fails.
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

/// The data of some heads of a layer, in the order of `heads`.
fn heads_data(
    model: &Gpt2,
    cache: &ActivationCache,
    layer: usize,
    heads: &[usize],
    options: DecodeOptions,
) -> Result<Vec<HeadData>> {
    let DecodeOptions { projection, top_k } = options;
    check_count("DecodeOptions", "top_k", top_k, 1, None)?;
    check_index("layer", layer, "the model", model.config().n_layers)?;
    for &head in heads {
        check_index("head", head, "each layer", model.config().n_heads)?;
    }
    let mut vectors = heads.iter().map(|&head| vectors_of_head(model, cache, layer, head));
    let top = model.on_device().decode_heads(layer, heads, projection, top_k, &mut vectors)?;
    let data_of_head = |(&head, top): (&usize, TopTokens)| {
        let mut start = 0;
        let prompts = (0..cache.n_prompts()).map(|prompt| {
            let input = cache.tokens()[prompt].clone();
            let pattern = cache.view_of_prompt(prompt, Activation::Pattern, layer)?; // [n_heads, query_pos, key_pos]
            let attn = pattern.index_axis(Axis(0), head).to_owned();
            let mut next = |rows: usize| {
                start += rows;
                top.rows(start - rows..start)
            };
            Ok(PromptHeadData {
                layer,
                head,
                projection,
                attn: attn.into_dimensionality::<Ix2>().expect("a pattern has three axes"),
                qk: next(n_cells(input.len())),
                q: next(input.len()),
                k: next(input.len()),
                v: next(input.len()),
                input,
                labels: model.token_labels(),
            })
        });
        Ok(HeadData { layer, head, projection, prompts: prompts.collect::<Result<_>>()? })
    };
    heads.iter().zip(top).map(data_of_head).collect()
}

/// The best token of every cell of a head with key ≤ query, prompt by prompt and query by query, through any matrix `p` in place
/// of a projection's. Shape: `[d_head, d_model]` → `[cells of all prompts]`.
pub(crate) fn tokens_through(
    model: &Gpt2,
    cache: &ActivationCache,
    [layer, head]: [usize; 2],
    p: Array2<f32>,
) -> Result<Vec<u32>> {
    let vectors = vectors_of_head(model, cache, layer, head)?;
    let top = model.on_device().decode_through(p, &vectors, 1)?;
    let mut start = 0;
    let mut tokens = Vec::new();
    for prompt in cache.tokens() {
        let end = start + n_cells(prompt.len());
        tokens.extend(top.tokens.slice(s![start..end, 0]));
        start = end + 3 * prompt.len(); // behind the cells come q, k and v
    }
    Ok(tokens)
}

/// How many cells of a prompt have key ≤ query.
fn n_cells(pos: usize) -> usize {
    pos * (pos + 1) / 2
}

/// Everything of a head that is decoded, prompt by prompt: first `q ⊙ k` of the cells with key ≤ query, query by query,
/// then the `q`, `k` and `v` of each position.
fn vectors_of_head(model: &Gpt2, cache: &ActivationCache, layer: usize, head: usize) -> Result<Vectors> {
    let (n_heads, d_head) = (model.config().n_heads, model.config().d_head);
    let rows: usize = 3 * cache.tokens().iter().map(Vec::len).sum::<usize>();
    let ones = rows as u32; // behind the others
    let n: usize = cache.tokens().iter().map(|tokens| n_cells(tokens.len()) + 3 * tokens.len()).sum();
    let (mut table, mut pairs) = (Vec::with_capacity((rows + 1) * d_head), Vec::with_capacity(n));
    for prompt in 0..cache.n_prompts() {
        let of = |activation| -> Result<_> {
            let all = cache.view_of_prompt(prompt, activation, layer)?;
            let all = all.into_dimensionality::<Ix3>().expect("q, k and v have three axes"); // [pos, n_heads, d_head]
            if (all.dim().1, all.dim().2) != (n_heads, d_head) {
                return Err(Error::Shape {
                    what: "decoding a cache".into(),
                    axes: "[n_heads, d_head]",
                    expected: vec![n_heads, d_head],
                    found: vec![all.dim().1, all.dim().2],
                    hint: "a cache is decoded with the model that filled it",
                });
            }
            Ok(all.index_axis_move(Axis(1), head)) // [pos, d_head]
        };
        let first = (table.len() / d_head) as u32;
        for activation in [Activation::Q, Activation::K, Activation::V] {
            table.extend(of(activation)?); // [pos, d_head]
        }
        let pos = cache.tokens()[prompt].len() as u32;
        let (q, k) = (first, first + pos);
        pairs.extend((0..pos).flat_map(|query| (0..=query).map(move |key| [q + query, k + key])));
        pairs.extend((first..first + 3 * pos).map(|row| [row, ones]));
    }
    table.resize(table.len() + d_head, 1.0);
    let table = Array2::from_shape_vec((rows + 1, d_head), table).expect("as many rows as queries, keys and values");
    Ok(Vectors::new(table, pairs))
}

/// Replaces each value by the order of its first appearance, from 0, reading row by row. The −1 of masked cells is a
/// value like any other. Shape: `[rows, columns]` → the same.
///
/// ```
/// use attention_tokens::prelude::*;
/// use ndarray::arr2;
///
/// let tokens = arr2(&[[7.0, -1.0], [3.0, 7.0]]);
/// assert_eq!(unique_index_pattern(&tokens), arr2(&[[0.0, 1.0], [2.0, 0.0]]));
/// ```
pub fn unique_index_pattern(feature: &Array2<f32>) -> Array2<f32> {
    let mut order = std::collections::HashMap::new();
    feature.mapv(|value| {
        // By bits, so that NaN is a value too; −0 is 0.
        let next = order.len();
        *order.entry((value + 0.0).to_bits()).or_insert(next) as f32
    })
}
