//! Random interventions on random prompts: the CPU's backend against dfdx, on any number of threads, and edits that a
//! device makes against those that the host makes.

use attention_tokens::prelude::*;
use ndarray::{Array1, Array2, ArrayD};

use super::on;
use crate::support::{assert_close, prompts, rng};

/// Numbers around 0.
fn noise(rng: &mut fastrand::Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

/// An intervention of any kind at any point, that fits prompts of any length from 2 on. Only a closure needs the host.
fn random(rng: &mut fastrand::Rng, model: &Gpt2, cache: &ActivationCache, closures: bool) -> Intervention {
    let config = model.config();
    let activation = Activation::ALL[rng.usize(..Activation::ALL.len())];
    let point = activation.at(rng.usize(..config.n_layers));
    let columns = match activation {
        Activation::Q | Activation::K | Activation::V | Activation::Z => config.d_head,
        Activation::MlpPre | Activation::MlpPost => config.d_mlp,
        Activation::AttnScores | Activation::Pattern => 1,
        _ => config.d_model,
    };
    let cells = matches!(activation, Activation::AttnScores | Activation::Pattern);
    let of_heads = cells || columns == config.d_head || activation == Activation::Result;
    let kind = rng.u32(..8);
    let mut intervention = match kind {
        0 => Intervention::zero(point),
        1 => Intervention::scale(point, rng.f32() * 3.0 - 1.0),
        2 => Intervention::set(point, Array1::from(noise(rng, columns))),
        3 => Intervention::add(point, Array1::from(noise(rng, columns))),
        4 => Intervention::patch(point, cache),
        5 => Intervention::mean(point, cache),
        6 if cells => Intervention::knock_out(point.layer, [(-1, 0), (1, 1)]),
        _ if closures => {
            Intervention::hook(point, |values, _| values.mapv(|x| if x.is_finite() { x.sin() } else { x }))
        }
        _ => Intervention::add(point, -0.5),
    };
    if of_heads && rng.bool() {
        intervention = intervention.head(rng.usize(..config.n_heads));
    }
    // A knock-out has cells of its own, which another position would leave out.
    if rng.bool() && !(kind == 6 && cells) {
        intervention = intervention.pos(rng.i32(-2..2) as isize);
    }
    if rng.u8(..3) == 0 {
        intervention = intervention.prompt(rng.usize(..cache.n_prompts()));
    }
    if cells && rng.bool() {
        intervention = intervention.key(0);
    }
    if columns == config.d_mlp && rng.u8(..4) == 0 {
        let neurons: Vec<usize> = (0..columns).filter(|neuron| neuron % 3 != 1).collect();
        // A vector of values needs as many numbers as neurons, so these are all of them, in another order.
        let others = (0..columns).filter(|neuron| neuron % 3 == 1);
        intervention = intervention.neurons(neurons.iter().copied().chain(others).collect::<Vec<_>>());
    }
    intervention
}

/// All activations and the logits of a run with interventions.
fn run(model: &Gpt2, prompts: &[Vec<u32>], hooks: &[Intervention]) -> Vec<ArrayD<f32>> {
    let (logits, cache) = model.run_with_cache_options(prompts.to_vec(), RunOptions::default().hooks(hooks)).unwrap();
    let mut arrays: Vec<ArrayD<f32>> = logits.unwrap().into_iter().map(Array2::into_dyn).collect();
    for prompt in 0..prompts.len() {
        let cache = cache.prompt(prompt).unwrap();
        for layer in 0..model.config().n_layers {
            arrays.extend(Activation::ALL.map(|activation| cache.get(activation, layer).unwrap()));
        }
    }
    arrays
}

/// −∞ must be in the same places.
#[track_caller]
fn assert_all_close(got: &[ArrayD<f32>], want: &[ArrayD<f32>], hooks: &[Intervention]) {
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let masked = |x: f32| if x == f32::NEG_INFINITY { -7e-3 } else { x };
        assert!(
            got.iter().zip(want).all(|(got, want)| got.is_finite() == want.is_finite()),
            "array {index}: {hooks:?}"
        );
        println!("array {index}: {hooks:?}");
        assert_close(&got.mapv(masked), &want.mapv(masked), 1e-3);
    }
}

/// Random prompts and interventions.
fn random_run(rng: &mut fastrand::Rng, model: &Gpt2, closures: bool) -> (Vec<Vec<u32>>, Vec<Intervention>) {
    let n = rng.usize(1..4);
    let prompts = prompts(rng, model, n, 17);
    // Patches take the activations of other prompts of the same lengths.
    let other = |prompt: &Vec<u32>| prompt.iter().rev().copied().collect::<Vec<u32>>();
    let (_, cache) = model.run_with_cache(prompts.iter().map(other).collect::<Vec<_>>()).unwrap();
    let n_hooks = rng.usize(1..5);
    let hooks = (0..n_hooks).map(|_| random(rng, model, &cache, closures)).collect();
    (prompts, hooks)
}

/// Asserts that random interventions give the same numbers on two devices.
pub(crate) fn assert_edits_agree(got: &Gpt2, want: &Gpt2) {
    let mut rng = rng();
    for _ in 0..8 {
        let (prompts, hooks) = random_run(&mut rng, want, true);
        assert_all_close(&run(got, &prompts, &hooks), &run(want, &prompts, &hooks), &hooks);
    }
}

/// Asserts that edits by the device equal those by the host: a closure makes all edits at its hook point on the host, even
/// one that changes nothing.
pub(crate) fn assert_edits_equal_those_on_the_host(model: &Gpt2) {
    let mut rng = rng();
    for _ in 0..12 {
        let (prompts, hooks) = random_run(&mut rng, model, false);
        let unchanged = |hook: &Intervention| Intervention::hook(hook.point(), |values, _| values);
        let on_host: Vec<Intervention> = hooks.iter().cloned().chain(hooks.iter().map(unchanged)).collect();
        assert_all_close(&run(model, &prompts, &hooks), &run(model, &prompts, &on_host), &hooks);
    }
}

#[test]
fn edits_on_a_device_equal_those_on_the_host() {
    for name in ["tiny", "odd"] {
        for device in [Device::cpu(), Device::dfdx_cpu()] {
            assert_edits_equal_those_on_the_host(&on(name, device));
        }
    }
}

#[test]
fn random_edits_of_ragged_batches_agree_with_dfdx() {
    for name in ["tiny", "odd"] {
        assert_edits_agree(&on(name, Device::cpu()), &on(name, Device::dfdx_cpu()));
    }
}

#[test]
fn random_edits_are_bit_identical_on_any_number_of_threads() {
    let mut rng = rng();
    for name in ["tiny", "odd"] {
        let cpu = on(name, Device::cpu());
        for _ in 0..8 {
            let (prompts, hooks) = random_run(&mut rng, &cpu, true);
            let bits = |threads| -> Vec<Vec<u32>> {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let arrays = pool.install(|| run(&cpu, &prompts, &hooks));
                arrays.iter().map(|array| array.iter().map(|x| x.to_bits()).collect()).collect()
            };
            let one = bits(1);
            assert!([2, 3].into_iter().all(|threads| bits(threads) == one), "{hooks:?}");
        }
    }
}
