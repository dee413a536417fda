//! A GPT-2 checkpoint in Hugging Face's naming → [`crate::Weights`] in TransformerLens' layout, one block at a time.
//!
//! This is the only file with Hugging Face's tensor names and the list of weights that are stored transposed;
//! [`tensor_names`](super::tensor_names) takes off what other programs put in front of them. A checkpoint is treated
//! as hostile: every name, shape, dtype, offset and number is checked, and a tensor is read only if its shape is the
//! one that `config.json` implies, so that a wrong header cannot cause an allocation larger than the model.

use std::path::PathBuf;

use ndarray::{Array1, Array2, Array3, Axis, s};

use super::headers::Headers;
use super::tensor_entry::TensorEntry;
use super::tensor_names::LM_HEAD;
use crate::config::Gpt2Config;
use crate::error::{Result, shown};
use crate::weights::{BlockWeights, LayerNormWeights, RawWeights, UnembedWeights};

/// The name of the token embedding.
const W_E: &str = "wte.weight";

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
    /// [`Error::Io`](crate::Error::Io), [`Error::Format`](crate::Error::Format) for a broken file or one of several
    /// models, [`Error::Tensor`](crate::Error::Tensor) for a tensor that is missing, unknown,
    /// duplicated, of the wrong shape, or of a dtype other than F64, F32, F16 and BF16.
    ///
    /// Lines on stderr report what is unusual and was accepted: prefixes of names, ignored heads.
    pub(crate) fn open(paths: &[PathBuf], config: &Gpt2Config) -> Result<Self> {
        let mut headers = Headers::read(paths, config.n_layers)?;
        let &Gpt2Config { d_model, n_ctx, d_vocab, n_layers, .. } = config;
        let embedding_shape = [d_vocab, d_model];
        // Of the two names of a tied matrix, safetensors stores one.
        let is_tied = config.tie_word_embeddings && !headers.has(W_E) && headers.has(LM_HEAD);
        let w_e = if is_tied { LM_HEAD } else { W_E };
        let checkpoint = Self {
            config: config.clone(),
            w_e: headers.take(w_e, &embedding_shape)?,
            w_pos: headers.take("wpe.weight", &[n_ctx, d_model])?,
            blocks: (0..n_layers).map(|layer| headers.block(layer, config)).collect::<Result<_>>()?,
            ln_final: headers.layer_norm("ln_f", d_model)?,
            lm_head: if config.tie_word_embeddings { None } else { Some(headers.take(LM_HEAD, &embedding_shape)?) },
        };
        if config.tie_word_embeddings
            && let Some(head) = headers.take_unchecked(LM_HEAD)
            && !head.has_values_of(&checkpoint.w_e)?
        {
            let (file, names) = (head.path.display(), [&head, &checkpoint.w_e].map(|entry| shown(&entry.name)));
            let [name, embedding] = names;
            eprintln!("{file}: {name} has other numbers than {embedding}, and is ignored: config.json ties them");
        }
        headers.report_prefixes();
        headers.reject_or_ignore_rest()?;
        Ok(checkpoint)
    }
}

/// Errors are [`Error::Io`](crate::Error::Io), and [`Error::Tensor`](crate::Error::Tensor) for numbers that are not finite.
impl RawWeights for Checkpoint {
    fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)> {
        Ok((self.w_e.matrix()?, self.w_pos.matrix()?))
    }

    fn block(&self, layer: usize) -> Result<BlockWeights> {
        self.blocks[layer].read(&self.config)
    }

    fn unembed(&self) -> Result<UnembedWeights> {
        Ok(UnembedWeights {
            ln_final: Some(self.ln_final.read()?),
            // The file stores W_Uᵀ.
            w_u: self.lm_head.as_ref().unwrap_or(&self.w_e).matrix()?.reversed_axes(),
            b_u: Array1::zeros(self.config.d_vocab),
        })
    }
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
