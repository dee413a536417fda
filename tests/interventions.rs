//! Interventions: against dfdx on random edits, against each prompt alone, the rules of attention, and errors.

use attention_tokens::prelude::*;
use attention_tokens::{EditValues, HookContext};
use ndarray::{Array1, Array2, Array3, Axis, Ix2, Ix3, s};

use crate::support::{assert_close, demo, fixture, prompts, rng};

mod errors;
pub(crate) mod random;

const PROMPTS: [&str; 2] = ["When Mary and John went to the store, John gave a drink to", "Monday, Tuesday,"];

fn on(name: &str, device: Device) -> Gpt2 {
    Gpt2::from_pretrained(fixture(name).to_str().unwrap(), LoadOptions::default().device(device)).unwrap()
}

#[test]
fn a_prompt_of_a_batch_is_edited_as_alone() {
    let mut rng = rng();
    let model = on("odd", Device::cpu());
    let prompts = prompts(&mut rng, &model, 3, 15);
    let hooks = [
        Intervention::zero(Activation::Z.at(0)).head(1).pos(-1),
        Intervention::set(Activation::AttnScores.at(1), f32::NEG_INFINITY).pos(-1).key(0),
        Intervention::scale(Activation::Pattern.at(1), 0.5).head(0).pos(-2),
        Intervention::add(Activation::MlpPost.at(1), 0.3).neuron(5),
        Intervention::scale(Activation::Result.at(2), -1.0).head(1),
    ];
    let (logits, cache) = model.hooked(&hooks).unwrap().run_with_cache(prompts.clone()).unwrap();
    for (index, prompt) in prompts.iter().enumerate() {
        let (alone_logits, alone) = model.hooked(&hooks).unwrap().run_with_cache(prompt.clone()).unwrap();
        assert_close(&logits[index], &alone_logits[0], 1e-5);
        for layer in 0..3 {
            let got = cache.prompt(index).unwrap().get(Activation::Pattern, layer).unwrap();
            assert_close(&got, &alone.get(Activation::Pattern, layer).unwrap(), 1e-5);
        }
    }
    // Another prompt's edit changes nothing here.
    let of_prompt_0: Vec<Intervention> = hooks.iter().map(|hook| hook.clone().prompt(0)).collect();
    let partly = model.run_with_hooks(prompts.clone(), &of_prompt_0).unwrap();
    let plain = model.forward(prompts).unwrap();
    assert_close(&partly[0], &logits[0], 1e-6);
    assert_close(&partly[1], &plain[1], 1e-6);
    assert_ne!(partly[0], plain[0]);
}

#[test]
fn interventions_at_one_point_apply_in_the_order_given() {
    let model = demo();
    let point = Activation::MlpOut.at(1);
    let run = |hooks: &[Intervention]| {
        let (_, cache) = model.hooked(hooks).unwrap().run_with_cache(PROMPTS[1]).unwrap();
        (cache.get(Activation::MlpOut, 1).unwrap(), cache.get(Activation::ResidPost, 1).unwrap())
    };
    let (set, add) = (Intervention::set(point, 2.0), Intervention::add(point, 1.0));
    let hook = Intervention::hook(point, |values, _| values * 10.0);
    assert!(run(&[set.clone(), add.clone(), hook.clone()]).0.iter().all(|&x| x == 30.0));
    assert!(run(&[hook.clone(), set.clone(), add.clone()]).0.iter().all(|&x| x == 3.0));
    assert!(run(&[add.clone(), hook.clone(), set.clone()]).0.iter().all(|&x| x == 2.0));
    // Those of a hooked model come before those of its run.
    let hooked = model.hooked(&[set]).unwrap();
    let options = RunOptions::default().hooks(&[add]);
    let (_, cache) = hooked.hooked(&[hook]).unwrap().run_with_cache_options(PROMPTS[1], options).unwrap();
    assert!(cache.get(Activation::MlpOut, 1).unwrap().iter().all(|&x| x == 21.0));
    assert_eq!(cache.interventions().len(), 3);
}

#[test]
fn the_cache_has_the_edited_activations_and_the_layer_below_its_own() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap();
        let (_, plain) = model.run_with_cache(PROMPTS[0]).unwrap();
        let hooks = [Intervention::zero(Activation::ResidPre.at(2))];
        let (_, cache) = model.hooked(&hooks).unwrap().run_with_cache(PROMPTS[0]).unwrap();
        assert!(cache.get(Activation::ResidPre, 2).unwrap().iter().all(|&x| x == 0.0));
        assert_eq!(cache.get(Activation::ResidPost, 1).unwrap(), plain.get(Activation::ResidPost, 1).unwrap());
        assert_eq!(cache.get(Activation::AttnOut, 2).unwrap(), cache.get(Activation::ResidMid, 2).unwrap());
    }
}

fn cube(cache: &ActivationCache, activation: Activation, layer: usize) -> Array3<f32> {
    cache.get(activation, layer).unwrap().into_dimensionality::<Ix3>().unwrap()
}

#[test]
fn edits_of_attention_follow_their_rules() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap();
        let (_, plain) = model.run_with_cache(PROMPTS[0]).unwrap();
        let pattern = cube(&plain, Activation::Pattern, 1);
        let run = |hooks: &[Intervention]| model.hooked(hooks).unwrap().run_with_cache(PROMPTS[0]).unwrap().1;

        // Not renormalized, and only where asked.
        let cache = run(&[Intervention::scale(Activation::Pattern.at(1), 0.25).head(3).pos(-1)]);
        let (edited, last) = (cube(&cache, Activation::Pattern, 1), pattern.dim().1 - 1);
        assert_close(edited.slice(s![3, last, ..]), &(&pattern.slice(s![3, last, ..]) * 0.25), 1e-6);
        assert_close(edited.slice(s![3, ..last, ..]), pattern.slice(s![3, ..last, ..]), 1e-6);
        assert_close(edited.slice(s![4, .., ..]), pattern.slice(s![4, .., ..]), 1e-6);
        let z = edited.index_axis(Axis(0), 3).dot(&cube(&cache, Activation::V, 1).index_axis(Axis(1), 3));
        assert_close(cube(&cache, Activation::Z, 1).index_axis(Axis(1), 3), &z, 1e-5);

        // A row of −∞ gives zeros; the scores in the cache carry the edit.
        let cache = run(&[Intervention::set(Activation::AttnScores.at(1), f32::NEG_INFINITY).head(2).pos(3)]);
        assert!(cube(&cache, Activation::Pattern, 1).slice(s![2, 3, ..]).iter().all(|&x| x == 0.0));
        assert!(cube(&cache, Activation::Z, 1).slice(s![3, 2, ..]).iter().all(|&x| x == 0.0));
        let scores = cube(&cache, Activation::AttnScores, 1);
        assert!(scores.slice(s![2, 3, ..]).iter().all(|&x| x == f32::NEG_INFINITY));
        assert!(scores[[2, 4, 3]].is_finite() && scores[[1, 3, 3]].is_finite());

        // The others share what a knocked out key had.
        let cache = run(&[Intervention::knock_out(1, [(-1, 0), (5, 2)]).head(0)]);
        let edited = cube(&cache, Activation::Pattern, 1);
        let row = |pattern: &Array3<f32>, query: usize| -> Array1<f32> {
            pattern.index_axis(Axis(0), 0).row(query).to_owned()
        };
        for (query, key) in [(last, 0), (5, 2)] {
            let mut want = row(&pattern, query);
            want[key] = 0.0;
            let sum = want.sum();
            assert_close(&row(&edited, query), &(want / sum), 1e-5);
        }

        // Masked cells stay masked.
        for hooks in [
            vec![Intervention::zero(Activation::AttnScores.at(1))],
            vec![Intervention::set(Activation::Pattern.at(1), 1.0)],
            vec![Intervention::hook(Activation::AttnScores.at(1), |values, _| values.mapv(|_| 1.0))],
        ] {
            let edited = cube(&run(&hooks), Activation::Pattern, 1);
            for ((_, query, key), &x) in edited.indexed_iter() {
                assert_eq!(x > 0.0, key <= query, "{hooks:?}");
            }
        }
    }
}

#[test]
fn edits_of_results_and_neurons_flow_into_what_follows() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap();
        let logits = |hook: Intervention| model.run_with_hooks(PROMPTS[0], &[hook]).unwrap().remove(0);
        // A head without a result is a head without z.
        let (result, z) = (Activation::Result.at(2), Activation::Z.at(2));
        assert_close(&logits(Intervention::zero(result).head(5)), &logits(Intervention::zero(z).head(5)), 1e-5);
        // A result that grows by a vector at a position, and attention's output that does.
        let vector = Array1::linspace(-1.0, 1.0, 128);
        let added = Intervention::add(result, &vector).head(1).pos(3);
        assert_close(&logits(added), &logits(Intervention::add(Activation::AttnOut.at(2), &vector).pos(3)), 1e-5);
        // Without neurons, an MLP writes its bias.
        let b_out = model.block_weights(2).unwrap().b_out;
        let (post, out) = (Activation::MlpPost.at(2), Activation::MlpOut.at(2));
        assert_close(&logits(Intervention::zero(post)), &logits(Intervention::set(out, b_out)), 1e-5);
        // GELU is 0 at 0.
        let pre = Activation::MlpPre.at(2);
        assert_close(&logits(Intervention::zero(pre)), &logits(Intervention::zero(post)), 1e-6);
        // The cache has the edited ones, and those that follow from them.
        let hooks = [Intervention::set(pre, 0.5).neuron(7), Intervention::zero(result).head(1)];
        let (_, cache) = model.hooked(&hooks).unwrap().run_with_cache(PROMPTS[0]).unwrap();
        let column = |activation| cache.get(activation, 2).unwrap().index_axis(Axis(1), 7).to_owned();
        assert!(column(Activation::MlpPre).iter().all(|&x| x == 0.5));
        assert!(column(Activation::MlpPost).iter().all(|&x| (x - 0.345_714).abs() < 1e-4));
        assert!(cube(&cache, Activation::Result, 2).index_axis(Axis(1), 1).iter().all(|&x| x == 0.0));
        let sum = cube(&cache, Activation::Result, 2).sum_axis(Axis(1)) + &model.block_weights(2).unwrap().b_o;
        assert_close(&sum, &cache.get(Activation::AttnOut, 2).unwrap(), 1e-5);
    }
}

/// With held scales, the logits are linear in the last residual stream, and a run with its own scales is unchanged.
#[test]
fn frozen_layer_norms_keep_their_scales() {
    for (device, processing) in [
        (Device::cpu(), Processing::default()),
        (Device::cpu(), Processing::none()),
        (Device::dfdx_cpu(), Processing::none()),
    ] {
        let options = LoadOptions::default().device(device).processing(processing);
        let model = Gpt2::from_pretrained(fixture("odd").to_str().unwrap(), options).unwrap();
        let prompts = vec![vec![5, 7, 1, 9], vec![2, 3]];
        let (logits, cache) = model.run_with_cache(prompts.clone()).unwrap();
        let frozen = Intervention::freeze_layer_norms(&cache);
        let run = |hooks: &[Intervention]| {
            model.hooked(&[hooks, &frozen].concat()).unwrap().run_with_cache(prompts.clone()).unwrap()
        };
        let (own, own_cache) = run(&[]);
        for prompt in 0..2 {
            assert_close(&own[prompt], &logits[prompt], 1e-5);
            let [got, want] =
                [&own_cache, &cache].map(|cache| cache.prompt(prompt).unwrap().get(Activation::MlpPost, 1).unwrap());
            assert_close(&got, &want, 1e-5);
        }
        // The logits at scales of 1, 2 and 3 are on a line.
        let last = Activation::ResidPost.at(2);
        let [two, three] = [2.0, 3.0].map(|factor| run(&[Intervention::scale(last, factor)]).0);
        for prompt in 0..2 {
            assert_close(&(&three[prompt] - &two[prompt]), &(&two[prompt] - &logits[prompt]), 1e-4);
        }
        // The neurons that the cache holds are those of the run.
        let scaled = run(&[Intervention::scale(Activation::ResidMid.at(1), 2.0)]).1.prompt(0).unwrap();
        let block = model.block_weights(1).unwrap();
        let post = scaled.get(Activation::MlpPost, 1).unwrap().into_dimensionality::<Ix2>().unwrap();
        assert_close(&(post.dot(&block.w_out) + &block.b_out), &scaled.get(Activation::MlpOut, 1).unwrap(), 1e-5);
        // Also at chosen positions, and in a measured run.
        let frozen_model = model.hooked(&[&[Intervention::scale(last, 2.0)], &frozen[..]].concat()).unwrap();
        let at_end = frozen_model.logits_at(prompts.clone(), &[-1]).unwrap();
        assert_close(at_end[0].row(0), two[0].row(3), 1e-5);
        let measured = Metric::logit(&[7, 8]).measure(&frozen_model, prompts.clone()).unwrap();
        assert!((measured - (two[0][[3, 7]] + two[1][[1, 8]]) / 2.0).abs() < 1e-4);
    }
}

#[test]
fn sums_over_heads_have_edited_results() {
    let model = demo();
    let hook = Intervention::scale(Activation::Result.at(2), 3.0).head(1);
    let (_, cache) = model.hooked(&[hook]).unwrap().run_with_cache(PROMPTS[0]).unwrap();
    let stack = cache.stack_head_results(&model, None, true).unwrap();
    let result = cube(&cache, Activation::Result, 2);
    assert_close(&stack.component("L2H1").unwrap(), result.index_axis(Axis(1), 1), 1e-5);
    let attrs = cache.head_logit_attrs(&model, 5, None).unwrap();
    let of_stack = cache.logit_attrs(&model, &stack, 5, None).unwrap();
    assert_close(attrs.slice(s![2, 1, ..]), of_stack.row(2 * 8 + 1), 1e-4);
}

#[test]
fn patching_everything_gives_the_other_run() {
    let model = demo();
    let (clean, corrupted) = (
        "When Mary and John went to the store, John gave a drink to",
        "When Mary and John went to the store, Mary gave a drink to",
    );
    let (logits, cache) = model.run_with_cache(clean).unwrap();
    for point in [Activation::ResidPre.at(0), Activation::ResidPost.at(3), Activation::ResidMid.at(1)] {
        assert_close(
            &model.run_with_hooks(corrupted, &[Intervention::patch(point, &cache)]).unwrap()[0],
            &logits[0],
            1e-5,
        );
    }
    // The values are broadcast, and a selection of them has its shape.
    let z = cube(&cache, Activation::Z, 1);
    let (patch, set) = (Intervention::patch(Activation::Z.at(1), &cache), |values: EditValues| {
        Intervention::set(Activation::Z.at(1), values)
    });
    let both = [
        patch.head(2).positions([1, -1]),
        set(z.select(Axis(0), &[1, z.dim().0 - 1]).slice(s![.., 2..3, ..]).to_owned().into())
            .head(2)
            .positions([1, -1]),
    ];
    let [one, other] = both.map(|hook| model.run_with_hooks(corrupted, &[hook]).unwrap().remove(0));
    assert_eq!(one, other);
}

#[test]
fn means_and_resampling_take_the_prompts_of_the_cache() {
    let model = on("odd", Device::cpu());
    let prompts = vec![vec![1, 2, 3], vec![4, 5, 6], vec![7, 8, 9, 10], vec![11, 12, 13]];
    let (_, cache) = model.run_with_cache(prompts.clone()).unwrap();
    let point = Activation::Z.at(1);
    let z = |prompt: usize| cube(&cache.prompt(prompt).unwrap(), Activation::Z, 1);
    let edited = |hook: Intervention| {
        let (_, cache) = model.hooked(&[hook]).unwrap().run_with_cache(prompts.clone()).unwrap();
        (0..4).map(|prompt| cube(&cache.prompt(prompt).unwrap(), Activation::Z, 1)).collect::<Vec<_>>()
    };
    let mean = edited(Intervention::mean(point, &cache));
    let first_three = (z(0) + z(1) + z(2).slice(s![..3, .., ..]) + z(3)) / 4.0;
    assert_close(&mean[0], &first_three, 1e-6);
    assert_close(mean[2].slice(s![3, .., ..]), z(2).slice(s![3, .., ..]), 1e-6); // the only prompt with this position
    let by_group = edited(Intervention::mean_by(point, &cache, [0, 0, 1, 1]));
    assert_close(&by_group[1], &((z(0) + z(1)) / 2.0), 1e-6);
    assert_close(by_group[3].slice(s![.., .., ..]), &((z(2).slice(s![..3, .., ..]).to_owned() + z(3)) / 2.0), 1e-6);

    let drawn = |seed| edited(Intervention::resample(point, &cache, seed).prompts([0, 1, 3]));
    assert_eq!(drawn(3), drawn(3));
    let mut choices = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let source = (0..4).find(|&prompt| drawn(seed)[0] == z(prompt)).unwrap();
        assert!(source == 1 || source == 3, "another prompt of the same length");
        choices.insert(source);
    }
    assert_eq!(choices.len(), 2);
}

#[test]
fn a_hooked_model_is_a_model() {
    let model = demo();
    let plain = model.hooked(&[]).unwrap();
    assert_eq!(plain.forward(PROMPTS).unwrap(), model.forward(PROMPTS).unwrap());
    assert_eq!(format!("{plain:?}"), format!("{model:?}"));

    let hooks = [
        Intervention::zero(Activation::Z.at(1)).head(3),
        Intervention::scale(Activation::AttnScores.at(2), 0.5).head(1),
    ];
    let hooked = model.hooked(&hooks).unwrap();
    assert!(format!("{hooked:?}").contains("zero blocks.1.attn.hook_z, head 3"), "{hooked:?}");
    assert_eq!(hooked.without_hooks().forward(PROMPTS).unwrap(), model.forward(PROMPTS).unwrap());
    let (logits, cache) = hooked.run_with_cache(PROMPTS[0]).unwrap();
    assert!(format!("{cache:?}").contains("scale by 0.5 blocks.2.attn.hook_attn_scores, head 1"), "{cache:?}");
    assert_ne!(logits, model.forward(PROMPTS[0]).unwrap());

    // Captions and files name the interventions.
    let data = head_data(&hooked, &cache, 2, 1, DecodeOptions::default()).unwrap();
    let table = attention_tokens::notebook::attention_table(&data.prompt(0).unwrap()).to_text();
    assert!(table.contains("zero blocks.1.attn.hook_z, head 3"), "{table}");
    let folder = tempfile::tempdir().unwrap();
    data.write_csv(folder.path().join("head.csv")).unwrap();
    let csv = std::fs::read_to_string(folder.path().join("head.csv")).unwrap();
    assert!(csv.contains("zero blocks.1.attn.hook_z, head 3; scale by 0.5 blocks.2.attn.hook_attn_scores, head 1"));
    cache.write_safetensors(&hooked, folder.path().join("cache.safetensors")).unwrap();
    let bytes = std::fs::read(folder.path().join("cache.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert!(metadata.metadata().as_ref().unwrap()["interventions"].starts_with("zero blocks.1"));

    // Partial runs leave out what they do not compute.
    let resid = hooked.resid_from(&[cube_of_resid(&cache, 0)], 0, 1).unwrap();
    assert_close(&resid[0], &cube_of_resid(&cache, 1), 1e-5);
    assert_close(&hooked.forward_from(&[cube_of_resid(&cache, 3)], 3).unwrap()[0], &logits[0], 1e-5);
}

fn cube_of_resid(cache: &ActivationCache, layer: usize) -> Array2<f32> {
    cache.get(Activation::ResidPre, layer).unwrap().into_dimensionality::<Ix2>().unwrap()
}

/// With and without the key-value cache, for interventions that do not depend on the length.
#[test]
fn generation_on_a_hooked_model() {
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default().device(device)).unwrap();
        let hooks = [
            Intervention::zero(Activation::Z.at(1)).heads([1, 3]),
            Intervention::scale(Activation::AttnScores.at(2), 0.1).head(1),
            Intervention::scale(Activation::Pattern.at(3), 0.5).key(0),
            Intervention::scale(Activation::Result.at(0), 0.5).head(2),
            Intervention::scale(Activation::MlpPost.at(2), 0.5),
        ];
        let model = model.hooked(&hooks).unwrap();
        let options = GenerateOptions::default().do_sample(false).max_new_tokens(8).stop_at_eos(false);
        let generated = model.generate(PROMPTS[0], options).unwrap().tokens.remove(0);
        let mut tokens = model.to_tokens(PROMPTS[0]).unwrap();
        for _ in 0..8 {
            let last = model.logits_at(vec![tokens.clone()], &[-1]).unwrap().remove(0);
            let best = (0..last.ncols()).max_by(|&a, &b| last[[0, a]].total_cmp(&last[[0, b]])).unwrap();
            tokens.push(best as u32);
        }
        assert_eq!(generated, tokens);
    }
}

#[test]
fn closures_get_the_selected_part() {
    let model = demo();
    let n = model.to_tokens(PROMPTS[1]).unwrap().len();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let watch = |point: HookPoint| {
        let seen = seen.clone();
        Intervention::hook(point, move |values, context: &HookContext| {
            seen.lock().unwrap().push((values.shape().to_vec(), context.point, context.tokens.len()));
            values
        })
    };
    let hooks = [
        watch(Activation::ResidPre.at(0)).pos(-1),
        watch(Activation::Q.at(0)).heads([1, 4]),
        watch(Activation::AttnScores.at(0)).head(2).positions([1, -1]),
        watch("blocks.3.mlp.hook_post".parse().unwrap()),
    ];
    let logits = model.run_with_hooks(PROMPTS[1], &hooks).unwrap();
    assert_close(&logits[0], &model.forward(PROMPTS[1]).unwrap()[0], 1e-6);
    let want = [
        (vec![1, 128], Activation::ResidPre.at(0), n),
        (vec![n, 2, 16], Activation::Q.at(0), n),
        (vec![1, 2, n], Activation::AttnScores.at(0), n),
        (vec![n, 512], Activation::MlpPost.at(3), n),
    ];
    assert_eq!(seen.lock().unwrap()[..], want);
}
