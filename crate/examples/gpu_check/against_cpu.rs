//! Compares a model on the GPU with the CPU: every activation, with and without interventions, and the attention tokens of
//! every projection.

use std::path::Path;

use attention_tokens::prelude::*;
use ndarray::{Array1, Array2, ArrayViewD};

use super::random_weights::{Sizes, prompts};
use super::{Options, Result};

/// The largest error allowed, as a share of an activation's largest magnitude.
const MAX_ERROR: f32 = 1e-3;
/// Tokens must be equal where the margin to the runner-up exceeds this share of the head's largest |logit|.
const MIN_MARGIN: f32 = 1e-4;

/// Prints the comparisons, and returns whether all are within the limits.
pub(crate) fn check(folder: &Path, sizes: Sizes, gpu: Device, options: &Options) -> Result<bool> {
    let name = folder.to_string_lossy().into_owned();
    let load = |device| Gpt2::from_pretrained(&name, LoadOptions::default().device(device));
    let cpu = load(Device::cpu())?;
    let before = used_memory()?;
    let on_gpu = load(gpu)?;
    let after = used_memory()?;
    let parameters = parameter_bytes(sizes);
    if let (Some(before), Some(after)) = (before, after) {
        // The golden data has opened the GPU, so both numbers contain the driver's own memory.
        let used = after.saturating_sub(before);
        println!(
            "- Loading takes {} MB of the GPU; the parameters are {} MB, with separate embedding and unembedding.",
            mb(used),
            mb(parameters)
        );
    }
    let dfdx = if options.dfdx { Some(load(Device::dfdx_cuda(options.device))?) } else { None };

    let mut all_right = true;
    // Ragged, some of equal length, and with more rows than a block of logits.
    let lengths: &[usize] = if options.small { &[5, 1, 13, 5, 40, 40] } else { &[13, 1, 128, 13, 300, 300] };
    // Prompts of one length differ, because the number of prompts is part of the seed.
    let prompt = |(index, &length): (usize, &usize)| prompts(index + 1, length, sizes.d_vocab).pop();
    let batch: Vec<Vec<u32>> = lengths.iter().enumerate().filter_map(prompt).collect();
    let (want_logits, want) = cpu.run_with_cache(batch.clone())?;
    let hooks = interventions(sizes, &want)?;
    let edited = cpu.hooked(&hooks)?.run_with_cache(batch.clone())?;
    for (model, device_name) in [(Some(&on_gpu), "cuda"), (dfdx.as_ref(), "dfdx_cuda")] {
        let Some(model) = model else { continue };
        let got = model.run_with_cache(batch.clone())?;
        let what = format!("{device_name}: logits and all activations of prompts of {lengths:?} tokens");
        all_right &= compare(&what, &got, (&want_logits, &want), sizes)?;
        let got = model.hooked(&hooks)?.run_with_cache(batch.clone())?;
        let what = format!("{device_name}: the same with {} interventions", hooks.len());
        all_right &= compare(&what, &got, (&edited.0, &edited.1), sizes)?;
        if device_name == "cuda" {
            all_right &= check_tokens(&cpu, model, &want, sizes)?;
        }
    }
    Ok(all_right)
}

/// Interventions of each kind that a GPU makes itself, in several layers. `cache` has values to patch in.
fn interventions(sizes: Sizes, cache: &ActivationCache) -> Result<Vec<Intervention>> {
    use Activation::{AttnScores, MlpPost, MlpPre, Pattern, Q, ResidPre, Result as HeadResult, Z};
    let (last, head) = (sizes.n_layers - 1, sizes.n_heads - 1);
    let steering: Vec<f32> = (0..sizes.d_model).map(|column| (column as f32 / 10.0).sin()).collect();
    Ok(vec![
        Intervention::zero(Z.at(0)).head(0),
        Intervention::scale(Q.at(last), -1.0).heads([0, head]),
        Intervention::add(ResidPre.at(last), Array1::from(steering)).pos(-1),
        Intervention::scale(MlpPre.at(0), 0.5).neurons((0..sizes.d_model).step_by(3).collect::<Vec<_>>()),
        Intervention::patch(MlpPost.at(last), cache).prompt(2),
        Intervention::scale(HeadResult.at(last), 2.0).head(head),
        Intervention::knock_out(0, [(-1, 0), (-1, -1)]).head(head),
        Intervention::set(AttnScores.at(last), f32::NEG_INFINITY).head(0).pos(-1), // a pattern of zeros
        Intervention::patch(Pattern.at(0), cache).head(0).prompt(4),
        Intervention::scale(Pattern.at(last), 0.5).pos(0),
    ])
}

/// Prints the largest error, and returns whether it is within the limit.
fn compare(
    what: &str,
    (logits, cache): &(Vec<Array2<f32>>, ActivationCache),
    (want_logits, want): (&[Array2<f32>], &ActivationCache),
    sizes: Sizes,
) -> Result<bool> {
    let mut worst = (0.0, "logits", 0);
    let mut record = |error: f32, activation, layer| {
        if is_worse(error, worst.0) {
            worst = (error, activation, layer);
        }
    };
    for (got, want) in logits.iter().zip(want_logits) {
        record(relative_error(got.view().into_dyn(), want.view().into_dyn()), "logits", 0);
    }
    for prompt in 0..cache.n_prompts() {
        let (got, want) = (cache.prompt(prompt)?, want.prompt(prompt)?);
        for (activation, layer) in
            Activation::ALL.into_iter().flat_map(|activation| (0..sizes.n_layers).map(move |layer| (activation, layer)))
        {
            record(
                relative_error(got.view(activation, layer)?, want.view(activation, layer)?),
                activation.name(),
                layer,
            );
        }
    }
    let (error, activation, layer) = worst;
    let right = error <= MAX_ERROR;
    println!(
        "- {what}: largest error {error:.1e} of the largest magnitude ({activation}, layer {layer}); limit {MAX_ERROR:.0e}: {}",
        verdict(right)
    );
    Ok(right)
}

/// The number of prompts to decode: the CPU is slow.
const DECODED_PROMPTS: usize = 3;

/// Decodes the CPU's activations on both devices, and compares the best tokens.
fn check_tokens(cpu: &Gpt2, on_gpu: &Gpt2, cache: &ActivationCache, sizes: Sizes) -> Result<bool> {
    let mut all_right = true;
    for projection in Projection::ALL {
        let options = DecodeOptions::default().projection(projection).top_k(3);
        let (mut compared, mut different, mut wrong, mut max_margin) = (0, 0, 0, 0.0_f32);
        for layer in [0, sizes.n_layers / 2, sizes.n_layers - 1] {
            let decoded = |model: &Gpt2| -> Result<Vec<PromptHeadData>> {
                let of_prompt = |prompt| layer_data(model, &cache.prompt(prompt)?, layer, options);
                let heads = (0..DECODED_PROMPTS).map(of_prompt).collect::<std::result::Result<Vec<_>, _>>()?;
                Ok(heads.into_iter().flatten().flat_map(|head| head.prompts).collect())
            };
            for (got, want) in decoded(on_gpu)?.iter().zip(&decoded(cpu)?) {
                for (got, want) in [(&got.qk, &want.qk), (&got.q, &want.q), (&got.k, &want.k), (&got.v, &want.v)] {
                    let max_logit = want.logits.iter().fold(0.0_f32, |max, logit| max.max(logit.abs()));
                    for (row, &margin) in want.margin.iter().enumerate() {
                        compared += 1;
                        if got.tokens[[row, 0]] != want.tokens[[row, 0]] {
                            different += 1;
                            max_margin = max_margin.max(margin / max_logit);
                            wrong += usize::from(margin > MIN_MARGIN * max_logit);
                        }
                    }
                }
            }
        }
        all_right &= wrong == 0;
        println!(
            "- tokens, projection {}: {compared} compared, {different} different (with margins up to {max_margin:.1e} of the largest \
             |logit|), {wrong} above a margin of {MIN_MARGIN:.0e}: {}",
            projection.name(),
            verdict(wrong == 0)
        );
    }
    Ok(all_right)
}

/// The largest error, as a share of the largest magnitude. Equal infinities have no error; NaN if the shapes differ.
/// Shape: both the same.
fn relative_error(got: ArrayViewD<f32>, want: ArrayViewD<f32>) -> f32 {
    if got.shape() != want.shape() {
        return f32::NAN;
    }
    let magnitude = want.iter().filter(|x| x.is_finite()).fold(1e-30_f32, |max, x| max.max(x.abs()));
    let mut worst = 0.0;
    for (got, want) in got.iter().zip(want) {
        let error = if got == want { 0.0 } else { (got - want).abs() / magnitude };
        if is_worse(error, worst) {
            worst = error;
        }
    }
    worst
}

/// NaN is the worst error.
fn is_worse(error: f32, than: f32) -> bool {
    error > than || error.is_nan()
}

/// The bytes of GPU memory in use by all programs; `None` unless this thread has used the GPU.
pub(crate) fn used_memory() -> Result<Option<usize>> {
    Ok(cudarc::driver::result::mem_get_info().ok().map(|(free, total)| total - free))
}

/// The size of the parameters in float32, with separate embedding and unembedding.
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
