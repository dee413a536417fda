//! A GPT-2 checkpoint in Hugging Face's format with random weights, reproducible from a seed.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

/// The sizes of a model.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) n_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) d_model: usize,
    pub(crate) d_vocab: usize,
    pub(crate) n_ctx: usize,
}

pub(crate) const GPT2_SMALL: Sizes = Sizes { n_layers: 12, n_heads: 12, d_model: 768, d_vocab: 50257, n_ctx: 1024 };

/// Writes `config.json` and `model.safetensors`. The weights are normally distributed, with standard deviations roughly
/// those of a trained GPT-2.
pub(crate) fn write(folder: &Path, sizes: Sizes, seed: u64) -> Result<(), Box<dyn Error>> {
    let Sizes { n_layers, n_heads, d_model, d_vocab, n_ctx } = sizes;
    let config = json!({
        "model_type": "gpt2", "vocab_size": d_vocab, "n_positions": n_ctx, "n_embd": d_model, "n_layer": n_layers,
        "n_head": n_heads, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "bos_token_id": d_vocab - 1,
        "eos_token_id": d_vocab - 1, "tie_word_embeddings": true,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;

    let mut random = fastrand::Rng::with_seed(seed);
    // The sum of four uniform numbers is close to a normal distribution, and the same on every machine.
    let mut normal = |n: usize, mean: f32, deviation: f32| -> Vec<u8> {
        let numbers = (0..n).map(|_| {
            let sum: f32 = (0..4).map(|_| random.f32() - 0.5).sum();
            mean + deviation * sum * 3_f32.sqrt()
        });
        numbers.flat_map(f32::to_le_bytes).collect()
    };
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize], mean: f32, deviation: f32| {
        let values = normal(shape.iter().product(), mean, deviation);
        tensors.insert(name, (shape.to_vec(), values));
    };
    add("wte.weight".into(), &[d_vocab, d_model], 0.0, 0.14);
    add("wpe.weight".into(), &[n_ctx, d_model], 0.0, 0.05);
    for layer in 0..n_layers {
        let mut linear = |name: &str, from: usize, to: usize, deviation: f32| {
            add(format!("h.{layer}.{name}.weight"), &[from, to], 0.0, deviation);
            add(format!("h.{layer}.{name}.bias"), &[to], 0.0, 0.05);
        };
        linear("attn.c_attn", d_model, 3 * d_model, 0.14);
        linear("attn.c_proj", d_model, d_model, 0.1);
        linear("mlp.c_fc", d_model, 4 * d_model, 0.12);
        linear("mlp.c_proj", 4 * d_model, d_model, 0.08);
        for norm in ["ln_1", "ln_2"] {
            add(format!("h.{layer}.{norm}.weight"), &[d_model], 0.5, 0.1);
            add(format!("h.{layer}.{norm}.bias"), &[d_model], 0.0, 0.05);
        }
    }
    add("ln_f.weight".into(), &[d_model], 1.0, 0.1);
    add("ln_f.bias".into(), &[d_model], 0.0, 0.05);
    let views = tensors.iter().map(|(name, (shape, values))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), values)?;
        Ok((name.clone(), view))
    });
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors"))?;
    Ok(())
}

/// Random token ids, reproducible from the number of prompts and their length. Shape: → `[batch, length]`.
pub(crate) fn prompts(batch: usize, length: usize, d_vocab: usize) -> Vec<Vec<u32>> {
    let mut random = fastrand::Rng::with_seed((batch * 100_000 + length) as u64);
    (0..batch).map(|_| (0..length).map(|_| random.u32(..d_vocab as u32)).collect()).collect()
}
