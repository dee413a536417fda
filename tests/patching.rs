//! Sweeps against one run after the other, metrics, paths, figures, and errors.

use attention_tokens::patching::{self, *};
use attention_tokens::prelude::*;
use attention_tokens::{kl_divergence, log_probs, logit_diff};
use ndarray::{Array2, ArrayD, Axis, IxDyn};

use crate::support::{assert_close, demo, fixture};

pub(crate) fn odd(device: Device) -> Gpt2 {
    Gpt2::from_pretrained(fixture("odd").to_str().unwrap(), LoadOptions::default().device(device)).unwrap()
}

const LEN: usize = 7;
pub(crate) const ANSWERS: [[u32; 2]; 2] = [[17, 5], [3, 101]];

/// Two pairs of prompts, clean and corrupted.
pub(crate) fn pairs() -> [Vec<Vec<u32>>; 2] {
    let prompt = |step: usize, changed: bool| -> Vec<u32> {
        (0..LEN).map(|pos| ((pos * step + if changed && pos == 2 { 50 } else { 1 }) % 211) as u32).collect()
    };
    [false, true].map(|changed| vec![prompt(13, changed), prompt(29, changed)])
}

pub(crate) fn mean_logit_diff(logits: &[Array2<f32>]) -> f32 {
    logit_diff(logits, &ANSWERS).unwrap().mean().unwrap()
}

/// One run after the other, each with one intervention.
fn one_by_one(
    model: &Gpt2,
    prompts: &[Vec<u32>],
    shape: &[usize],
    place: impl Fn(&[usize]) -> Intervention,
) -> ArrayD<f32> {
    ArrayD::from_shape_fn(IxDyn(shape), |index| {
        let index: Vec<usize> = (0..shape.len()).map(|axis| index[axis]).collect();
        mean_logit_diff(&model.run_with_hooks(prompts.to_vec(), &[place(&index)]).unwrap())
    })
}

#[test]
fn sweeps_equal_one_run_after_the_other() {
    let metric = Metric::logit_diff(&ANSWERS);
    let [clean, corrupted] = pairs();
    // A model with interventions of its own, in the first layer, in a residual stream, and of scores.
    let hooks = [
        Intervention::scale(Activation::AttnScores.at(1), 0.5).head(1),
        Intervention::add(Activation::ResidPre.at(1), 0.2),
        Intervention::zero(Activation::Z.at(0)).head(0).pos(1),
        Intervention::scale(Activation::MlpOut.at(2), 0.5).pos(-1),
    ];
    let frozen = Intervention::freeze_layer_norms(&odd(Device::cpu()).run_with_cache(clean.clone()).unwrap().1);
    // A closure that reads every position.
    let closure = [Intervention::hook(Activation::MlpOut.at(1), |values, _| {
        let mean = values.mean_axis(Axis(0)).unwrap();
        values + mean
    })];
    for (device, hooks) in [
        (Device::cpu(), &closure[..]),
        (Device::cpu(), &hooks[..0]),
        (Device::cpu(), &hooks[..]),
        (Device::cpu(), &frozen[..]),
        (Device::dfdx_cpu(), &hooks[..]),
    ] {
        let model = odd(device).hooked(hooks).unwrap();
        let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
        let (_, cache) = model.run_with_cache(clean.clone()).unwrap();
        let prompts = || corrupted.clone();
        for (activation, sweep) in [
            (Activation::ResidPre, get_act_patch_resid_pre(&model, prompts(), &cache, &metric).unwrap()),
            (Activation::ResidMid, get_act_patch_resid_mid(&model, prompts(), &cache, &metric).unwrap()),
            (Activation::AttnOut, get_act_patch_attn_out(&model, prompts(), &cache, &metric).unwrap()),
            (Activation::MlpOut, get_act_patch_mlp_out(&model, prompts(), &cache, &metric).unwrap()),
        ] {
            let want = one_by_one(&model, &corrupted, &[n_layers, LEN], |index| {
                Intervention::patch(activation.at(index[0]), &cache).pos(index[1] as isize)
            });
            assert_eq!(sweep.values.shape(), want.shape());
            assert_close(&sweep.values, &want, 1e-4);
        }
        for (activation, by_pos, all_pos) in [
            (
                Activation::Z,
                get_act_patch_attn_head_out_by_pos(&model, prompts(), &cache, &metric).unwrap(),
                get_act_patch_attn_head_out_all_pos(&model, prompts(), &cache, &metric).unwrap(),
            ),
            (
                Activation::Q,
                get_act_patch_attn_head_q_by_pos(&model, prompts(), &cache, &metric).unwrap(),
                get_act_patch_attn_head_q_all_pos(&model, prompts(), &cache, &metric).unwrap(),
            ),
            (
                Activation::K,
                get_act_patch_attn_head_k_by_pos(&model, prompts(), &cache, &metric).unwrap(),
                get_act_patch_attn_head_k_all_pos(&model, prompts(), &cache, &metric).unwrap(),
            ),
            (
                Activation::V,
                get_act_patch_attn_head_v_by_pos(&model, prompts(), &cache, &metric).unwrap(),
                get_act_patch_attn_head_v_all_pos(&model, prompts(), &cache, &metric).unwrap(),
            ),
        ] {
            let patch =
                |index: &[usize], head: usize| Intervention::patch(activation.at(index[0]), &cache).head(index[head]);
            let want = one_by_one(&model, &corrupted, &[n_layers, LEN, n_heads], |index| {
                patch(index, 2).pos(index[1] as isize)
            });
            assert_close(&by_pos.values, &want, 1e-4);
            assert_close(
                &all_pos.values,
                &one_by_one(&model, &corrupted, &[n_layers, n_heads], |index| patch(index, 1)),
                1e-4,
            );
        }
        let by_query = get_act_patch_attn_head_pattern_by_pos(&model, prompts(), &cache, &metric).unwrap();
        let pattern = |index: &[usize]| {
            Intervention::patch(Activation::Pattern.at(index[0]), &cache).head(index[1]).pos(index[2] as isize)
        };
        assert_close(&by_query.values, &one_by_one(&model, &corrupted, &[n_layers, n_heads, LEN], pattern), 1e-4);

        let by_cell = get_act_patch_attn_head_pattern_dest_src_pos(&model, prompts(), &cache, &metric).unwrap();
        assert_eq!(by_cell.values.shape(), [n_layers, n_heads, LEN, LEN]);
        assert_eq!(by_cell.values[[1, 0, 2, 5]], by_cell.unchanged);
        let cell = pattern(&[1, 0, 5]).key(2);
        let want = mean_logit_diff(&model.run_with_hooks(prompts(), &[cell]).unwrap());
        assert!((by_cell.values[[1, 0, 5, 2]] - want).abs() < 1e-4);

        let zeroed = head_effects(&model, prompts(), &metric, Ablation::Zero, SweepOptions::default()).unwrap();
        let want = one_by_one(&model, &corrupted, &[n_layers, n_heads], |index| {
            Intervention::zero(Activation::Z.at(index[0])).head(index[1])
        });
        assert_close(&zeroed.values, &want, 1e-4);
        let mean =
            head_effects(&model, prompts(), &metric, Ablation::Mean(cache.clone()), SweepOptions::default()).unwrap();
        let want = one_by_one(&model, &corrupted, &[n_layers, n_heads], |index| {
            Intervention::mean(Activation::Z.at(index[0]), &cache).head(index[1])
        });
        assert_close(&mean.values, &want, 1e-4);
        let drawn = Ablation::Resample(cache.clone(), 5);
        let drawn = head_effects(&model, prompts(), &metric, drawn, SweepOptions::default()).unwrap();
        let want = one_by_one(&model, &corrupted, &[n_layers, n_heads], |index| {
            Intervention::resample(Activation::Z.at(index[0]), &cache, 5).head(index[1])
        });
        assert_close(&drawn.values, &want, 1e-4);

        let cells = cell_effects(&model, prompts(), 1, 1, &metric, SweepOptions::default()).unwrap();
        for query in 0..LEN {
            for key in 0..LEN {
                if key > query {
                    assert!(cells.values[[query, key]].is_nan());
                } else {
                    let hook = Intervention::knock_out(1, [(query as isize, key as isize)]).head(1);
                    let want = mean_logit_diff(&model.run_with_hooks(prompts(), &[hook]).unwrap());
                    assert!((cells.values[[query, key]] - want).abs() < 1e-4, "{query}, {key}");
                }
            }
        }
        assert!((cells.unchanged - mean_logit_diff(&model.forward(prompts()).unwrap())).abs() < 1e-5);
    }
}

#[test]
fn memory_and_threads_do_not_change_a_sweep() {
    let model = odd(Device::cpu());
    let [clean, corrupted] = pairs();
    let (_, cache) = model.run_with_cache(clean).unwrap();
    let metric = Metric::logit_diff(&ANSWERS);
    let run = |bytes: usize, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = SweepOptions::default().max_bytes(bytes);
        let axes = [PatchAxis::Pos, PatchAxis::Head];
        pool.install(|| {
            generic_activation_patch(&model, corrupted.clone(), &cache, &metric, Activation::Z, &axes, options)
                .unwrap()
                .values
        })
    };
    let whole = run(1 << 30, 2);
    assert_eq!(whole, run(1 << 30, 1));
    assert_eq!(whole, run(1 << 30, 5));
    assert_close(&run(0, 2), &whole, 1e-5); // one run at a time
    assert_close(&run(100_000, 2), &whole, 1e-5);
}

#[test]
fn metrics_read_the_logits_of_each_run() {
    let model = odd(Device::cpu());
    let [clean, corrupted] = pairs();
    let (clean_logits, cache) = model.run_with_cache(clean.clone()).unwrap();
    let hook = Intervention::patch(Activation::ResidPre.at(1), &cache).pos(2);
    let logits = model.run_with_hooks(corrupted.clone(), &[hook]).unwrap();
    let last = |logits: &Array2<f32>| logits.slice(ndarray::s![-1.., ..]).to_owned();
    let mean = |values: [f32; 2]| (values[0] + values[1]) / 2.0;
    let of_each = |value: &dyn Fn(usize, &Array2<f32>) -> f32| mean([value(0, &logits[0]), value(1, &logits[1])]);
    let losses = {
        let log_prob = |prompt: usize, logits: &Array2<f32>| {
            let log_probs = log_probs(logits);
            (0..LEN - 1).map(|pos| -log_probs[[pos, corrupted[prompt][pos + 1] as usize]]).sum::<f32>()
                / (LEN - 1) as f32
        };
        of_each(&log_prob)
    };
    for (metric, want) in [
        (Metric::logit_diff(&ANSWERS), mean_logit_diff(&logits)),
        (Metric::logit(&[4, 9]), of_each(&|prompt, logits| last(logits)[[0, [4, 9][prompt]]])),
        (Metric::logit(&[4]), of_each(&|_, logits| last(logits)[[0, 4]])),
        (Metric::log_prob(&[4, 9]), of_each(&|prompt, logits| log_probs(&last(logits))[[0, [4, 9][prompt]]])),
        (
            Metric::kl(&clean_logits),
            of_each(&|prompt, logits| kl_divergence(&last(&clean_logits[prompt]), &last(logits)).unwrap()[0] as f32),
        ),
        (Metric::loss(), losses),
        (
            Metric::new("first logit", |logits| logits[0][[0, 0]] + logits[1][[3, 7]]),
            logits[0][[0, 0]] + logits[1][[3, 7]],
        ),
        (Metric::logit_diff(&ANSWERS).normalized(3.0, 1.0).unwrap(), (mean_logit_diff(&logits) - 1.0) / 2.0),
    ] {
        let sweep = get_act_patch_resid_pre(&model, corrupted.clone(), &cache, &metric).unwrap();
        assert!(
            (sweep.values[[1, 2]] - want).abs() < 2e-4 * want.abs().max(1.0),
            "{metric:?}: {} {want}",
            sweep.values[[1, 2]]
        );
        assert_eq!(sweep.metric, metric.name());
        assert!((metric.measure(&model, corrupted.clone()).unwrap() - sweep.unchanged).abs() < 1e-5, "{metric:?}");
    }
    assert!(
        (Metric::loss().measure(&model, clean[0].clone()).unwrap() - model.loss(clean[0].clone()).unwrap()[0]).abs()
            < 1e-5
    );
    // Prompts of different lengths, where positions are no axis.
    let ragged = vec![vec![1, 2, 3], vec![4, 5, 6, 7, 8]];
    let effects =
        head_effects(&model, ragged.clone(), &Metric::logit_diff(&ANSWERS), Ablation::Zero, SweepOptions::default())
            .unwrap();
    let want =
        one_by_one(&model, &ragged, &[3, 2], |index| Intervention::zero(Activation::Z.at(index[0])).head(index[1]));
    assert_close(&effects.values, &want, 1e-4);
}

#[test]
fn sweeps_have_figures_and_tables() {
    let model = demo();
    let (clean, corrupted) = (
        "When Mary and John went to the store, John gave a drink to",
        "When Mary and John went to the store, Mary gave a drink to",
    );
    let (_, cache) = model.run_with_cache(clean).unwrap();
    let metric =
        Metric::logit_diff(&[[model.to_single_token(" Mary").unwrap(), model.to_single_token(" John").unwrap()]]);
    let block = get_act_patch_block_every(&model, corrupted, &cache, &metric).unwrap();
    assert_eq!(block.values.shape(), [3, 4, 15]);
    assert!(
        block.plot().unwrap_err().to_string().starts_with("Sweep::plot: axes: expected 1 to 2, found 3; Sweep::select")
    );
    let attn_out = block.select("activation", 1).unwrap();
    assert_eq!(attn_out.values, get_act_patch_attn_out(&model, corrupted, &cache, &metric).unwrap().values);
    let figure = attn_out.plot().unwrap();
    assert!(figure.describe().contains("logit difference by patching, activation attn_out"), "{}", figure.describe());
    assert!(
        block.select("head", 0).unwrap_err().to_string().contains("axis: expected activation, layer, pos, found head")
    );
    assert!(block.select("layer", 4).is_err());
    attn_out.select("layer", 0).unwrap().plot().unwrap();

    let heads = get_act_patch_attn_head_all_pos_every(&model, corrupted, &cache, &metric).unwrap();
    assert_eq!(heads.values.shape(), [5, 4, 8]);
    let by_pos = get_act_patch_attn_head_by_pos_every(&model, corrupted, &cache, &metric).unwrap();
    assert_eq!(by_pos.values.shape(), [5, 4, 15, 8]);
    let of_pattern = get_act_patch_attn_head_pattern_by_pos(&model, corrupted, &cache, &metric).unwrap();
    let transposed = by_pos.values.index_axis(Axis(0), 4).permuted_axes(IxDyn(&[0, 2, 1])).to_owned();
    assert_close(&transposed.as_standard_layout(), &of_pattern.values, 1e-5);

    // The triangle of a head's cells, whose largest differences are in the table.
    let cells = cell_effects(&model, clean, 1, 2, &metric, SweepOptions::default()).unwrap();
    cells.plot().unwrap();
    assert_eq!(cells.top(3).rows().len(), 3);
    let largest = cells.differences().iter().filter(|x| x.is_finite()).fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let shown: f32 = cells.top(1).rows()[0][3].parse().unwrap();
    assert!((shown.abs() - largest).abs() < 1e-3);
}

#[test]
fn what_does_not_fit_a_sweep_is_an_error() {
    let model = odd(Device::cpu());
    let [clean, corrupted] = pairs();
    let (_, cache) = model.run_with_cache(clean.clone()).unwrap();
    let metric = Metric::logit_diff(&ANSWERS);
    let of = |prompts: Vec<Vec<u32>>, metric: &Metric| {
        get_act_patch_attn_out(&model, prompts, &cache, metric).unwrap_err().to_string()
    };
    assert_eq!(
        of(vec![vec![1, 2, 3], vec![1, 2]], &metric),
        "a sweep over positions: prompt 1: expected [pos] = [3], found [2]; positions can be compared between prompts of one \
         length only"
    );
    assert!(of(vec![vec![1, 2, 3]; 2], &metric).contains("prompt 0 of the cache: expected [pos] = [3], found [7]"));
    assert!(of(vec![vec![1; LEN]; 3], &metric).contains("pairs of answers, one for each prompt: expected 3, found 2"));
    assert!(of(corrupted.clone(), &Metric::logit(&[211])).contains("token id 211 out of range"));
    assert!(
        of(corrupted.clone(), &Metric::kl(&[])).contains("arrays of logits, one for each prompt: expected 2, found 0")
    );
    assert!(
        of(corrupted.clone(), &Metric::kl(&[Array2::zeros((1, 9))]))
            .contains("the last row [1, d_vocab] = [1, 211], found [1, 9]")
    );
    assert!(of(vec![vec![1], vec![2]], &Metric::loss()).contains("expected"));
    let equal = metric.clone().normalized(2.0, 2.0).unwrap_err().to_string();
    assert!(
        equal.ends_with("expected two different numbers, of the clean and of the corrupted run, found 2 and 2"),
        "{equal}"
    );
    let options = SweepOptions::default();
    assert!(matches!(cell_effects(&model, clean.clone(), 3, 0, &metric, options), Err(Error::OutOfRange { .. })));
    assert!(matches!(cell_effects(&model, clean.clone(), 0, 2, &metric, options), Err(Error::OutOfRange { .. })));
    let path = |receiver: Receiver| patching::path_patch(&model, clean.clone(), &cache, &receiver, &metric, options);
    assert!(matches!(path(Receiver::Queries(vec![])), Err(Error::Count { .. })));
    assert!(matches!(path(Receiver::Keys(vec![(0, 2)])), Err(Error::OutOfRange { .. })));
    let axes = [PatchAxis::Head];
    let wrong_axis = generic_activation_patch(&model, corrupted, &cache, &metric, Activation::AttnOut, &axes, options);
    assert!(wrong_axis.unwrap_err().to_string().contains("head: expected an activation with such an axis"));
    let twice = |axes: &[PatchAxis], activation| {
        let sweep = generic_activation_patch(&model, clean.clone(), &cache, &metric, activation, axes, options);
        sweep.unwrap_err().to_string()
    };
    use PatchAxis::{DestPos, Head, Pos};
    assert!(twice(&[Head, Head], Activation::Z).contains("axes: expected each once, found [Head, Head]"));
    assert!(twice(&[Pos, DestPos], Activation::Pattern).contains("found [Pos, DestPos]"));
    let nan = Metric::new("mine", |_| f32::NAN);
    assert!(of(clean.clone(), &nan).ends_with("value: expected a number from the closure, found NaN of mine"));
}
