//! Heads: those of a model that was built to have them are found, those of random weights are at chance; errors.

use std::collections::BTreeMap;

use attention_tokens::prelude::*;
use attention_tokens::{AttendsTo, ErrorMeasure, HeadScore, HeadScores, NameHeadsOptions};
use ndarray::{Array2, arr2};
use safetensors::Dtype;

use crate::support::{Tensors, assert_close, bytes, demo, fixture, write};

/// Sizes of the model with an induction circuit: tokens, positions, layers; and the width of the residual stream, which
/// has an entry for each token, each position, and each token before.
const D_VOCAB: usize = 8;
const N_CTX: usize = 24;
const D_MODEL: usize = 40;

/// A model of two layers with one head each, whose weights are written by hand: head 0.0 attends to the position before
/// and writes its token into the residual stream, head 1.0 attends to positions where that is the query's token. Every
/// other weight is zero.
fn induction_model() -> Gpt2 {
    let token = |token: usize| token;
    let position = |pos: usize| D_VOCAB + pos;
    let token_before = |token: usize| D_VOCAB + N_CTX + token;
    let mut tensors: BTreeMap<String, Array2<f32>> = BTreeMap::new();
    let zeros = |rows, columns| Array2::<f32>::zeros((rows, columns));
    let (mut w_e, mut w_pos) = (zeros(D_VOCAB, D_MODEL), zeros(N_CTX, D_MODEL));
    (0..D_VOCAB).for_each(|t| w_e[[t, token(t)]] = 1.0);
    (0..N_CTX).for_each(|pos| w_pos[[pos, position(pos)]] = 1.0);
    let (mut qkv, mut out) = ([zeros(D_MODEL, 3 * D_MODEL), zeros(D_MODEL, 3 * D_MODEL)], zeros(D_MODEL, D_MODEL));
    const SHARP: f32 = 20.0;
    let (keys, values) = (D_MODEL, 2 * D_MODEL);
    for pos in 0..N_CTX {
        qkv[0][[position(pos), pos.saturating_sub(1)]] = SHARP;
        qkv[0][[position(pos), keys + pos]] = 1.0;
    }
    for t in 0..D_VOCAB {
        qkv[0][[token(t), values + t]] = 1.0;
        out[[t, token_before(t)]] = 0.5;
        qkv[1][[token(t), t]] = SHARP;
        qkv[1][[token_before(t), keys + t]] = 1.0;
    }
    tensors.insert("wte.weight".into(), w_e);
    tensors.insert("wpe.weight".into(), w_pos);
    for (layer, (qkv, out)) in qkv.into_iter().zip([out, zeros(D_MODEL, D_MODEL)]).enumerate() {
        tensors.insert(format!("h.{layer}.attn.c_attn.weight"), qkv);
        tensors.insert(format!("h.{layer}.attn.c_proj.weight"), out);
        tensors.insert(format!("h.{layer}.mlp.c_fc.weight"), zeros(D_MODEL, 4));
        tensors.insert(format!("h.{layer}.mlp.c_proj.weight"), zeros(4, D_MODEL));
    }
    let matrix = |x: Array2<f32>| (Dtype::F32, x.shape().to_vec(), bytes(&x.into_raw_vec_and_offset().0));
    let vector = |n: usize, x: f32| (Dtype::F32, vec![n], bytes(&vec![x; n]));
    let mut file: Tensors = tensors.into_iter().map(|(name, x)| (name, matrix(x))).collect();
    let mut norms = vec!["ln_f".to_owned()];
    for layer in 0..2 {
        norms.extend([format!("h.{layer}.ln_1"), format!("h.{layer}.ln_2")]);
        file.insert(format!("h.{layer}.attn.c_attn.bias"), vector(3 * D_MODEL, 0.0));
        file.insert(format!("h.{layer}.attn.c_proj.bias"), vector(D_MODEL, 0.0));
        file.insert(format!("h.{layer}.mlp.c_fc.bias"), vector(4, 0.0));
        file.insert(format!("h.{layer}.mlp.c_proj.bias"), vector(D_MODEL, 0.0));
    }
    for norm in norms {
        file.insert(format!("{norm}.weight"), vector(D_MODEL, 1.0));
        file.insert(format!("{norm}.bias"), vector(D_MODEL, 0.0));
    }
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), &file);
    let config = format!(
        r#"{{"model_type": "gpt2", "vocab_size": {D_VOCAB}, "n_positions": {N_CTX}, "n_embd": {D_MODEL}, "n_layer": 2,
            "n_head": 1, "n_inner": 4, "layer_norm_epsilon": 1e-05, "activation_function": "gelu_new",
            "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": true}}"#
    );
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    Gpt2::from_pretrained(folder.path().to_string_lossy(), LoadOptions::default()).unwrap()
}

/// Distinct tokens that come twice, after the beginning-of-sequence token.
const REPEATED: [u32; 15] = [0, 3, 1, 6, 4, 7, 2, 5, 3, 1, 6, 4, 7, 2, 5];

#[test]
fn a_built_induction_circuit_is_found_by_every_tool() {
    let model = induction_model();
    let best = |scores: &HeadScores| {
        let HeadScore { layer, head, score } = scores.top(1)[0];
        ((layer, head), score)
    };
    let (_, cache) = model.run_with_cache(REPEATED.to_vec()).unwrap();
    for (pattern, head, least) in [
        (DetectionPattern::PreviousTokenHead, (0, 0), 0.9),
        (DetectionPattern::InductionHead, (1, 0), 7.0 / 15.0 * 0.95), // the seven queries that come again, of 15
    ] {
        let scores = cache.detect_head(&pattern, DetectOptions::default()).unwrap();
        assert!(best(&scores).0 == head && best(&scores).1 > least, "{pattern:?}: {}", scores.values);
    }
    // One repeated half without the first token's attention, which is that of a perfect previous-token head.
    let options = DetectOptions { exclude_bos: true, error_measure: ErrorMeasure::Mul, ..DetectOptions::default() };
    assert!(best(&cache.detect_head(&DetectionPattern::PreviousTokenHead, options).unwrap()).1 > 0.99);
    let diagonal = cache.diagonal_scores(6).unwrap();
    assert!(best(&diagonal).0 == (1, 0) && best(&diagonal).1 > 7.0 / 9.0 * 0.95, "{}", diagonal.values);

    let names = model.name_heads(REPEATED.to_vec(), NameHeadsOptions::default()).unwrap();
    assert_eq!(names.names, arr2(&[[Some(AttendsTo::PreviousToken)], [Some(AttendsTo::Induction)]]));
    assert_eq!(names.heads(AttendsTo::Induction), [(1, 0)]);
    assert!(names.scores(AttendsTo::Induction).values[[1, 0]] > 0.95);
    let rows = names.table().rows().to_vec();
    assert_eq!((rows.len(), rows[2][0].as_str(), rows[2][1].as_str()), (3, "1.0", "induction"));

    // Random tokens repeat within a half too, so the attention is shared with other matches.
    let tokens = RepeatedTokens { len: 6, batch: 20, ..RepeatedTokens::default() };
    let scores = model.repeated_token_scores(tokens).unwrap();
    assert!(best(&scores.previous_token).0 == (0, 0) && best(&scores.previous_token).1 > 0.9);
    assert!(best(&scores.induction).0 == (1, 0) && best(&scores.induction).1 > scores.induction.chance.unwrap() + 0.2);

    // What the induction head reads, the previous-token head wrote: they compose by keys.
    let composition = |mode| model.all_composition_scores(mode).unwrap().scores[[0, 0, 1, 0]];
    assert!(composition(Composition::K) > 2.0 * composition(Composition::Q), "{}", composition(Composition::K));
}

#[test]
fn heads_of_random_weights_are_at_chance() {
    for name in ["tiny", "odd"] {
        let model = Gpt2::from_pretrained(fixture(name).to_string_lossy(), LoadOptions::default()).unwrap();
        let tokens = RepeatedTokens { len: 10, batch: 20, seed: 3, tokens: None };
        let scores = model.repeated_token_scores(tokens.clone()).unwrap();
        for scores in [&scores.previous_token, &scores.duplicate_token, &scores.induction] {
            let chance = scores.chance.unwrap();
            assert!(scores.values.iter().all(|score| (score - chance).abs() < 0.05), "{name} {scores:?}");
            assert!((scores.values.mean().unwrap() - chance).abs() < 0.02, "{name} {scores:?}");
        }
        assert!(model.copying_scores().unwrap().values.iter().all(|score| score.abs() < 0.3));
        let prompts = tokens.prompts(model.config()).unwrap();
        let names = model.name_heads(prompts, NameHeadsOptions::default()).unwrap();
        assert!(names.names.iter().all(Option::is_none), "{:?}", names.names);
    }
}

/// The demo model does not repeat lists of random words: the second time costs it no less than the first. Its heads
/// have no induction to be found.
#[test]
fn the_demo_model_has_no_induction_head() {
    let model = demo();
    let words = [" red", " blue", " green", " black", " white", " apple", " river", " table", " window", " garden"];
    let words: Vec<u32> = words.iter().map(|word| model.to_single_token(word).unwrap()).collect();
    let tokens = RepeatedTokens { len: 10, batch: 8, seed: 1, tokens: Some(words) };
    let prompts = tokens.prompts(model.config()).unwrap();
    let losses = model.loss_per_token(prompts).unwrap();
    let mean = |of: std::ops::Range<usize>| {
        losses.iter().map(|losses| losses.slice(ndarray::s![of.clone()]).sum()).sum::<f32>() / (8 * of.len()) as f32
    };
    assert!(mean(10..20) > 0.8 * mean(1..10), "{} {}", mean(1..10), mean(10..20));
    let induction = model.repeated_token_scores(tokens).unwrap().induction;
    assert!(induction.top(1)[0].score < induction.chance.unwrap() + 0.1, "{induction:?}");
}

/// The letters model repeats what it has read, by two previous-token heads and four induction heads.
#[test]
fn the_letters_model_has_induction_heads() {
    let model = Gpt2::from_pretrained("letters", LoadOptions::default()).unwrap();
    let twice = RepeatedTokens { len: 30, batch: 10, seed: 4, tokens: None };
    let prompts = twice.prompts(model.config()).unwrap();
    let losses = model.loss_per_token(prompts.clone()).unwrap();
    let mean = |of: std::ops::Range<usize>| {
        losses.iter().map(|losses| losses.slice(ndarray::s![of.clone()]).sum()).sum::<f32>() / (10 * of.len()) as f32
    };
    assert!(mean(0..30) > 4.0 && mean(31..60) < 0.1, "{} {}", mean(0..30), mean(31..60));
    let scores = model.repeated_token_scores(twice).unwrap();
    let above = |scores: &HeadScores, limit: f32| {
        let mut heads: Vec<_> = scores.top(8).into_iter().filter(|head| head.score > limit).collect();
        heads.sort_by_key(|head| (head.layer, head.head));
        heads.iter().map(|head| (head.layer, head.head)).collect::<Vec<_>>()
    };
    assert_eq!(above(&scores.previous_token, 0.5), [(0, 1), (0, 2)]);
    assert_eq!(above(&scores.induction, 0.6), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    assert_eq!(above(&scores.duplicate_token, 0.1), []);
    // What they attend to, they copy; and their keys read what the previous-token heads write.
    assert!(model.copying_scores().unwrap().values.row(1).iter().all(|&score| score > 0.7));
    let composition = model.all_composition_scores(Composition::K).unwrap();
    let excess = composition.scores.mapv(|score| score - composition.baseline.mean);
    for later in 0..4 {
        assert!(excess[[0, 1, 1, later]].min(excess[[0, 2, 1, later]]) > 0.08, "{excess}");
        assert!(excess[[0, 0, 1, later]].max(excess[[0, 3, 1, later]]) < 0.08, "{excess}");
    }
    // Nothing to find: the second half is that of another prompt.
    let mut control = prompts[0].clone();
    control[31..].copy_from_slice(&prompts[1][31..]);
    let (_, cache) = model.run_with_cache(control).unwrap();
    assert!(cache.diagonal_scores(29).unwrap().top(1)[0].score < 0.15);
    let continued = model.generate("kXbq7ZkXb", GenerateOptions::default().max_new_tokens(3).do_sample(false)).unwrap();
    assert_eq!(continued.texts, ["kXbq7ZkXbq7Z"]);
}

/// Sentences of the indirect-object task, with their answers.
fn sentences(model: &Gpt2) -> (Vec<String>, Vec<u32>, Vec<u32>) {
    let names = [" Mary", " John", " Tom", " Anna", " James", " Sarah", " David", " Kate"];
    let (mut prompts, mut answers) = (Vec::new(), Vec::new());
    for (index, answer) in names.iter().enumerate() {
        let subject = names[(index + 3) % names.len()];
        for (first, second) in [(answer, &subject), (&subject, answer)] {
            prompts.push(format!("When{first} and{second} went to the store,{subject} gave a drink to"));
            answers.push(model.to_single_token(answer).unwrap());
        }
    }
    let names = names.map(|name| model.to_single_token(name).unwrap()).into();
    (prompts, names, answers)
}

#[test]
fn the_demo_models_head_3_5_attends_to_the_first_name() {
    let model = demo();
    let (prompts, names, answers) = sentences(&model);
    let scores = model.name_mover_scores(&prompts, &names, &answers, 5).unwrap();
    assert_eq!(scores.n_names, 48);
    // The answer is the first name in half of the sentences. Head 3.5 attends to it in that half only.
    let attention = |first: usize| {
        let half = |of: &[u32]| of.iter().skip(first).step_by(2).copied().collect::<Vec<_>>();
        let prompts: Vec<&String> = prompts.iter().skip(first).step_by(2).collect();
        let scores = model.name_mover_scores(&prompts[..], &names, &half(&answers), 5).unwrap();
        scores.answer_attention.values[[3, 5]]
    };
    assert!(attention(0) > 0.6 && attention(1) < 0.1, "{} {}", attention(0), attention(1));
    // So it seems to look for the answer. It writes for a name the more, the more it attends to it.
    let HeadScore { layer, head, score } = scores.answer_attention.top(1)[0];
    assert!((layer, head) == (3, 5) && score > 0.35, "{layer}.{head} {score}");
    assert!(scores.correlation.values[[3, 5]] > 0.5, "{}", scores.correlation.values);
    // An average head copies few names, as in GPT-2 small, but more than chance.
    let mean = scores.copy.values.mean().unwrap();
    assert!(mean < 0.2 && mean > 10.0 * scores.copy.chance.unwrap(), "{mean}");
    assert_eq!(scores.table(3).rows()[0][0], "3.5");

    // Both copy scores are shares of the same names: with every token allowed, they are 1.
    let all = model.name_mover_scores(&prompts[..1], &names, &answers[..1], model.config().d_vocab).unwrap();
    assert!(all.copy.values.iter().chain(&all.negative_copy.values).all(|&share| share == 1.0));
}

#[test]
fn scores_of_a_batch_are_means_and_can_leave_out_heads() {
    let model = demo();
    let prompts = ["The cat sat on the cat.", "One, two, three, four"];
    for pattern in [DetectionPattern::DuplicateTokenHead, DetectionPattern::PreviousTokenHead] {
        for error_measure in [ErrorMeasure::Mul, ErrorMeasure::Abs] {
            let options = DetectOptions { error_measure, exclude_current_token: true, ..DetectOptions::default() };
            let alone = |prompt: &str| model.detect_head(prompt, &pattern, options.clone()).unwrap().values;
            let both = model.detect_head(prompts, &pattern, options.clone()).unwrap().values;
            assert_close(&both, &((alone(prompts[0]) + alone(prompts[1])) / 2.0), 1e-5);
        }
    }
    let options = DetectOptions { heads: Some(vec![(1, 2)]), ..DetectOptions::default() };
    let scores = model.detect_head(prompts[0], &DetectionPattern::PreviousTokenHead, options).unwrap();
    assert_eq!(scores.values.iter().filter(|&&score| score == -1.0).count(), 31);
    assert!(scores.values[[1, 2]] > 0.0);

    // A pattern of one's own that is the attention itself matches perfectly.
    let (_, cache) = model.run_with_cache(prompts[0]).unwrap();
    let pattern = cache.get(Activation::Pattern, 1).unwrap().index_axis_move(ndarray::Axis(0), 2);
    let custom = DetectionPattern::Custom(pattern.into_dimensionality().unwrap());
    let options = DetectOptions { error_measure: ErrorMeasure::Abs, ..DetectOptions::default() };
    let scores = cache.detect_head(&custom, options).unwrap();
    assert_eq!((scores.top(1)[0].layer, scores.top(1)[0].head, scores.top(1)[0].score), (1, 2, 1.0));
}

#[test]
fn scores_have_figures_and_tables() {
    let values = arr2(&[[0.25, f32::NAN], [0.75, -0.5]]);
    let scores = HeadScores { name: "a score".into(), values, chance: Some(0.125) };
    let figure: serde_json::Value = serde_json::from_str(&scores.plot().to_json()).unwrap();
    assert_eq!(figure["data"][0]["z"], serde_json::json!([[0.25, null], [0.75, -0.5]]));
    assert!(scores.plot().to_svg().unwrap().contains("a score, chance 0.125"));
    assert_eq!(scores.table(9).rows(), [["1.0", "0.750"], ["0.0", "0.250"], ["1.1", "-0.500"]]);
}

#[test]
fn prompts_of_repeated_tokens_come_from_their_seed() {
    let model = induction_model();
    let tokens = RepeatedTokens { len: 5, batch: 3, seed: 7, tokens: Some(vec![2, 4, 6]) };
    let prompts = tokens.prompts(model.config()).unwrap();
    assert_eq!(prompts.len(), 3);
    for prompt in &prompts {
        assert_eq!((prompt.len(), prompt[0], &prompt[1..6]), (11, 0, &prompt[6..]));
        assert!(prompt[1..].iter().all(|token| [2, 4, 6].contains(token)));
    }
    assert_eq!(prompts, tokens.prompts(model.config()).unwrap());
    assert!(prompts != RepeatedTokens { seed: 8, ..tokens.clone() }.prompts(model.config()).unwrap());
    let all = RepeatedTokens { len: 11, batch: 20, seed: 0, tokens: None }.prompts(model.config()).unwrap();
    let mut drawn: Vec<u32> = all.iter().flat_map(|prompt| prompt[1..].to_vec()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn, [1, 2, 3, 4, 5, 6, 7]); // not the beginning-of-sequence token
}

#[test]
fn errors_name_what_does_not_fit() {
    let model = induction_model();
    let detect = |prompt: &[u32], pattern: Array2<f32>| {
        model.detect_head(prompt.to_vec(), &DetectionPattern::Custom(pattern), DetectOptions::default()).map(drop)
    };
    let repeated =
        |len, batch, tokens| model.repeated_token_scores(RepeatedTokens { len, batch, seed: 0, tokens }).map(drop);
    let movers = |prompt: &[u32], names: &[u32], answers: &[u32], top_k| {
        model.name_mover_scores(prompt.to_vec(), names, answers, top_k).map(drop)
    };
    let mut above = Array2::zeros((3, 3));
    above[[0, 2]] = 0.5;
    let mut infinite = Array2::zeros((3, 3));
    infinite[[2, 1]] = f32::INFINITY;
    let heads = |heads| DetectOptions { heads: Some(heads), ..DetectOptions::default() };
    let excluded = DetectOptions { exclude_bos: true, exclude_current_token: true, ..DetectOptions::default() };
    let previous = DetectionPattern::PreviousTokenHead;
    let (_, cache) = model.run_with_cache(vec![0_u32, 1, 2]).unwrap();
    let (_, batch) = model.run_with_cache(vec![vec![0_u32, 1], vec![0, 2]]).unwrap();
    let without = RunOptions::default().activations([Activation::Q]);
    let (_, without) = model.run_with_cache_options(vec![0_u32, 1], without).unwrap();
    let name = |min_excess| model.name_heads(vec![0_u32, 1], NameHeadsOptions { min_excess }).map(drop);
    let cases: [(Result<(), Error>, [&str; 2]); 23] = [
        (detect(&[0, 1, 2], Array2::zeros((2, 3))), ["[3, 3]", "[2, 3]"]),
        (detect(&[0, 1, 2], above), ["0.5 at query 0, key 2", "0 where key > query"]),
        (detect(&[0, 1, 2], infinite), ["inf at query 2, key 1", "finite"]),
        (detect(&[0], Array2::zeros((1, 1))), ["tokens of a prompt", "found 1"]),
        (detect(&[], Array2::zeros((0, 0))), ["prompt 0", "no token"]),
        (detect(&[0, 9], Array2::zeros((2, 2))), ["token id 9", "0 to 7"]),
        (
            model.detect_head(Vec::<Vec<u32>>::new(), &previous, DetectOptions::default()).map(drop),
            ["prompts", "found 0"],
        ),
        (model.detect_head(vec![0_u32, 1], &previous, heads(vec![(2, 0)])).map(drop), ["layer 2", "0 to 1"]),
        (cache.detect_head(&previous, heads(vec![(0, 1)])).map(drop), ["head 1", "each layer"]),
        (model.detect_head(vec![0_u32, 1], &previous, excluded).map(drop), ["at least 3", "found 2"]),
        (batch.detect_head(&previous, DetectOptions::default()).map(drop), ["one prompt", "2 prompts"]),
        (without.detect_head(&previous, DetectOptions::default()).map(drop), ["pattern", "only q"]),
        (cache.diagonal_scores(3).map(drop), ["offset", "0 to 2"]),
        (repeated(1, 1, None), ["len", "2 to 11"]),
        (repeated(12, 1, None), ["len", "found 12"]),
        (repeated(5, 0, None), ["batch", "found 0"]),
        (repeated(5, 1, Some(vec![1, 8])), ["token id 8", "0 to 7"]),
        (repeated(5, 1, Some(vec![1])), ["tokens to draw from", "found 1"]),
        (movers(&[0, 1, 2], &[1], &[1, 2], 5), ["answers", "found 2"]),
        (movers(&[0, 1, 2], &[1], &[3], 5), ["token 3, in prompt 0", "found 0"]),
        (movers(&[0, 1, 2], &[4], &[1], 5), ["names in the prompts", "found 0"]),
        (movers(&[0, 1, 2], &[1], &[1], 0), ["top_k", "1 to 8"]),
        (name(1.5), ["min_excess", "0 to 1, found 1.5"]),
    ];
    for (result, parts) in cases {
        let text = result.unwrap_err().to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}: {parts:?}");
    }
    assert!(name(f32::NAN).is_err());
}
