//! A GPT-2 checkpoint in Hugging Face's naming → [`crate::Weights`] in TransformerLens' layout, one block at a time.
//!
//! This is the only file with Hugging Face's tensor names and the list of weights that are stored transposed. A
//! checkpoint is treated as hostile: every name, shape, dtype, offset and number is checked, and a tensor is read only
//! if its shape is the one that `config.json` implies, so that a wrong header cannot cause an allocation larger than
//! the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ndarray::{Array1, Array2, Array3, Axis, s};
use safetensors::tensor::Dtype;

use super::tensor_entry::{TensorEntry, read_header};
use crate::config::Gpt2Config;
use crate::error::{Error, Result};
use crate::weights::{BlockWeights, LayerNormWeights, UnembedWeights};

/// The names of the token embedding, and of the unembedding where it is another matrix.
const W_E: &str = "wte.weight";
const LM_HEAD: &str = "lm_head.weight";

/// The prefixes of names that are taken off, as often as there are any: Hugging Face's own, and those of wrappers
/// (`torch.compile`, `DistributedDataParallel`, training libraries).
const HUGGING_FACE_PREFIX: &str = "transformer.";
const WRAPPER_PREFIXES: [&str; 3] = ["_orig_mod.", "module.", "model."];

/// The unprocessed weights of a GPT-2, in one safetensors file or all its shards. Names, shapes and dtypes were checked
/// when it was opened; numbers are read on demand.
pub(crate) struct Checkpoint {
    config: Gpt2Config,
    w_e: TensorEntry,
    w_pos: TensorEntry,
    blocks: Vec<BlockEntries>,
    ln_final: LayerNormEntries,
    /// `None` if the unembedding is the transposed embedding.
    lm_head: Option<TensorEntry>,
}

impl Checkpoint {
    /// Reads and checks the headers of the files.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for a broken file, [`Error::Tensor`] for a tensor that is missing, unknown,
    /// duplicated, of the wrong shape, or of a dtype other than F64, F32, F16 and BF16.
    ///
    /// Lines on stderr report what is unusual and was accepted: prefixes of names, ignored heads.
    pub(crate) fn open(paths: &[PathBuf], config: &Gpt2Config) -> Result<Self> {
        let mut headers = Headers::read(paths)?;
        let &Gpt2Config { d_model, n_ctx, d_vocab, n_layers, .. } = config;
        let embedding_shape = [d_vocab, d_model];
        // Of the two names of a tied matrix, safetensors stores one.
        let has = |name: &str| headers.tensors.contains_key(name);
        let w_e = if config.tie_word_embeddings && !has(W_E) && has(LM_HEAD) { LM_HEAD } else { W_E };
        let checkpoint = Self {
            config: config.clone(),
            w_e: headers.take(w_e, &embedding_shape)?,
            w_pos: headers.take("wpe.weight", &[n_ctx, d_model])?,
            blocks: (0..n_layers).map(|layer| headers.block(layer, config)).collect::<Result<_>>()?,
            ln_final: headers.layer_norm("ln_f", d_model)?,
            lm_head: if config.tie_word_embeddings { None } else { Some(headers.take(LM_HEAD, &embedding_shape)?) },
        };
        if config.tie_word_embeddings
            && let Some(head) = headers.tensors.remove(LM_HEAD)
            && !head.has_values_of(&checkpoint.w_e)?
        {
            let (file, embedding) = (head.path.display(), &checkpoint.w_e.name);
            eprintln!(
                "{file}: {} has other numbers than {embedding}, and is ignored: config.json ties them",
                head.name
            );
        }
        headers.report_prefixes();
        headers.reject_or_ignore_rest()?;
        Ok(checkpoint)
    }

    /// `W_E` and `W_pos`. Shape: → `[d_vocab, d_model]`, `[n_ctx, d_model]`.
    ///
    /// # Errors
    /// Here and below: [`Error::Io`], and [`Error::Tensor`] for numbers that are not finite.
    pub(crate) fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)> {
        Ok((self.w_e.matrix()?, self.w_pos.matrix()?))
    }

    /// The weights of one block, in the shapes of [`BlockWeights`].
    pub(crate) fn block(&self, layer: usize) -> Result<BlockWeights> {
        self.blocks[layer].read(&self.config)
    }

    /// The unembedding, with the shapes of [`UnembedWeights`]. The columns of `w_u` are contiguous, because the file
    /// stores `W_Uᵀ`.
    pub(crate) fn unembed(&self) -> Result<UnembedWeights> {
        Ok(UnembedWeights {
            ln_final: Some(self.ln_final.read()?),
            w_u: self.lm_head.as_ref().unwrap_or(&self.w_e).matrix()?.reversed_axes(),
            b_u: Array1::zeros(self.config.d_vocab),
        })
    }
}

/// The tensors of all files that no part of the model has taken yet.
struct Headers {
    /// The file to name in the error for a tensor that no file has.
    first_path: PathBuf,
    /// Tensors by name without prefixes.
    tensors: BTreeMap<String, TensorEntry>,
    /// The prefixes of wrappers that were taken off.
    prefixes: BTreeSet<String>,
}

/// The tensors of a layer norm.
struct LayerNormEntries {
    w: TensorEntry,
    b: TensorEntry,
}

/// The tensors of a block. Fields have the names of the checkpoint.
struct BlockEntries {
    ln1: LayerNormEntries,
    c_attn: TensorEntry,
    c_attn_bias: TensorEntry,
    c_proj: TensorEntry,
    c_proj_bias: TensorEntry,
    ln2: LayerNormEntries,
    c_fc: TensorEntry,
    c_fc_bias: TensorEntry,
    mlp_c_proj: TensorEntry,
    mlp_c_proj_bias: TensorEntry,
}

impl Headers {
    /// Reads the headers of all files.
    fn read(paths: &[PathBuf]) -> Result<Self> {
        let first_path = paths.first().cloned().unwrap_or_default();
        let mut headers = Self { first_path, tensors: BTreeMap::new(), prefixes: BTreeSet::new() };
        for path in paths {
            read_header(path)?.into_iter().try_for_each(|entry| headers.add(entry))?;
        }
        Ok(headers)
    }

    /// Adds a tensor under its name without prefixes.
    fn add(&mut self, entry: TensorEntry) -> Result<()> {
        let mut key = entry.name.as_str();
        while let Some(rest) =
            WRAPPER_PREFIXES.iter().chain([&HUGGING_FACE_PREFIX]).find_map(|prefix| key.strip_prefix(prefix))
        {
            key = rest;
        }
        let prefix = &entry.name[..entry.name.len() - key.len()];
        if let Some(other) = self.tensors.get(key) {
            return Err(entry.error("each tensor once".into(), format!("it again, as {}", other.name)));
        }
        let of_wrappers = prefix.replace(HUGGING_FACE_PREFIX, "");
        if !of_wrappers.is_empty() {
            self.prefixes.insert(of_wrappers);
        }
        self.tensors.insert(key.to_owned(), entry);
        Ok(())
    }

    /// Reports the prefixes of wrappers.
    fn report_prefixes(&self) {
        if !self.prefixes.is_empty() {
            let prefixes: Vec<&str> = self.prefixes.iter().map(String::as_str).collect();
            let file = self.first_path.display();
            eprintln!("{file}: the names of its tensors were read without the prefix {}", prefixes.join(" and "));
        }
    }

    /// Takes the tensors of a block.
    fn block(&mut self, layer: usize, config: &Gpt2Config) -> Result<BlockEntries> {
        let &Gpt2Config { d_model, d_mlp, .. } = config;
        let name = |part: &str| format!("h.{layer}.{part}");
        // Hugging Face's GPT-2 stores its four linear layers c_attn, c_proj, c_fc and mlp.c_proj as Conv1D: [in, out],
        // the transpose of a torch Linear. That is the layout used here, so none is transposed. (wte and lm_head are
        // [d_vocab, d_model].)
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

    /// Takes the tensors of a layer norm.
    fn layer_norm(&mut self, name: &str, d_model: usize) -> Result<LayerNormEntries> {
        let mut vector = |part: &str| self.take(&format!("{name}.{part}"), &[d_model]);
        Ok(LayerNormEntries { w: vector("weight")?, b: vector("bias")? })
    }

    /// Takes a tensor, and checks its shape and dtype.
    fn take(&mut self, key: &str, shape: &[usize]) -> Result<TensorEntry> {
        let Some(entry) = self.tensors.remove(key) else {
            return Err(Error::Tensor {
                path: self.first_path.clone(),
                tensor: key.into(),
                expected: format!("F32, F16, BF16 or F64 of shape {shape:?}"),
                found: "no such tensor (with or without a prefix such as transformer.)".into(),
            });
        };
        if entry.shape != shape {
            let expected = format!("shape {shape:?}, as config.json says");
            return Err(entry.error(expected, format!("shape {:?}", entry.shape)));
        }
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) {
            let found = format!("{:?}; quantized checkpoints must be converted first", entry.dtype);
            return Err(entry.error("dtype F32, F16, BF16 or F64".into(), found));
        }
        Ok(entry)
    }

    /// Rejects tensors that were not taken and that a GPT-2 does not have: the files are then not the model of
    /// `config.json`. Buffers that some checkpoints hold are ignored, and further heads too, with a line.
    fn reject_or_ignore_rest(&self) -> Result<()> {
        let rest = self.tensors.iter().filter(|(key, _)| !is_buffer(key));
        let (heads, others): (Vec<_>, Vec<_>) = rest.partition(|(key, _)| is_further_head(key));
        if let Some((key, entry)) = others.first() {
            let of_block = key.starts_with("h.");
            let problem = if of_block {
                "which GPT-2's layers do not have, or more layers than config.json says"
            } else {
                "which GPT-2 does not have: is this another kind of model?"
            };
            return Err(Error::Tensor {
                path: entry.path.clone(),
                tensor: entry.name.clone(),
                expected: "only tensors of a GPT-2 with the layers that config.json says".into(),
                found: format!("this one, {:?} of shape {:?}, {problem}", entry.dtype, entry.shape),
            });
        }
        if let Some((_, first)) = heads.first() {
            let names: Vec<&str> = heads.iter().map(|(_, entry)| entry.name.as_str()).take(4).collect();
            let more = if heads.len() > 4 { format!(" and {} more", heads.len() - 4) } else { String::new() };
            eprintln!("{}: ignored {}{more}: no part of the language model", first.path.display(), names.join(", "));
        }
        Ok(())
    }
}

/// Whether a tensor is a causal mask or a list of positions, which old versions of transformers stored.
fn is_buffer(key: &str) -> bool {
    let rest = key.strip_prefix("h.").and_then(|rest| rest.split_once('.'));
    let is_mask = rest.is_some_and(|(layer, part)| {
        layer.parse::<usize>().is_ok() && matches!(part, "attn.bias" | "attn.masked_bias")
    });
    is_mask || key == "position_ids"
}

/// Whether a tensor belongs to a head beside or in place of the language model's, which reads the last residual stream:
/// a value head of reinforcement learning, a classifier, the bias of a head.
fn is_further_head(key: &str) -> bool {
    let module = key.split('.').next().unwrap_or_default();
    module.ends_with("_head") || matches!(module, "score" | "classifier" | "qa_outputs" | "summary" | "head" | "heads")
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
