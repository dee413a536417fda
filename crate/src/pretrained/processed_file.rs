//! Processed weights as a safetensors file with TransformerLens' names, which loads without being processed again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use ndarray::{Array1, Array2, Array3, ArrayBase, Data, Dimension};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use super::files::{CONFIG, ModelFiles};
use super::tensor_entry::{Header, TensorEntry, read_header};
use crate::config::Gpt2Config;
use crate::error::{Error, Result, shortened};
use crate::files::replace;
use crate::weights::{BlockWeights, LayerNormWeights, Processing, RawWeights, UnembedWeights, Weights};

/// The name of the file in the folder of a model.
pub(crate) const PROCESSED: &str = "processed.safetensors";

/// The steps that the weights went through, in the metadata.
const STEPS: &str = "processing";

/// Saves processed weights in a folder, with copies of the other files of the model that they are of.
///
/// # Errors
/// [`Error::Write`] for a folder that holds another model or cannot be written to, [`Error::Io`] if a file cannot be read,
/// and those of `weights`.
pub(crate) fn save_processed(
    folder: &Path,
    model: &ModelFiles,
    steps: Processing,
    weights: impl FnOnce() -> Result<Weights>,
) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| Error::write(folder, error))?;
    // What an earlier call has written may be replaced, nothing else.
    let names = model.beside_weights().into_iter().filter_map(|file| file.file_name());
    let mut replaced = names.chain([CONFIG.as_ref()]).map(|name| folder.join(name)).filter(|path| path.exists());
    if !folder.join(PROCESSED).is_file()
        && let Some(file) = replaced.next()
    {
        let found =
            format!("it holds another model, of which is {}: choose a folder that is new or empty", file.display());
        return Err(Error::write(folder, found));
    }
    write(&folder.join(PROCESSED), &weights()?, steps)?;
    for from in model.beside_weights() {
        let to = folder.join(from.file_name().expect("the path of a file"));
        if fs::canonicalize(from).is_ok_and(|from| fs::canonicalize(&to).is_ok_and(|to| from == to)) {
            continue; // it was loaded from this folder
        }
        let bytes = fs::read(from).map_err(Error::io(from))?;
        replace(&to, |path| fs::write(path, bytes))?;
    }
    Ok(())
}

/// Writes processed weights.
///
/// # Errors
/// [`Error::Write`], naming the file.
fn write(path: &Path, weights: &Weights, steps: Processing) -> Result<()> {
    let mut tensors = vec![tensor("embed.W_E", &weights.w_e), tensor("pos_embed.W_pos", &weights.w_pos)];
    for (layer, block) in weights.blocks.iter().enumerate() {
        let name = |part: &str| format!("blocks.{layer}.{part}");
        for (norm, ln) in [("ln1", &block.ln1), ("ln2", &block.ln2)] {
            tensors.extend(ln.iter().flat_map(|ln| layer_norm(&name(norm), ln)));
        }
        tensors.extend([
            tensor(name("attn.W_Q"), &block.w_q),
            tensor(name("attn.b_Q"), &block.b_q),
            tensor(name("attn.W_K"), &block.w_k),
            tensor(name("attn.b_K"), &block.b_k),
            tensor(name("attn.W_V"), &block.w_v),
            tensor(name("attn.b_V"), &block.b_v),
            tensor(name("attn.W_O"), &block.w_o),
            tensor(name("attn.b_O"), &block.b_o),
            tensor(name("mlp.W_in"), &block.w_in),
            tensor(name("mlp.b_in"), &block.b_in),
            tensor(name("mlp.W_out"), &block.w_out),
            tensor(name("mlp.b_out"), &block.b_out),
        ]);
    }
    tensors.extend(weights.ln_final.iter().flat_map(|ln| layer_norm("ln_final", ln)));
    tensors.extend([tensor("unembed.W_U", &weights.w_u), tensor("unembed.b_U", &weights.b_u)]);
    let metadata = HashMap::from([(STEPS.to_owned(), steps.names().join(","))]);
    replace(path, |path| {
        let mut views = Vec::new();
        for (name, shape, bytes) in &tensors {
            views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
        }
        serialize_to_file(views, Some(metadata), path)
    })
}

/// A tensor's name, shape and bytes in the order of the file.
type Tensor<'a> = (String, Vec<usize>, Cow<'a, [u8]>);

fn tensor<S: Data<Elem = f32>, D: Dimension>(name: impl Into<String>, array: &ArrayBase<S, D>) -> Tensor<'_> {
    let bytes = match array.as_slice() {
        Some(values) if cfg!(target_endian = "little") => bytemuck::cast_slice(values).into(),
        _ => array.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    (name.into(), array.shape().to_vec(), bytes)
}

fn layer_norm<'a>(name: &str, ln: &'a LayerNormWeights) -> [Tensor<'a>; 2] {
    [tensor(format!("{name}.w"), &ln.w), tensor(format!("{name}.b"), &ln.b)]
}

/// The processed weights of a file, whose names, shapes and dtypes were checked when it was opened.
pub(crate) struct ProcessedFile {
    entries: BTreeMap<String, TensorEntry>,
    folded: bool,
}

impl ProcessedFile {
    /// Reads and checks the header of a file whose weights went through the steps that are asked for.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a broken file, or one with other steps; [`Error::Tensor`] for a tensor that is
    /// missing, that no processed GPT-2 has, or of another shape or dtype.
    pub(crate) fn open(path: &Path, config: &Gpt2Config, asked: Processing) -> Result<Self> {
        let Header { tensors, metadata } = read_header(path)?;
        let steps = metadata.get(STEPS).map(|text| Processing::from_names(text).ok_or(text));
        let format_error =
            |expected: String, found: String| Err(Error::Format { path: path.into(), expected, found, source: None });
        let steps = match steps {
            Some(Ok(steps)) => steps,
            Some(Err(text)) => {
                let expected = format!("steps of {:?} in its metadata", Processing::default().names());
                return format_error(expected, format!("{:?}", shortened(text)));
            }
            None => {
                return format_error(format!("{STEPS:?} in its metadata, as save_processed writes it"), "none".into());
            }
        };
        if steps != asked {
            let words = |steps: Processing| match steps.names()[..] {
                [] => "no processing".to_owned(),
                ref names => names.join(", "),
            };
            return format_error(
                format!("weights with {}, which LoadOptions ask for", words(asked)),
                format!(
                    "weights with {}; ask for these steps, or load the model that they were made from",
                    words(steps)
                ),
            );
        }
        // The names are made for each layer that config.json asks for, which may be millions.
        if tensors.len() < config.n_layers {
            return format_error(
                format!("the tensors of {} layers, as config.json says", config.n_layers),
                format!("{} tensors", tensors.len()),
            );
        }
        let mut entries: BTreeMap<String, TensorEntry> = BTreeMap::new();
        let mut missing = shapes(config, steps.fold_ln);
        for entry in tensors {
            let Some(shape) = missing.remove(&entry.name) else {
                let expected = format!("only tensors of a processed GPT-2 of {} layers", config.n_layers);
                return Err(entry.error(expected, format!("{:?} of shape {:?}", entry.dtype, entry.shape)));
            };
            if entry.shape != shape || !entry.has_floats() {
                let expected = format!("F32, F16, BF16 or F64 of shape {shape:?}, as config.json says");
                return Err(entry.error(expected, format!("{:?} of shape {:?}", entry.dtype, entry.shape)));
            }
            entries.insert(entry.name.clone(), entry);
        }
        if let Some((tensor, shape)) = missing.into_iter().next() {
            let expected = format!("F32, F16, BF16 or F64 of shape {shape:?}");
            return Err(Error::Tensor { path: path.into(), tensor, expected, found: "no such tensor".into() });
        }
        Ok(Self { entries, folded: steps.fold_ln })
    }

    fn vector(&self, name: &str) -> Result<Array1<f32>> {
        self.entries[name].vector()
    }

    fn matrix(&self, name: &str) -> Result<Array2<f32>> {
        self.entries[name].matrix()
    }

    /// The weights of all heads of a layer.
    fn heads(&self, name: &str) -> Result<Array3<f32>> {
        let entry = &self.entries[name];
        let shape = [entry.shape[0], entry.shape[1], entry.shape[2]];
        Ok(entry.vector()?.into_shape_with_order(shape).expect("as many values as the shape has"))
    }

    /// `None` if layer norms are folded.
    fn layer_norm(&self, name: &str) -> Result<Option<LayerNormWeights>> {
        if self.folded {
            return Ok(None);
        }
        Ok(Some(LayerNormWeights { w: self.vector(&format!("{name}.w"))?, b: self.vector(&format!("{name}.b"))? }))
    }
}

/// Errors are [`Error::Io`], and [`Error::Tensor`] for numbers that are not finite.
impl RawWeights for ProcessedFile {
    fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)> {
        Ok((self.matrix("embed.W_E")?, self.matrix("pos_embed.W_pos")?))
    }

    fn block(&self, layer: usize) -> Result<BlockWeights> {
        let name = |part: &str| format!("blocks.{layer}.{part}");
        Ok(BlockWeights {
            ln1: self.layer_norm(&name("ln1"))?,
            w_q: self.heads(&name("attn.W_Q"))?,
            b_q: self.matrix(&name("attn.b_Q"))?,
            w_k: self.heads(&name("attn.W_K"))?,
            b_k: self.matrix(&name("attn.b_K"))?,
            w_v: self.heads(&name("attn.W_V"))?,
            b_v: self.matrix(&name("attn.b_V"))?,
            w_o: self.heads(&name("attn.W_O"))?,
            b_o: self.vector(&name("attn.b_O"))?,
            ln2: self.layer_norm(&name("ln2"))?,
            w_in: self.matrix(&name("mlp.W_in"))?,
            b_in: self.vector(&name("mlp.b_in"))?,
            w_out: self.matrix(&name("mlp.W_out"))?,
            b_out: self.vector(&name("mlp.b_out"))?,
        })
    }

    fn unembed(&self) -> Result<UnembedWeights> {
        Ok(UnembedWeights {
            ln_final: self.layer_norm("ln_final")?,
            w_u: self.entries["unembed.W_U"].transposed_matrix()?.reversed_axes(),
            b_u: self.vector("unembed.b_U")?,
        })
    }
}

/// The tensors of a processed GPT-2 and their shapes.
fn shapes(config: &Gpt2Config, folded: bool) -> BTreeMap<String, Vec<usize>> {
    let &Gpt2Config { n_layers, n_heads, d_model, d_head, d_mlp, d_vocab, n_ctx, .. } = config;
    let layer_norm = |name: &str| [(format!("{name}.w"), vec![d_model]), (format!("{name}.b"), vec![d_model])];
    let mut shapes = BTreeMap::from([
        ("embed.W_E".to_owned(), vec![d_vocab, d_model]),
        ("pos_embed.W_pos".to_owned(), vec![n_ctx, d_model]),
        ("unembed.W_U".to_owned(), vec![d_model, d_vocab]),
        ("unembed.b_U".to_owned(), vec![d_vocab]),
    ]);
    for layer in 0..n_layers {
        let of_block = [
            ("attn.W_Q", vec![n_heads, d_model, d_head]),
            ("attn.b_Q", vec![n_heads, d_head]),
            ("attn.W_K", vec![n_heads, d_model, d_head]),
            ("attn.b_K", vec![n_heads, d_head]),
            ("attn.W_V", vec![n_heads, d_model, d_head]),
            ("attn.b_V", vec![n_heads, d_head]),
            ("attn.W_O", vec![n_heads, d_head, d_model]),
            ("attn.b_O", vec![d_model]),
            ("mlp.W_in", vec![d_model, d_mlp]),
            ("mlp.b_in", vec![d_mlp]),
            ("mlp.W_out", vec![d_mlp, d_model]),
            ("mlp.b_out", vec![d_model]),
        ];
        shapes.extend(of_block.map(|(part, shape)| (format!("blocks.{layer}.{part}"), shape)));
        if !folded {
            shapes.extend(["ln1", "ln2"].into_iter().flat_map(|ln| layer_norm(&format!("blocks.{layer}.{ln}"))));
        }
    }
    if !folded {
        shapes.extend(layer_norm("ln_final"));
    }
    shapes
}
