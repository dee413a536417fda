//! The number of calls that a forward pass makes to the driver and to cuBLAS, counted by the fake driver.

use std::collections::HashMap;

use attention_tokens::prelude::*;

use super::run_alone;
use crate::support::fixture;

/// Layers of the fixture `tiny`.
const N_LAYERS: u64 = 2;

/// The calls of one forward pass: those of a process that makes three, minus those of a process that makes two.
fn calls_of_a_forward_pass(kind: &str) -> HashMap<String, u64> {
    let calls = |times: &str| run_alone(&format!("calls::{times}_forward_passes_{kind}"), "1000000000");
    let (two, three) = (calls("two"), calls("three"));
    three.into_iter().map(|(name, count)| (name.clone(), count - two.get(&name).unwrap_or(&0))).collect()
}

#[test]
#[ignore = "needs the fake driver"]
fn a_forward_pass_waits_only_for_its_logits() {
    let calls = calls_of_a_forward_pass("of_our_kernels");
    let count = |name: &str| calls.get(name).copied().unwrap_or(0);
    assert_eq!(count("kernel layer_norm"), 2 * N_LAYERS + 1);
    assert_eq!(count("cuLaunchKernel"), 9 * N_LAYERS + 3);
    assert_eq!((count("cublasSgemm_v2"), count("cublasSgemmStridedBatched")), (3 * N_LAYERS + 1, 3 * N_LAYERS));
    assert_eq!((count("cuMemcpyHtoD_v2"), count("cuMemcpyDtoH_v2")), (2, 1)); // token ids and positions; logits
    assert_eq!(count("cuStreamSynchronize"), 0);
}

#[test]
#[ignore = "needs the fake driver"]
fn run_with_cache_makes_the_same_calls_as_forward() {
    let calls = calls_of_a_forward_pass("with_a_cache");
    let without_cache = calls_of_a_forward_pass("of_our_kernels");
    for name in ["cuLaunchKernel", "cublasSgemm_v2", "cublasSgemmStridedBatched", "cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2"]
    {
        assert_eq!(calls[name], without_cache[name], "{name}");
    }
}

/// Edits that are no closures: only lists of changes are copied to the GPU, one for each edited activation.
#[test]
#[ignore = "needs the fake driver"]
fn edits_copy_nothing_to_the_host() {
    let calls = calls_of_a_forward_pass("with_edits");
    let plain = calls_of_a_forward_pass("of_our_kernels");
    let count = |name: &str| calls.get(name).copied().unwrap_or(0);
    let edited = HOOKS.len() as u64;
    assert_eq!((count("kernel edit_rows"), count("kernel edited_causal_softmax")), (edited, 1));
    assert_eq!(count("kernel causal_softmax"), plain["kernel causal_softmax"] - 1);
    assert_eq!(count("cuLaunchKernel"), plain["cuLaunchKernel"] + edited);
    assert_eq!(count("cuMemcpyHtoD_v2"), plain["cuMemcpyHtoD_v2"] + edited);
    assert_eq!(count("cuMemcpyDtoH_v2"), plain["cuMemcpyDtoH_v2"]);
    assert_eq!(count("cuMemcpyDtoDAsync_v2"), 0); // no cache holds what is edited
}

/// All prompts of one length take one product and one softmax.
#[test]
#[ignore = "needs the fake driver"]
fn attention_is_launched_once_per_prompt_length() {
    let calls = calls_of_a_forward_pass("of_a_batch");
    let count = |name: &str| calls.get(name).copied().unwrap_or(0);
    assert_eq!((count("kernel list_head_addresses"), count("kernel causal_softmax")), (N_LAYERS, 2 * N_LAYERS));
    assert_eq!((count("cublasSgemmBatched"), count("cublasSgemmStridedBatched")), (2 * N_LAYERS, 3 * N_LAYERS));
}

/// The reason for kernels of our own: dfdx makes several times as many launches, and copies from the host in most
/// operations.
#[test]
#[ignore = "needs the fake driver"]
fn dfdx_makes_several_times_as_many_calls() {
    let counts = |kind| {
        let calls = calls_of_a_forward_pass(kind);
        let sum = |names: &[&str]| -> u64 { names.iter().map(|&name| calls.get(name).copied().unwrap_or(0)).sum() };
        let launches = sum(&["cuLaunchKernel", "cublasSgemm_v2", "cublasSgemmStridedBatched"]);
        let copies = sum(&["cuMemcpyHtoD_v2"]);
        let memory = sum(&["cuMemAllocAsync", "cuMemFreeAsync", "cuMemsetD8Async", "cuMemcpyDtoDAsync_v2"]);
        [launches, copies, memory]
    };
    let (ours, dfdx) = (counts("of_our_kernels"), counts("of_dfdx"));
    println!(
        "launches, copies from the host and memory calls of a forward pass of two layers: {ours:?}, with dfdx {dfdx:?}"
    );
    assert!(dfdx[0] > 2 * ours[0] && dfdx[1] > 20 * ours[1] && dfdx[2] > 2 * ours[2], "{ours:?}, with dfdx {dfdx:?}");
}

/// TransformerLens' names of the edited activations.
const HOOKS: [&str; 4] =
    ["blocks.0.attn.hook_z", "blocks.0.hook_resid_mid", "blocks.1.attn.hook_attn_scores", "blocks.1.attn.hook_pattern"];

/// The model with edits of one position, in several activations.
fn edited(model: &Gpt2) -> Gpt2 {
    let hooks = HOOKS.map(|name| Intervention::scale(name.parse::<HookPoint>().unwrap(), 0.5).pos(-1));
    model.hooked(&hooks).unwrap()
}

/// Defines the tests that [`calls_of_a_forward_pass`] runs in processes of their own.
macro_rules! forward_passes {
    ($($name:ident: $times:literal times $run:ident on $device:ident of $prompts:expr $(, with $hooks:ident)?;)*) => {
        $(
            #[test]
            #[ignore = "needs the fake driver, and is run by another test"]
            fn $name() {
                let options = LoadOptions::default().device(Device::$device(0));
                let model = Gpt2::from_pretrained(fixture("tiny").to_str().unwrap(), options).unwrap();
                $(let model = $hooks(&model);)?
                (0..$times).for_each(|_| drop(model.$run($prompts).unwrap()));
            }
        )*
    };
}

forward_passes! {
    two_forward_passes_with_a_cache: 2 times run_with_cache on cuda of vec![1, 2, 3];
    three_forward_passes_with_a_cache: 3 times run_with_cache on cuda of vec![1, 2, 3];
    two_forward_passes_of_our_kernels: 2 times forward on cuda of vec![1, 2, 3];
    three_forward_passes_of_our_kernels: 3 times forward on cuda of vec![1, 2, 3];
    two_forward_passes_with_edits: 2 times forward on cuda of vec![1, 2, 3], with edited;
    three_forward_passes_with_edits: 3 times forward on cuda of vec![1, 2, 3], with edited;
    two_forward_passes_of_a_batch: 2 times forward on cuda of vec![vec![1, 2, 3], vec![4, 5], vec![6, 7, 8], vec![9, 10, 11]];
    three_forward_passes_of_a_batch: 3 times forward on cuda of vec![vec![1, 2, 3], vec![4, 5], vec![6, 7, 8], vec![9, 10, 11]];
    two_forward_passes_of_dfdx: 2 times forward on dfdx_cuda of vec![1, 2, 3];
    three_forward_passes_of_dfdx: 3 times forward on dfdx_cuda of vec![1, 2, 3];
}
