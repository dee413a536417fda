//! Decodes the activations of a run into head data.

use ndarray::Array2;

use super::head_data::{HeadData, PromptHeadData};
use super::streams::{HeadRows, Part, Stream, cells_of_keys};
use crate::decode::{ColumnChange, Map, Projection, Ranking, Reading, TopTokens, matrix};
use crate::error::{Result, check_count, check_index};
use crate::model::{ActivationCache, Gpt2};

/// How to decode a head. By default through [`Projection::Notebook`], with the bias of the unembedding as in the original
/// notebook, and with the best token only.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let options = DecodeOptions::default().projection(Projection::Ov).unembed_bias(false).top_k(2);
/// # assert_eq!(options, DecodeOptions { reading: Reading::OV.unembed_bias(false), top_k: 2 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// How a cell is read as a token.
    pub reading: Reading,
    /// Number of tokens for each vector, best first; at least 1.
    pub top_k: usize,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { reading: Reading::default(), top_k: 1 }
    }
}

impl From<Reading> for DecodeOptions {
    fn from(reading: Reading) -> Self {
        Self { reading, ..Self::default() }
    }
}

impl DecodeOptions {
    /// Sets [`reading`](Self::reading).
    pub fn reading(mut self, reading: impl Into<Reading>) -> Self {
        self.reading = reading.into();
        self
    }

    /// Sets the projection of [`reading`](Self::reading).
    pub fn projection(mut self, projection: Projection) -> Self {
        self.reading.projection = projection;
        self
    }

    /// Sets [`top_k`](Self::top_k).
    pub fn top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Sets whether [`reading`](Self::reading) adds the bias of the unembedding.
    pub fn unembed_bias(mut self, unembed_bias: bool) -> Self {
        self.reading.unembed_bias = unembed_bias;
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
    let DecodeOptions { reading, top_k } = options;
    check_count("DecodeOptions", "top_k", top_k, 1, None)?;
    check_index("layer", layer, "the model", model.config().n_layers)?;
    for &head in heads {
        check_index("head", head, "each layer", model.config().n_heads)?;
    }
    cache.check_model(model, "decoding a cache")?;
    let decoded = decode(model, cache, layer, heads, options)?;
    let data_of_head = |(&head, decoded): (&usize, DecodedHead)| {
        let DecodedHead { attn, qk, lowest, q, k, v } = decoded;
        let mut lowest = lowest.map(Vec::into_iter);
        let parts = attn.into_iter().zip(qk).zip(q).zip(k).zip(v);
        let prompts = parts.enumerate().map(|(prompt, ((((attn, qk), q), k), v))| PromptHeadData {
            layer,
            head,
            reading,
            attn,
            qk,
            q,
            k,
            v,
            lowest: lowest.as_mut().and_then(Iterator::next),
            input: cache.tokens()[prompt].clone(),
            interventions: cache.interventions(),
            model: model.name().to_owned(),
            labels: model.token_labels(),
        });
        HeadData { layer, head, reading, prompts: prompts.collect() }
    };
    Ok(heads.iter().zip(decoded).map(data_of_head).collect())
}

/// The tokens of a head, prompt by prompt.
struct DecodedHead {
    /// Shape: `[prompt] [query_pos, key_pos]`.
    attn: Vec<Array2<f32>>,
    /// Shape: `[prompt] [n_cells, k]`.
    qk: Vec<TopTokens>,
    /// Shape: `[prompt] [n_cells, k]`.
    lowest: Option<Vec<TopTokens>>,
    /// Shape: each `[prompt] [pos, k]`.
    q: Vec<TopTokens>,
    k: Vec<TopTokens>,
    v: Vec<TopTokens>,
}

/// Decodes heads of a layer, after checks. Shape: `[n]` → `[n]`.
fn decode(
    model: &Gpt2,
    cache: &ActivationCache,
    layer: usize,
    heads: &[usize],
    DecodeOptions { reading, top_k }: DecodeOptions,
) -> Result<Vec<DecodedHead>> {
    let rows = rows_of_heads(model, cache, layer, heads, reading)?;
    let streams_of = |(&head, rows): (&usize, &HeadRows)| Stream::of_reading([layer, head], reading, rows);
    let streams: Vec<Vec<Stream>> = heads.iter().zip(&rows).map(streams_of).collect();
    let decoded = decode_streams(model, [layer, top_k], heads, &rows, &streams, reading)?;
    let decoded = rows.into_iter().zip(&streams).zip(decoded);
    Ok(decoded.map(|((rows, streams), tops)| DecodedHead::new(rows, streams, tops, reading)).collect())
}

/// The queries, keys and values of heads of a layer, in the basis of a reading. Shape: `heads [n]` → `[n]`.
fn rows_of_heads(
    model: &Gpt2,
    cache: &ActivationCache,
    layer: usize,
    heads: &[usize],
    reading: Reading,
) -> Result<Vec<HeadRows>> {
    let rows_of = |&head: &usize| {
        let change = ColumnChange::of_reading([layer, head], reading.basis, reading.signs, model.config().d_head);
        Ok(HeadRows::new(cache, layer, head)?.with_values_in(&change))
    };
    heads.iter().map(rows_of).collect()
}

/// The tokens of streams of heads of a layer: the highest ones of each stream, and the lowest ones of each negated stream.
/// Shape: `heads [n]`, `streams [n] [stream]` → `[n]`.
fn decode_streams(
    model: &Gpt2,
    [layer, top_k]: [usize; 2],
    heads: &[usize],
    rows: &[HeadRows],
    streams: &[Vec<Stream>],
    reading: Reading,
) -> Result<Vec<(Vec<TopTokens>, Vec<TopTokens>)>> {
    let ranking = Ranking::new(top_k, reading.unembed_bias);
    let needs_matched = streams.iter().flatten().any(|stream| stream.id.map == Map::Matched);
    let matched = if needs_matched { model.on_device().matched_coordinates(layer, heads)? } else { Vec::new() };
    let decode_all = |negated: bool| -> Result<Vec<Vec<TopTokens>>> {
        let (mut ids, mut batches, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (streams, rows)) in streams.iter().zip(rows).enumerate() {
            for stream in streams.iter().filter(|stream| stream.id.negated == negated) {
                let of_stream = stream.batches(model, rows, matched.get(index).map(|matched| &**matched))?;
                counts.push((index, of_stream.len()));
                ids.extend(std::iter::repeat_n(stream.id, of_stream.len()));
                batches.extend(of_stream);
            }
        }
        let ranking = if negated { ranking.negated() } else { ranking };
        let mut vectors = batches.into_iter().map(|batch| Ok(batch()));
        let mut tops = model.on_device().decode_heads(&ids, ranking, &mut vectors)?.into_iter();
        let mut by_head = vec![Vec::new(); heads.len()];
        for (index, n) in counts {
            by_head[index].push(TopTokens::concatenated(tops.by_ref().take(n).collect()));
        }
        Ok(by_head)
    };
    let highest = decode_all(false)?;
    let lowest =
        if reading.projection == Projection::Written { decode_all(true)? } else { vec![Vec::new(); heads.len()] };
    Ok(highest.into_iter().zip(lowest).collect())
}

/// The tokens of the cells of one query of a head, from the first key to the query's own position.
pub(crate) struct RowTokens {
    /// Shape: `[query + 1]`.
    pub(crate) highest: Vec<u32>,
    /// The tokens with the lowest logits, of [`Projection::Written`]. Shape: `[query + 1]`.
    pub(crate) lowest: Option<Vec<u32>>,
}

/// The tokens of one query of every head of a layer, which are those of [`layer_data`] and take less time. The cache is of one
/// prompt. Shape: → `[n_heads]`.
pub(crate) fn tokens_of_row(
    model: &Gpt2,
    cache: &ActivationCache,
    layer: usize,
    query: usize,
    reading: Reading,
) -> Result<Vec<RowTokens>> {
    cache.check_model(model, "decoding a cache")?;
    let heads: Vec<usize> = (0..model.config().n_heads).collect();
    let rows = rows_of_heads(model, cache, layer, &heads, reading)?;
    let streams_of = |(&head, rows): (&usize, &HeadRows)| Stream::of_row([layer, head], reading, rows, query);
    let streams: Vec<Vec<Stream>> = heads.iter().zip(&rows).map(streams_of).collect();
    let decoded = decode_streams(model, [layer, 1], &heads, &rows, &streams, reading)?;
    // Of all values, those up to the query.
    let best = |top: &TopTokens| top.tokens.column(0).iter().take(query + 1).copied().collect();
    let tokens = |(highest, lowest): &(Vec<TopTokens>, Vec<TopTokens>)| RowTokens {
        highest: best(&highest[0]),
        lowest: lowest.first().map(best),
    };
    Ok(decoded.iter().map(tokens).collect())
}

impl DecodedHead {
    /// Takes the parts out of what was decoded: the highest tokens of the streams, and the lowest of the negated ones.
    fn new(
        rows: HeadRows,
        streams: &[Stream],
        (highest, lowest): (Vec<TopTokens>, Vec<TopTokens>),
        reading: Reading,
    ) -> Self {
        let of_streams = |tops: &[TopTokens], negated: bool, part: Part| {
            let own = streams.iter().filter(|stream| stream.id.negated == negated);
            own.zip(tops).find_map(|(stream, top)| rows.of_part(top, &stream.parts, part))
        };
        let cells = |tops: &[TopTokens], negated: bool| {
            of_streams(tops, negated, Part::Cells).or_else(|| {
                let keys = of_streams(tops, negated, Part::V)?;
                let cells = |(keys, attn): (&TopTokens, &Array2<f32>)| cells_of_keys(keys, attn, reading.normalized);
                Some(keys.iter().zip(&rows.attn).map(cells).collect::<Vec<_>>())
            })
        };
        let lowest = cells(&lowest, true).map(|tops| tops.into_iter().map(TopTokens::into_lowest).collect());
        let qk = cells(&highest, false).expect("a reading decodes cells or values");
        let [q, k, v] = [Part::Q, Part::K, Part::V]
            .map(|part| of_streams(&highest, false, part).expect("a reading decodes q, k and v"));
        Self { qk, lowest, q, k, v, attn: rows.attn }
    }
}

/// The attention token of every cell of a head with key ≤ query, prompt by prompt and query by query, with `W_V`, `W_O` and
/// the values in another basis. Shape: → `[cells of all prompts]`.
pub(crate) fn tokens_in_basis(
    model: &Gpt2,
    cache: &ActivationCache,
    [layer, head]: [usize; 2],
    projection: Projection,
    change: &ColumnChange,
) -> Result<Vec<u32>> {
    cache.check_model(model, "decoding a cache")?;
    let rows = HeadRows::new(cache, layer, head)?.with_values_in(change);
    let stream = Stream::of_cells([layer, head], projection);
    let (w_v, w_o) = (change.of_columns(&model.w_v(layer, head)?), change.of_rows(&model.w_o(layer, head)?));
    let on_device = model.on_device();
    let (mut basis, mut coordinates) = (None, None);
    if stream.id.map == Map::Matched {
        basis = on_device.matched_bases(layer, &[head])?.pop();
        coordinates = on_device.matched_coordinates(layer, &[head])?.pop();
    }
    let p = matrix(stream.id.map, &w_v, &w_o, basis.as_ref()).mapv(|x| x as f32);
    let mut tokens = Vec::new();
    for batch in stream.batches(model, &rows, coordinates.as_deref())? {
        let top = on_device.decode_through(p.clone(), &batch(), Ranking::new(1, true))?;
        tokens.extend(top.tokens.column(0));
    }
    Ok(tokens)
}
