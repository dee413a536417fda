//! Figures of many heads, long prompts, themes, tables, and files of head data.

use attention_tokens::notebook::*;
use attention_tokens::prelude::*;
use ndarray::{Array2, Array4};
use serde_json::{Value, json};

use crate::support::demo;

const PROMPT: &str = "The next sentence is false. The previous sentence is true.";

fn plotly_json(figure: &Figure) -> Value {
    serde_json::from_str(&figure.to_json()).unwrap()
}

/// The heads of layer 0.
fn heads_of_layer() -> Vec<HeadData> {
    calculate_layer(&run_prompts(&demo(), PROMPT).unwrap(), 0).unwrap()
}

/// The figure of a head with frames, axis labels and token labels.
fn labelled_figure(data: &PromptHeadData) -> Figure {
    let figure = plot_attns(&unique_index_pattern(&data.feature(Feature::Qk)));
    let figure = add_attn_overlay(&figure, data, MIN_ATTN).unwrap();
    let figure = add_axis_labels(&figure, data).unwrap();
    add_token_labels(&figure, data, Feature::Qk).unwrap()
}

/// Head 1.2 on `pos` distinct tokens.
fn data_of_length(pos: usize) -> PromptHeadData {
    let tokens: Vec<u32> = (0..pos as u32).map(|id| 31 * id % 50_000).collect();
    calculate_attns(&run_prompts(&demo(), vec![tokens]).unwrap(), 1, 2).unwrap().prompt(0).unwrap()
}

#[test]
fn calculate_layer_equals_calculate_attns_of_each_head() {
    let run = run_prompts(&demo(), PROMPT).unwrap();
    for (head, data) in calculate_layer(&run, 2).unwrap().iter().enumerate() {
        let alone = calculate_attns(&run, 2, head).unwrap();
        assert_eq!((data.layer, data.head, data.n_prompts()), (2, head, 1));
        assert_eq!(data.to_array(), alone.to_array());
    }
    assert!(calculate_layer(&run, 4).unwrap_err().to_string().contains("layer 4 out of range"));
}

#[test]
fn the_head_menu_shows_the_figure_of_each_head() {
    let heads = heads_of_layer();
    let figure = plotly_json(&browse_heads(&heads, 0).unwrap());
    let buttons = figure["layout"]["updatemenus"][0]["buttons"].as_array().unwrap();
    assert_eq!(buttons.len(), 8);
    let n_annotations = figure["layout"]["annotations"].as_array().unwrap().len();
    let mut color_of = std::collections::HashMap::new();
    for (head, button) in heads.iter().zip(buttons) {
        let data = head.prompt(0).unwrap();
        let alone = plotly_json(&plot_head(&data));
        assert_eq!(button["label"], format!("0.{}", head.head));
        assert_eq!(button["method"], "update");
        let (cells, labels) = (&button["args"][0], &button["args"][1]);
        assert_eq!(cells["hovertext"][0], alone["data"][0]["hovertext"]);
        // A token has the same colour in every head.
        for ((query, key), token) in data.attention_tokens().indexed_iter() {
            let color = cells["z"][0][query][key].as_u64().unwrap();
            assert_eq!(*color_of.entry(*token).or_insert(color), color);
        }
        assert_eq!(labels["title.text"], alone["layout"]["title"]["text"]);
        let text = |index: usize| labels[&format!("annotations[{index}].text")].as_str().unwrap();
        assert!((0..n_annotations).all(|index| !text(index).contains('\u{0}')));
        // The labels of the sides, in the order in which the head alone has them.
        let annotations = alone["layout"]["annotations"].as_array().unwrap();
        for (index, annotation) in annotations[..4 * 13 + 4].iter().enumerate() {
            assert_eq!(text(index), annotation["text"].as_str().unwrap(), "label {index}");
        }
        // As many rows of the legend in every head; those that are not needed are empty.
        let rows = (4 * 13 + 4..n_annotations).step_by(2).filter(|&index| text(index) == "■").count();
        let distinct = data.attention_tokens().iter().flatten().collect::<std::collections::HashSet<_>>().len();
        assert!(rows == distinct || rows > 20, "{rows} rows for {distinct} tokens");
        let frames = alone["layout"]["shapes"].as_array().map_or(0, Vec::len);
        let path = labels["shapes[0].path"].as_str().unwrap();
        assert_eq!(path.matches('Z').count(), frames);
        if frames > 0 {
            let first = &alone["layout"]["shapes"][0];
            assert!(path.starts_with(&format!("M{},{}L", first["x0"], first["y0"])), "{path}, {first}");
        }
    }
    assert_eq!(color_of[&None], 0);
    // The menu opens on the first head.
    assert_eq!(figure["data"][0]["z"], buttons[0]["args"][0]["z"][0]);
    assert_eq!(figure["layout"]["shapes"].as_array().unwrap().len(), 1);
}

#[test]
fn the_layer_grid_has_the_cells_of_each_head() {
    let heads = heads_of_layer();
    let figure = layer_grid(&heads, 0).unwrap();
    let json = plotly_json(&figure);
    assert_eq!(json["data"].as_array().unwrap().len(), 1);
    let z = |row: usize, column: usize| json["data"][0]["z"][row][column].as_f64();
    let (gap, pitch) = (2, 15); // 13 positions
    let mut color_of = std::collections::HashMap::new();
    for (index, head) in heads.iter().enumerate() {
        let data = head.prompt(0).unwrap();
        let (top, left) = (index / 4 * pitch + gap, index % 4 * pitch);
        for ((query, key), token) in data.attention_tokens().indexed_iter() {
            let color = z(top + query, left + key).unwrap();
            assert_eq!(*color_of.entry(*token).or_insert(color), color, "head {index}, {query}, {key}");
        }
        assert_eq!(z(top - 1, left), None, "room for a title");
        let title = &json["layout"]["annotations"][index];
        let distinct = data.attention_tokens().iter().flatten().collect::<std::collections::HashSet<_>>().len();
        assert_eq!(title["text"], format!("0.{index}: {distinct} token{}", if distinct == 1 { "" } else { "s" }));
        assert_eq!((title["x"].as_f64(), title["y"].as_f64()), (Some(left as f64 + 6.0), Some(top as f64 - 0.5)));
        let text = json["data"][0]["hovertext"][top + 4][left + 3].as_str().unwrap();
        assert!(text.starts_with("attention token ") && text.ends_with(&format!("<br>head 0.{index}")), "{text}");
        assert!(text.contains("<br>query 4 ␣is, key 3 ␣sentence<br>logit "), "{text}");
    }
    assert_eq!((&color_of[&None], json["layout"]["width"].as_u64()), (&0.0, Some(940)));
    let svg = figure.to_svg().unwrap();
    let picture = roxmltree::Document::parse(&svg).unwrap();
    let texts = picture.descendants().filter(|node| node.has_tag_name("text")).filter_map(|node| node.text());
    let names = texts.filter_map(|text| text.split_once(": ").map(|(name, _)| name.to_owned()));
    let names: Vec<String> = names.filter(|name| name.starts_with("0.")).collect();
    assert_eq!(names, ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]);
}

#[test]
fn heads_of_different_prompts_are_an_error() {
    let heads = heads_of_layer();
    let other = calculate_attns(&run_prompts(&demo(), "The bus.").unwrap(), 0, 3).unwrap();
    for (name, figure) in [("layer_grid", layer_grid as fn(&[HeadData], usize) -> _), ("browse_heads", browse_heads)] {
        let message = figure(&[], 0).unwrap_err().to_string();
        assert_eq!(message, format!("{name}: heads: expected at least 1, found 0"));
        let message = figure(&[heads[0].clone(), other.clone()], 0).unwrap_err().to_string();
        assert!(message.contains("different tokens in prompt 0 of heads 0.0 and 0.3"), "{message}");
        assert!(figure(&heads, 1).unwrap_err().to_string().contains("prompt 1 out of range"));
    }
    let run = run_prompts(&demo(), vec![vec![11_u32; 64]]).unwrap();
    let message = browse_heads(&calculate_layer(&run, 0).unwrap(), 0).unwrap_err().to_string();
    assert!(message.contains("expected 1 to 8000, found 16640; take fewer heads or a shorter prompt"), "{message}");
    let message =
        add_axis_labels(&layer_grid(&heads, 0).unwrap(), &heads[0].prompt(0).unwrap()).unwrap_err().to_string();
    assert!(message.contains("found a grid of heads"), "{message}");
}

#[test]
fn a_long_prompt_has_a_smaller_figure() {
    let (full, light) = (data_of_length(32), data_of_length(33));
    let n_annotations = |figure: &Value| figure["layout"]["annotations"].as_array().unwrap().len();
    assert_eq!(n_annotations(&plotly_json(&labelled_figure(&full))), 4 * 32 + 4); // the sides and their names
    let figure = plotly_json(&labelled_figure(&light));
    assert!(figure["layout"].get("annotations").is_none());
    let frames = light.attn.iter().filter(|&&attn| attn > MIN_ATTN).count();
    let shapes = figure["layout"]["shapes"].as_array().unwrap();
    assert_eq!((shapes.len(), shapes[0]["path"].as_str().unwrap().matches('Z').count()), (1, frames));
    let trace = &figure["data"][0];
    assert_eq!((&trace["x"], &figure["layout"]["xaxis"]["type"]), (&trace["y"], &json!("category")));
    let name = |position: usize| format!("{position} {}", light.token_label(light.input[position]));
    let escaped = name(7).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('$', "&#36;");
    assert_eq!(trace["x"][7], escaped);
    let text = trace["hovertext"][8][7].as_str().unwrap();
    assert!(
        text.starts_with("attention token ") && text.contains("<br>then ") && text.contains(", attention "),
        "{text}"
    );
    // Beyond 192 positions there are only tokens in the hover texts, and the figure says so.
    let longest = plotly_json(&labelled_figure(&data_of_length(193)));
    let text = longest["data"][0]["hovertext"][8][7].as_str().unwrap();
    assert!(text.starts_with("attention token ") && !text.contains("<br>"), "{text}");
    assert_eq!(
        longest["layout"]["annotations"][0]["text"],
        "193 positions, more than 192: the pointer shows no logits"
    );
    assert!(labelled_figure(&data_of_length(128)).to_json().len() < 1_000_000);
}

#[test]
fn themes_and_color_scales_change_only_the_style() {
    let data = heads_of_layer()[1].prompt(0).unwrap();
    let figure = labelled_figure(&data);
    let dark = figure.with_theme(Theme::Dark).unwrap().with_color_scale(ColorScale::Cividis).unwrap();
    let (light, other) = (plotly_json(&figure), plotly_json(&dark));
    assert_eq!(other["layout"]["paper_bgcolor"], "#111");
    assert_eq!(other["data"][0]["colorscale"], "Cividis");
    assert_eq!(
        (&light["data"][0]["z"], &light["data"][0]["hovertext"]),
        (&other["data"][0]["z"], &other["data"][0]["hovertext"])
    );
    let texts = |figure: &Value| -> Vec<Value> {
        figure["layout"]["annotations"].as_array().unwrap().iter().map(|label| label["text"].clone()).collect()
    };
    assert_eq!(texts(&light), texts(&other));
    assert!(dark.to_svg().unwrap().contains("fill='#111'"));
    // A figure made from another one has its style.
    let again = plotly_json(&add_token_labels(&dark, &data, Feature::V).unwrap());
    assert_eq!(
        (&again["layout"]["paper_bgcolor"], &again["data"][0]["colorscale"]),
        (&json!("#111"), &json!("Cividis"))
    );
    assert_eq!(plotly_json(&compare_plots(&dark, &figure, "", "").unwrap())["layout"]["paper_bgcolor"], "#111");
    let message = Figure::from(figure.to_plot()).with_theme(Theme::Dark).unwrap_err().to_string();
    assert!(message.contains("a figure made from a plot"), "{message}");
}

#[test]
fn a_table_has_a_row_for_each_query() {
    let data = heads_of_layer()[1].prompt(0).unwrap();
    let table = attention_table(&data);
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 + 13);
    assert_eq!(lines[0], "Attention tokens of head 0.1 of demo, through the original notebook's projection");
    let cells = |line: &str| -> Vec<String> { line.split('│').map(|cell| cell.trim().to_owned()).collect() };
    assert_eq!(cells(lines[1])[..4], ["query \\ key", "EOS", "The", "␣next"]);
    let tokens = data.attention_tokens();
    for (query, line) in lines[2..].iter().enumerate() {
        let expected = tokens
            .row(query)
            .iter()
            .flatten()
            .map(|&token| data.token_label(token).trim().to_owned())
            .collect::<Vec<_>>();
        assert_eq!(cells(line)[1..], expected);
    }
    let html = table.to_html();
    assert_eq!((html.matches("<tr>").count(), html.matches("<td").count()), (14, 91));
    roxmltree::Document::parse(&html).unwrap();
}

#[test]
fn csv_and_npz_files_contain_the_head_data() {
    let run = run_prompts(&demo(), ["The \"next\" sentence,\nis false.", "The bus."]).unwrap();
    let data = calculate_attns(&run, 0, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.csv");
    data.write_csv(&path).unwrap();
    let mut csv = csv::Reader::from_path(&path).unwrap();
    let names = csv.headers().unwrap().clone();
    let column = |name: &str| names.iter().position(|column| column == name).unwrap();
    let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    let mut row = rows.iter();
    for prompt in 0..2 {
        let head = data.prompt(prompt).unwrap();
        for (query, key) in (0..head.n_pos()).flat_map(|query| (0..=query).map(move |key| (query, key))) {
            let row = row.next().unwrap();
            let get = |name: &str| &row[column(name)];
            let number = |name: &str| get(name).parse::<f32>().unwrap();
            let cell = head.cell(query, key).unwrap();
            let place = ["layer", "head", "prompt", "query", "key"].map(|name| get(name).parse::<usize>().unwrap());
            assert_eq!((place, get("projection")), ([0, 1, prompt, query, key], "notebook"));
            assert_eq!((number("attn"), number("logit")), (head.attn[[query, key]], head.qk.logits[[cell, 0]]));
            assert_eq!(number("margin"), head.qk.margin[cell]);
            let ids = [number("token_id"), number("runner_up_id")].map(|id| id as u32);
            assert_eq!(ids, [0, 1].map(|rank| head.qk.tokens[[cell, rank]]));
            let text = |token: u32| run.model.to_single_str_token(token).unwrap();
            assert_eq!((get("query_token"), get("token")), (&*text(head.input[query]), &*text(ids[0])));
            assert_eq!((get("runner_up"), get("v_token")), (&*text(ids[1]), &*text(head.v.tokens[[key, 0]])));
        }
    }
    assert!(row.next().is_none());

    let path = folder.path().join("head.npz");
    data.write_npz(&path).unwrap();
    let mut npz = ndarray_npy::NpzReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let array: Array4<f32> = npz.by_name("data").unwrap();
    assert_eq!(array, data.to_array());
    let tokens: Array4<i64> = npz.by_name("tokens").unwrap();
    let best: Array2<f32> = tokens.index_axis(ndarray::Axis(0), 1).index_axis(ndarray::Axis(2), 0).mapv(|id| id as f32);
    assert_eq!(best, array.index_axis(ndarray::Axis(0), 1).index_axis(ndarray::Axis(2), 2));
    let logits: Array4<f32> = npz.by_name("logits").unwrap();
    for (at, &logit) in logits.indexed_iter() {
        assert_eq!(logit.is_nan(), tokens[at] < 0);
    }

    let nowhere = folder.path().join("no/such/folder/head.csv");
    let message = data.write_csv(&nowhere).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: cannot be written: ", nowhere.display())), "{message}");
    assert!(data.write_npz(&nowhere).unwrap_err().to_string().contains("cannot be written"));
}
