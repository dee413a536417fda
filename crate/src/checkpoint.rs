//! Safetensors files in Hugging Face's GPT-2 naming → [`Weights`] in TransformerLens' layout.
//!
//! This is the only file that knows Hugging Face's tensor names. A checkpoint is treated as hostile: every name,
//! shape, dtype, offset and number is checked, and a tensor is read only once its shape is known to be the one that
//! `config.json` promises, so a wrong header cannot make this allocate more than the model's own size.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, Array3, ArrayD, Ix1, Ix2, s};
use safetensors::tensor::{Dtype, Metadata};

use crate::config::Gpt2Config;
use crate::error::{Error, Result};
use crate::weights::{BlockWeights, LayerNormWeights, Weights};

/// The safetensors format itself allows no larger header.
const LARGEST_HEADER: u64 = 100_000_000;
/// Tensors are read and converted in pieces of this many bytes, so a file never lies in memory as a whole.
const PIECE: usize = 1 << 20;

/// Reads the unprocessed weights of a GPT-2 from one safetensors file or from all its shards.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] for a broken file, [`Error::Tensor`] for a tensor that is missing, unknown,
/// there twice, misshapen, of a dtype other than F32, F16 and BF16, or not finite.
pub(crate) fn load(paths: &[PathBuf], config: &Gpt2Config) -> Result<Weights> {
    let mut checkpoint = Checkpoint::open(paths)?;
    let &Gpt2Config { d_model, n_ctx, d_vocab, .. } = config;

    let w_e: Array2<f32> = checkpoint.matrix("wte.weight", [d_vocab, d_model])?;
    let w_pos = checkpoint.matrix("wpe.weight", [n_ctx, d_model])?;
    let blocks = (0..config.n_layers).map(|layer| checkpoint.block(layer, config)).collect::<Result<_>>()?;
    let ln_final = Some(checkpoint.layer_norm("ln_f", d_model)?);
    let w_u = if config.tied {
        checkpoint.tensors.remove("lm_head.weight");
        w_e.t().as_standard_layout().into_owned()
    } else {
        let lm_head = checkpoint.matrix("lm_head.weight", [d_vocab, d_model])?;
        lm_head.t().as_standard_layout().into_owned()
    };
    checkpoint.refuse_the_rest()?;
    Ok(Weights { w_e, w_pos, blocks, ln_final, w_u, b_u: Array1::zeros(d_vocab) })
}

/// The shards that `model.safetensors.index.json` names, in its folder.
pub(crate) fn shards_of_index(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |found: String| Error::Format {
        path: index.into(),
        expected: "a \"weight_map\" from tensor names to files of the same folder".into(),
        found,
    };
    let text = std::fs::read_to_string(index).map_err(Error::io(index))?;
    let map: Index = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
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

struct Checkpoint {
    files: Vec<OpenFile>,
    /// By name without the prefix `transformer.`.
    tensors: BTreeMap<String, Entry>,
}

struct OpenFile {
    path: PathBuf,
    file: File,
}

struct Entry {
    name: String,
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
}

impl Checkpoint {
    fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut checkpoint = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for path in paths {
            checkpoint.add_file(path)?;
        }
        Ok(checkpoint)
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let broken =
            |expected: &str, found: String| Error::Format { path: path.into(), expected: expected.into(), found };
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
            serde_json::from_slice(&header).map_err(|error| broken("a safetensors header", error.to_string()))?;
        let data_start = 8 + header_len;
        let data_len = metadata.data_len() as u64;
        if data_start.checked_add(data_len) != Some(len) {
            let found = format!("{} bytes: it is truncated, or something was appended", len - data_start);
            return Err(broken(&format!("{data_len} bytes of tensor data after the header"), found));
        }
        let index = self.files.len();
        for (name, info) in metadata.tensors() {
            let entry = Entry {
                file: index,
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
        self.files.push(OpenFile { path: path.into(), file });
        Ok(())
    }

    fn block(&mut self, layer: usize, config: &Gpt2Config) -> Result<BlockWeights> {
        let &Gpt2Config { n_heads, d_model, d_head, d_mlp, .. } = config;
        let name = |part: &str| format!("h.{layer}.{part}");
        // Hugging Face's GPT-2 stores its four projections as Conv1D, [in, out]: the transpose of a torch Linear and
        // already the way they are used here, so none of them is transposed. (wte and lm_head are [d_vocab, d_model].)
        let c_attn = self.matrix(&name("attn.c_attn.weight"), [d_model, 3 * d_model])?;
        let c_attn_bias = self.vector(&name("attn.c_attn.bias"), 3 * d_model)?;
        let c_proj = self.matrix(&name("attn.c_proj.weight"), [d_model, d_model])?;
        // [d_model, n_heads d_head] → [n_heads, d_model, d_head]
        let heads_of = |third: usize| -> Array3<f32> {
            let columns = c_attn.slice(s![.., third * d_model..(third + 1) * d_model]);
            let columns = columns.to_shape((d_model, n_heads, d_head)).expect("d_model = n_heads d_head");
            columns.permuted_axes([1, 0, 2]).as_standard_layout().into_owned()
        };
        let bias_of = |third: usize| -> Array2<f32> {
            let bias = c_attn_bias.slice(s![third * d_model..(third + 1) * d_model]).to_owned();
            bias.into_shape_with_order((n_heads, d_head)).expect("d_model = n_heads d_head")
        };
        Ok(BlockWeights {
            ln1: Some(self.layer_norm(&name("ln_1"), d_model)?),
            w_q: heads_of(0),
            b_q: bias_of(0),
            w_k: heads_of(1),
            b_k: bias_of(1),
            w_v: heads_of(2),
            b_v: bias_of(2),
            w_o: c_proj.into_shape_with_order((n_heads, d_head, d_model)).expect("d_model = n_heads d_head"),
            b_o: self.vector(&name("attn.c_proj.bias"), d_model)?,
            ln2: Some(self.layer_norm(&name("ln_2"), d_model)?),
            w_in: self.matrix(&name("mlp.c_fc.weight"), [d_model, d_mlp])?,
            b_in: self.vector(&name("mlp.c_fc.bias"), d_mlp)?,
            w_out: self.matrix(&name("mlp.c_proj.weight"), [d_mlp, d_model])?,
            b_out: self.vector(&name("mlp.c_proj.bias"), d_model)?,
        })
    }

    fn layer_norm(&mut self, name: &str, d_model: usize) -> Result<LayerNormWeights> {
        Ok(LayerNormWeights {
            w: self.vector(&format!("{name}.weight"), d_model)?,
            b: self.vector(&format!("{name}.bias"), d_model)?,
        })
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Array1<f32>> {
        Ok(self.take(name, &[len])?.into_dimensionality::<Ix1>().expect("the shape was checked"))
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Array2<f32>> {
        Ok(self.take(name, &shape)?.into_dimensionality::<Ix2>().expect("the shape was checked"))
    }

    /// Takes a tensor out of the checkpoint, checked.
    fn take(&mut self, key: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        let Some(entry) = self.tensors.remove(key) else {
            return Err(Error::Tensor {
                path: self.files.first().map(|file| file.path.clone()).unwrap_or_default(),
                tensor: key.into(),
                expected: format!("F32, F16 or BF16 of shape {shape:?}"),
                found: "no such tensor (with or without the prefix transformer.)".into(),
            });
        };
        let OpenFile { path, file } = &mut self.files[entry.file];
        let wrong = |expected: String, found: String| Error::Tensor {
            path: path.clone(),
            tensor: entry.name.clone(),
            expected,
            found,
        };
        if entry.shape != shape {
            let expected = format!("shape {shape:?}, as config.json says");
            return Err(wrong(expected, format!("shape {:?}", entry.shape)));
        }
        let (width, convert): (usize, fn(&[u8]) -> f32) = match entry.dtype {
            Dtype::F32 => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Dtype::F16 => (2, |b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
            Dtype::BF16 => (2, |b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            other => return Err(wrong("dtype F32, F16 or BF16".into(), format!("{other:?}"))),
        };
        let len = shape.iter().product::<usize>();
        let mut values = Vec::with_capacity(len);
        let mut piece = vec![0; PIECE];
        file.seek(SeekFrom::Start(entry.start)).map_err(Error::io(path.as_path()))?;
        while values.len() < len {
            let bytes = &mut piece[..PIECE.min((len - values.len()) * width)];
            file.read_exact(bytes).map_err(Error::io(path.as_path()))?;
            values.extend(bytes.chunks_exact(width).map(convert));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(wrong("finite numbers".into(), format!("{} at index {at}", values[at])));
        }
        Ok(ArrayD::from_shape_vec(shape, values).expect("as many values as the shape has"))
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
                path: self.files[entry.file].path.clone(),
                tensor: entry.name.clone(),
                expected: "only tensors of a GPT-2 with the layers that config.json says".into(),
                found: format!("this one, {:?} of shape {:?}", entry.dtype, entry.shape),
            }),
        }
    }
}
