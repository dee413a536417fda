//! Figures of every kind, with texts that have to be escaped.

use ndarray::Array2;

use crate::notebook::*;
use crate::plot::{Chart, ChartAxis, Color, Form, LabelMenu, Labels, MatrixChart, Series};
use crate::prelude::*;

/// Each figure with a name.
pub(super) fn all() -> Vec<(String, Figure)> {
    let mut figures = heads();
    figures.extend(charts());
    figures.extend(matrices());
    figures.extend(arrays());
    figures.extend(attention());
    let styled = ["labelled", "light", "pair", "menu", "chart linear Points", "matrix 4 × 8", "imshow", "over tokens"];
    let others: Vec<(String, Figure)> =
        figures.iter().filter(|(name, _)| styled.contains(&name.as_str())).cloned().collect();
    for (name, figure) in others {
        figures.push((format!("{name}, dark"), figure.with_theme(Theme::Dark).unwrap()));
        for scale in [ColorScale::Cividis, ColorScale::Greys, ColorScale::RdBu] {
            figures.push((format!("{name}, {scale:?}"), figure.with_color_scale(scale).unwrap()));
        }
    }
    figures
}

/// Shape: → `[rows, columns]`.
fn wave(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(row, column)| ((31 * row + 17 * column) % 101) as f32 / 77.0 - 0.3)
}

fn heads() -> Vec<(String, Figure)> {
    let model = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap();
    let long = |n_pos: u32| {
        let prompt: Vec<u32> = (0..n_pos).map(|index| 11 + 7919 * index % 4000).collect();
        run_prompts(&model, vec![prompt]).unwrap()
    };
    let one = |heads: &[HeadData]| heads[1].prompt(0).unwrap();
    let run = run_prompts(&model, "The <b>next</b> bus & $x$.\nIt is late.").unwrap();
    let short = calculate_layer(&run, 0).unwrap();
    let (data, other) = (one(&short), plot_head(&short[0].prompt(0).unwrap()));
    // Too many positions for labels, and then for hover texts too.
    let light = calculate_layer(&long(36), 0).unwrap();
    let longest = calculate_attns(&long(193), 0, 1).unwrap().prompt(0).unwrap();
    let pattern = plot_attns(&unique_index_pattern(&data.feature(Feature::Qk)));
    let attention = add_token_labels(&plot_attns(&data.feature(Feature::Attn)), &data, Feature::Attn).unwrap();
    let mut holes = wave(6, 6);
    (holes[[2, 3]], holes[[4, 1]]) = (f32::NAN, f32::INFINITY);
    let figures = [
        ("pattern", pattern.clone()),
        ("frames", add_attn_overlay(&pattern, &data, MIN_ATTN).unwrap()),
        ("axis labels", add_axis_labels(&pattern, &data).unwrap()),
        ("token labels", add_token_labels(&pattern, &data, Feature::Attn).unwrap()),
        ("labelled", plot_head(&data)),
        ("labelled, original", plot_head(&data).with_look(Look::Original).unwrap()),
        ("labelled, small", plot_head(&data).with_size(400, 300).unwrap()),
        ("attention", add_axis_labels(&plot_attns(&data.feature(Feature::Attn)), &data).unwrap()),
        ("attention, colour bar", attention.with_look(Look::Tokens).unwrap()),
        ("holes", plot_attns(&holes)),
        ("wide", plot_attns(&wave(3, 9))),
        ("light", plot_head(&one(&light))),
        ("longest", plot_head(&longest)),
        ("pair", compare_plots(&plot_head(&data), &other, "<title>", "a & b").unwrap()),
        ("pair, not linked", compare_plots(&plot_head(&data), &plot_attns(&wave(5, 3)), "$t$", "").unwrap()),
        ("pair, light", compare_plots(&plot_head(&one(&light)), &plot_head(&data), "", "light").unwrap()),
        ("pair, original", compare_plots(&pattern, &pattern, "", "").unwrap().with_look(Look::Original).unwrap()),
        ("pair, side by side", compare_plots(&pattern, &attention, "", "one\ntwo").unwrap()),
        ("grid", layer_grid(&short, 0).unwrap()),
        ("grid, original", layer_grid(&short, 0).unwrap().with_look(Look::Original).unwrap()),
        ("large grid", layer_grid(&light, 0).unwrap()),
        ("menu", browse_heads(&short, 0).unwrap()),
        ("menu, light", browse_heads(&light[..3], 0).unwrap()),
    ];
    figures.map(|(name, figure)| (name.to_owned(), figure)).to_vec()
}

fn charts() -> Vec<(String, Figure)> {
    let points: Vec<[f64; 2]> = (0..10).map(|x| [x as f64 + 1.0, 3.0 + 1.7 * (37 * x % 11) as f64]).collect();
    let intervals = points.iter().map(|[_, y]| [y - 1.25, y + 0.5]).collect();
    let named = |n: usize| (0..n).map(|index| format!("<{index}>"));
    let axes = [
        ("linear", ChartAxis::linear("x & <title>")),
        ("log", ChartAxis::log("x")),
        ("names", ChartAxis::names("head", named(12))),
        ("many names", ChartAxis::names("", named(130))),
        ("hidden", ChartAxis::hidden()),
    ];
    let forms = [Form::Points, Form::Line, Form::Intervals(intervals), Form::Arrows, Form::Nodes];
    let mut figures = Vec::new();
    for (axis_name, axis) in axes {
        for form in &forms {
            let form_name = format!("{form:?}").split('(').next().unwrap().to_owned();
            let series = |index: usize| {
                let color = [Color::of_layer(index, 7), Color::Text, Color::Faint][index % 3];
                let name = ["a < b", "", "c"][index % 3];
                let plain = Series { symbol: index, ..Series::new(name, form.clone(), color, points.clone()) };
                if index.is_multiple_of(2) || matches!(form, Form::Arrows) {
                    return plain;
                }
                let texts = (0..10).map(|point| format!("point {point}\n<{index}>")).collect();
                let labels = if matches!(form, Form::Line) { Vec::new() } else { named(10).collect() };
                Series { texts, labels, ..plain }
            };
            let y = if axis_name == "hidden" { ChartAxis::hidden() } else { ChartAxis::linear("y") };
            let (title, x) = (format!("$ {axis_name}"), axis.clone());
            let chart = Chart { title, x, y, series: (0..7).map(series).collect() };
            figures.push((format!("chart {axis_name} {form_name}"), chart.figure()));
        }
    }
    let bars = |name: &str, sign: f64| {
        let points: Vec<[f64; 2]> = (0..6).map(|row| [sign * (row as f64 + 0.5), 2.0 * row as f64]).collect();
        let texts = named(6).collect();
        Series { texts, ..Series::new(name, Form::Bars, Color::of_layer(0, 2), points) }
    };
    let (x, y) = (ChartAxis::linear("x"), ChartAxis::names("", named(12)));
    let chart = Chart { title: "<bars>".into(), x, y, series: vec![bars("a < b", 1.0), bars("", -1.0)] };
    figures.push(("chart of bars".into(), chart.figure()));
    figures
}

fn matrices() -> Vec<(String, Figure)> {
    let named = |word: &str, n: usize| (0..n).map(|index| format!("{word}<{index}>")).collect::<Vec<_>>();
    let matrix = |rows: usize, columns: usize| {
        let mut values = wave(rows, columns);
        (values[[1, 1]], values[[2, 2]]) = (f32::NAN, f32::INFINITY);
        MatrixChart {
            title: "<matrix>".into(),
            rows: ChartAxis::names("rows", named("row", rows)),
            columns: ChartAxis::names("", named("column", columns)),
            values,
            scale: ("a & b".into(), [-0.3, 1.0]),
            labels: Vec::new(),
            texts: named("text", rows * columns),
        }
    };
    let of_heads = MatrixChart::of_heads("heads".into(), wave(12, 12), ("ratio".into(), [0.0, 0.8]));
    let same_names = ChartAxis::names("", vec!["row".into(); 80]);
    let figures = [
        ("heads", of_heads),
        ("4 × 8", matrix(4, 8)),
        ("with labels", MatrixChart { labels: named("label", 32), ..matrix(4, 8) }),
        ("without hover texts", MatrixChart { texts: Vec::new(), ..matrix(4, 8) }),
        ("21 × 20", matrix(21, 20)),
        ("80 × 80", matrix(80, 80)),
        ("80 × 80, same names", MatrixChart { rows: same_names, ..matrix(80, 80) }),
    ];
    let of_names = |n: usize| {
        let values = Array2::from_shape_fn((n, n), |(row, column)| ((row + column) % n) as f32);
        let names = |word| ChartAxis::names(word, named(word, n));
        let (texts, scale) = (Vec::new(), (String::new(), [0.0, (n - 1) as f32]));
        let labels = named("name", n * n);
        MatrixChart { title: "names".into(), rows: names("a"), columns: names("b"), values, scale, labels, texts }
    };
    let mut figures: Vec<(String, Figure)> =
        figures.map(|(name, matrix)| (format!("matrix {name}"), matrix.figure())).to_vec();
    let labels = |name: &str| Labels { name: name.into(), title: format!("<{name}>"), texts: named(name, 32) };
    let menu = LabelMenu { matrix: matrix(4, 8), choices: ["said", "$written$", "a long name"].map(labels).to_vec() };
    figures.push(("menu of labels".into(), menu.diverging_figure()));
    figures.push(("matrix of few names".into(), of_names(5).figure_of_names()));
    figures.push(("matrix of many names".into(), of_names(30).figure_of_names()));
    figures
        .push(("matrix of turned labels".into(), MatrixChart { labels: named("label", 60), ..matrix(3, 20) }.figure()));
    figures
}

/// Figures of arrays that a user has.
fn arrays() -> Vec<(String, Figure)> {
    let mut values = wave(7, 9).mapv(f64::from);
    (values[[1, 1]], values[[2, 2]], values[[3, 3]]) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
    let named = imshow(&values).unwrap().title("<$x$>").x_label("a & b").x_ticks(["<b>", " ", "\n"].repeat(3)).unwrap();
    let mut lines = wave(4, 12);
    lines.column_mut(5).fill(f32::NAN);
    (lines[[0, 0]], lines[[1, 11]], lines[[2, 2]]) = (f32::NAN, f32::INFINITY, f32::NAN);
    let lines = line(&lines).unwrap().names(["a", "", "<c>", "d"]).unwrap();
    let points = scatter(lines_of(20), lines_of(20)).unwrap().point_labels(["<i>"; 20]).unwrap();
    let figures = [
        ("imshow", named.figure()),
        ("imshow, sequential", imshow(&values).unwrap().sequential().color_label("<p>").figure()),
        ("imshow, large", imshow(wave(90, 70)).unwrap().midpoint(1000.0).unwrap().figure()),
        ("imshow, small numbers", imshow(wave(5, 5).mapv(|x| x * 1e-3)).unwrap().figure()),
        ("line", lines.figure()),
        ("line with names of places", lines.x_ticks(0..12).unwrap().figure()),
        ("line of one point", line([1.0]).unwrap().figure()),
        ("many lines", line(wave(40, 5)).unwrap().names(0..40).unwrap().figure()),
        ("scatter", points.add_line("x", [0.0, 1.0], [0.0, 1.0]).unwrap().figure()),
        ("scatter without places", scatter([f64::NAN, 1.0], [0.0, 1.0]).unwrap().figure()),
    ];
    figures.map(|(name, figure)| (name.to_owned(), figure)).to_vec()
}

fn lines_of(n: usize) -> Vec<f64> {
    (0..n).map(|index| (index * 7 % 11) as f64).collect()
}

fn attention() -> Vec<(String, Figure)> {
    let model = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap();
    let run = run_prompts(&model, "The <b>next</b> bus & $x$.\nIt is late.").unwrap();
    let long = run_prompts(&model, vec![(0..75).map(|index| 11 + 7919 * index % 4000).collect::<Vec<u32>>()]).unwrap();
    let figures = [
        ("attention of a head", plot_attention(&run, 0, 1).unwrap()),
        ("attention of a head, long", plot_attention(&long, 0, 1).unwrap()),
        ("attention of a layer", plot_layer_attention(&run, 0).unwrap()),
        ("attention of a layer, long", plot_layer_attention(&long, 0).unwrap()),
        ("over tokens", plot_attention_over_tokens(&run, 1).unwrap()),
        ("over tokens, narrow", plot_attention_over_tokens(&run, 1).unwrap().with_size(300, 400).unwrap()),
        ("lines between tokens", plot_attention_lines(&run, 1).unwrap()),
        ("lines between tokens, long", plot_attention_lines(&long, 1).unwrap()),
        ("lines between tokens, small", plot_attention_lines(&run, 1).unwrap().with_size(300, 250).unwrap()),
    ];
    figures.map(|(name, figure)| (name.to_owned(), figure)).to_vec()
}
