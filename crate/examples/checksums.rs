//! A checksum of everything that a model computes for a prompt, to compare two versions of the crate bit by bit.
//!
//!     cargo run --release --example checksums -- MODEL [cpu|dfdx_cpu]
//!
//! Prints a line for the logits of each prompt, for each activation of each layer, and for the decoded tokens and logits
//! of each layer with each projection. The prompts are token ids, so MODEL needs no tokenizer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::ExitCode;

use attention_tokens::prelude::*;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, device) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [model] | [model, "cpu"] => (model, Device::cpu()),
        [model, "dfdx_cpu"] => (model, Device::dfdx_cpu()),
        _ => {
            eprintln!("usage: checksums MODEL [cpu|dfdx_cpu]");
            return ExitCode::FAILURE;
        }
    };
    match checksums(model, device) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("checksums: {error}");
            ExitCode::FAILURE
        }
    }
}

fn checksums(name: &str, device: Device) -> Result<(), Error> {
    let model = Gpt2::from_pretrained(name, LoadOptions::default().device(device))?;
    let config = model.config();
    // Prompts of four lengths, of any ids: a linear congruence is enough.
    let prompt = |len: usize, factor: usize| (0..len).map(|at| ((at * factor + 7) % config.d_vocab) as u32).collect();
    let longest = config.n_ctx.min(150);
    let prompts: Vec<Vec<u32>> =
        vec![prompt(1, 1), prompt(7, 1_009), prompt(13.min(longest), 7_919), prompt(longest, 31)];
    let (logits, cache) = model.run_with_cache(prompts)?;
    for (prompt, logits) in logits.iter().enumerate() {
        println!("prompt {prompt} logits {:016x}", checksum(logits.iter().map(|x| x.to_bits())));
    }
    for prompt in 0..cache.n_prompts() {
        let cache = cache.prompt(prompt)?;
        for layer in 0..config.n_layers {
            for activation in Activation::ALL {
                let bits = cache.get(activation, layer)?.mapv(f32::to_bits);
                println!("prompt {prompt} layer {layer} {} {:016x}", activation.name(), checksum(bits.into_iter()));
            }
        }
    }
    for projection in Projection::ALL {
        let options = DecodeOptions::default().projection(projection).top_k(3);
        // Twice: the second time, heads decode through their tables.
        for (pass, layer) in (0..2).flat_map(|pass| (0..config.n_layers).map(move |layer| (pass, layer))) {
            let heads = layer_data(&model, &cache, layer, options)?;
            let prompts = heads.iter().flat_map(|head| &head.prompts);
            let tops = prompts.flat_map(|data| [&data.qk, &data.q, &data.k, &data.v]);
            let bits = tops.flat_map(|top| top.tokens.iter().copied().chain(top.logits.iter().map(|x| x.to_bits())));
            println!("pass {pass} layer {layer} projection {} {:016x}", projection.name(), checksum(bits));
        }
    }
    Ok(())
}

fn checksum(bits: impl Iterator<Item = u32>) -> u64 {
    let mut hasher = DefaultHasher::new();
    bits.for_each(|bits| bits.hash(&mut hasher));
    hasher.finish()
}
