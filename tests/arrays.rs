//! Figures of any array, and of attention patterns: their content in plotly's JSON and in static pictures, and errors.

use attention_tokens::MatrixPlot;
use attention_tokens::notebook::*;
use attention_tokens::prelude::*;
use ndarray::{Array2, Array3, Axis, Ix3, arr1, arr2, s};
use serde_json::{Value, json};

use crate::support::{demo, fixture, load};

fn json_of(figure: &Figure) -> Value {
    serde_json::from_str(&figure.to_json()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn message<T>(result: Result<T, Error>) -> String {
    result.err().expect("an error").to_string()
}

/// The fill of each cell of a static picture with one matrix, row by row; `None` for a cell that is not drawn.
fn fills(svg: &str, dim: (usize, usize)) -> Vec<Option<String>> {
    let picture = roxmltree::Document::parse(svg).unwrap();
    let group = picture.descendants().find(|node| node.has_attribute("shape-rendering")).unwrap();
    let mut fills = vec![None; dim.0 * dim.1];
    for path in group.children() {
        for run in path.attribute("d").unwrap().split('M').skip(1) {
            let (place, rest) = run.split_once('h').unwrap();
            let (column, row) = place.split_once(' ').unwrap();
            let [row, column, n]: [usize; 3] =
                [row, column, rest.split('v').next().unwrap()].map(|number| number.parse().unwrap());
            let from = row * dim.1 + column;
            fills[from..from + n].fill(path.attribute("fill").map(str::to_owned));
        }
    }
    fills
}

#[test]
fn imshow_has_known_colors_at_known_values() {
    let array = arr2(&[[-2.0, 0.0, 2.0], [1.0, f64::NAN, f64::INFINITY]]);
    let fill = |plot: &MatrixPlot| fills(&plot.figure().to_svg().unwrap(), (2, 3));
    let some = |colors: [&str; 4]| {
        colors.map(|color| Some(color.to_owned())).into_iter().chain([None, None]).collect::<Vec<_>>()
    };
    // The ends and the middle of plotly's RdBu; 1 is at three quarters.
    let plot = imshow(&array).unwrap();
    assert_eq!(fill(&plot), some(["#050aac", "#bebebe", "#b20a1c", "#dd7a50"]));
    let trace = json_of(&plot.figure())["data"][0].clone();
    assert_eq!((&trace["zmin"], &trace["zmax"], &trace["colorscale"]), (&json!(-2.0), &json!(2.0), &json!("RdBu")));
    assert_eq!(trace["z"], json!([[-2.0, 0.0, 2.0], [1.0, null, null]]));
    assert_eq!(trace["hoverongaps"], false);
    // Viridis from the lowest value to the highest one.
    let sequential = imshow(&array).unwrap().sequential();
    assert_eq!(fill(&sequential)[..3], some(["#440154", "#21918c", "#fde725", ""])[..3]);
    let around_one = imshow(&array).unwrap().midpoint(1.0).unwrap();
    assert_eq!((&fill(&around_one)[0], &fill(&around_one)[3]), (&Some("#050aac".into()), &Some("#bebebe".into())));
    let chosen = imshow(&array).unwrap().color_range(0.0, 2.0).unwrap();
    assert_eq!(
        fill(&chosen),
        some(["#050aac", "#050aac", "#b20a1c", "#bebebe"]),
        "values beyond have the colour of an end"
    );
}

#[test]
fn cells_without_a_number_have_the_color_outside_of_every_scale() {
    let figure = imshow(arr2(&[[1.0, f64::NAN], [f64::NEG_INFINITY, f64::INFINITY]])).unwrap().title("A").figure();
    let layout = json_of(&figure)["layout"].clone();
    assert_eq!(
        (&layout["plot_bgcolor"], &layout["title"]["text"]),
        (&json!("#f2f2f2"), &json!("A<br>2 cells are infinite and have no colour"))
    );
    assert!(figure.to_svg().unwrap().contains("fill='#f2f2f2'"));
    let dark = figure.with_theme(Theme::Dark).unwrap();
    assert_eq!(json_of(&dark)["layout"]["plot_bgcolor"], "#222222");
    let whole = imshow(arr2(&[[1.0, 2.0]])).unwrap().figure();
    assert_eq!(json_of(&whole)["layout"]["plot_bgcolor"], "white");
    // No number at all.
    let none = imshow(arr2(&[[f32::NAN]])).unwrap();
    for figure in [none.figure(), none.sequential().figure()] {
        assert_eq!(json_of(&figure)["data"][0]["z"], json!([[null]]));
        assert!(figure.describe().ends_with("all empty"), "{}", figure.describe());
    }
}

#[test]
fn every_type_and_view_of_an_array_gives_one_figure() {
    let array = Array2::from_shape_fn((4, 5), |(row, column)| row as f32 - 0.5 * column as f32);
    let want = imshow(&array).unwrap().figure().to_json();
    let deep = array.clone().insert_axis(Axis(1));
    let same = [
        imshow(array.view()).unwrap(),
        imshow(array.mapv(f64::from)).unwrap(),
        imshow(array.clone().into_dyn()).unwrap(),
        imshow(deep.index_axis(Axis(1), 0)).unwrap(),
        imshow(array.t().as_standard_layout().t()).unwrap(),
    ];
    assert!(same.iter().all(|plot| plot.figure().to_json() == want));
}

#[test]
fn names_of_axes_ticks_and_hover_texts_are_those_given() {
    let plot = imshow(arr2(&[[0.12345, -1.0], [2.0, 3.0]])).unwrap().title("a <b>").color_label("logit");
    let plot = plot.x_label("Head").y_label("Layer").y_ticks([7, 8]).unwrap().x_ticks([" next", "\n"]).unwrap();
    let json = json_of(&plot.figure());
    let layout = &json["layout"];
    assert_eq!(
        (&layout["xaxis"]["title"]["text"], &layout["yaxis"]["title"]["text"]),
        (&json!("Head"), &json!("Layer"))
    );
    assert_eq!(
        (&layout["xaxis"]["ticktext"], &layout["yaxis"]["ticktext"]),
        (&json!(["␣next", "&lt;nl&gt;"]), &json!(["7", "8"]))
    );
    assert_eq!(layout["title"]["text"], "a &lt;b&gt;");
    assert_eq!(json["data"][0]["hovertext"][0][0], "0.1235<br>Layer 7, Head ␣next");
    assert_eq!(json["data"][0]["colorbar"]["title"]["text"], "logit");
    let texts = plot.cell_texts(["a", "b", "", "d"]).unwrap().hover(["1", "2", "3", "4"]).unwrap();
    let json = json_of(&texts.figure());
    assert_eq!(json["data"][0]["hovertext"], json!([["1", "2"], ["3", "4"]]));
    let svg = texts.figure().to_svg().unwrap();
    assert!([">a<", ">b<", ">d<"].iter().all(|text| svg.contains(text)) && !svg.contains("0.12"));
    assert!(!texts.without_numbers().figure().to_svg().unwrap().contains(">d<"));
}

#[test]
fn values_that_differ_little_are_not_rounded_to_one() {
    let plot = imshow(arr2(&[[1000.001_f64, 1000.002, 1000.0]])).unwrap().midpoint(1000.0).unwrap();
    let z = json_of(&plot.figure())["data"][0]["z"][0].clone();
    assert_eq!(list(&z).iter().map(|x| x.as_f64().unwrap() as f32).collect::<Vec<_>>(), [1000.001, 1000.002, 1000.0]);
}

#[test]
fn arrays_and_labels_that_do_not_fit_are_errors_with_what_was_found() {
    assert!(
        message(imshow(Array3::<f32>::zeros((2, 3, 4))))
            .starts_with("imshow: axes of the array, whose shape is [2, 3, 4]")
    );
    assert!(
        message(imshow(Array2::<f32>::zeros((3, 0)))).contains("columns of the array: expected at least 1, found 0")
    );
    assert!(message(imshow(Array2::<f32>::zeros((1000, 301)))).contains("expected 1 to 300000, found 301000"));
    assert!(message(imshow(arr2(&[[1e300]]))).contains("numbers from -3.4e38 to 3.4e38"));
    let plot = imshow(arr2(&[[1.0, 2.0, 3.0]])).unwrap();
    assert!(message(plot.clone().x_ticks(["a"])).contains("x_ticks for 3 columns: expected 3, found 1"));
    assert!(message(plot.clone().y_ticks(0..2)).contains("y_ticks for 1 rows: expected 1, found 2"));
    assert!(message(plot.clone().cell_texts(["a"])).contains("cell_texts for 1 × 3 cells: expected 3, found 1"));
    assert!(message(plot.clone().hover(["a"])).contains("hover for 1 × 3 cells: expected 3, found 1"));
    for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
        assert!(message(plot.clone().color_range(low, high)).contains("two finite numbers"));
    }
    assert!(message(plot.midpoint(f64::NAN)).contains("midpoint: expected a finite number, found NaN"));

    assert!(message(line(Array3::<f64>::zeros((1, 1, 1)))).contains("expected 1 to 2, found 3"));
    assert!(message(line(Vec::<f32>::new())).contains("columns of the array: expected at least 1, found 0"));
    assert!(message(line(Array2::<f32>::zeros((201, 2)))).contains("expected 1 to 200, found 201"));
    assert!(message(line(Array2::<f32>::zeros((2, 100_001)))).contains("expected 1 to 200000, found 200002"));
    let lines = line(arr2(&[[1.0, 2.0], [3.0, 4.0]])).unwrap();
    assert!(message(lines.clone().names(["a"])).contains("names for 2 lines: expected 2, found 1"));
    assert!(message(lines.clone().x([1.0])).contains("numbers of x for 2 points: expected 2, found 1"));
    assert!(message(lines.clone().x_ticks(0..3)).contains("x_ticks for 2 points: expected 2, found 3"));
    assert!(message(lines.add_line("c", [1.0], [1.0, 2.0])).contains("numbers of y for 1 of x: expected 1, found 2"));
    assert!(message(scatter([1.0, 2.0], [1.0])).contains("numbers of y for 2 of x: expected 2, found 1"));
    assert!(message(scatter(arr2(&[[1.0]]), [1.0])).contains("axes of x, whose shape is [1, 1]: expected 1, found 2"));
    assert!(
        message(scatter([1.0], [1.0]).unwrap().hover(["a", "b"])).contains("hover for 1 points: expected 1, found 2")
    );
}

#[test]
fn a_line_has_its_values_its_name_and_a_gap_where_it_has_no_number() {
    let plot = line(arr2(&[[1.0, f32::NAN, 3.0, 4.0], [0.5, 0.5, 0.5, 0.5]])).unwrap();
    let plot = plot.names(["one", "two"]).unwrap().title("T").x_label("layer").y_label("loss");
    let figure = plot.figure();
    let json = json_of(&figure);
    let [one, two] = [0, 1].map(|trace| json["data"][trace].clone());
    assert_eq!((&one["x"], &one["y"]), (&json!([0.0, 1.0, 2.0, 3.0]), &json!([1.0, null, 3.0, 4.0])));
    assert_eq!((&one["name"], &two["name"], &two["showlegend"]), (&json!("one"), &json!("two"), &json!(true)));
    assert_ne!(one["line"]["color"], two["line"]["color"]);
    assert_eq!(two["hovertext"][1], "loss 0.5<br>layer 1<br>two");
    assert_eq!(json["layout"]["title"]["text"], "T<br>1 point that is not finite is not drawn");
    let svg = figure.to_svg().unwrap();
    let color = one["line"]["color"].as_str().unwrap();
    let path = svg.split(&format!("<path fill='none' stroke='{color}'")).nth(1).unwrap().split("/>").next().unwrap();
    assert_eq!((path.matches('M').count(), path.contains("NaN")), (2, false), "{path}");
    let placed = json_of(&plot.clone().x(arr1(&[0.0, 10.0, 20.0, 40.0])).unwrap().figure());
    assert_eq!(placed["data"][1]["x"], json!([0.0, 10.0, 20.0, 40.0]));
    let ticked = json_of(&plot.x_ticks(["a", "b", "c", " d"]).unwrap().figure());
    assert_eq!(ticked["layout"]["xaxis"]["ticktext"], json!(["a", "b", "c", "␣d"]));
    assert_eq!(ticked["data"][1]["hovertext"][3], "loss 0.5<br>layer ␣d<br>two");
}

#[test]
fn points_have_labels_that_cover_no_other_and_those_without_a_place_are_counted() {
    let plot = scatter([0.0, 0.0, 1.0, f64::NAN], [1.0, 1.0, 2.0, 5.0]).unwrap();
    let plot = plot.point_labels(["first", "second", "third", "fourth"]).unwrap();
    let plot = plot.add_points("other", [3.0_f32], [4.0_f32]).unwrap().hover(["fifth"]).unwrap();
    let json = json_of(&plot.figure());
    let [points, other] = [0, 1].map(|trace| json["data"][trace].clone());
    assert_eq!((&points["x"], &points["text"]), (&json!([0.0, 0.0, 1.0]), &json!(["first", "", "third"])));
    assert_eq!(points["hovertext"][1], "y 1<br>x 0<br>second");
    assert_eq!((&other["name"], &other["hovertext"][0]), (&json!("other"), &json!("y 4<br>x 3<br>fifth<br>other")));
    assert_ne!(points["marker"]["symbol"], other["marker"]["symbol"]);
    assert_eq!(json["layout"]["title"]["text"], "1 point that is not finite is not drawn");
}

/// A run of a prompt of `n_pos` tokens, and the pattern of a layer. Shape: `[head, query, key]`.
fn run_of(n_pos: u32, layer: usize) -> (PromptRun, Array3<f32>) {
    let run =
        run_prompts(&demo(), vec![(0..n_pos).map(|index| 11 + 7919 * index % 4000).collect::<Vec<u32>>()]).unwrap();
    let pattern = run.cache.get(Activation::Pattern, layer).unwrap().into_dimensionality::<Ix3>().unwrap();
    (run, pattern)
}

/// Asserts that JSON has a number with four digits.
#[track_caller]
fn assert_close(written: &Value, want: f32) {
    let written = written.as_f64().unwrap_or_else(|| panic!("{written} for {want}")) as f32;
    assert!((written - want).abs() <= 6e-4 * want.abs().max(1e-6), "{written} for {want}");
}

#[test]
fn the_attention_of_a_head_is_its_pattern_with_tokens_on_both_axes() {
    let run = run_prompts(&demo(), "The next sentence is false.").unwrap();
    let pattern = run.cache.get(Activation::Pattern, 0).unwrap().into_dimensionality::<Ix3>().unwrap();
    let figure = plot_attention(&run, 0, 1).unwrap();
    let json = json_of(&figure);
    let trace = &json["data"][0];
    for ((query, key), &attention) in pattern.index_axis(Axis(0), 1).indexed_iter() {
        let written = &trace["z"][query][key];
        if key > query { assert!(written.is_null()) } else { assert_close(written, attention) }
    }
    assert_eq!((&trace["zmin"], &trace["zmax"], &trace["colorscale"]), (&json!(0.0), &json!(1.0), &json!("Viridis")));
    let layout = &json["layout"];
    let names = json!(["0 EOS", "1 The", "2 ␣next", "3 ␣sentence", "4 ␣is", "5 ␣false", "6 ."]);
    assert_eq!((&layout["xaxis"]["ticktext"], &layout["yaxis"]["ticktext"]), (&names, &names));
    assert_eq!(layout["title"]["text"], "Attention of head 0.1 of demo");
    let hover = trace["hovertext"][4][3].as_str().unwrap();
    assert!(hover.starts_with("attention 0.") && hover.ends_with("<br>query 4 ␣is, key 3 ␣sentence"), "{hover}");
    assert_eq!(trace["hovertext"][3][4], "");

    assert!(message(plot_attention(&run, 0, 8)).contains("head 8 out of range: the model has 8, 0 to 7"));
    assert!(message(plot_attention(&run, 4, 0)).contains("layer 4 out of range"));
    let several = run_prompts(&demo(), ["The bus.", "It is late."]).unwrap();
    assert!(message(plot_attention(&several, 0, 0)).contains("choose one with cache.prompt(i)"));
    assert!(plot_attention(&several.prompt(1).unwrap(), 0, 0).unwrap().describe().contains("5 × 5 cells"));
    assert!(message(several.prompt(2)).contains("prompt 2 out of range"));
    let other = load(&fixture("tiny")).unwrap();
    assert!(message(run.cache.plot_attention(&other, 0, 0)).starts_with("plot_attention: "));
    let options = RunOptions::default().activations([Activation::Q]);
    let (_, without) = demo().run_with_cache_options("The bus.", options).unwrap();
    assert!(matches!(without.plot_attention(&demo(), 0, 0), Err(Error::NotCached { .. })));
}

#[test]
fn an_intervention_is_named_in_the_title() {
    let model = demo();
    let edits = [Intervention::zero(Activation::Z.at(0)).head(1)];
    let (_, cache) = model.run_with_cache_options("The bus.", RunOptions::default().hooks(&edits)).unwrap();
    let figure = cache.plot_attention(&model, 1, 0).unwrap();
    assert!(figure.describe().contains(&cache.interventions()[0]), "{}", figure.describe());
}

#[test]
fn the_heads_of_a_layer_share_one_scale() {
    let (run, pattern) = run_of(13, 1);
    let json = json_of(&plot_layer_attention(&run, 1).unwrap());
    assert_eq!(list(&json["data"]).len(), 1);
    let trace = &json["data"][0];
    assert_eq!((&trace["zmin"], &trace["zmax"]), (&json!(0.0), &json!(1.0)));
    let mut written: Vec<f64> = list(&trace["z"]).iter().flat_map(list).filter_map(Value::as_f64).collect();
    let cells = pattern.indexed_iter().filter(|((_, query, key), _)| key <= query);
    let mut want: Vec<f64> = cells.map(|(_, &attention)| f64::from(attention)).collect();
    written.sort_by(f64::total_cmp);
    want.sort_by(f64::total_cmp);
    assert_eq!(written.len(), want.len());
    assert!(written.iter().zip(&want).all(|(a, b)| (a - b).abs() < 6e-4));
    let titles: Vec<&str> =
        list(&json["layout"]["annotations"]).iter().map(|text| text["text"].as_str().unwrap()).collect();
    assert_eq!(titles, (0..8).map(|head| format!("head 1.{head}")).collect::<Vec<_>>());
    let (long, _) = run_of(200, 1);
    assert!(
        message(plot_layer_attention(&long, 1)).contains("plot_layer_attention: cells of 8 heads with 200 positions")
    );
}

#[test]
fn menu_and_slider_choose_head_and_token_independently() {
    let (run, pattern) = run_of(20, 1);
    let figure = plot_attention_over_tokens(&run, 1).unwrap();
    let json = json_of(&figure);
    let layout = &json["layout"];
    let steps = list(&layout["sliders"][0]["steps"]);
    let buttons = list(&layout["updatemenus"][0]["buttons"]);
    assert_eq!((steps.len(), buttons.len(), &layout["sliders"][0]["active"]), (20, 8, &json!(19)));
    assert_eq!(buttons[3]["label"], "head 1.3");
    let shaded = list(&buttons[3]["args"][0]["z"]);
    let traces: Vec<usize> =
        list(&buttons[3]["args"][2]).iter().map(|index| index.as_u64().unwrap() as usize).collect();
    // The first is the background.
    assert_eq!((shaded.len(), traces.len()), (21, 21));
    for query in 0..20 {
        let of_head = |z: &Value, head: usize| {
            let rows: Vec<&Value> = list(z).iter().flat_map(list).collect();
            for key in 0..20 {
                if key > query {
                    assert!(rows[key].is_null(), "tokens after the framed one");
                } else {
                    let written = rows[key].as_f64().unwrap() as f32;
                    assert!((written - pattern[[head, query, key]]).abs() < 6e-4, "head {head}, {query}, {key}");
                }
            }
        };
        of_head(&shaded[query + 1], 3);
        let trace = &json["data"][traces[query + 1]];
        of_head(&trace["z"], 0);
        // The slider shows the tokens' shades and the frame, whatever the head.
        let shown: Vec<usize> = list(&steps[query]["args"][0]["visible"])
            .iter()
            .enumerate()
            .filter(|(_, shown)| **shown == true)
            .map(|(index, _)| index)
            .collect();
        assert_eq!(shown, [0, traces[query + 1], traces[query + 1] + 1]);
        assert_eq!(trace["visible"] != false, query == 19);
    }
    assert!(layout["title"]["text"].as_str().unwrap().starts_with("Attention of head 1.0 of demo"));
    assert!(buttons[3]["args"][1]["title.text"].as_str().unwrap().starts_with("Attention of head 1.3 of demo"));
    let (long, _) = run_of(140, 1);
    let too_long = message(plot_attention_over_tokens(&long, 1));
    assert!(
        too_long.contains("pairs of positions of 8 heads with 140 positions: expected 1 to 150000, found 156800"),
        "{too_long}"
    );
}

/// The ends of each line of a trace, as (query, key).
fn ends(trace: &Value) -> Vec<(usize, usize)> {
    let of = |axis: &str| list(&trace[axis]).iter().filter_map(Value::as_f64).collect::<Vec<_>>();
    assert!(of("x").chunks(2).all(|pair| pair == [0.0, 1.0]));
    of("y").chunks(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect()
}

#[test]
fn lines_have_the_attention_as_their_opacity_and_the_weakest_are_left_out() {
    for (n_pos, most) in [(13, 91), (66, 750)] {
        let (run, pattern) = run_of(n_pos, 1);
        let figure = plot_attention_lines(&run, 1).unwrap();
        let json = json_of(&figure);
        let (mut drawn, mut left_out) = (0, [0, 0]);
        for head in 0..8 {
            let name = format!("1.{head}");
            let own = list(&json["data"]).iter().filter(|trace| trace["legendgroup"] == name.as_str());
            let mut lines: Vec<((usize, usize), f64)> = Vec::new();
            for trace in own.filter(|trace| trace["name"] == "") {
                let opacity = trace["opacity"].as_f64().unwrap_or(1.0);
                lines.extend(ends(trace).into_iter().map(|pair| (pair, opacity)));
            }
            let attention = |(query, key): (usize, usize)| pattern[[head, query, key]];
            let all = pattern.slice(s![head, .., ..]);
            let mut strong: Vec<f32> =
                all.indexed_iter().filter(|((query, key), x)| key <= query && **x >= 0.01).map(|(_, &x)| x).collect();
            strong.sort_by(|a, b| b.total_cmp(a));
            let n_pairs = (n_pos * (n_pos + 1) / 2) as usize;
            left_out[0] += n_pairs - strong.len();
            left_out[1] += strong.len().saturating_sub(most);
            strong.truncate(most);
            assert_eq!(lines.len(), strong.len(), "head {head} of {n_pos} positions");
            assert!(lines.iter().all(|&(pair, _)| attention(pair) >= *strong.last().unwrap()));
            // Steps of at most 0.2 between 1 and 0.6, and finer ones below.
            assert!(lines.iter().all(|&(pair, opacity)| (f64::from(attention(pair)) - opacity).abs() <= 0.1001));
            drawn += lines.len();
        }
        let title = json["layout"]["title"]["text"].as_str().unwrap().replace("<br>", " ");
        let [weak, more] = left_out;
        assert!(weak > 0 && title.contains(&format!("{weak} below 0.01")), "{title}");
        assert_eq!(
            (more > 0, n_pos == 66),
            (title.contains(&format!("{more} others, all but the strongest 750")), more > 0)
        );
        assert!(figure.describe().ends_with(&format!("8 heads, {drawn} lines")), "{}", figure.describe());
        let buttons = list(&json["layout"]["updatemenus"][0]["buttons"]);
        assert_eq!(
            (buttons.len(), &buttons[0]["label"], &buttons[2]["label"]),
            (9, &json!("all heads"), &json!("head 1.1"))
        );
        let visible = list(&buttons[2]["args"][0]["visible"]);
        for (trace, shown) in list(&json["data"]).iter().zip(visible) {
            let group = trace["legendgroup"].as_str();
            assert_eq!(*shown == true, group.is_none_or(|group| group == "1.1"), "{group:?}");
        }
    }
}

#[test]
fn figures_of_long_prompts_are_bounded() {
    let (run, _) = run_of(250, 1);
    let lines = plot_attention_lines(&run, 1).unwrap();
    assert!(lines.to_json().len() < 600_000 && lines.to_svg().unwrap().len() < 300_000);
    let labels = |figure: &Figure| list(&json_of(figure)["layout"]["annotations"]).len();
    assert!(labels(&lines) < 2 * 110, "every third token has its label: {}", labels(&lines));
    let head = plot_attention(&run, 1, 0).unwrap();
    assert!(head.to_json().len() < 700_000 && head.to_svg().unwrap().len() < 200_000);
    let (run, _) = run_of(120, 1);
    let text = plot_attention_over_tokens(&run, 1).unwrap();
    assert!(text.to_json().len() < 1_500_000, "{}", text.to_json().len());
}

#[test]
fn sizes_themes_and_files_work_for_every_new_figure() {
    let (run, _) = run_of(9, 0);
    let figures = [
        imshow(arr2(&[[1.0, -1.0]])).unwrap().figure(),
        line([1.0, 2.0]).unwrap().into(),
        scatter([1.0, 2.0], [3.0, 4.0]).unwrap().into(),
        plot_attention(&run, 0, 1).unwrap(),
        plot_layer_attention(&run, 0).unwrap(),
        plot_attention_over_tokens(&run, 0).unwrap(),
        plot_attention_lines(&run, 0).unwrap(),
    ];
    let folder = tempfile::tempdir().unwrap();
    for figure in figures {
        assert_eq!(json_of(&figure)["layout"]["width"], 940, "{figure:?}");
        for [width, height] in [[640, 480], [200, 200], [1500, 900]] {
            let layout = json_of(&figure.with_size(width, height).unwrap())["layout"].clone();
            assert_eq!((&layout["width"], &layout["height"]), (&json!(width), &json!(height)), "{figure:?}");
            let margins = ["l", "r", "t", "b"].map(|side| layout["margin"][side].as_u64().unwrap() as usize);
            assert!(margins[0] + margins[1] < width && margins[2] + margins[3] < height, "{figure:?}: {margins:?}");
        }
        let dark = figure.with_theme(Theme::Dark).unwrap();
        assert_eq!(json_of(&dark)["layout"]["paper_bgcolor"], "#111");
        let page = folder.path().join("figure.html");
        dark.write_html(&page).unwrap();
        assert!(std::fs::read_to_string(&page).unwrap().contains("Plotly"));
        dark.write_svg(folder.path().join("figure.svg")).unwrap();
    }
}
