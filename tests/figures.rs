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
    assert_eq!(trace["z"], json!([[0.0, null], [2.0, 0.0]]), "the value above the diagonal is no token");
    assert_eq!(
        (&trace["colorscale"], &trace["zmid"], &trace["showscale"]),
        (&json!("Viridis"), &json!(0.5), &json!(false))
    );
    let layout = &figure["layout"];
    assert_eq!(layout["width"], 940);
    assert_eq!((&layout["plot_bgcolor"], &layout["paper_bgcolor"]), (&json!("#f2f2f2"), &json!("white")));
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
    let json = json_of(&figure);
    let annotations = json["layout"]["annotations"].as_array().unwrap().clone();
    assert_eq!(annotations.len(), 4 * 13 + 4, "four sides and their names");
    let left: Vec<&Value> = annotations.iter().filter(|label| label["xanchor"] == "right").collect();
    let texts: Vec<&str> = left.iter().map(|label| label["text"].as_str().unwrap()).collect();
    assert_eq!(texts[..4], ["EOS", "The", "␣next", "␣sentence"]);
    assert_eq!((&left[0]["xshift"], &left[0]["font"]), (&json!(-20.0), &json!({"size": 12, "color": "black"})));
    for (query, key) in (0..13).flat_map(|query| (0..13).map(move |key| (query, key))) {
        let text = cell_text(&json, query, key);
        match data.attention_tokens()[[query, key]] {
            Some(token) => assert_eq!(text, data.token_label(token)),
            None => assert_eq!(text, ""),
        }
    }
    let escaped =
        |text: String| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('$', "&#36;");
    let top: Vec<&Value> =
        annotations.iter().filter(|label| label["textangle"] == json!(-90.0) && label["yref"] == "y domain").collect();
    assert_eq!(top.len(), 26 + 2, "and the names of the left and the right side");
    assert_eq!(top[0]["text"].as_str().unwrap(), escaped(data.token_label(data.q.tokens[[0, 0]])));
    assert_eq!(top[13]["text"].as_str().unwrap(), escaped(data.token_label(data.k.tokens[[0, 0]])));
    let title = "Attention tokens of head 0.1 of demo, through the original notebook's projection";
    assert_eq!(json["layout"]["title"]["text"], title);
    let words = figure.describe();
    assert!(words.starts_with("heat map of the attention tokens of head 0.1 of demo, through"), "{words}");
    assert!(words.contains("13 × 13 cells, 10 distinct tokens"), "{words}");
}

/// The text in a cell, which is in one of two traces, without line breaks.
fn cell_text(figure: &Value, query: usize, key: usize) -> String {
    let of = |trace: usize| figure["data"][trace]["text"][query][key].as_str().unwrap().replace("<br>", "");
    let text = (of(0) + &of(1)).replace('\u{200b}', "");
    text.replace("&lt;", "<").replace("&amp;", "&")
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
    assert_eq!((&layout["width"], &layout["xaxis2"]["range"]), (&json!(940), &json!([-0.5, 2.5])));
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
    let lines = |text: roxmltree::Node| text.children().filter_map(|line| line.text()).collect::<String>();
    let texts: Vec<String> = elements("text").map(lines).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // The title, the cells' texts, the sides with their names.
    assert_eq!(texts.len(), 1 + 91 + 4 * 13 + 4);
    let mut in_cells = texts[1..92].to_vec();
    let tokens = data.attention_tokens();
    let labels: Vec<String> = tokens.iter().flatten().map(|&token| data.token_label(token)).collect();
    let mut want: Vec<&str> = labels.iter().map(String::as_str).collect();
    in_cells.sort_unstable();
    want.sort_unstable();
    assert_eq!(in_cells, want);
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
    let cells = pattern.indexed_iter().filter(|((query, key), _)| key <= query);
    cells.for_each(|(_, value)| *counts.entry(value.to_bits()).or_insert(0) += 1);
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
    assert_eq!((texts[0], texts[texts.len() - 1]), ("<title>", "a & b"));
    assert!(texts.len() > 2 * (4 * 13 + 4 + 91), "{}", texts.len());
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
    let token = |rank: usize| data.token_label(data.qk.tokens[[cell, rank]]);
    let after = |line: &str, words: &str| {
        let number = line.split(words).nth(1).unwrap().split(',').next().unwrap();
        number.parse::<f32>().unwrap()
    };
    // The value that is plotted comes first.
    assert!((after(&lines[0], "attention ") - data.attn[[4, 3]]).abs() < 1e-4);
    assert_eq!(lines[1], "query 4 ␣is, key 3 ␣sentence");
    assert_eq!(lines[2], format!("attention token {}", token(0)));
    assert!((after(&lines[3], "logit ") - data.qk.logits[[cell, 0]]).abs() < 1e-2);
    assert!(lines[4].starts_with(&format!("then {} −", token(1))), "{}", lines[4]);
    assert!((after(&lines[4], "−") - data.qk.margin[cell]).abs() < 1e-2);
    let tokens = json_of(&plot_head(&data))["data"][0]["hovertext"][4][3].as_str().unwrap().to_owned();
    assert!(tokens.starts_with(&format!("attention token {}<br>query 4 ␣is, key 3 ␣sentence<br>logit ", token(0))));
}

#[test]
fn every_further_token_is_in_hover_texts_and_in_the_table() {
    let model = demo();
    let (_, cache) = model.run_with_cache("The next sentence is false.").unwrap();
    let options = DecodeOptions { top_k: 5, ..DecodeOptions::default() };
    let data = head_data(&model, &cache, 0, 1, options).unwrap().prompt(0).unwrap();
    let labels: Vec<String> =
        data.qk.tokens.row(data.cell(4, 2).unwrap()).iter().map(|&token| data.token_label(token)).collect();
    let hover = json_of(&plot_head(&data))["data"][0]["hovertext"][4][2].as_str().unwrap().to_owned();
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    assert!(labels.iter().all(|label| hover.contains(&escaped(label))), "{hover}, {labels:?}");
    assert_eq!(attention_table(&data).rows()[4][3], labels.join(" ¦ "));
}

#[test]
fn a_token_has_one_color_in_all_panels_and_a_row_in_the_legend() {
    let model = demo();
    let prompts = ["The next sentence is false.", "The next bus is late."].map(String::from).to_vec();
    let run = run_prompts(&model, prompts).unwrap();
    let [first, second] = [0, 1].map(|prompt| calculate_attns(&run, 0, 1).unwrap().prompt(prompt).unwrap());
    let figure = json_of(&compare_plots(&plot_head(&first), &plot_head(&second), "", "").unwrap());
    let mut color_of = std::collections::HashMap::new();
    for (trace, data) in [(0, &first), (2, &second)] {
        for ((query, key), token) in data.attention_tokens().indexed_iter() {
            let color = figure["data"][trace]["z"][query][key].as_u64().unwrap();
            match token {
                None => assert_eq!(color, 0),
                Some(token) => assert_eq!(*color_of.entry(*token).or_insert(color), color),
            }
        }
    }
    let mut colors: Vec<u64> = color_of.values().copied().collect();
    colors.sort_unstable();
    assert!(colors.iter().copied().eq(1..=colors.len() as u64), "{colors:?}");
    let annotations = figure["layout"]["annotations"].as_array().unwrap();
    let squares: Vec<&Value> = annotations.iter().filter(|text| text["text"] == "■").collect();
    assert_eq!(squares.len(), color_of.len());
    let scale = figure["data"][0]["colorscale"].as_array().unwrap();
    assert_eq!(squares[0]["font"]["color"], scale[2][1], "the most frequent token has the first colour");
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
