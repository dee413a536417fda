//! Experiments: against TransformerLens, against counts by hand, and their figures.

mod concordance;
mod figures;
mod multiplication;
mod receipt;
mod referee;
mod said_written_needed;
mod similarity;
mod sweep_files;
mod vocabulary;

use attention_tokens::Signs;
use attention_tokens::experiments::*;
use attention_tokens::prelude::*;

use crate::support::{demo, fixture, floats, read};

const PROMPTS: [&str; 2] =
    ["The next sentence is false. The previous sentence is true.", "Monday, Tuesday, Wednesday,"];

fn all_heads(model: &Gpt2, projection: Projection) -> Vec<HeadData> {
    let (_, cache) = model.run_with_cache(PROMPTS).unwrap();
    all_heads_data(model, &cache, DecodeOptions::default().projection(projection)).unwrap()
}

/// The same tokens as TransformerLens' `SVDInterpreter`, up to the sign of a vector, unless its singular value is
/// almost equal to another one; scores within 0.2% of the largest, for they are differences of f32 numbers.
#[test]
fn singular_vectors_match_transformer_lens() {
    let golden = read(&fixture("svd_interpreter.safetensors"));
    let raw = LoadOptions::default().processing(Processing::none());
    let mut compared = 0;
    for (level, options) in [("raw", raw), ("notebook", LoadOptions::default())] {
        let model = Gpt2::from_pretrained("demo", options).unwrap();
        let layers = 0..4;
        let heads = layers.clone().flat_map(|layer| (0..8).map(move |head| WeightMatrix::Ov { layer, head }));
        let matrices: [(&str, Vec<WeightMatrix>); 3] = [
            ("ov", heads.collect()),
            ("w_in", layers.clone().map(|layer| WeightMatrix::WIn { layer }).collect()),
            ("w_out", layers.clone().map(|layer| WeightMatrix::WOut { layer }).collect()),
        ];
        for (name, matrices) in matrices {
            let tensor = |what: &str| &golden[&format!("{level}.{name}.{what}")].2;
            let tokens: Vec<u32> = floats(tensor("tokens")).into_iter().map(f32::to_bits).collect();
            let (scores, gaps) = (floats(tensor("scores")), floats(tensor("gap")));
            assert_eq!(tokens.len(), matrices.len() * 4 * 2 * 5);
            for (index, matrix) in matrices.into_iter().enumerate() {
                let found = singular_vectors(&model, matrix, 4, 5).unwrap();
                for vector in 0..4 {
                    if gaps[4 * index + vector] < 1e-4 {
                        continue; // the last digit of a weight rotates it into its neighbour
                    }
                    let range =
                        |end: usize| 5 * (2 * (4 * index + vector) + end)..5 * (2 * (4 * index + vector) + end + 1);
                    let ends = [&found.highest, &found.lowest];
                    // The sign of a vector is free, so our lowest scores may be their highest ones.
                    let ours =
                        |end: usize| (ends[end].tokens.row(vector).to_vec(), ends[end].logits.row(vector).to_vec());
                    let swapped = usize::from(ours(0).0[0] != tokens[range(0)][0]);
                    for theirs in 0..2 {
                        let (our_tokens, our_scores) = ours(theirs ^ swapped);
                        let (their_tokens, their_scores) = (&tokens[range(theirs)], &scores[range(theirs)]);
                        for rank in 0..5 {
                            let difference = (our_scores[rank] - their_scores[rank]).abs();
                            assert!(
                                difference < 2e-3 * their_scores[0].abs(),
                                "{matrix:?} {vector} {rank}: {our_scores:?} {their_scores:?}"
                            );
                        }
                        // Scores that are equal up to rounding may come in either order.
                        let distinct = |rank: usize| {
                            let differs_from = |other: usize| {
                                (their_scores[rank] - their_scores[other]).abs() > 1e-3 * their_scores[0]
                            };
                            (rank == 0 || differs_from(rank - 1)) && rank < 4 && differs_from(rank + 1)
                        };
                        for rank in (0..5).filter(|&rank| distinct(rank)) {
                            assert_eq!(our_tokens[rank], their_tokens[rank], "{matrix:?} {vector} {rank}");
                            compared += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 1500, "{compared}");
}

#[test]
fn singular_vectors_out_of_range_are_errors() {
    let model = demo();
    let error = |matrix, vectors| singular_vectors(&model, matrix, vectors, 5).unwrap_err().to_string();
    assert!(error(WeightMatrix::WIn { layer: 4 }, 1).contains("layer 4 out of range"));
    assert!(error(WeightMatrix::Ov { layer: 0, head: 8 }, 1).contains("head 8 out of range"));
    assert!(error(WeightMatrix::WOut { layer: 0 }, 0).contains("num_vectors: expected at least 1, found 0"));
    // Asking for more returns all: the rank of an OV circuit is d_head.
    let all = singular_vectors(&model, WeightMatrix::Ov { layer: 0, head: 0 }, 1000, 1).unwrap();
    assert_eq!((all.vectors.dim(), all.singular_values.len()), ((16, 128), 16));
}

/// Complete agreement without a change, a count by hand between two projections, and reproducible random draws.
#[test]
fn token_agreement_of_the_demo_model() {
    let model = demo();
    let (_, cache) = model.run_with_cache("Monday, Tuesday,").unwrap();
    let notebook = all_heads(&model, Projection::Notebook);
    let same = TokenAgreement::between("nothing", &notebook, &notebook).unwrap();
    assert!(same.agreement.iter().all(|&agreement| agreement == 1.0));
    assert!(same.agreement_by_chance.iter().all(|&chance| chance > 0.0 && chance <= 1.0));

    // Head 1.3 by hand: the tokens of two projections, cell by cell.
    let output = all_heads(&model, Projection::Output);
    let between_projections = TokenAgreement::between("output", &notebook, &output).unwrap();
    let tokens = |heads: &[HeadData]| -> Vec<u32> {
        heads[11].prompts.iter().flat_map(|data| data.qk.tokens.column(0).to_vec()).collect()
    };
    let (a, b) = (tokens(&notebook), tokens(&output));
    let equal = a.iter().zip(&b).filter(|(a, b)| a == b).count();
    assert!((between_projections.agreement[[1, 3]] - equal as f32 / a.len() as f32).abs() < 1e-6);

    // The same seed gives the same draws, another seed other draws.
    let flips = |seed| TokenAgreement::under_sign_flips(&model, &cache, Projection::Ov, 2, seed).unwrap().agreement;
    assert_eq!(flips(1), flips(1));
    assert_ne!(flips(1), flips(2));
    let reordered = TokenAgreement::under_reordering(&model, &cache, Projection::Notebook, 2, 1).unwrap();
    assert!(reordered.agreement.mean().unwrap() < 0.9);
    assert!(TokenAgreement::under_sign_flips(&model, &cache, Projection::Ov, 0, 1).is_err());
}

/// For the `Output` and `Ov` projections, a sign flip of a column of `W_V` and the row of `W_O` is a sign flip of an
/// entry of `q ⊙ k`.
#[test]
fn a_sign_flip_of_the_basis_is_a_sign_flip_of_the_vector() {
    let model = demo();
    for projection in [Projection::Output, Projection::Ov] {
        let as_loaded = model.reading_matrix(2, 5, projection).unwrap();
        let flipped = model.reading_matrix(2, 5, Reading::from(projection).signs(Signs::Random(1))).unwrap();
        let mut signs = Vec::new();
        for (as_loaded, flipped) in as_loaded.outer_iter().zip(flipped.outer_iter()) {
            let sign = as_loaded.dot(&flipped).signum();
            assert!((&as_loaded * sign - flipped).iter().all(|x| x.abs() < 1e-6));
            signs.push(sign);
        }
        assert!(signs.contains(&1.0) && signs.contains(&-1.0), "{signs:?}");
    }
}

/// `Σ (q ⊙ k) / √d_head` is the attention score, with refactored weights and without.
#[test]
fn products_of_queries_and_keys_sum_to_attention_scores() {
    for refactor in [true, false] {
        let options = LoadOptions::default().refactor_factored_attn_matrices(refactor);
        let model = Gpt2::from_pretrained("demo", options).unwrap();
        let (_, cache) = model.run_with_cache(PROMPTS).unwrap();
        let check = AttentionScoreCheck::new(&cache).unwrap();
        assert!(check.largest_score > 1.0 && check.largest_difference < 1e-5 * check.largest_score, "{check:?}");
    }
}

#[test]
fn contraction_of_the_demo_model() {
    let model = demo();
    let heads = all_heads(&model, Projection::Notebook);
    let all = ContractionByHead::new(&heads).unwrap();
    assert_eq!(all.distinct_ratio.dim(), (4, 8));
    // Head 1.1 by hand: distinct tokens of both prompts.
    let ratio = |data: &PromptHeadData| {
        let distinct = |tokens: &[u32]| tokens.iter().collect::<std::collections::BTreeSet<_>>().len() as f32;
        distinct(&data.qk.tokens.column(0).to_vec()) / distinct(&data.input)
    };
    let mean = heads[9].prompts.iter().map(ratio).sum::<f32>() / 2.0;
    assert!((all.distinct_ratio[[1, 1]] - mean).abs() < 1e-6);
    let (low, high) = (all.most_contracting(), all.most_expanding());
    assert!(all.distinct_ratio.iter().all(|&x| all.distinct_ratio[low] <= x && x <= all.distinct_ratio[high]));
    assert!(ContractionByHead::new(&heads[1..]).unwrap_err().to_string().contains("every head of a model"));
}

/// What a pair writes, apart from `b_U`, depends on the key alone: attention only scales it. So appending a token changes
/// no token of the keys before it, and every map is the identity.
#[test]
fn appending_changes_no_token_that_a_key_writes() {
    let model = demo();
    let tokens = [" and", "."].map(|token| model.to_single_token(token).unwrap());
    let reading = Reading::WRITTEN.unembed_bias(false);
    for (layer, head) in [(0, 1), (2, 3), (3, 5)] {
        let result = appending(&model, layer, head, &PROMPTS, &tokens, reading).unwrap();
        assert_eq!(result.reading, reading);
        for map in &result.maps {
            assert_eq!((map.conflict_rate(), map.fixed_points().len()), (0.0, map.most_frequent().len()));
            assert!(map.most_frequent().len() > 3);
        }
        assert_eq!(result.monoid(8, 100).unwrap().len(), 1);
    }
}
