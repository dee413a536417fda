//! Similarity test: pairs whose result is known, the properties of each control, and pairs that cannot be tested.

use attention_tokens::experiments::*;

use crate::support::demo;

fn pair(kind: &str, a: &str, b: &str) -> PromptPair {
    PromptPair { kind: kind.into(), a: a.into(), b: b.into() }
}

fn options(controls: Controls) -> SimilarityOptions {
    SimilarityOptions { controls, n_controls: 2, resamples: 199, ..Default::default() }
}

/// Pairs of a prompt with itself have similarity 1 in every head, and a small p-value in most. (A head with one token
/// for every cell has similarity 1 to its controls too.)
#[test]
fn a_prompt_is_similar_to_itself() {
    let model = demo();
    let texts = ["The next bus is late.", "Water boils in a pot.", "He opened the old door.", "They went up the hill."];
    let pairs: Vec<PromptPair> = texts.iter().map(|text| pair("same", text, text)).collect();
    for measure in [PatternMeasure::AdjustedRand, PatternMeasure::RowEdits] {
        let options = SimilarityOptions { measure, ..options(Controls::OtherPrompts) };
        let test = similarity_test(&model, &pairs, "same", options).unwrap();
        assert_eq!((test.n_pairs, test.heads.len(), test.equal_tokens_in_pairs), (4, 32, 1.0));
        assert!(test.equal_tokens_in_controls < 0.5);
        for head in &test.heads {
            assert_eq!(head.of_pairs, 1.0);
            assert!((head.difference - (head.of_pairs - head.of_controls)).abs() < 1e-12);
            assert!(head.interval[0] <= head.difference && head.difference <= head.interval[1]);
            assert!(head.p >= 0.005 && head.p_corrected >= head.p, "{head:?}");
        }
        // One of the 3⁴ exchanges is the observed assignment, so p is near 1/81.
        let small = test.heads.iter().filter(|head| head.p < 0.05).count();
        assert!(small > 16, "{small}");
        let ranked = test.ranked();
        assert!(ranked.is_sorted_by(|a, b| a.difference >= b.difference));
        assert_eq!(test.table().rows().len(), 32);
        assert!(test.significant(0.05).iter().all(|head| head.p_corrected <= 0.05));
        assert_eq!(
            similarity_test(&model, &pairs, "same", options).unwrap().heads,
            test.heads,
            "the same seed gives the same result"
        );
    }
}

/// `SharedWords` controls have as many equal tokens as pairs; `Shuffled` ones have the words, but not in their places.
#[test]
fn controls_have_their_documented_properties() {
    let model = demo();
    let pairs: Vec<PromptPair> = PromptPair::shipped().into_iter().take(3).collect();
    let shared = similarity_test(&model, &pairs, "structure", options(Controls::SharedWords)).unwrap();
    assert!((shared.equal_tokens_in_controls - shared.equal_tokens_in_pairs).abs() < 1e-12, "{shared:?}");
    let shuffled = similarity_test(&model, &pairs, "structure", options(Controls::Shuffled)).unwrap();
    assert_eq!(shuffled.equal_tokens_in_pairs, shared.equal_tokens_in_pairs);
    assert!(shuffled.equal_tokens_in_controls < shared.equal_tokens_in_pairs / 2.0);
}

#[test]
fn every_shipped_pair_can_be_tested() {
    let (model, pairs) = (demo(), PromptPair::shipped());
    for kind in ["structure", "meaning"] {
        assert_eq!(pairs.iter().filter(|pair| pair.kind == kind).count(), 12);
    }
    let len = |text: &str| model.to_tokens(text).unwrap().len();
    for (index, pair) in pairs.iter().enumerate() {
        assert_eq!(len(&pair.a), len(&pair.b), "{pair:?}");
        let others =
            pairs.iter().enumerate().filter(|&(other, _)| other != index).flat_map(|(_, other)| [&other.a, &other.b]);
        assert!(others.filter(|other| len(other) == len(&pair.b)).count() >= 2, "{pair:?} has too few controls");
    }
}

#[test]
fn errors_name_the_pairs_that_cannot_be_tested() {
    let model = demo();
    let error = |pairs: &[PromptPair], options| similarity_test(&model, pairs, "x", options).unwrap_err().to_string();
    let others = options(Controls::OtherPrompts);
    assert!(error(&[pair("y", "a", "b")], others).contains("pairs of kinds [\"y\"]"));
    let unequal = [pair("x", "one", "one two three")];
    assert!(error(&unequal, others).contains("PatternMeasure::RowEdits"));
    let rows = SimilarityOptions { measure: PatternMeasure::RowEdits, ..others };
    assert!(error(&unequal, rows).contains("other prompts with the 4 tokens of \"one two three\""));
    assert!(similarity_test(&model, &unequal, "x", SimilarityOptions { controls: Controls::Shuffled, ..rows }).is_ok());
    assert!(
        error(&unequal, SimilarityOptions { n_controls: 0, ..rows })
            .contains("n_controls: expected at least 1, found 0")
    );
}
