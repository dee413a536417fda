//! The merge test: against runs with a closure, on a model whose partitions are known, by chance, and with nothing to merge.

use attention_tokens::experiments::{MergeOptions, MergeTest, NothingToMerge, merge_attention, merge_test};
use attention_tokens::ndarray::{Axis, s};
use attention_tokens::prelude::*;
use attention_tokens::{Signs, kl_divergence};

use crate::support::{Folder, bytes, demo, fixture, load, rng};

fn options(n_random: usize) -> MergeOptions {
    MergeOptions { n_random, resamples: 199, progress: false, ..Default::default() }
}

/// Prompts in which tokens repeat, without a token that is first.
fn repeating_prompts(rng: &mut fastrand::Rng, n: usize) -> Vec<Vec<u32>> {
    let mut prompt = || {
        let words: Vec<u32> = (0..4).map(|_| rng.u32(1..90)).collect();
        std::iter::once(0).chain((0..12).map(|_| words[rng.usize(..4)])).collect()
    };
    (0..n).map(|_| prompt()).collect()
}

#[test]
fn divergences_are_those_of_runs_with_a_closure() {
    let mut rng = rng();
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        let options_of_load = LoadOptions::default().device(device);
        let model = Gpt2::from_pretrained(fixture("odd").to_str().unwrap(), options_of_load).unwrap();
        // An intervention of the model itself is part of both runs.
        let model = model.hooked(&[Intervention::scale(Activation::MlpOut.at(0), 1.5)]).unwrap();
        let prompts = repeating_prompts(&mut rng, 2);
        let readings = [Reading::NOTEBOOK, Reading::WRITTEN.unembed_bias(false)];
        let some = MergeOptions { positions: Some(vec![-1, 1, -4]), max_bytes: 1, ..options(2) };
        let at_some = merge_test(&model, prompts.clone(), &readings, some).unwrap();
        let test = merge_test(&model, prompts.clone(), &readings, options(2)).unwrap();
        assert_eq!(test.nothing, at_some.nothing);
        let (mut compared, mut differ) = (0, 0);
        for (prompt, tokens) in prompts.iter().enumerate() {
            let (clean, cache) = model.run_with_cache(vec![tokens.clone()]).unwrap();
            for (index, &reading) in readings.iter().enumerate() {
                for data in all_heads_data(&model, &cache, reading.into()).unwrap() {
                    let (layer, head) = (data.layer, data.head);
                    let data = data.prompt(0).unwrap();
                    let merged = merge_attention(&data.attn, &data.attention_tokens()).unwrap();
                    let hook = Intervention::hook(Activation::Pattern.at(layer), move |_, _| {
                        merged.clone().insert_axis(Axis(0)).into_dyn()
                    });
                    let edited = model.run_with_hooks(vec![tokens.clone()], &[hook.head(head)]).unwrap();
                    let kl = kl_divergence(&clean[0], &edited[0]).unwrap();
                    let at = [index, layer, head, prompt];
                    if let Some(reason) = test.nothing[at] {
                        assert!(test.kl_words[at] == 0.0);
                        // One word for all keys has an effect, but every partition has the same one.
                        assert!(reason != NothingToMerge::AllDifferent || kl.mean().unwrap() < 1e-9);
                        continue;
                    }
                    compared += 1;
                    let n = kl.len();
                    let mean_of_some = (kl[n - 1] + kl[1] + kl[n - 4]) / 3.0;
                    for (got, want) in
                        [(&test, kl.mean().unwrap()), (&at_some, mean_of_some)].map(|(t, kl)| (t.kl_words[at], kl))
                    {
                        assert!((got - want).abs() < 2e-3 * want + 1e-9, "{at:?}: {got}, not {want}");
                    }
                    let random = test.kl_random.slice(s![at[0], at[1], at[2], at[3], ..]);
                    assert!(random.iter().all(|kl| kl.is_finite() && *kl >= 0.0));
                    differ += usize::from(random[0] != random[1]);
                }
            }
        }
        assert!(compared > 10, "{compared}");
        // Two random partitions of few keys are sometimes the same.
        assert!(2 * differ > compared, "{differ} of {compared}");
    }
}

/// Without positions, the cells of two equal tokens are equal in the first layer: so are their words, their attention and
/// their values, and merging them changes nothing.
#[test]
fn a_partition_that_the_model_respects_is_found() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| {
        let (_, _, data) = tensors.get_mut("wpe.weight").unwrap();
        *data = bytes(&vec![0.0; data.len() / 4]);
    });
    let model = load(folder.path()).unwrap();
    let prompts = repeating_prompts(&mut fastrand::Rng::with_seed(5), 8);
    let readings = [Reading::MATCHED.unembed_bias(false), Reading::WRITTEN.unembed_bias(false)];
    let test = merge_test(&model, prompts, &readings, options(40)).unwrap();
    for (index, (reading, heads)) in readings.iter().zip(&test.heads).enumerate() {
        for head in heads.iter().filter(|head| head.layer == 0) {
            let result = head.result.unwrap_or_else(|| panic!("{reading}: {head:?}"));
            assert!(result.z > 3.0 && result.p_corrected <= 0.05, "{reading}: {head:?}");
            assert!(result.interval[0] > 0.0 && result.interval[0] <= result.z && result.z <= result.interval[1]);
            assert!(result.kl_words < 0.6 * result.kl_random, "{reading}: {head:?}");
        }
        // Where different tokens have different words, nothing changes at all.
        let exact = test.kl_words.slice(s![index, 0, .., ..]);
        let merged = test.nothing.slice(s![index, 0, .., ..]);
        let n_exact = exact.iter().zip(&merged).filter(|(kl, nothing)| nothing.is_none() && **kl < 1e-10).count();
        assert!(n_exact > 0, "{reading}: {exact}");
    }
    let ranking = test.ranking();
    assert!(ranking.iter().all(|rank| rank.n_respected >= 3 && rank.mean_z > 0.0 && rank.kl_ratio < 1.0));
    assert!(ranking[0].n_respected >= ranking[1].n_respected);
}

/// The model and prompts of the next two tests: random weights, and tokens of which no two are the same.
fn untrained(name: &str, n: usize) -> (Gpt2, Vec<Vec<u32>>) {
    let model = load(&fixture(name)).unwrap().with_random_weights(3).unwrap();
    let mut rng = fastrand::Rng::with_seed(9);
    let prompt = |_| {
        let mut tokens: Vec<u32> = (1..97).collect();
        rng.shuffle(&mut tokens);
        std::iter::once(0).chain(tokens.into_iter().take(14)).collect()
    };
    let prompts = (0..n).map(prompt).collect();
    (model, prompts)
}

/// A random partition in the place of the words is as often above 1.645 as a normal number is, with random weights.
#[test]
fn words_that_have_nothing_to_do_with_the_model_give_chance() {
    let (model, prompts) = untrained("tiny", 8);
    let test = merge_test(&model, prompts, &[Reading::OV], options(60)).unwrap();
    let (mut z, mut above) = (Vec::<f64>::new(), 0_usize);
    for (layer, head) in (0..2_usize).flat_map(|layer| (0..3).map(move |head: usize| (layer, head))) {
        let merged = |prompt: &usize| test.nothing[[0, layer, head, *prompt]].is_none();
        let prompts: Vec<usize> = (0..8).filter(merged).collect();
        for draw in 0..60_usize {
            let z_of_prompt = |&prompt: &usize| {
                let kl = test.kl_random.slice(s![0, layer, head, prompt, ..]);
                let others: Vec<f64> = (0..60_usize).filter(|other| *other != draw).map(|other| kl[other]).collect();
                let mean = others.iter().sum::<f64>() / 59.0;
                let variance = others.iter().map(|kl| (kl - mean).powi(2)).sum::<f64>() / 58.0;
                (mean - kl[draw]) / variance.sqrt()
            };
            let combined = prompts.iter().map(z_of_prompt).sum::<f64>() / (prompts.len() as f64).sqrt();
            above += usize::from(combined > 1.645);
            z.push(combined);
        }
    }
    let n = z.len() as f64;
    let (mean, square) = (z.iter().sum::<f64>() / n, z.iter().map(|z| z * z).sum::<f64>() / n);
    assert!(mean.abs() < 0.05 && (square - 1.0).abs() < 0.15, "{mean} {square}");
    assert!((0.02..0.09).contains(&(above as f64 / n)), "{above} of {n}");
}

/// Equal words of an untrained model are no chance either: they mean similar products of query and key, and so similar
/// attention, or similar values. That is why a trained model has to be compared with an untrained one.
#[test]
fn an_untrained_model_respects_words_by_geometry() {
    let (model, prompts) = untrained("tiny", 8);
    let readings = [Reading::NOTEBOOK.signs(Signs::Random(2)), Reading::WRITTEN.unembed_bias(false)];
    let test = merge_test(&model, prompts, &readings, options(40)).unwrap();
    for rank in test.ranking() {
        assert!(rank.mean_z > 1.0 && rank.interval[0] > 0.0 && rank.kl_ratio < 1.0, "{rank:?}");
    }
}

fn one_head(test: &MergeTest, prompt: usize) -> Vec<Option<NothingToMerge>> {
    test.nothing.slice(s![0, .., .., prompt]).iter().copied().collect()
}

#[test]
fn prompts_with_nothing_to_merge_are_said() {
    let model = load(&fixture("tiny")).unwrap();
    let short: Vec<Vec<u32>> = vec![vec![0], vec![0, 5], vec![0, 5, 7]];
    let test = merge_test(&model, short, &[Reading::NOTEBOOK], options(3)).unwrap();
    assert!(test.nothing.iter().all(|reason| *reason == Some(NothingToMerge::TooShort)));
    assert!(test.heads[0].iter().all(|head| head.result.is_none() && head.n_prompts == 0));
    let rank = test.ranking()[0];
    assert_eq!((rank.n_tested, rank.n_respected, rank.mean_z, rank.interval), (0, 0, 0.0, [0.0, 0.0]));
    let text = format!("{}{}", test.table(), test.heads_table(0).unwrap());
    assert!(text.contains("fewer than four tokens") && text.contains("0 of 0") && !text.contains("NaN"), "{text}");
    assert!(test.z(0).unwrap().iter().all(|z| z.is_nan()));
    let figure = test.plot(0).unwrap();
    assert!(figure.describe().contains("all empty"), "{}", figure.describe());
    assert!(!figure.to_json().contains("NaN"));

    // One key of two between the first token and the query: the two have one word, or two.
    let four = merge_test(&model, vec![vec![0_u32, 5, 7, 9]], &[Reading::NOTEBOOK], options(3)).unwrap();
    let known = [Some(NothingToMerge::OneWord), Some(NothingToMerge::AllDifferent)];
    assert!(one_head(&four, 0).iter().all(|reason| known.contains(reason)), "{four:?}");

    // Predictions of positions that no merge reaches.
    let early = MergeOptions { positions: Some(vec![0, 1]), ..options(3) };
    let prompts = repeating_prompts(&mut fastrand::Rng::with_seed(1), 1);
    let test = merge_test(&model, prompts.clone(), &[Reading::WRITTEN.unembed_bias(false)], early).unwrap();
    assert!(one_head(&test, 0).iter().all(Option::is_some));
    assert!(one_head(&test, 0).contains(&Some(NothingToMerge::NoEffect)));

    let error =
        |readings: &[Reading], options| merge_test(&model, prompts.clone(), readings, options).unwrap_err().to_string();
    assert_eq!(error(&[], options(3)), "merge_test: readings: expected at least 1, found 0");
    assert_eq!(error(&[Reading::OV], options(1)), "merge_test: n_random: expected at least 2, found 1");
    let beyond = MergeOptions { positions: Some(vec![99]), ..options(3) };
    assert!(error(&[Reading::OV], beyond).contains("99"));
    assert!(matches!(test.plot(1), Err(Error::OutOfRange { .. })));
}

#[test]
fn the_result_is_one_of_its_seed_and_of_each_reading_alone() {
    let model = load(&fixture("odd")).unwrap();
    let prompts = repeating_prompts(&mut rng(), 2);
    let run = |readings: &[Reading], seed, max_bytes| {
        merge_test(&model, prompts.clone(), readings, MergeOptions { seed, max_bytes, ..options(5) }).unwrap()
    };
    let both = run(&[Reading::OV, Reading::MATCHED], 1, 1 << 28);
    let alone = run(&[Reading::MATCHED], 1, 1);
    let near = |a: &f64, b: &f64| (a - b).abs() <= 1e-3 * a.abs() + 1e-9;
    let second = both.kl_random.index_axis(Axis(0), 1);
    assert!(second.iter().zip(alone.kl_random.iter()).all(|(a, b)| near(a, b)));
    assert_ne!(run(&[Reading::MATCHED], 2, 1).kl_random, alone.kl_random);
}

#[test]
fn tables_and_figures_name_the_reading_the_model_and_the_prompts() {
    let model = demo();
    let prompts = ["The next bus is late. The previous bus was early.", "the cat and the dog and the cat"];
    let reading = Reading::OV.unembed_bias(false);
    let test = merge_test(&model, prompts, &[reading], options(4)).unwrap();
    let figure = test.plot(0).unwrap();
    let title = "Merged words against random partitions, reading ov, without b_U: demo, 2 prompts, 4 random partitions";
    assert!(figure.describe().contains(title), "{}", figure.describe());
    assert!(figure.describe().contains("4 × 8 cells, layer by head"), "{}", figure.describe());
    assert!(figure.to_svg().is_some());
    let text = format!("{}", test.table());
    assert!(text.contains("heads respected") && text.contains("ov, without b_U"), "{text}");
    assert!(test.heads.iter().flatten().filter_map(|head| head.result).all(|result| {
        result.z.is_finite() && result.interval[0] <= result.interval[1] && result.p <= result.p_corrected
    }));
}
