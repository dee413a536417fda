//! Safetensors files in Hugging Face's GPT-2 naming → [`crate::Weights`] in TransformerLens' layout, piece by piece.
//!
//! This is the only file that knows Hugging Face's tensor names. A checkpoint is treated as hostile: every name,
//! shape, dtype, offset and number is checked, and a tensor is read only once its shape is known to be the one that
//! `config.json` promises, so a wrong header cannot make this allocate more than the model's own size.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, Array3, Axis, s};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata};

use crate::config::Gpt2Config;
use crate::error::{Error, Result};
use crate::memory;
use crate::weights::{BlockWeights, LayerNormWeights, UnembedWeights};

/// The safetensors format itself allows no larger header.
const LARGEST_HEADER: u64 = 100_000_000;
/// Tensors are read and converted in pieces of this many numbers, so a file never lies in memory as a whole.
const PIECE: usize = 1 << 17;

/// The unprocessed weights of a GPT-2 in one safetensors file or all its shards. Every name, shape and dtype is known to be
/// right; numbers are read when they are asked for.
pub(crate) struct Checkpoint {
    config: Gpt2Config,
    w_e: Entry,
    w_pos: Entry,
    blocks: Vec<BlockEntries>,
    ln_final: LayerNormEntries,
    /// None where it is `w_e`.
    lm_head: Option<Entry>,
}

impl Checkpoint {
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for a broken file, [`Error::Tensor`] for a tensor that is missing, unknown, there
    /// twice, misshapen, or of a dtype other than F32, F16 and BF16.
    pub(crate) fn open(paths: &[PathBuf], config: &Gpt2Config) -> Result<Self> {
        let mut headers = Headers::read(paths)?;
        let &Gpt2Config { d_model, n_ctx, d_vocab, n_layers, .. } = config;
        let checkpoint = Self {
            config: config.clone(),
            w_e: headers.take("wte.weight", &[d_vocab, d_model])?,
            w_pos: headers.take("wpe.weight", &[n_ctx, d_model])?,
            blocks: (0..n_layers).map(|layer| headers.block(layer, config)).collect::<Result<_>>()?,
            ln_final: headers.layer_norm("ln_f", d_model)?,
            lm_head: match config.tie_word_embeddings {
                true => headers.tensors.remove("lm_head.weight").and(None),
                false => Some(headers.take("lm_head.weight", &[d_vocab, d_model])?),
            },
        };
        headers.refuse_the_rest()?;
        Ok(checkpoint)
    }

    /// `w_e [d_vocab, d_model]` and `w_pos [n_ctx, d_model]`.
    ///
    /// # Errors
    /// Here and below: [`Error::Io`], and [`Error::Tensor`] for numbers that are not finite.
    pub(crate) fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)> {
        Ok((self.w_e.matrix()?, self.w_pos.matrix()?))
    }

    pub(crate) fn block(&self, layer: usize) -> Result<BlockWeights> {
        self.blocks[layer].read(&self.config)
    }

    /// The unembedding; its columns are contiguous, for that is how the file has it.
    pub(crate) fn unembed(&self) -> Result<UnembedWeights> {
        Ok(UnembedWeights {
            ln_final: Some(self.ln_final.read()?),
            w_u: self.lm_head.as_ref().unwrap_or(&self.w_e).matrix()?.reversed_axes(),
            b_u: Array1::zeros(self.config.d_vocab),
        })
    }
}

/// The shards that `model.safetensors.index.json` names, in its folder.
pub(crate) fn shards_of_index(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    const EXPECTED: &str = "a \"weight_map\" from tensor names to files of the same folder";
    let wrong = |found: String| Error::Format { path: index.into(), expected: EXPECTED.into(), found, source: None };
    let text = std::fs::read_to_string(index).map_err(Error::io(index))?;
    let map: Index = serde_json::from_str(&text).map_err(|error| Error::format(index, EXPECTED, error))?;
    let mut files: Vec<String> = map.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(wrong("no file".into()));
    }
    // A name with a folder in it could point anywhere on the machine.
    let plain =
        |name: &str| Path::new(name).components().count() == 1 && !name.contains(['/', '\\', ':']) && name != "..";
    if let Some(file) = files.iter().find(|file| !plain(file)) {
        return Err(wrong(format!("{file:?}")));
    }
    Ok(files)
}

/// What the headers of all files promise, and is not taken yet.
struct Headers {
    /// For messages about a tensor that none has.
    first_path: PathBuf,
    /// By name without the prefix `transformer.`.
    tensors: BTreeMap<String, Entry>,
}

/// A tensor of a file, as its header describes it.
struct Entry {
    name: String,
    path: PathBuf,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
}

struct LayerNormEntries {
    w: Entry,
    b: Entry,
}

struct BlockEntries {
    ln1: LayerNormEntries,
    c_attn: Entry,
    c_attn_bias: Entry,
    c_proj: Entry,
    c_proj_bias: Entry,
    ln2: LayerNormEntries,
    c_fc: Entry,
    c_fc_bias: Entry,
    mlp_c_proj: Entry,
    mlp_c_proj_bias: Entry,
}

impl Headers {
    fn read(paths: &[PathBuf]) -> Result<Self> {
        let first_path = paths.first().cloned().unwrap_or_default();
        let mut headers = Self { first_path, tensors: BTreeMap::new() };
        for path in paths {
            headers.add_file(path)?;
        }
        Ok(headers)
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let broken = |expected: &str, found: String| Error::Format {
            path: path.into(),
            expected: expected.into(),
            found,
            source: None,
        };
        let mut file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let mut header_len = [0; 8];
        if len < 8 {
            return Err(broken("a safetensors file", format!("a file of {len} bytes")));
        }
        file.read_exact(&mut header_len).map_err(Error::io(path))?;
        let header_len = u64::from_le_bytes(header_len);
        if header_len > LARGEST_HEADER || header_len > len - 8 {
            let found = format!("a header of {header_len} bytes in a file of {len}");
            return Err(broken("a safetensors header of at most 100000000 bytes that fits the file", found));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(Error::io(path))?;
        // This checks the offsets too: in order, without gaps or overlaps, as long as shape and dtype say.
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| Error::format(path, "a safetensors header", error))?;
        let data_start = 8 + header_len;
        let data_len = metadata.data_len() as u64;
        if data_start.checked_add(data_len) != Some(len) {
            let found = format!("{} bytes: it is truncated, or something was appended", len - data_start);
            return Err(broken(&format!("{data_len} bytes of tensor data after the header"), found));
        }
        for (name, info) in metadata.tensors() {
            let entry = Entry {
                path: path.into(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: data_start + info.data_offsets.0 as u64,
                name,
            };
            let key = entry.name.strip_prefix("transformer.").unwrap_or(&entry.name).to_owned();
            if let Some(other) = self.tensors.get(&key) {
                return Err(Error::Tensor {
                    path: path.into(),
                    expected: "each tensor once".into(),
                    found: format!("it again, as {}", other.name),
                    tensor: entry.name,
                });
            }
            self.tensors.insert(key, entry);
        }
        Ok(())
    }

    fn block(&mut self, layer: usize, config: &Gpt2Config) -> Result<BlockEntries> {
        let &Gpt2Config { d_model, d_mlp, .. } = config;
        let name = |part: &str| format!("h.{layer}.{part}");
        // Hugging Face's GPT-2 stores its four projections as Conv1D, [in, out]: the transpose of a torch Linear and
        // already the way they are used here, so none of them is transposed. (wte and lm_head are [d_vocab, d_model].)
        Ok(BlockEntries {
            ln1: self.layer_norm(&name("ln_1"), d_model)?,
            c_attn: self.take(&name("attn.c_attn.weight"), &[d_model, 3 * d_model])?,
            c_attn_bias: self.take(&name("attn.c_attn.bias"), &[3 * d_model])?,
            c_proj: self.take(&name("attn.c_proj.weight"), &[d_model, d_model])?,
            c_proj_bias: self.take(&name("attn.c_proj.bias"), &[d_model])?,
            ln2: self.layer_norm(&name("ln_2"), d_model)?,
            c_fc: self.take(&name("mlp.c_fc.weight"), &[d_model, d_mlp])?,
            c_fc_bias: self.take(&name("mlp.c_fc.bias"), &[d_mlp])?,
            mlp_c_proj: self.take(&name("mlp.c_proj.weight"), &[d_mlp, d_model])?,
            mlp_c_proj_bias: self.take(&name("mlp.c_proj.bias"), &[d_model])?,
        })
    }

    fn layer_norm(&mut self, name: &str, d_model: usize) -> Result<LayerNormEntries> {
        let mut of = |part: &str| self.take(&format!("{name}.{part}"), &[d_model]);
        Ok(LayerNormEntries { w: of("weight")?, b: of("bias")? })
    }

    /// Takes a tensor out of the checkpoint, its shape and dtype checked.
    fn take(&mut self, key: &str, shape: &[usize]) -> Result<Entry> {
        let Some(entry) = self.tensors.remove(key) else {
            return Err(Error::Tensor {
                path: self.first_path.clone(),
                tensor: key.into(),
                expected: format!("F32, F16 or BF16 of shape {shape:?}"),
                found: "no such tensor (with or without the prefix transformer.)".into(),
            });
        };
        if entry.shape != shape {
            let expected = format!("shape {shape:?}, as config.json says");
            return Err(entry.wrong(expected, format!("shape {:?}", entry.shape)));
        }
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(entry.wrong("dtype F32, F16 or BF16".into(), format!("{:?}", entry.dtype)));
        }
        Ok(entry)
    }

    /// Whatever is left must be a causal-mask buffer; anything else means that this is not the model it claims to be.
    fn refuse_the_rest(&self) -> Result<()> {
        let is_mask = |key: &str| {
            let rest = key.strip_prefix("h.").and_then(|rest| rest.split_once('.'));
            rest.is_some_and(|(layer, part)| {
                layer.parse::<usize>().is_ok() && matches!(part, "attn.bias" | "attn.masked_bias")
            })
        };
        match self.tensors.iter().find(|(key, _)| !is_mask(key)) {
            None => Ok(()),
            Some((_, entry)) => Err(Error::Tensor {
                path: entry.path.clone(),
                tensor: entry.name.clone(),
                expected: "only tensors of a GPT-2 with the layers that config.json says".into(),
                found: format!("this one, {:?} of shape {:?}", entry.dtype, entry.shape),
            }),
        }
    }
}

impl BlockEntries {
    fn read(&self, config: &Gpt2Config) -> Result<BlockWeights> {
        let &Gpt2Config { n_heads, d_model, d_head, .. } = config;
        let c_attn = self.c_attn.matrix()?; // [d_model, 3 d_model]
        let c_attn_bias = self.c_attn_bias.vector()?;
        // [d_model, n_heads d_head] → [n_heads, d_model, d_head]
        let heads_of = |third: usize| -> Array3<f32> {
            let mut heads = Array3::zeros((n_heads, d_model, d_head));
            let columns = c_attn.slice(s![.., third * d_model..(third + 1) * d_model]);
            for (mut head, columns) in heads.outer_iter_mut().zip(columns.axis_chunks_iter(Axis(1), d_head)) {
                head.assign(&columns);
            }
            heads
        };
        let bias_of = |third: usize| -> Array2<f32> {
            let bias = c_attn_bias.slice(s![third * d_model..(third + 1) * d_model]).to_owned();
            bias.into_shape_with_order((n_heads, d_head)).expect("d_model = n_heads d_head")
        };
        let w_o = self.c_proj.matrix()?;
        Ok(BlockWeights {
            ln1: Some(self.ln1.read()?),
            w_q: heads_of(0),
            b_q: bias_of(0),
            w_k: heads_of(1),
            b_k: bias_of(1),
            w_v: heads_of(2),
            b_v: bias_of(2),
            w_o: w_o.into_shape_with_order((n_heads, d_head, d_model)).expect("d_model = n_heads d_head"),
            b_o: self.c_proj_bias.vector()?,
            ln2: Some(self.ln2.read()?),
            w_in: self.c_fc.matrix()?,
            b_in: self.c_fc_bias.vector()?,
            w_out: self.mlp_c_proj.matrix()?,
            b_out: self.mlp_c_proj_bias.vector()?,
        })
    }
}

impl LayerNormEntries {
    fn read(&self) -> Result<LayerNormWeights> {
        Ok(LayerNormWeights { w: self.w.vector()?, b: self.b.vector()? })
    }
}

impl Entry {
    fn wrong(&self, expected: String, found: String) -> Error {
        Error::Tensor { path: self.path.clone(), tensor: self.name.clone(), expected, found }
    }

    fn vector(&self) -> Result<Array1<f32>> {
        Ok(self.values()?.into())
    }

    fn matrix(&self) -> Result<Array2<f32>> {
        let shape = (self.shape[0], self.shape[1]);
        Ok(Array2::from_shape_vec(shape, self.values()?).expect("as many values as the shape has"))
    }

    /// The numbers, all finite.
    fn values(&self) -> Result<Vec<f32>> {
        let mut values = memory::zeros(self.shape.iter().product());
        values.par_chunks_mut(PIECE).enumerate().try_for_each(|(piece, values)| {
            self.read(piece * PIECE, values)?;
            // Counting takes vector operations, where searching would take one number after the other.
            if values.iter().map(|value| u32::from(!value.is_finite())).sum::<u32>() == 0 {
                return Ok(());
            }
            let at = values.iter().position(|value| !value.is_finite()).expect("there is one");
            let found = format!("{} at index {}", values[at], piece * PIECE + at);
            Err(self.wrong("finite numbers".into(), found))
        })?;
        Ok(values)
    }

    /// Fills `values` with those that begin at index `first` of the tensor.
    fn read(&self, first: usize, values: &mut [f32]) -> Result<()> {
        let width = self.dtype.bitsize() / 8;
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.start + (first * width) as u64)).map_err(Error::io(&self.path))?;
        if self.dtype == Dtype::F32 {
            file.read_exact(bytemuck::cast_slice_mut(values)).map_err(Error::io(&self.path))?;
            if cfg!(target_endian = "big") {
                values.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
            }
            return Ok(());
        }
        let mut bytes = vec![0; width * values.len()];
        file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        match self.dtype {
            Dtype::F16 => convert(&bytes, values, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => convert(&bytes, values, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
            _ => unreachable!("`take` refuses every other dtype"),
        }
        Ok(())
    }
}

fn convert<const WIDTH: usize>(bytes: &[u8], values: &mut [f32], number: impl Fn([u8; WIDTH]) -> f32) {
    let (numbers, _) = bytes.as_chunks::<WIDTH>();
    values.iter_mut().zip(numbers).for_each(|(value, bytes)| *value = number(*bytes));
}
