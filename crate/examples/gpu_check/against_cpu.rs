//! The same model on the CPU and on the card: every activation, and the attention tokens of every projection.

use std::path::Path;

use attention_tokens::prelude::*;
use ndarray::ArrayViewD;

use super::random_weights::{Sizes, prompts};
use super::{Options, Result};

/// Of the largest magnitude of an activation.
const LIMIT: f32 = 1e-3;
/// Tokens must be equal where the margin is above this share of the largest |logit| of the head.
const MARGIN: f32 = 1e-4;

/// Prints what is compared, and gives whether all of it is within the limits.
pub(crate) fn check(folder: &Path, sizes: Sizes, card: Device, options: &Options) -> Result<bool> {
    let name = folder.to_string_lossy().into_owned();
    let load = |device| Gpt2::from_pretrained(&name, LoadOptions::default().device(device));
    let cpu = load(Device::cpu())?;
    let before = used_memory()?;
    let on_card = load(card)?;
    let after = used_memory()?;
    let parameters = parameter_bytes(sizes);
    if let (Some(before), Some(after)) = (before, after) {
        // The card was opened for the golden data; what it keeps for itself is in both.
        let taken = after.saturating_sub(before);
        println!(
            "- Loading takes {} MB of the card; the parameters, the unembedding apart from the embedding, are {} MB.",
            mb(taken),
            mb(parameters)
        );
    }
    let plain = if options.dfdx { Some(load(Device::dfdx_cuda(options.device))?) } else { None };

    let mut all_right = true;
    // Ragged on purpose, some of one length, and together with more rows than logits are made of at a time.
    let lengths: &[usize] = if options.small { &[5, 1, 13, 5, 40, 40] } else { &[13, 1, 128, 13, 300, 300] };
    let another = |(index, &length): (usize, &usize)| prompts(index + 1, length, sizes.d_vocab).pop();
    let batch: Vec<Vec<u32>> = lengths.iter().enumerate().filter_map(another).collect();
    let (want_logits, want) = cpu.run_with_cache(batch.clone())?;
    for (model, what) in [(Some(&on_card), "cuda"), (plain.as_ref(), "dfdx_cuda")] {
        let Some(model) = model else { continue };
        let (logits, cache) = model.run_with_cache(batch.clone())?;
        let mut worst = (0.0, "logits", 0);
        let mut look = |off: f32, activation, layer| {
            if is_worse(off, worst.0) {
                worst = (off, activation, layer);
            }
        };
        for (got, want) in logits.iter().zip(&want_logits) {
            look(off(got.view().into_dyn(), want.view().into_dyn()), "logits", 0);
        }
        for prompt in 0..batch.len() {
            let (got, want) = (cache.prompt(prompt)?, want.prompt(prompt)?);
            for (activation, layer) in Activation::ALL
                .into_iter()
                .flat_map(|activation| (0..sizes.n_layers).map(move |layer| (activation, layer)))
            {
                look(off(got.view(activation, layer)?, want.view(activation, layer)?), activation.name(), layer);
            }
        }
        let (off, activation, layer) = worst;
        let right = off <= LIMIT;
        all_right &= right;
        println!(
            "- {what}: logits and all activations of prompts of {lengths:?} tokens: off by {off:.1e} of the largest magnitude at \
             most ({activation}, layer {layer}); limit {LIMIT:.0e}: {}",
            verdict(right)
        );
        if what == "cuda" {
            all_right &= tokens(&cpu, model, &want, sizes)?;
        }
    }
    Ok(all_right)
}

/// So many prompts are decoded: the CPU takes long.
const DECODED: usize = 3;

/// Decodes the CPU's activations on both.
fn tokens(cpu: &Gpt2, on_card: &Gpt2, cache: &ActivationCache, sizes: Sizes) -> Result<bool> {
    let mut all_right = true;
    for projection in Projection::ALL {
        let options = DecodeOptions { projection, top_k: 3 };
        let (mut compared, mut different, mut wrong, mut worst) = (0, 0, 0, 0.0_f32);
        for layer in [0, sizes.n_layers / 2, sizes.n_layers - 1] {
            let decoded = |model: &Gpt2| -> Result<Vec<PromptHeadData>> {
                let of_prompt = |prompt| layer_data(model, &cache.prompt(prompt)?, layer, options);
                let heads = (0..DECODED).map(of_prompt).collect::<std::result::Result<Vec<_>, _>>()?;
                Ok(heads.into_iter().flatten().flat_map(|head| head.prompts).collect())
            };
            for (got, want) in decoded(on_card)?.iter().zip(&decoded(cpu)?) {
                for (got, want) in [(&got.qk, &want.qk), (&got.q, &want.q), (&got.k, &want.k), (&got.v, &want.v)] {
                    let largest = want.logits.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
                    for (row, &margin) in want.margin.iter().enumerate() {
                        compared += 1;
                        if got.tokens[[row, 0]] != want.tokens[[row, 0]] {
                            different += 1;
                            worst = worst.max(margin / largest);
                            wrong += usize::from(margin > MARGIN * largest);
                        }
                    }
                }
            }
        }
        all_right &= wrong == 0;
        println!(
            "- tokens, projection {}: {compared} compared, {different} different (the largest margin among them {worst:.1e} of the \
             largest |logit|), {wrong} above a margin of {MARGIN:.0e}: {}",
            projection.name(),
            verdict(wrong == 0)
        );
    }
    Ok(all_right)
}

/// The largest difference, as a share of the largest magnitude; the same infinities do not differ.
fn off(got: ArrayViewD<f32>, want: ArrayViewD<f32>) -> f32 {
    if got.shape() != want.shape() {
        return f32::NAN;
    }
    let magnitude = want.iter().filter(|x| x.is_finite()).fold(1e-30_f32, |largest, x| largest.max(x.abs()));
    let mut largest = 0.0;
    for (got, want) in got.iter().zip(want) {
        let off = if got == want { 0.0 } else { (got - want).abs() / magnitude };
        if is_worse(off, largest) {
            largest = off;
        }
    }
    largest
}

/// What is no number is the worst.
fn is_worse(off: f32, than: f32) -> bool {
    off > than || off.is_nan()
}

/// The memory of the card that somebody uses, if this thread has used it.
pub(crate) fn used_memory() -> Result<Option<usize>> {
    Ok(cudarc::driver::result::mem_get_info().ok().map(|(free, total)| total - free))
}

/// In float32, the unembedding counted for itself.
pub(crate) fn parameter_bytes(sizes: Sizes) -> usize {
    let Sizes { n_layers, d_model, d_vocab, n_ctx, .. } = sizes;
    4 * (n_layers * (12 * d_model * d_model + 13 * d_model) + (2 * d_vocab + n_ctx) * d_model)
}

fn mb(bytes: usize) -> usize {
    bytes / 1_000_000
}

fn verdict(right: bool) -> &'static str {
    if right { "right" } else { "WRONG" }
}
