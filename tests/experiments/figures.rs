//! Figures and tables of the experiments.

use attention_tokens::experiments::*;
use attention_tokens::prelude::*;

use super::{PROMPTS, all_heads};
use crate::support::demo;

fn counts(model: &Gpt2) -> VocabularyCounts {
    let mut counts = VocabularyCounts::new(model, Projection::Notebook).unwrap();
    counts.add(model, PROMPTS).unwrap();
    counts
}

/// Every figure of the experiments, in both themes: plotly's JSON and the static picture are well-formed, with a size
/// and a title.
#[test]
fn experiments_have_figures() {
    let model = demo();
    let heads = all_heads(&model, Projection::Notebook);
    let contraction = ContractionByHead::new(&heads).unwrap();
    let unchanged = TokenAgreement::between("nothing", &heads, &heads).unwrap();
    let vectors = singular_vectors(&model, WeightMatrix::Ov { layer: 0, head: 0 }, 4, 6).unwrap();
    let figures = [
        contraction.plot_distinct_ratio(),
        contraction.plot_runs_ratio(),
        contraction.plot_by_length(),
        unchanged.plot(),
        vectors.plot(),
    ];
    let pairs: Vec<PromptPair> = PromptPair::shipped().into_iter().skip(21).collect();
    let options =
        SimilarityOptions { controls: Controls::Shuffled, n_controls: 2, resamples: 99, ..Default::default() };
    let similarity = similarity_test(&model, &pairs, "meaning", options).unwrap();
    let tokens = [" and", "."].map(|token| model.to_single_token(token).unwrap());
    let appended = appending(&model, 0, 1, &PROMPTS, &tokens, Projection::Notebook).unwrap();
    let monoid = appended.monoid(6, 50).unwrap();
    let answers = [" true", " false"].map(|word| model.to_single_token(word).unwrap());
    let receipt = receipt(&model, PROMPTS[0], answers, ReceiptOptions::default()).unwrap();
    let pairs = said_written_needed(&model, PROMPTS[1], 3, 5, NeedOptions::default()).unwrap();
    let counts = counts(&model);
    let table = multiplication_table(&model, 0, 1, &(300..312).collect::<Vec<_>>(), Reading::MATCHED).unwrap();
    let shared = counts.shared_tokens(Component::K);
    let map = counts.embedding_map(&model, Component::V, 100, MapMethod::Pca).unwrap();
    let figures = figures.into_iter().chain([
        similarity.plot(),
        appended.plot_transitions(6),
        appended.plot_commuting(),
        monoid.plot(),
        receipt.plot(),
        pairs.plot().unwrap(),
        table.plot(),
        counts.plot_rank_frequency(Component::Qk),
        shared.plot(),
        shared.clustered().plot(),
        map.plot(),
    ]);
    let figures: Vec<Figure> = figures.collect();
    figures.iter().for_each(check_figure);
    assert!(
        figures[0]
            .describe()
            .starts_with("matrix: Distinct attention tokens to distinct input tokens, mean of 2 prompts")
    );
    assert_eq!(agreement_table(&[unchanged]).rows()[0][..2], ["nothing", "1.000"]);
    assert_eq!(vectors.table().rows().len(), 4);
    assert_eq!(table.table().rows()[0][1][..4], *"12: ");
}

fn check_figure(figure: &Figure) {
    for figure in [figure.clone(), figure.with_theme(Theme::Dark).unwrap()] {
        let json: serde_json::Value = serde_json::from_str(&figure.to_json()).unwrap();
        assert!(json["layout"]["width"].is_number() && json["layout"]["height"].is_number());
        assert!(json["layout"]["title"]["text"].is_string(), "{}", figure.describe());
        assert!(!json["data"].as_array().unwrap().is_empty());
        let svg = figure.to_svg().unwrap();
        let picture = roxmltree::Document::parse(&svg).unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", figure.describe());
        assert!(picture.descendants().filter(|node| node.has_tag_name("text")).count() > 3);
        assert!(figure.to_json().len() + svg.len() < 150_000, "{}: {}", figure.describe(), figure.to_json().len());
    }
}
