//! Every kind of figure and table, of a hostile model and with hostile texts.

use attention_tokens::Prompts;
use attention_tokens::experiments::*;
use attention_tokens::notebook::*;
use attention_tokens::prelude::*;
use ndarray::Array2;

/// The number of figures of [`of_text`].
pub(super) const PER_TEXT: usize = 6;

/// The prompts of the figures: the tokens of the vocabulary from the third on, in order.
pub(super) fn prompts() -> Vec<Vec<u32>> {
    let tokens: Vec<u32> = (2..97).collect();
    tokens.chunks(13).map(|chunk| std::iter::once(0).chain(chunk.iter().copied()).collect()).collect()
}

fn head(run: &PromptRun, prompt: usize, layer: usize, head: usize) -> PromptHeadData {
    calculate_attns(run, layer, head).unwrap().prompt(prompt).unwrap()
}

/// The figures of heads, attention patterns, experiments and analyses, whose texts come from the model and the prompt.
pub(super) fn of_model(model: &Gpt2) -> Vec<(String, Figure)> {
    let mut figures: Vec<(String, Figure)> = Vec::new();
    let mut add = |name: &str, figure: Figure| figures.push((name.to_owned(), figure));
    let all = prompts();
    let run = run_prompts(model, Prompts::from(all.clone())).unwrap();
    // Each token of the vocabulary is in one of the prompts.
    for prompt in 0..all.len() {
        add(&format!("head of prompt {prompt}"), plot_head(&head(&run, prompt, 0, 1)));
    }
    let (one, other) = (head(&run, 0, 0, 1), head(&run, 0, 1, 2));
    add("pair", compare_plots(&plot_head(&one), &plot_head(&other), "Two heads", "").unwrap());
    add("original", plot_head(&one).with_look(Look::Original).unwrap());
    for (name, feature) in
        [("attention", Feature::Attn), ("input", Feature::Input), ("k", Feature::K), ("v", Feature::V)]
    {
        let plot = add_token_labels(&plot_attns(&one.feature(feature)), &one, feature).unwrap();
        add(name, add_axis_labels(&add_attn_overlay(&plot, &one, 0.1).unwrap(), &one).unwrap());
    }
    let heads: Vec<HeadData> = (0..2).flat_map(|layer| calculate_layer(&run, layer).unwrap()).collect();
    add("grid", layer_grid(&heads, 0).unwrap());
    add("menu", browse_heads(&heads, 1).unwrap());
    for prompt in 0..2 {
        let run = run.prompt(prompt).unwrap();
        add("one pattern", plot_attention(&run, 1, 2).unwrap());
        add("lines", plot_attention_lines(&run, 1).unwrap());
        add("patterns", plot_layer_attention(&run, 1).unwrap());
        add("over tokens", plot_attention_over_tokens(&run, 1).unwrap());
    }
    let contraction = ContractionByHead::new(&heads).unwrap();
    add("contraction", contraction.plot_distinct_ratio());
    add("by length", contraction.plot_by_length());
    let agreement = TokenAgreement::between("<b>__ran</b>", &heads, &heads).unwrap();
    add("agreement", agreement.plot());
    add("singular vectors", vectors(model).plot());
    let texts = texts(model);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let appended = appending(model, 0, 1, &texts, &[5, 6, 7], Projection::Notebook).unwrap();
    add("transitions", appended.plot_transitions(8));
    add("commuting", appended.plot_commuting());
    add("monoid", appended.monoid(6, 50).unwrap().plot());
    let cache = model.run_with_cache(vec![all[0].clone()]).unwrap().1;
    add("lens", cache.logit_lens(model, &[9]).unwrap().plot(model, LensColor::Rank(0)).unwrap());
    let stack = cache.decompose_resid(model, None).unwrap();
    add("logit attrs", cache.plot_logit_attrs(model, &stack, 9, Some(10)).unwrap());
    add("cell logit attrs", cache.plot_cell_logit_attrs(model, &one, 9, Some(10)).unwrap());
    add("receipt", bill(model).plot());
    add("said, written, needed", need(model).plot().unwrap());
    add("multiplication", product(model).plot());
    let counts = counts(model);
    add("rank and frequency", counts.plot_rank_frequency(Component::Qk));
    add("shared tokens", counts.shared_tokens(Component::K).clustered().plot());
    add("map", counts.embedding_map(model, Component::V, 60, MapMethod::Pca).unwrap().plot());
    figures
}

/// The figures of arrays with a text wherever a user can give one.
pub(super) fn of_text(model: &Gpt2, text: &str) -> Vec<(String, Figure)> {
    let again = |n: usize| vec![text; n];
    let wave = |rows, columns| Array2::from_shape_fn((rows, columns), |(row, column)| (row * 3 + column) as f64);
    let matrix = imshow(wave(2, 3)).unwrap().title(text).x_label(text).y_label(text).color_label(text);
    let ticked = matrix.clone().x_ticks(again(3)).unwrap().y_ticks(again(2)).unwrap();
    // So many cells that the names of rows and columns are the categories of plotly's axes.
    let names = |n: usize| (0..n).map(|at| format!("{text}{at}"));
    let large = imshow(wave(120, 120)).unwrap().x_ticks(names(120)).unwrap().y_ticks(names(120)).unwrap();
    let series = line(wave(2, 4)).unwrap().names(again(2)).unwrap().title(text).x_label(text).y_label(text);
    let points = scatter(vec![0.0, 1.0, 2.0], vec![1.0, 0.0, 2.0]).unwrap();
    let points = points.title(text).x_label(text).y_label(text).point_labels(again(3)).unwrap();
    let run = run_prompts(model, Prompts::from(vec![vec![0_u32, 2, 3]])).unwrap();
    let one = plot_head(&head(&run, 0, 0, 1));
    let figures = [
        ("matrix", ticked.clone().cell_texts(again(6)).unwrap().figure()),
        ("hovers", matrix.hover(again(6)).unwrap().figure()),
        ("large", large.figure()),
        ("series", series.x_ticks(again(4)).unwrap().figure()),
        ("points", points.add_line(text, [0.0, 1.0], [0.0, 1.0]).unwrap().figure()),
        ("pair", compare_plots(&one, &one, text, text).unwrap()),
    ];
    figures.map(|(name, figure)| (format!("{name} of {text:?}"), figure)).to_vec()
}

/// The tables whose texts come from the model and the prompt.
pub(super) fn tables(model: &Gpt2) -> Vec<Table> {
    let run = run_prompts(model, Prompts::from(prompts())).unwrap();
    let mut tables: Vec<Table> =
        (0..prompts().len()).map(|prompt| attention_table(&head(&run, prompt, 0, 1))).collect();
    let counts = counts(model);
    let heads = calculate_layer(&run, 0).unwrap();
    let agreement = TokenAgreement::between("<img/src=x/onerror=__ran=1>", &heads, &heads).unwrap();
    let texts = texts(model);
    let (bill, need) = (bill(model), need(model));
    let appended = appending(model, 0, 1, &[texts[0].as_str(), &texts[1]], &[5, 6, 7], Projection::Notebook).unwrap();
    tables.extend([
        counts.shared_table(Component::Qk, 97),
        counts.table(Component::Qk),
        agreement_table(&[agreement]),
        vectors(model).table(),
        bill.table(),
        bill.strike(&bill.lines.iter().take(3).map(|line| line.contributor).collect::<Vec<_>>()).unwrap().table(),
        need.top(8),
        appended.table(),
        appended.monoid(6, 50).unwrap().table(),
        product(model).table(),
    ]);
    tables.extend(test_prompt(model, &texts[0], &texts[1][..0]).into_iter().flat_map(|test| test.tables()));
    tables
}

/// The texts of two prompts of the model.
fn texts(model: &Gpt2) -> Vec<String> {
    prompts().iter().take(2).map(|prompt| model.to_string(&prompt[1..6]).unwrap()).collect()
}

fn vectors(model: &Gpt2) -> SingularVectors {
    singular_vectors(model, WeightMatrix::Ov { layer: 0, head: 0 }, 4, 6).unwrap()
}

fn bill(model: &Gpt2) -> Receipt {
    receipt(model, vec![prompts()[0].clone()], [9, 10], ReceiptOptions { share: 0.6, ..Default::default() }).unwrap()
}

fn need(model: &Gpt2) -> SaidWrittenNeeded {
    let options = NeedOptions { answers: Some([9, 10]), ..Default::default() };
    said_written_needed(model, vec![prompts()[0].clone()], 1, 2, options).unwrap()
}

fn product(model: &Gpt2) -> MultiplicationTable {
    let tokens: Vec<u32> = (2..14).collect();
    multiplication_table(model, 0, 1, &tokens, Reading::MATCHED).unwrap()
}

fn counts(model: &Gpt2) -> VocabularyCounts {
    let mut counts = VocabularyCounts::new(model, Projection::Notebook).unwrap();
    counts.add(model, Prompts::from(prompts())).unwrap();
    counts
}
