//! A GPT-2 of a few hundred numbers, so that thousands of files are loaded in a second.

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

const D_MODEL: usize = 4;
const N_CTX: usize = 8;

/// A vocabulary and its merges.
pub(crate) const VOCAB: &str = r#"{"a":0,"b":1,"ab":2,"Ġ":3,"Ġa":4,"<|endoftext|>":5,"t":6,"h":7,"th":8}"#;
pub(crate) const MERGES: &str = "#version: 0.2\na b\nĠ a\nt h\n";

pub(crate) fn config(d_vocab: usize) -> Value {
    json!({
        "model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": D_MODEL, "n_positions": N_CTX, "n_ctx": N_CTX,
        "vocab_size": d_vocab, "bos_token_id": 0, "eos_token_id": 0, "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
    })
}

/// The tensors' names and shapes.
pub(crate) fn tensors(d_vocab: usize) -> Vec<(String, Vec<usize>)> {
    let d = D_MODEL;
    let of_block = [
        ("ln_1.weight", vec![d]),
        ("ln_1.bias", vec![d]),
        ("attn.c_attn.weight", vec![d, 3 * d]),
        ("attn.c_attn.bias", vec![3 * d]),
        ("attn.c_proj.weight", vec![d, d]),
        ("attn.c_proj.bias", vec![d]),
        ("ln_2.weight", vec![d]),
        ("ln_2.bias", vec![d]),
        ("mlp.c_fc.weight", vec![d, 4 * d]),
        ("mlp.c_fc.bias", vec![4 * d]),
        ("mlp.c_proj.weight", vec![4 * d, d]),
        ("mlp.c_proj.bias", vec![d]),
    ];
    let mut tensors: Vec<(String, Vec<usize>)> =
        of_block.into_iter().map(|(name, shape)| (format!("h.0.{name}"), shape)).collect();
    tensors.push(("wte.weight".into(), vec![d_vocab, d]));
    tensors.push(("wpe.weight".into(), vec![N_CTX, d]));
    tensors.push(("ln_f.weight".into(), vec![d]));
    tensors.push(("ln_f.bias".into(), vec![d]));
    tensors
}

/// A file of some tensors, with numbers between −1 and 1 that repeat.
pub(crate) fn safetensors(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Vec<u8> {
    let data = tensors.iter().enumerate().map(|(place, (_, shape))| {
        let n: usize = shape.iter().product();
        let numbers = (0..n).map(|i| ((i * 7 + place * 3) % 17) as f32 / 8.0 - 1.0);
        match dtype {
            Dtype::F32 => numbers.flat_map(f32::to_le_bytes).collect(),
            Dtype::F64 => numbers.flat_map(|number| f64::from(number).to_le_bytes()).collect(),
            // The upper half of a float, of either kind of 16 bits: a number of another value.
            _ => numbers.flat_map(|number| [number.to_le_bytes()[2], number.to_le_bytes()[3]]).collect::<Vec<u8>>(),
        }
    });
    let data: Vec<Vec<u8>> = data.collect();
    let views = tensors.iter().zip(&data).map(|((name, shape), data)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), data).expect("bytes for every number"))
    });
    safetensors::serialize(views, None).expect("distinct names")
}

/// The header of a file, and what follows it.
pub(crate) fn split(file: &[u8]) -> (&[u8], &[u8]) {
    let len = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    file[8..].split_at(len)
}

pub(crate) fn joined(header: &[u8], body: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, body].concat()
}
