//! What is asked of a card, counted.

use std::collections::HashMap;

use attention_tokens::prelude::*;

use super::alone;
use crate::support::fixture;

/// The work of one forward pass: what was counted with three of them, less what was with two.
fn calls_of_a_forward_pass(kind: &str) -> HashMap<String, u64> {
    let counted = |times: &str| alone(&format!("calls::{times}_forward_passes_{kind}"), "1000000000");
    let (two, three) = (counted("two"), counted("three"));
    three.into_iter().map(|(name, count)| (name.clone(), count - two.get(&name).unwrap_or(&0))).collect()
}

#[test]
#[ignore = "needs the stand-in"]
fn a_forward_pass_waits_for_nothing_but_its_logits() {
    let calls = calls_of_a_forward_pass("of_our_kernels");
    let of = |name: &str| calls.get(name).copied().unwrap_or(0);
    let n_layers = 2;
    assert_eq!(of("kernel layer_norm"), 2 * n_layers + 1);
    assert_eq!(of("cuLaunchKernel"), 9 * n_layers + 3);
    assert_eq!((of("cublasSgemm_v2"), of("cublasSgemmStridedBatched")), (3 * n_layers + 1, 3 * n_layers));
    assert_eq!((of("cuMemcpyHtoD_v2"), of("cuMemcpyDtoH_v2")), (2, 1)); // token ids and positions; logits
    assert_eq!(of("cuStreamSynchronize"), 0);
}

#[test]
#[ignore = "needs the stand-in"]
fn a_run_with_a_cache_copies_no_more_than_one_without() {
    let calls = calls_of_a_forward_pass("with_a_cache");
    let without = calls_of_a_forward_pass("of_our_kernels");
    for name in ["cuLaunchKernel", "cublasSgemm_v2", "cublasSgemmStridedBatched", "cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2"]
    {
        assert_eq!(calls[name], without[name], "{name}");
    }
}

/// Prompts of one length are one product and one softmax, however many.
#[test]
#[ignore = "needs the stand-in"]
fn attention_is_launched_once_a_length() {
    let calls = calls_of_a_forward_pass("of_a_batch");
    let of = |name: &str| calls.get(name).copied().unwrap_or(0);
    let n_layers = 2;
    assert_eq!((of("kernel list_heads"), of("kernel causal_softmax")), (n_layers, 2 * n_layers));
    assert_eq!((of("cublasSgemmBatched"), of("cublasSgemmStridedBatched")), (2 * n_layers, 3 * n_layers));
}

/// Why there are kernels of our own: dfdx's operations launch several times as many, and copy from the host for most of them.
#[test]
#[ignore = "needs the stand-in"]
fn dfdx_asks_a_card_for_several_times_as_much() {
    let work = |kind| {
        let calls = calls_of_a_forward_pass(kind);
        let of = |names: &[&str]| -> u64 { names.iter().map(|&name| calls.get(name).copied().unwrap_or(0)).sum() };
        let launches = of(&["cuLaunchKernel", "cublasSgemm_v2", "cublasSgemmStridedBatched"]);
        (
            launches,
            of(&["cuMemcpyHtoD_v2"]),
            of(&["cuMemAllocAsync", "cuMemFreeAsync", "cuMemsetD8Async", "cuMemcpyDtoDAsync_v2"]),
        )
    };
    let (ours, dfdx) = (work("of_our_kernels"), work("of_dfdx"));
    println!(
        "launches, copies from the host, and calls about memory, of a forward pass of two layers: {ours:?}, by dfdx {dfdx:?}"
    );
    assert!(dfdx.0 > 2 * ours.0 && dfdx.1 > 20 * ours.1 && dfdx.2 > 2 * ours.2, "{ours:?}, by dfdx {dfdx:?}");
}

/// Tests that others run alone.
macro_rules! forward_passes {
    ($($name:ident: $times:literal times $run:ident on $device:ident of $prompts:expr,)*) => {
        $(
            #[test]
            #[ignore = "needs the stand-in, and is run by another test"]
            fn $name() {
                let options = LoadOptions::default().device(Device::$device(0));
                let model = Gpt2::from_pretrained(fixture("tiny").to_str().unwrap(), options).unwrap();
                (0..$times).for_each(|_| drop(model.$run($prompts).unwrap()));
            }
        )*
    };
}

forward_passes! {
    two_forward_passes_with_a_cache: 2 times run_with_cache on cuda of vec![1, 2, 3],
    three_forward_passes_with_a_cache: 3 times run_with_cache on cuda of vec![1, 2, 3],
    two_forward_passes_of_our_kernels: 2 times forward on cuda of vec![1, 2, 3],
    three_forward_passes_of_our_kernels: 3 times forward on cuda of vec![1, 2, 3],
    two_forward_passes_of_a_batch: 2 times forward on cuda of vec![vec![1, 2, 3], vec![4, 5], vec![6, 7, 8], vec![9, 10, 11]],
    three_forward_passes_of_a_batch: 3 times forward on cuda of vec![vec![1, 2, 3], vec![4, 5], vec![6, 7, 8], vec![9, 10, 11]],
    two_forward_passes_of_dfdx: 2 times forward on dfdx_cuda of vec![1, 2, 3],
    three_forward_passes_of_dfdx: 3 times forward on dfdx_cuda of vec![1, 2, 3],
}
