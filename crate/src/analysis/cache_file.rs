//! Caches as safetensors files with TransformerLens' names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array2, ArrayD, ArrayViewD, Axis, IxDyn, Slice};
use safetensors::tensor::{Dtype, View, serialize_to_file};

use crate::error::{Error, Result, shortened};
use crate::files::replace;
use crate::model::{Activation, ActivationCache, FREEZE_LAYER_NORM, Gpt2};
use crate::pretrained::{Header, TensorEntry, read_header};

/// The name of the token ids.
const TOKENS: &str = "tokens";
/// The name of the interventions in the metadata, and what separates them there.
const INTERVENTIONS: (&str, &str) = ("interventions", "; ");
/// The longest text of an intervention, in bytes, several times that of any. They are in the titles of figures.
const MAX_INTERVENTION: usize = 4096;
/// The token id behind the end of a shorter prompt.
const PADDING: i64 = -1;

impl ActivationCache {
    /// Writes the cache as a safetensors file with TransformerLens' names, which
    /// [`read_safetensors`](Self::read_safetensors) and Python read.
    ///
    /// | name | dtype, shape | |
    /// |---|---|---|
    /// | `tokens` | int64 `[batch, pos]` | the token ids; −1 behind shorter prompts |
    /// | `blocks.0.attn.hook_q`, … | float32 `[batch, …]` | every activation that the cache holds, by its [`hook_name`](Activation::hook_name), in the shape that [`Activation`] lists behind the batch; 0 behind shorter prompts |
    /// | `hook_embed`, `hook_pos_embed` | float32 `[batch, pos, d_model]` | the embeddings |
    /// | `blocks.0.ln1.hook_scale`, `blocks.0.ln2.hook_scale`, `ln_final.hook_scale` | float32 `[batch, pos, 1]` | the scales of the layer norms, where the cache holds the residual stream before them |
    ///
    /// The metadata has the `interventions` of the run, in words, if there were any: a cache that is read back has them
    /// too, and the analysis knows which activations they changed.
    ///
    /// In Python: `ActivationCache(safetensors.torch.load_file(path), model)`. The scores, the heads' results and the
    /// neurons of a full cache, which a run does not store, are most of the file: choose activations with
    /// [`RunOptions`](crate::RunOptions).
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let options = RunOptions::default().activations([Activation::Z, Activation::Pattern]);
    /// let (_, cache) = model.run_with_cache_options(["The bus is late.", "No bus."], options)?;
    /// let folder = tempfile::tempdir()?;
    /// cache.write_safetensors(&model, folder.path().join("cache.safetensors"))?;
    /// let read = ActivationCache::read_safetensors(&model, folder.path().join("cache.safetensors"))?;
    /// assert_eq!(read.prompt(1)?.get(Activation::Z, 3)?, cache.prompt(1)?.get(Activation::Z, 3)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] for a cache of another model, [`Error::Write`], naming the file, and those of
    /// [`get`](Self::get).
    pub fn write_safetensors(&self, model: &Gpt2, path: impl AsRef<Path>) -> Result<()> {
        self.check_model(model, "write_safetensors")?;
        self.write(model, path.as_ref())
    }

    fn write(&self, model: &Gpt2, path: &Path) -> Result<()> {
        let prompts = (0..self.n_prompts()).map(|prompt| self.prompt(prompt)).collect::<Result<Vec<_>>>()?;
        let mut small: BTreeMap<String, Vec<ArrayD<f32>>> = BTreeMap::new();
        for cache in &prompts {
            let mut add = |name: String, array: ArrayD<f32>| small.entry(name).or_default().push(array);
            let (embed, pos_embed) = cache.embeddings(model)?;
            add("hook_embed".into(), embed.into_dyn());
            add("hook_pos_embed".into(), pos_embed.into_dyn());
            for &(layer, activation) in &cache.held() {
                let (name, scale) = match activation {
                    Activation::ResidPre => (format!("blocks.{layer}.ln1"), cache.ln1_scale(model, layer)?),
                    Activation::ResidMid => (format!("blocks.{layer}.ln2"), cache.ln2_scale(model, layer)?),
                    Activation::ResidPost if layer + 1 == self.n_layers() => {
                        ("ln_final".into(), cache.ln_final_scale(model)?)
                    }
                    _ => continue,
                };
                add(format!("{name}.hook_scale"), scale.insert_axis(Axis(1)).into_dyn());
            }
        }
        let mut tensors = vec![(TOKENS.to_owned(), Tensor::Tokens(self.padded_tokens()))];
        for (name, arrays) in &small {
            tensors.push((name.clone(), Tensor::padded(arrays.iter().map(|array| array.view()).collect())));
        }
        for &(layer, activation) in &self.held() {
            let arrays = prompts.iter().map(|cache| cache.view(activation, layer)).collect::<Result<_>>()?;
            tensors.push((activation.hook_name(layer), Tensor::padded(arrays)));
        }
        // `None` leaves the metadata out of the header.
        let metadata = (!self.interventions().is_empty())
            .then(|| HashMap::from([(INTERVENTIONS.0.to_owned(), self.interventions().join(INTERVENTIONS.1))]));
        replace(path, |path| serialize_to_file(tensors, metadata, path))
    }

    /// Shape: → `[batch, pos]`.
    fn padded_tokens(&self) -> Array2<i64> {
        let longest = self.tokens().iter().map(Vec::len).max().unwrap_or(0);
        Array2::from_shape_fn((self.n_prompts(), longest), |(prompt, pos)| {
            self.tokens()[prompt].get(pos).map_or(PADDING, |&token| token.into())
        })
    }

    /// Reads a file that [`write_safetensors`](Self::write_safetensors) or Python wrote. It must have the `tokens`; other
    /// tensors with a hook's name that this crate has no activation for are ignored. The model is the one that filled the
    /// cache. A row of tokens ends at the first −1. A file without `interventions` in its metadata is that of an unchanged
    /// run.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for a file that is not safetensors, or whose `interventions` have control
    /// characters; [`Error::Tensor`] for a tensor whose name is no
    /// hook's, that has another dtype or shape than the model's activation, or a number that is not finite (−∞ is a
    /// masked score), and for tokens that the model does not have.
    pub fn read_safetensors(model: &Gpt2, path: impl AsRef<Path>) -> Result<Self> {
        read(model, path.as_ref())
    }
}

fn read(model: &Gpt2, path: &Path) -> Result<ActivationCache> {
    let header = read_header(path)?;
    let interventions = read_interventions(&header, path)?;
    let mut entries: BTreeMap<String, TensorEntry> =
        header.tensors.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let tokens = entries.remove(TOKENS).ok_or_else(|| Error::Tensor {
        path: path.into(),
        tensor: TOKENS.into(),
        expected: "int64 token ids of shape [batch, pos]".into(),
        found: "no such tensor".into(),
    })?;
    let tokens = read_tokens(model, &tokens)?;
    let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
    let n_layers = model.config().n_layers;
    let known: BTreeMap<String, (usize, Activation)> = (0..n_layers)
        .flat_map(|layer| Activation::ALL.map(|activation| (activation.hook_name(layer), (layer, activation))))
        .collect();
    let mut cache = ActivationCache::of_model(model, tokens).with_interventions(&interventions);
    for (name, entry) in &entries {
        if let Some(&(layer, activation)) = known.get(name) {
            let array = read_activation(model, entry, activation, [cache.n_prompts(), longest])?;
            for prompt in 0..cache.n_prompts() {
                let len = cache.tokens()[prompt].len();
                let array = without_padding(array.index_axis(Axis(0), prompt), activation, len);
                cache.insert_array(prompt, activation, layer, array);
            }
        } else if let Some(reads) = held_layer_norm(name, &interventions, n_layers) {
            let scales = read_scales(entry, [cache.n_prompts(), longest])?; // [batch, pos]
            for prompt in 0..cache.n_prompts() {
                for position in 0..cache.tokens()[prompt].len() {
                    cache.hold_scale(prompt, reads, position, scales[[prompt, position]]);
                }
            }
        } else if !is_other_hook(name, n_layers) {
            let expected = format!("tokens, and hooks of a model with {n_layers} layers by TransformerLens' names");
            return Err(entry.error(expected, "another name".into()));
        }
    }
    Ok(cache)
}

/// The interventions of the run, in words.
fn read_interventions(header: &Header, path: &Path) -> Result<Vec<Arc<str>>> {
    let Some(text) = header.metadata.get(INTERVENTIONS.0) else { return Ok(Vec::new()) };
    let invalid = |found: String| Error::Format {
        path: path.into(),
        expected: format!("interventions in words, each of at most {MAX_INTERVENTION} bytes, in the metadata"),
        found,
        source: None,
    };
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{:?}", shortened(text))));
    }
    let texts = || text.split(INTERVENTIONS.1).filter(|text| !text.is_empty());
    if let Some(long) = texts().find(|text| text.len() > MAX_INTERVENTION) {
        return Err(invalid(format!("one of {} bytes", long.len())));
    }
    Ok(texts().map(Arc::from).collect())
}

/// The token ids of each prompt. Shape: → `[prompt][pos]`.
fn read_tokens(model: &Gpt2, entry: &TensorEntry) -> Result<Vec<Vec<u32>>> {
    let (n_ctx, d_vocab) = (model.config().n_ctx, model.config().d_vocab);
    let [batch, pos] = entry.shape[..] else {
        return Err(entry.error("shape [batch, pos]".into(), format!("shape {:?}", entry.shape)));
    };
    if entry.dtype != Dtype::I64 {
        return Err(entry.error("dtype I64".into(), format!("{:?}", entry.dtype)));
    }
    if batch == 0 || !(1..=n_ctx).contains(&pos) {
        let expected = format!("at least one prompt of 1 to {n_ctx} tokens, the model's context");
        return Err(entry.error(expected, format!("shape {:?}", entry.shape)));
    }
    let mut prompts = Vec::with_capacity(batch);
    for (prompt, row) in entry.integers()?.chunks_exact(pos).enumerate() {
        let len = row.iter().position(|&token| token == PADDING).unwrap_or(pos);
        let is_token = |token: &i64| (0..d_vocab as i64).contains(token);
        let wrong = row[..len].iter().find(|token| !is_token(token));
        let wrong = wrong.or_else(|| row[len..].iter().find(|&&token| token != PADDING));
        if len == 0 || wrong.is_some() {
            let found = wrong.map_or_else(|| "none".into(), |token| token.to_string());
            let expected = format!("token ids from 0 to {}, then only {PADDING}, in row {prompt}", d_vocab - 1);
            return Err(entry.error(expected, found));
        }
        prompts.push(row[..len].iter().map(|&token| token as u32).collect());
    }
    Ok(prompts)
}

/// Shape: → `[batch, …]`, padded.
fn read_activation(
    model: &Gpt2,
    entry: &TensorEntry,
    activation: Activation,
    [batch, pos]: [usize; 2],
) -> Result<ArrayD<f32>> {
    let config = model.config();
    let of_prompt = match activation {
        Activation::AttnScores | Activation::Pattern => vec![config.n_heads, pos, pos],
        Activation::Q | Activation::K | Activation::V | Activation::Z => vec![pos, config.n_heads, config.d_head],
        Activation::Result => vec![pos, config.n_heads, config.d_model],
        Activation::MlpPre | Activation::MlpPost => vec![pos, config.d_mlp],
        _ => vec![pos, config.d_model],
    };
    let shape: Vec<usize> = std::iter::once(batch).chain(of_prompt).collect();
    if entry.shape != shape {
        return Err(entry.error(format!("shape {shape:?}"), format!("shape {:?}", entry.shape)));
    }
    let masked = activation == Activation::AttnScores;
    let values = entry.numbers(|value| value.is_finite() || (masked && value == f32::NEG_INFINITY))?;
    Ok(ArrayD::from_shape_vec(shape, values).expect("as many values as the shape has"))
}

/// The activation that a layer norm reads, if the name is that of its scale, and interventions held it: the scale is then
/// not that of the residual stream.
fn held_layer_norm(name: &str, interventions: &[Arc<str>], n_layers: usize) -> Option<(usize, Activation)> {
    use Activation::{ResidMid, ResidPost, ResidPre};
    let points = (0..n_layers).flat_map(|layer| [(layer, ResidPre), (layer, ResidMid), (layer, ResidPost)]);
    let mut named = points.filter(|&(layer, reads)| {
        name == match reads {
            ResidPre => format!("blocks.{layer}.ln1.hook_scale"),
            ResidMid => format!("blocks.{layer}.ln2.hook_scale"),
            _ if layer + 1 == n_layers => "ln_final.hook_scale".into(),
            _ => return false,
        }
    });
    named.next().filter(|&(layer, reads)| {
        let held = format!("{FREEZE_LAYER_NORM} {}", reads.hook_name(layer));
        interventions
            .iter()
            .any(|text| text.strip_prefix(&held).is_some_and(|rest| rest.is_empty() || rest.starts_with(',')))
    })
}

/// Shape: → `[batch, pos]`.
fn read_scales(entry: &TensorEntry, [batch, pos]: [usize; 2]) -> Result<Array2<f32>> {
    let shape = [batch, pos, 1];
    if entry.shape != shape {
        return Err(entry.error(format!("shape {shape:?}"), format!("shape {:?}", entry.shape)));
    }
    let values = entry.numbers(f32::is_finite)?;
    Ok(Array2::from_shape_vec((batch, pos), values).expect("as many values as the shape has"))
}

/// The first positions of an activation of one prompt. Shape: as [`Activation`] lists → the same, of `len` positions.
fn without_padding(array: ArrayViewD<f32>, activation: Activation, len: usize) -> ArrayD<f32> {
    let axes: &[usize] = match activation {
        Activation::AttnScores | Activation::Pattern => &[1, 2],
        _ => &[0],
    };
    let mut array = array;
    for &axis in axes {
        array.slice_axis_inplace(Axis(axis), Slice::from(..len));
    }
    array.to_owned()
}

/// Whether a name is that of a hook that TransformerLens has and this crate has no activation for.
fn is_other_hook(name: &str, n_layers: usize) -> bool {
    let layer = name.strip_prefix("blocks.").map(|rest| rest.split('.').next().unwrap_or_default().parse::<usize>());
    let exists = layer.is_none_or(|layer| layer.is_ok_and(|layer| layer < n_layers));
    exists && name.rsplit('.').next().is_some_and(|last| last.starts_with("hook_"))
}

/// A tensor of the file, which is put together when it is written.
enum Tensor<'a> {
    /// Shape: `[batch, pos]`.
    Tokens(Array2<i64>),
    /// The arrays of the prompts, and the shape of all together: `[batch, …]`, as large as the largest.
    Padded(Vec<ArrayViewD<'a, f32>>, Vec<usize>),
}

impl<'a> Tensor<'a> {
    fn padded(arrays: Vec<ArrayViewD<'a, f32>>) -> Self {
        let n_axes = arrays.first().map_or(0, |array| array.ndim());
        let largest = |axis: usize| arrays.iter().map(|array| array.shape()[axis]).max().unwrap_or(0);
        let shape = std::iter::once(arrays.len()).chain((0..n_axes).map(largest)).collect();
        Self::Padded(arrays, shape)
    }
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Tokens(_) => Dtype::I64,
            Self::Padded(..) => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Tokens(tokens) => tokens.shape(),
            Self::Padded(_, shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Tokens(tokens) => tokens.iter().flat_map(|token| token.to_le_bytes()).collect(),
            Self::Padded(arrays, shape) => {
                let mut padded = ArrayD::<f32>::zeros(IxDyn(shape));
                for (mut padded, array) in padded.outer_iter_mut().zip(arrays) {
                    for (axis, &len) in array.shape().iter().enumerate() {
                        padded.slice_axis_inplace(Axis(axis), Slice::from(..len));
                    }
                    padded.assign(array);
                }
                let bits: Vec<u32> = padded.into_iter().map(|value| value.to_bits().to_le()).collect();
                bytemuck::cast_slice(&bits).to_vec().into()
            }
        }
    }

    fn data_len(&self) -> usize {
        self.shape().iter().product::<usize>() * self.dtype().bitsize() / 8
    }
}
