//! Every kind of figure in Chromium, measured in the page: what overlaps, what can be read, what has which colour.
//!
//! The screenshots are saved in `target/screenshots/figures`.

use attention_tokens::experiments::{
    ContractionByHead, NeedOptions, ReceiptOptions, appending, multiplication_table, receipt, said_written_needed,
};
use attention_tokens::notebook::*;
use attention_tokens::prelude::*;
use ndarray::Array2;
use serde_json::{Value, json};

use crate::browser::{in_browser, save, wait_for};
use crate::notebooks::target;
use crate::support::demo;

/// The measurements of the figure in the page.
const MEASURED: &str = r##"
const figure = document.querySelector(".js-plotly-plot");
const rgba = (css) => {
  const context = (window.measuring ??= document.createElement("canvas").getContext("2d", {willReadFrequently: true}));
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = css;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data];
};
const luminance = ([red, green, blue]) => {
  const [r, g, b] = [red, green, blue].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};
// The colour of a value on a trace's scale.
const color = (trace, value) => {
  const axis = trace._fullInput?.colorscale ? trace._fullInput : trace;
  const share = Math.min(1, Math.max(0, (value - trace.zmin) / (trace.zmax - trace.zmin)));
  const stops = axis.colorscale;
  let above = stops.findIndex(([at]) => at >= share);
  if (above <= 0) above = stops.findIndex(([at]) => at > share);
  if (above <= 0) above = stops.length - 1;
  const [[from, fromColor], [to, toColor]] = [stops[above - 1], stops[above]];
  const part = to > from ? (share - from) / (to - from) : 1;
  const [a, b] = [rgba(fromColor), rgba(toColor)];
  return a.map((channel, index) => channel + part * (b[index] - channel));
};
const seen = (text) => text.replaceAll("\u200b", "").trim();
const texts = [...figure.querySelectorAll("text")].filter((text) => seen(text.textContent) && !text.closest(".modebar, .hoverlayer"))
  .map((text) => ({text: seen(text.textContent), at: text.getBoundingClientRect()})).filter(({at}) => at.width * at.height > 0);
const overlaps = [];
for (let i = 0; i < texts.length; i++) for (let j = 0; j < i; j++) {
  const [a, b] = [texts[i].at, texts[j].at];
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  const share = width > 0 && height > 0 ? width * height / Math.min(a.width * a.height, b.width * b.height) : 0;
  if (share > 1 / 3) overlaps.push([texts[i].text, texts[j].text, share]);
}
const maps = figure._fullData.filter((trace) => trace.type === "heatmap");
const colored = maps.filter((trace) => trace.opacity !== 0);
// Each label is in the cell at its position: the middle of the cell is the middle of the text.
const labels = [];
for (const label of figure.querySelectorAll(".heatmap-label text")) {
  if (!seen(label.textContent)) continue;
  const at = label.getBoundingClientRect();
  const [x, y] = [(at.left + at.right) / 2, (at.top + at.bottom) / 2];
  for (const trace of colored) {
    const [xaxis, yaxis] = [figure._fullLayout[trace.xaxis.replace("x", "xaxis")], figure._fullLayout[trace.yaxis.replace("y", "yaxis")]];
    const page = figure.getBoundingClientRect();
    const [column, row] = [Math.round(xaxis.p2c(x - page.left - xaxis._offset)), Math.round(yaxis.p2c(y - page.top - yaxis._offset))];
    const value = trace.z[row]?.[column];
    if (column < 0 || value === undefined || value === null || xaxis.p2c(x - page.left - xaxis._offset) > trace.z[0].length - 0.5) continue;
    const cell = Math.abs(xaxis.c2p(1) - xaxis.c2p(0));
    labels.push({text: seen(label.textContent), contrast: contrast(rgba(getComputedStyle(label).fill), color(trace, value)), wide: at.width / cell, size: parseFloat(getComputedStyle(label).fontSize)});
    break;
  }
}
const of_token = {}, unequal = [];
let named = 0;
for (const trace of colored) (trace.hovertext ?? []).forEach?.((row, r) => Array.isArray(row) && row.forEach((text, c) => {
  const token = /^attention token (.*?)(<br>|$)/.exec(text)?.[1];
  if (token === undefined) return;
  named += 1;
  const own = color(trace, trace.z[r][c]).join();
  if ((of_token[token] ??= own) !== own) unequal.push([token, of_token[token], own]);
}));
const box = (element) => element?.getBoundingClientRect();
const [title, bar] = [box(figure.querySelector(".gtitle")), box(figure.querySelector(".modebar-container > div, .modebar"))];
const svg = box(figure.querySelector(".main-svg"));
return {
  overlaps, labels, unequal, named, texts: texts.length,
  titleUnderBar: !!title && !!bar && bar.width > 0 && title.bottom > bar.top && title.top < bar.bottom && title.right > bar.left,
  width: svg.width, room: document.body.clientWidth,
  cut: texts.filter(({at}) => at.left < svg.left - 1 || at.right > svg.right + 1 || at.top < svg.top - 1 || at.bottom > svg.bottom + 1).map(({text}) => text),
};"##;

/// A run of a prompt of `n_pos` tokens, which repeats itself with variations.
fn run(model: &Gpt2, n_pos: usize) -> PromptRun {
    let text = model.to_tokens("The next sentence is false. The previous sentence is true.").unwrap();
    let token = |pos: usize| match pos {
        0 => text[0],
        pos if pos < 27 => text[1 + (pos - 1) % 12],
        pos => text[1 + (pos - 1) % 12] + (pos % 7 * 31) as u32,
    };
    run_prompts(model, vec![(0..n_pos).map(token).collect::<Vec<u32>>()]).unwrap()
}

/// A head on such a prompt.
fn head(n_pos: usize, layer: usize, head: usize) -> PromptHeadData {
    calculate_attns(&run(&demo(), n_pos), layer, head).unwrap().prompt(0).unwrap()
}

/// The views of attention patterns, on prompts of several lengths.
fn attention_figures(model: &Gpt2, emoji: &str) -> Vec<(String, Figure)> {
    let mut runs: Vec<(String, PromptRun)> =
        [13, 28, 66, 250].map(|n_pos| (n_pos.to_string(), run(model, n_pos))).to_vec();
    runs.push(("emoji".into(), run_prompts(model, emoji).unwrap()));
    let mut figures = Vec::new();
    for (name, run) in runs {
        figures.push((format!("attention-{name}"), plot_attention(&run, 1, 2).unwrap()));
        figures.push((format!("attention-lines-{name}"), plot_attention_lines(&run, 1).unwrap()));
        if name != "250" {
            figures.push((format!("attention-grid-{name}"), plot_layer_attention(&run, 1).unwrap()));
            figures.push((format!("attention-over-tokens-{name}"), plot_attention_over_tokens(&run, 1).unwrap()));
        }
    }
    figures
}

/// Figures of any array.
fn array_figures() -> Vec<(String, Figure)> {
    let wave = |rows: usize, columns: usize| {
        Array2::from_shape_fn((rows, columns), |(row, column)| ((31 * row + 17 * column) % 101) as f64 / 50.0 - 1.0)
    };
    let mut holes = wave(12, 12);
    (holes[[2, 3]], holes[[4, 1]]) = (f64::NAN, f64::INFINITY);
    let diverging = imshow(&holes).unwrap().title("By head").y_label("Layer").x_label("Head").color_label("logit");
    let long = imshow(wave(3, 4))
        .unwrap()
        .x_ticks([" a", "\n", "日本語日本語", "a label of forty characters, which is cut"])
        .unwrap();
    let names = |n: usize| (0..n).map(|index| format!("head {index}"));
    let lines = line(wave(3, 30)).unwrap().names(names(3)).unwrap().title("Three").x_label("layer").y_label("loss");
    let many = line(wave(40, 30)).unwrap().names(names(40)).unwrap();
    let [x, y] = [wave(2, 60).row(0).to_owned(), wave(2, 60).row(1).to_owned()];
    let points = scatter(&x, &y).unwrap().point_labels(names(60)).unwrap().x_label("copying").y_label("induction");
    let figures = [
        ("imshow", diverging.figure()),
        ("imshow-sequential", diverging.sequential().figure()),
        ("imshow-large", imshow(wave(300, 200)).unwrap().figure()),
        ("imshow-long-labels", long.figure()),
        ("line", lines.figure()),
        ("line-ticks", lines.x_ticks((0..30).map(|index| format!("{index} token"))).unwrap().figure()),
        ("line-many", many.figure()),
        ("scatter", points.add_line("y = x", [-1.0, 1.0], [-1.0, 1.0]).unwrap().figure()),
    ];
    figures.map(|(name, figure)| (name.to_owned(), figure)).to_vec()
}

/// Each kind of figure with a name.
fn figures() -> Vec<(String, Figure)> {
    let model = demo();
    let mut figures: Vec<(String, Figure)> = Vec::new();
    let mut add = |name: &str, figure: Figure| {
        figures.push((format!("{name}-dark"), figure.with_theme(Theme::Dark).unwrap()));
        figures.push((name.to_owned(), figure));
    };
    let plain = |data: &PromptHeadData| plot_attns(&unique_index_pattern(&data.feature(Feature::Qk)));
    for n_pos in [13, 28, 66, 256] {
        add(&format!("head-{n_pos}"), plot_head(&head(n_pos, 0, 1)));
    }
    for n_pos in [13, 66] {
        let (one, other) = (head(n_pos, 0, 1), head(n_pos, 1, 2));
        let figure = compare_plots(&plot_head(&one), &plot_head(&other), "Two heads", "Above 0.1, below 1.2.").unwrap();
        add(&format!("pair-{n_pos}"), figure);
    }
    let (short, other) = (head(13, 0, 1), head(13, 1, 2));
    add("pair-without-labels", compare_plots(&plain(&short), &plain(&other), "Two patterns", "").unwrap());
    add("original", plot_head(&short).with_look(Look::Original).unwrap());
    add("transparent", plot_head(&short).with_theme(Theme::Transparent).unwrap());
    add("small", plot_head(&short).with_size(560, 520).unwrap());
    let attention = add_axis_labels(&plot_attns(&short.feature(Feature::Attn)), &short).unwrap();
    add("attention", attention.with_look(Look::Tokens).unwrap());
    let emoji = "I ❤\u{fe0f} 👩\u{200d}👧,\r\n<b>$x$</b> 日本語 na\u{301}\u{a0}me";
    let run = run_prompts(&model, emoji).unwrap();
    add("emoji", plot_head(&calculate_attns(&run, 2, 3).unwrap().prompt(0).unwrap()));
    let prompts =
        ["The next bus is late. The previous bus was early.", "Monday, Tuesday, Wednesday", "The sky is blue."];
    let run = run_prompts(&model, prompts.map(String::from).to_vec()).unwrap();
    let layer = calculate_layer(&run, 0).unwrap();
    add("grid", layer_grid(&layer, 0).unwrap());
    add("menu", browse_heads(&layer[..4], 0).unwrap());
    let heads = all_heads_data(&model, &run.cache, DecodeOptions::default()).unwrap();
    add("grid-of-144", layer_grid(&heads.iter().cycle().take(144).cloned().collect::<Vec<_>>(), 0).unwrap());
    let contraction = ContractionByHead::new(&heads).unwrap();
    add("contraction", contraction.plot_distinct_ratio());
    add("by-length", contraction.plot_by_length());
    let tokens = [" and", ".", "`"].map(|text| model.to_single_token(text).unwrap());
    let result = appending(&model, 0, 1, &prompts, &tokens, Projection::Notebook).unwrap();
    add("transitions", result.plot_transitions(8));
    add("commuting", result.plot_commuting());
    add("monoid", result.monoid(8, 120).unwrap().plot());
    let (_, cache) = model.run_with_cache("When Mary and John went to the store, John gave a drink to").unwrap();
    let (mary, john) = (model.to_single_token(" Mary").unwrap(), model.to_single_token(" John").unwrap());
    add("lens", cache.logit_lens(&model, &[mary]).unwrap().plot(&model, LensColor::Rank(0)).unwrap());
    let stack = cache.decompose_resid(&model, None).unwrap();
    add("logit-attrs", cache.plot_logit_attrs(&model, &stack, mary, Some(john)).unwrap());
    let said = head_data(&model, &cache, 3, 5, DecodeOptions::default()).unwrap().prompt(0).unwrap();
    add("cell-logit-attrs", cache.plot_cell_logit_attrs(&model, &said, mary, Some(john)).unwrap());
    let prompt = "When Mary and John went to the store, John gave a drink to";
    let bill = receipt(&model, prompt, [mary, john], ReceiptOptions { share: 0.6, ..Default::default() }).unwrap();
    add("receipt", bill.plot());
    let options = NeedOptions { answers: Some([mary, john]), ..Default::default() };
    add("said-written-needed", said_written_needed(&model, prompt, 3, 5, options).unwrap().plot().unwrap());
    let words = [" the", " a", " of", " and", " but", " he", " Mary", " one", ",", ".", "\n"];
    let words = words.map(|word| model.to_single_token(word).unwrap());
    let table = multiplication_table(&model, 0, 1, &words, Reading::MATCHED.unembed_bias(false)).unwrap();
    add("multiplication-table", table.plot());
    for (name, figure) in attention_figures(&model, emoji).into_iter().chain(array_figures()) {
        add(&name, figure);
    }
    figures
}

/// What is wrong with a figure, by its measurements.
fn faults(name: &str, measured: &Value) -> Vec<String> {
    let list = |key: &str| measured[key].as_array().cloned().unwrap_or_default();
    let mut faults: Vec<String> = Vec::new();
    for key in ["overlaps", "unequal", "cut"] {
        let found = list(key);
        if !found.is_empty() {
            faults.push(format!("{name}: {key}, {} times: {}", found.len(), json!(found[..found.len().min(4)])));
        }
    }
    let labels = list("labels");
    for label in &labels {
        let (contrast, wide) = (label["contrast"].as_f64().unwrap(), label["wide"].as_f64().unwrap());
        let size = label["size"].as_f64().unwrap();
        if contrast < 4.5 || wide > 1.1 || size < 10.0 {
            faults.push(format!("{name}: {label}"));
        }
    }
    if measured["titleUnderBar"] == true {
        faults.push(format!("{name}: the title is under the tool bar"));
    }
    let [width, room] = ["width", "room"].map(|key| measured[key].as_f64().unwrap());
    if width > 940.5 || width > room {
        faults.push(format!("{name}: {width} pixels in {room}"));
    }
    if measured["texts"].as_u64() == Some(0) {
        faults.push(format!("{name}: no text was found"));
    }
    if ["head-13", "pair-13", "lens", "menu"].contains(&name) && labels.len() < 20 {
        faults.push(format!("{name}: only {} texts in cells", labels.len()));
    }
    if ["pair-13", "grid", "pair-66"].contains(&name) && measured["named"].as_u64() < Some(100) {
        faults.push(format!("{name}: only {} cells with the name of a token", measured["named"]));
    }
    faults
}

/// Draws a figure in place of the one in the page.
const DRAW: &str = r#"
const [json, background] = arguments;
const figure = JSON.parse(json);
const old = document.querySelector(".js-plotly-plot");
const drawn = document.createElement("div");
old.replaceWith(drawn);
Plotly.purge(old);
document.body.style.background = background;
return Plotly.newPlot(drawn, figure.data, figure.layout, figure.config).then(() => true);"#;

#[test]
#[ignore = "needs Chromium and chromedriver: cargo xtask test"]
fn figures_can_be_read() {
    let page = target().join("figures.html");
    std::fs::create_dir_all(target().join("screenshots/figures")).unwrap();
    in_browser(async |client| {
        let mut found = Vec::new();
        let figures = figures();
        figures[0].1.write_html(&page).unwrap();
        client.set_window_size(980, 1500).await?;
        client.goto(&format!("file://{}", page.display())).await?;
        wait_for(&client, "the page", "return !!document.querySelector('.js-plotly-plot .main-svg')").await?;
        for (name, figure) in figures {
            let background = if name.ends_with("-dark") { "#111" } else { "white" };
            client.execute(DRAW, vec![figure.to_json().into(), background.into()]).await?;
            save(&client, &format!("figures/{name}")).await?;
            let measured = client.execute(MEASURED, vec![]).await?;
            found.extend(faults(&name, &measured));
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
        Ok(())
    });
}
