//! Compares the crate with golden data from Hugging Face transformers and TransformerLens.
//!
//!     cargo run --release --example parity -- FOLDER [cpu|dfdx_cpu|cuda|dfdx_cuda]
//!
//! `cuda` and `dfdx_cuda` use the first GPU, and need the feature `cuda`.
//!
//! FOLDER contains `config.json`, `model.safetensors` and `expected.safetensors`, which has any of these tensors
//! (`L` layers, `H` heads, `S` positions, `V` tokens):
//! - `prompt{i}.tokens [S]`, to which no BOS is added; `prompt{i}.hf_logits [S, V]` or `prompt{i}.hf_logits_last [V]`;
//! - `weights.{level}.{name}`, in TransformerLens' layout, per-layer weights with `L` in front;
//! - `prompt{i}.{level}.{activation}`, with `L` in front, and `prompt{i}.{level}.logits [S, V]`;
//! - `prompt{i}.{level}.attention_tokens.{projection}.` with `qk [L, H, S, S]` (−1 above the diagonal),
//!   `q k v [L, H, S]`, and `margin [L, H, S, S]`, the best minus the second-best logit of `qk`.
//!
//! If the folder has `analysis.safetensors`, every tensor of that file that the library can compute is checked too, at the level
//! `notebook`: `clean.{embed, pos_embed, ln1_scale, accumulated_resid, head_logit_attrs, …}` of the run of
//! `clean.tokens`; logit differences are those of the two `answers` at the last position. The others are counted as not
//! yet known.
//!
//! The levels are `raw` (no processing), `fold_ln`, `centered` (`fold_ln` and both centerings) and `notebook` (all five
//! steps). Every tensor in the file is checked; an unknown name is a failure. A number may differ by 1e-4 of the
//! largest magnitude of its tensor (2e-4 for tensors that the singular value decomposition rewrites, absolutely by 1e-7
//! if the tensor is zero). A token may differ only if its margin is below 2e-5 of its vector's largest |logit|, and in
//! at most 1 % of the cells.

mod golden;

use std::path::Path;
use std::process::ExitCode;

use attention_tokens::prelude::*;

const DEVICES: [&str; 4] = ["cpu", "dfdx_cpu", "cuda", "dfdx_cuda"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (folder, device) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [folder] | [folder, "cpu"] => (folder, Device::cpu()),
        [folder, "dfdx_cpu"] => (folder, Device::dfdx_cpu()),
        [folder, "cuda"] => (folder, Device::cuda(0)),
        [folder, "dfdx_cuda"] => (folder, Device::dfdx_cuda(0)),
        _ => {
            eprintln!("usage: parity FOLDER [{}]", DEVICES.join("|"));
            eprintln!("FOLDER has config.json, model.safetensors and expected.safetensors");
            return ExitCode::FAILURE;
        }
    };
    match golden::check(Path::new(folder), device, false) {
        Ok(outcome) => {
            let not_yet = match outcome.not_yet {
                0 => String::new(),
                n => format!(", {n} not yet known"),
            };
            println!("parity: {} quantities, {} failed{not_yet}", outcome.checked, outcome.failed);
            if outcome.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("parity: {error}");
            ExitCode::FAILURE
        }
    }
}
