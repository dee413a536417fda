//! Path patching against two runs for each sender, and frozen activations.

use attention_tokens::patching::*;
use attention_tokens::prelude::*;
use ndarray::{ArrayD, IxDyn};

use crate::patching::{ANSWERS, mean_logit_diff, odd, pairs};
use crate::support::{prompts, rng};

#[test]
fn paths_to_heads_are_two_runs() {
    let model = odd(Device::cpu());
    let [clean, corrupted] = pairs();
    let (_, clean_cache) = model.run_with_cache(clean.clone()).unwrap();
    let (_, corrupted_cache) = model.run_with_cache(corrupted).unwrap();
    let metric = Metric::logit_diff(&ANSWERS);
    for (receiver, activation) in [
        (Receiver::Queries(vec![(2, 1), (1, 0)]), Activation::Q),
        (Receiver::Keys(vec![(2, 1), (1, 0)]), Activation::K),
        (Receiver::Values(vec![(2, 1), (1, 0)]), Activation::V),
    ] {
        let sweep =
            path_patch(&model, clean.clone(), &corrupted_cache, &receiver, &metric, SweepOptions::default()).unwrap();
        for head in 0..2 {
            // Every z frozen, then the sender's, the last intervention, is the corrupted one.
            let mut hooks = freeze(Activation::Z, &clean_cache);
            hooks.push(Intervention::patch(Activation::Z.at(0), &corrupted_cache).head(head));
            let (_, read) = model.hooked(&hooks).unwrap().run_with_cache(clean.clone()).unwrap();
            let second = [
                Intervention::patch(activation.at(2), &read).head(1),
                Intervention::patch(activation.at(1), &read).head(0),
            ];
            let want = mean_logit_diff(&model.run_with_hooks(clean.clone(), &second).unwrap());
            assert!((sweep.values[[0, head]] - want).abs() < 1e-4, "{receiver:?}, head {head}");
            assert_eq!(sweep.values[[2, head]], sweep.unchanged);
        }
    }
}

/// Senders are computed together: the same numbers as one after the other, on random prompts of different lengths, for
/// random receivers, and whatever the memory option.
#[test]
fn paths_to_heads_equal_sender_after_sender() {
    let mut rng = rng();
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = odd(device);
        let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
        let d_vocab = model.config().d_vocab;
        for _ in 0..4 {
            let clean: Vec<Vec<u32>> = prompts(&mut rng, &model, 3, 12);
            let other = |prompt: &Vec<u32>| prompt.iter().map(|_| rng.u32(..d_vocab as u32)).collect();
            let corrupted: Vec<Vec<u32>> = clean.iter().map(other).collect();
            let (_, clean_cache) = model.run_with_cache(clean.clone()).unwrap();
            let (_, corrupted_cache) = model.run_with_cache(corrupted).unwrap();
            let heads: Vec<(usize, usize)> =
                (0..rng.usize(1..5)).map(|_| (rng.usize(..n_layers), rng.usize(..n_heads))).collect();
            let (receiver, activation) = match rng.usize(..3) {
                0 => (Receiver::Queries(heads.clone()), Activation::Q),
                1 => (Receiver::Keys(heads.clone()), Activation::K),
                _ => (Receiver::Values(heads.clone()), Activation::V),
            };
            let metric = Metric::logit_diff(&ANSWERS[..1]);
            let want = ArrayD::from_shape_fn(IxDyn(&[n_layers, n_heads]), |index| {
                let sender = Intervention::patch(Activation::Z.at(index[0]), &corrupted_cache).head(index[1]);
                let mut hooks = freeze(Activation::Z, &clean_cache).split_off(index[0] + 1);
                hooks.push(sender);
                let (_, read) = model.hooked(&hooks).unwrap().run_with_cache(clean.clone()).unwrap();
                let reached = heads.iter().filter(|(to, _)| *to > index[0]);
                let patch = |&(to, head): &(usize, usize)| Intervention::patch(activation.at(to), &read).head(head);
                let second = model.hooked(&reached.map(patch).collect::<Vec<_>>()).unwrap();
                metric.measure(&second, clean.clone()).unwrap()
            });
            let largest = want.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            for bytes in [0, 50_000, 200_000, 1 << 30] {
                let options = SweepOptions::default().max_bytes(bytes);
                let got = path_patch(&model, clean.clone(), &corrupted_cache, &receiver, &metric, options).unwrap();
                let worst = (&got.values - &want).iter().fold(0.0_f32, |worst, x| worst.max(x.abs()));
                assert!(worst <= 1e-6 * largest, "{receiver:?}, {bytes} bytes: {worst} of {largest}");
            }
        }
    }
}

#[test]
fn frozen_patterns_are_those_of_the_cache() {
    let model = odd(Device::cpu());
    let [clean, corrupted] = pairs();
    let (_, cache) = model.run_with_cache(clean).unwrap();
    let (_, frozen) = model.hooked(&freeze(Activation::Pattern, &cache)).unwrap().run_with_cache(corrupted).unwrap();
    for layer in 0..3 {
        let [got, want] =
            [&frozen, &cache].map(|cache| cache.prompt(1).unwrap().get(Activation::Pattern, layer).unwrap());
        assert_eq!(got, want);
    }
}
