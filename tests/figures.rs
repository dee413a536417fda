//! Figures of the notebook's functions: plotly's JSON and static pictures.

use attention_tokens::notebook::*;
use attention_tokens::prelude::*;
use ndarray::{Array2, arr2};
use serde_json::{Value, json};

use crate::support::demo;

fn json_of(figure: &Figure) -> Value {
    serde_json::from_str(&figure.to_json()).unwrap()
}

fn data() -> PromptHeadData {
    let run = run_prompts(&demo(), "The next sentence is false. The previous sentence is true.").unwrap();
    calculate_attns(&run, 0, 1).unwrap().prompt(0).unwrap()
}

#[test]
fn a_heat_map_has_the_style_of_the_original() {
    let figure = json_of(&plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]])));
    let trace = &figure["data"][0];
    assert_eq!(trace["type"], "heatmap");
    assert_eq!(trace["z"], json!([[0.0, 1.0], [2.0, 0.0]]));
    assert_eq!(
        (&trace["colorscale"], &trace["zmid"], &trace["showscale"]),
        (&json!("Viridis"), &json!(0.5), &json!(false))
    );
    let layout = &figure["layout"];
    assert_eq!((&layout["width"], &layout["height"]), (&json!(1200), &json!(800)));
    assert_eq!((&layout["plot_bgcolor"], &layout["paper_bgcolor"]), (&json!("white"), &json!("white")));
    assert_eq!(layout["yaxis"]["range"], json!([1.5, -0.5]), "row 0 on top");
    assert_eq!(layout["yaxis"]["scaleanchor"], "x", "square cells");
    assert_eq!(
        (&layout["xaxis"]["showticklabels"], &layout["yaxis"]["showticklabels"]),
        (&json!(false), &json!(false))
    );
}

#[test]
fn cells_above_the_minimum_attention_are_framed() {
    let data = data();
    let figure = plot_attns(&unique_index_pattern(&data.feature(Feature::Qk)));
    let layout = json_of(&add_attn_overlay(&figure, &data, MIN_ATTN).unwrap())["layout"].clone();
    let want: Vec<(f64, f64)> = data
        .attn
        .indexed_iter()
        .filter(|&(_, &attn)| attn > 0.3)
        .map(|((query, key), _)| (key as f64 - 0.5, query as f64 - 0.5))
        .collect();
    let shapes = layout["shapes"].as_array().unwrap();
    let got: Vec<(f64, f64)> =
        shapes.iter().map(|shape| (shape["x0"].as_f64().unwrap(), shape["y0"].as_f64().unwrap())).collect();
    assert!(!want.is_empty());
    assert_eq!(got, want);
    assert_eq!(shapes[0]["line"], json!({"color": "white", "width": 2.0}));
    assert!(shapes[0].get("fillcolor").is_none());
}

#[test]
fn every_label_is_the_token_of_its_cell_or_position() {
    let data = data();
    let pattern = unique_index_pattern(&data.feature(Feature::Qk));
    let figure = add_axis_labels(&plot_attns(&pattern), &data).unwrap();
    let figure = add_token_labels(&figure, &data, Feature::Qk).unwrap();
    let annotations = json_of(&figure)["layout"]["annotations"].as_array().unwrap().clone();
    assert_eq!(annotations.len(), 4 * 13 + 13 * 14 / 2 + 1, "four sides, the cells, and which head it is");
    let left: Vec<&Value> = annotations.iter().filter(|label| label["xanchor"] == "right").collect();
    let texts: Vec<&str> = left.iter().map(|label| label["text"].as_str().unwrap()).collect();
    assert_eq!(texts[..4], ["EOS", "The", " next", " sentence"]);
    assert_eq!((&left[0]["xshift"], &left[0]["font"]), (&json!(-20.0), &json!({"size": 12, "color": "black"})));
    let cells: Vec<&Value> = annotations.iter().filter(|label| label["textangle"] == json!(-45.0)).collect();
    assert_eq!(cells.len(), 91);
    assert_eq!(cells[0]["font"], json!({"size": 10, "color": "white", "shadow": "auto"}));
    let escaped =
        |text: String| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('$', "&#36;");
    for label in cells {
        let (key, query) = (label["x"].as_f64().unwrap() as usize, label["y"].as_f64().unwrap() as usize);
        let token = data.attention_tokens()[[query, key]].expect("key ≤ query");
        assert_eq!(label["text"].as_str().unwrap(), escaped(data.token_label(token)));
    }
    let top: Vec<&Value> = annotations.iter().filter(|label| label["textangle"] == json!(-90.0)).collect();
    assert_eq!(top.len(), 26);
    assert_eq!(top[0]["text"].as_str().unwrap(), escaped(data.token_label(data.q.tokens[[0, 0]])));
    assert_eq!(top[13]["text"].as_str().unwrap(), escaped(data.token_label(data.k.tokens[[0, 0]])));
    assert!(annotations.iter().any(|label| label["text"] == "head 0.1, projection notebook"));
    assert!(figure.describe().starts_with("heat map of head 0.1, projection notebook: 13 × 13 cells"));
}

#[test]
fn compare_plots_puts_two_heat_maps_side_by_side() {
    let data = data();
    let one = || add_attn_overlay(&plot_attns(&unique_index_pattern(&data.feature(Feature::Qk))), &data, 0.3).unwrap();
    let figure = compare_plots(&one(), &plot_attns(&Array2::zeros((3, 3))), "left & right", "below").unwrap();
    let value = json_of(&figure);
    assert_eq!(value["data"].as_array().unwrap().len(), 2);
    assert_eq!((&value["data"][1]["xaxis"], &value["data"][1]["yaxis"]), (&json!("x2"), &json!("y2")));
    let layout = &value["layout"];
    assert_eq!(layout["title"]["text"], "left &amp; right");
    assert_eq!(layout["yaxis2"]["scaleanchor"], "x2");
    assert_eq!((&layout["width"], &layout["xaxis2"]["range"]), (&json!(1200), &json!([-0.5, 2.5])));
    assert!(layout["annotations"].as_array().unwrap().iter().any(|label| label["text"] == "below"));
    let message = compare_plots(&figure, &one(), "", "").unwrap_err().to_string();
    assert!(message.starts_with("compare_plots: expected a figure with one heat map"), "{message}");
}

#[test]
fn labels_and_frames_for_a_figure_of_another_size_are_an_error() {
    let message = add_attn_overlay(&plot_attns(&Array2::zeros((3, 3))), &data(), 0.3).unwrap_err().to_string();
    let expected = "add_attn_overlay: expected [query_pos, key_pos] = [13, 13], found [3, 3]";
    assert!(message.starts_with(expected), "{message}");
    let from_plot = Figure::from(plot_attns(&Array2::zeros((13, 13))).to_plot());
    let message = add_axis_labels(&from_plot, &data()).unwrap_err().to_string();
    assert!(message.contains("found a figure made from a plot"), "{message}");
}

#[test]
fn the_pattern_counts_first_appearances_row_by_row() {
    let feature = arr2(&[[9.0, -1.0, -1.0], [4.0, 9.0, -1.0], [4.0, 7.0, -0.0]]);
    assert_eq!(unique_index_pattern(&feature), arr2(&[[0.0, 1.0, 1.0], [2.0, 0.0, 1.0], [2.0, 3.0, 4.0]]));
    assert_eq!(unique_index_pattern(&arr2(&[[0.0, -0.0]])), arr2(&[[0.0, 0.0]]));
}

fn pair() -> Figure {
    let data = data();
    let figure = add_axis_labels(&plot_attns(&unique_index_pattern(&data.feature(Feature::Qk))), &data).unwrap();
    let figure = add_attn_overlay(&figure, &data, MIN_ATTN).unwrap();
    let figure = add_token_labels(&figure, &data, Feature::Qk).unwrap();
    compare_plots(&figure, &figure, "<title>", "a & b").unwrap()
}

#[test]
fn the_svg_has_the_cells_texts_and_frames_of_the_figure() {
    let data = data();
    let figure = add_axis_labels(&plot_attns(&unique_index_pattern(&data.feature(Feature::Qk))), &data).unwrap();
    let figure = add_attn_overlay(&figure, &data, MIN_ATTN).unwrap();
    let figure = add_token_labels(&figure, &data, Feature::Qk).unwrap();
    let svg = figure.to_svg().unwrap();
    let picture = roxmltree::Document::parse(&svg).unwrap();
    let elements = |name: &'static str| picture.descendants().filter(move |node| node.has_tag_name(name));
    let texts: Vec<&str> = elements("text").filter_map(|text| text.text()).collect();
    assert_eq!(texts.len(), 4 * 13 + 91 + 1);
    let labels = data.attention_tokens().iter().flatten().map(|&token| data.token_label(token)).collect::<Vec<_>>();
    assert_eq!(texts[4 * 13..4 * 13 + 91], labels);
    let frames = elements("rect").filter(|rect| rect.attribute("stroke") == Some("#fff")).count();
    assert_eq!(frames, json_of(&figure)["layout"]["shapes"].as_array().unwrap().len());
    // Each colour is one path. The widths of its rectangles add up to the number of cells with that value.
    let mut covered: Vec<usize> = elements("path")
        .map(|path| {
            let widths = path.attribute("d").unwrap().split('h').skip(1).filter(|part| !part.starts_with('-'));
            widths.map(|part| part.split('v').next().unwrap().parse::<usize>().unwrap()).sum()
        })
        .collect();
    let mut counts = std::collections::BTreeMap::new();
    let pattern = unique_index_pattern(&data.feature(Feature::Qk));
    pattern.iter().for_each(|value| *counts.entry(value.to_bits()).or_insert(0) += 1);
    let mut want: Vec<usize> = counts.into_values().collect();
    covered.sort_unstable();
    want.sort_unstable();
    assert_eq!(covered, want);
    assert!(Figure::from(figure.to_plot()).to_svg().is_none());
}

#[test]
fn panels_of_equal_size_zoom_together() {
    let figure = pair();
    let layout = json_of(&figure)["layout"].clone();
    assert_eq!((&layout["xaxis2"]["matches"], &layout["yaxis2"]["matches"]), (&json!("x"), &json!("y")));
    let svg = figure.to_svg().unwrap();
    let picture = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<&str> =
        picture.descendants().filter(|node| node.has_tag_name("text")).filter_map(|t| t.text()).collect();
    assert_eq!(texts.len(), 2 * (4 * 13 + 91 + 1) + 2);
    assert_eq!((texts[0], texts[texts.len() - 1]), ("<title>", "a & b"));
    let other = plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]]));
    let unlike = compare_plots(&other, &plot_attns(&arr2(&[[0.0]])), "", "").unwrap();
    assert!(json_of(&unlike)["layout"]["xaxis2"].get("matches").is_none());
}

#[test]
fn hover_texts_match_the_data_of_the_cell() {
    let data = data();
    let figure = add_attn_overlay(&plot_attns(&data.feature(Feature::Attn)), &data, MIN_ATTN).unwrap();
    let trace = json_of(&figure)["data"][0].clone();
    let text = |query: usize, key: usize| trace["hovertext"][query][key].as_str().unwrap().to_owned();
    assert_eq!(text(2, 3), "", "no text where the key comes after the query");
    let lines: Vec<String> = text(4, 3).split("<br>").map(str::to_owned).collect();
    let cell = data.cell(4, 3).unwrap();
    assert_eq!(lines[0], "query 4 “ is”");
    assert_eq!(lines[1], "key 3 “ sentence”");
    let after = |line: &str, words: &str| line.split(words).nth(1).unwrap().parse::<f32>().unwrap();
    assert!((after(&lines[2], "attention ") - data.attn[[4, 3]]).abs() < 1e-4);
    let token = |rank: usize| data.token_label(data.qk.tokens[[cell, rank]]);
    assert!(lines[3].starts_with(&format!("attention token “{}”", token(0))), "{}", lines[3]);
    assert!((after(&lines[3], "logit ") - data.qk.logits[[cell, 0]]).abs() < 1e-2);
    assert!(lines[4].starts_with(&format!("then “{}”", token(1))), "{}", lines[4]);
    assert!((after(&lines[4], "less by ") - data.qk.margin[cell]).abs() < 1e-2);
}

#[test]
fn every_axis_domain_is_within_zero_to_one() {
    for (rows, columns) in (1..40).flat_map(|rows| (1..40).map(move |columns| (rows, columns))) {
        let figure = plot_attns(&Array2::zeros((rows, columns)));
        for figure in [json_of(&figure), json_of(&compare_plots(&figure, &figure, "", "").unwrap())] {
            for axis in ["xaxis", "yaxis", "xaxis2", "yaxis2"] {
                let Some(domain) = figure["layout"][axis]["domain"].as_array() else { continue };
                let [from, to] = [0, 1].map(|at| domain[at].as_f64().unwrap());
                assert!(
                    (0.0..=1.0).contains(&from) && from < to && to <= 1.0,
                    "{rows} × {columns}, {axis}: {domain:?}"
                );
            }
        }
    }
}
