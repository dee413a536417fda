//! Interventions that do not fit, in their own words.

use attention_tokens::patching::freeze;
use attention_tokens::prelude::*;
use ndarray::{Array1, Axis};

use super::{PROMPTS, on};
use crate::support::demo;

#[test]
fn what_does_not_fit_is_an_error_in_the_interventions_words() {
    let model = demo();
    let message = |hook: Intervention| model.run_with_hooks(PROMPTS, &[hook]).unwrap_err().to_string();
    let z = Activation::Z.at(1);
    let (_, odd) = on("odd", Device::cpu()).run_with_cache(vec![vec![1, 2, 3]]).unwrap();
    let (_, short) = model.run_with_cache("one").unwrap();
    let (_, partial) = model.run_with_cache_options(PROMPTS, RunOptions::for_head_data()).unwrap();
    let (_, three) = model.run_with_cache(["one", "two", "three"]).unwrap();
    let nan = Intervention::hook(z, |mut values, _| {
        values[[0, 0, 0]] = f32::NAN;
        values
    });
    for (hook, expected) in [
        (
            Intervention::zero(z).head(8),
            "zero blocks.1.attn.hook_z, head 8: head 8 out of range: the model has 8, 0 to 7",
        ),
        (
            Intervention::zero(Activation::Z.at(4)),
            "zero blocks.4.attn.hook_z: layer 4 out of range: the model has 4, 0 to 3",
        ),
        (Intervention::zero(z).pos(9), "position 9 out of range: prompt 1 has 5 tokens"),
        (Intervention::zero(z).pos(-6), "position -6 out of range: prompt 1 has 5 tokens"),
        (Intervention::zero(z).prompt(2), "prompt 2 out of range: the batch has 2, 0 to 1"),
        (Intervention::zero(z).key(1), "key: expected an activation with such an axis: attn_scores, pattern, found z"),
        (
            Intervention::zero(z).neuron(1),
            "neuron: expected an activation with such an axis: mlp_pre, mlp_post, found z",
        ),
        (
            Intervention::zero(Activation::MlpOut.at(0)).head(1),
            "head: expected an activation with such an axis: q, k, v",
        ),
        (
            Intervention::zero(Activation::MlpPre.at(0)).neuron(512),
            "neuron 512 out of range: the MLP has 512, 0 to 511",
        ),
        (Intervention::zero(Activation::Pattern.at(0)).key(7), "position 7 out of range: prompt 1 has 5 tokens"),
        (Intervention::zero(Activation::Pattern.at(0)).pos(1).key(2), "key: expected a key up to a selected query"),
        (
            Intervention::knock_out(0, [(1, 2)]),
            "cells: expected keys up to the query, as the others are masked, found query 1, key 2",
        ),
        (Intervention::knock_out(0, []), "cells: expected at least one; leave the option out for all, found none"),
        (Intervention::zero(z).heads([]), "head: expected at least one"),
        (Intervention::add(z, 1.0).heads([1, 3, 1]), "head: expected each once, found 1 twice"),
        (Intervention::add(z, 1.0).positions([-1, 14]).prompt(0), "pos: expected each once, found 14 twice"),
        (Intervention::add(z, 1.0).prompts([0, 0]), "prompt: expected each once, found 0 twice"),
        (
            Intervention::scale(Activation::MlpPost.at(0), 2.0).neurons([7, 7]),
            "neuron: expected each once, found 7 twice",
        ),
        (Intervention::zero(Activation::Pattern.at(0)).keys([0, 1, 0]), "key: expected each once, found 0 twice"),
        (Intervention::set(z, Array1::zeros(14)), "values: expected [pos, n_heads, d_head] = [15, 8, 16], found [14]"),
        (
            Intervention::set(z, f32::NAN),
            "set to NaN blocks.1.attn.hook_z: Intervention: values: expected finite numbers, found NaN",
        ),
        (Intervention::scale(z, f32::INFINITY), "values: expected finite numbers, found inf"),
        (
            Intervention::set(Activation::Pattern.at(0), f32::NEG_INFINITY),
            "values: expected finite numbers, found -inf",
        ),
        (
            Intervention::set(Activation::AttnScores.at(0), f32::INFINITY),
            "values: expected finite numbers or -inf, found inf",
        ),
        (
            Intervention::patch(z, &odd),
            "patch blocks.1.attn.hook_z: the cache of an intervention: expected a cache of a model with",
        ),
        (Intervention::patch(z, &short), "prompt 0 of the cache: expected [pos] = [15], found [2]"),
        (Intervention::patch(z, &partial), "z of layer 1 is not in the cache"),
        (Intervention::patch(z, &three), "prompts of the cache, as many as the run has: expected 2, found 3"),
        (
            Intervention::mean(z, &short),
            "the prompts of the cache, for the mean at prompt 0: expected [pos] = [15], found [2]",
        ),
        (Intervention::mean_by(z, &short, [0]), "prompts of the cache, as many as the run has: expected 2, found 1"),
        (
            Intervention::resample(z, &short, 1),
            "cache: expected another prompt of 15 tokens, to replace prompt 0, found prompts of [2] tokens",
        ),
        (
            nan,
            "hook blocks.1.attn.hook_z: Intervention: the closure's result: expected finite numbers, found NaN at [0, 0, 0] of prompt 0",
        ),
        (
            Intervention::hook(z, |values, _| values.remove_axis(Axis(0))),
            "the closure's result for prompt 0: expected three axes = [15, 8, 16], found [8, 16]",
        ),
    ] {
        let found = message(hook);
        assert!(found.contains(expected), "expected {expected:?}, found {found:?}");
    }
    // A run that does not reach the layer, and a hooked model that does not have the head.
    let options = RunOptions::default().stop_at_layer(1).hooks(&[Intervention::zero(z)]);
    let unreached = model.run_with_cache_options(PROMPTS, options).unwrap_err().to_string();
    assert!(unreached.ends_with("layer: expected a layer that the run computes: 0, found 1"), "{unreached}");
    assert!(matches!(model.hooked(&[Intervention::zero(z).head(8)]), Err(Error::Intervention { .. })));
}

/// What holds an activation of a cache that lacks it is an error of the run, and not a list of nothing.
#[test]
fn what_a_cache_lacks_cannot_be_held() {
    let model = demo();
    let (_, only_q) =
        model.run_with_cache_options(PROMPTS, RunOptions::default().activations([Activation::Q])).unwrap();
    for hooks in [freeze(Activation::Pattern, &only_q), Intervention::freeze_layer_norms(&only_q)] {
        let message = model.run_with_hooks(PROMPTS, &hooks).unwrap_err().to_string();
        assert!(message.contains("is not in the cache: it holds only q of layers 0 to 3"), "{message}");
    }
    assert_eq!(freeze(Activation::Q, &only_q).len(), 4);
}
