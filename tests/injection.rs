//! No text of a user or of a file is anything but text in a page: hostile texts as prompts, as tokens of the vocabulary, as
//! the model's name, as titles, labels and names, in every kind of figure, table and page, in Chromium.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attention_tokens::experiments::{ConcordanceOptions, VocabularyCounts, concordance};
use attention_tokens::prelude::*;
use fantoccini::Client;
use fantoccini::error::CmdError;
use serde_json::{Value, json};

use crate::browser::{in_browser, wait_for};
use crate::support::root;

mod figures;
mod payloads;

/// Draws a figure in place of the one in the page.
const DRAW: &str = r#"
const figure = JSON.parse(arguments[0]);
const old = document.querySelector(".js-plotly-plot");
const drawn = document.createElement("div");
old.replaceWith(drawn);
Plotly.purge(old);
return Plotly.newPlot(drawn, figure.data, figure.layout, figure.config).then(() => true);"#;

/// A formula that plotly would give to MathJax counts as run.
const FAKE_MATHJAX: &str = "window.MathJax = new Proxy({}, { get() { window.__ran = 'MathJax'; } });";

/// A server that counts who connects.
struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        // The port is a part of the texts, which have room for five digits.
        let listener = std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").unwrap())
            .find(|listener| listener.local_addr().unwrap().port() >= 10_000);
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        std::thread::spawn(move || {
            listener.incoming().for_each(|_| {
                count.fetch_add(1, Ordering::SeqCst);
            })
        });
        Self { port, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// What is seen of a text: without spaces and characters that have no picture.
fn seen(text: &str) -> String {
    let invisible = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '␣' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{fffd}')
    };
    text.chars().filter(|&c| !invisible(c)).collect()
}

/// The labels of a model's tokens, as they are seen.
fn labels(model: &Gpt2) -> impl Fn(u32) -> String {
    let counts = VocabularyCounts::new(model, Projection::Notebook).unwrap();
    move |token| seen(&counts.label(token))
}

/// What the page of the client has done and what it shows.
struct Scanned {
    faults: Vec<String>,
    /// Texts of plotly figures, the hover texts among them, as they are seen.
    texts: Vec<String>,
    hovers: u64,
    body: String,
    title: String,
}

async fn scan(client: &Client, server: &Server, figures: bool) -> Result<Scanned, CmdError> {
    let script = std::fs::read_to_string(root().join("tests/injection/scan.js")).unwrap();
    let found = client.execute(&script, vec![server.port.into(), figures.into()]).await?;
    let list = |key: &str| -> Vec<String> {
        found[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut faults = list("faults");
    if server.requests() > 0 {
        faults.push("a request".into());
    }
    let text = |key: &str| seen(found[key].as_str().unwrap());
    let texts = list("texts").iter().map(|text| seen(text)).collect();
    Ok(Scanned { faults, texts, hovers: found["hovers"].as_u64().unwrap(), body: text("body"), title: text("title") })
}

async fn open(client: &Client, path: &Path) -> Result<(), CmdError> {
    let path = path.to_str().unwrap();
    client.goto(&format!("file://{path}")).await
}

/// The faults of a page, with its name.
fn named(name: &str, scanned: &Scanned) -> Vec<String> {
    scanned.faults.iter().map(|fault| format!("{name}: {fault}")).collect()
}

#[test]
#[ignore = "needs Chromium and chromedriver: cargo xtask test"]
fn no_text_runs_in_a_figure() {
    let (server, scratch) = (Server::start(), tempfile::tempdir().unwrap());
    let payloads = payloads::payloads(server.port);
    let model = payloads::hostile_model(scratch.path(), payloads::FOLDER, &payloads);
    let page = scratch.path().join("figure.html");
    let mut figures = figures::of_model(&model);
    let n_of_model = figures.len();
    figures.extend(payloads.iter().flat_map(|text| figures::of_text(&model, text)));
    figures[0].1.write_html(&page).unwrap();
    let label = labels(&model);
    in_browser(async |client| {
        let (mut faults, mut hovers, mut texts) = (Vec::new(), 0, Vec::new());
        open(&client, &page).await?;
        wait_for(&client, "the page", "return !!document.querySelector('.js-plotly-plot .main-svg')").await?;
        client.execute(FAKE_MATHJAX, vec![]).await?;
        for (index, (name, figure)) in figures.iter().enumerate() {
            client.execute(DRAW, vec![figure.to_json().into()]).await?;
            let scanned = scan(&client, &server, true).await?;
            faults.extend(named(name, &scanned));
            if index < n_of_model {
                texts.extend(scanned.texts);
                hovers += scanned.hovers;
                continue;
            }
            // The beginning of the text is seen, as it is or as tokens are shown; there is not always room for all of it.
            let payload = (index - n_of_model) / figures::PER_TEXT;
            let start = |text: String| text.chars().take(12).collect::<String>();
            let starts = [start(seen(&payloads[payload])), start(label(2 + payload as u32))];
            if !starts.iter().any(|start| scanned.texts.iter().any(|text| text.contains(start))) {
                faults.push(format!("{name}: {starts:?} is not seen in {:?}", scanned.texts));
            }
        }
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
        assert!(hovers > 2000, "{hovers} hover texts");
        // Each token is seen, as an axis label or in a hover text.
        for token in 2..97 {
            let label = label(token);
            assert!(texts.iter().any(|text| text.contains(&label)), "{label} is not seen");
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs Chromium and chromedriver: cargo xtask test"]
fn no_text_runs_in_a_page() {
    let (server, scratch) = (Server::start(), tempfile::tempdir().unwrap());
    let payloads = payloads::payloads(server.port);
    let model = payloads::hostile_model(scratch.path(), payloads::FOLDER, &payloads);
    let label = labels(&model);
    let path = |name: &str| scratch.path().join(name);
    // The concordance of prompts that are hostile texts, with hostile tokens.
    let prompts: Vec<String> = payloads.iter().map(|text| text.replace(['\n', '\r'], " ")).collect();
    let prompts: Vec<String> = prompts.chunks(6).map(<[String]>::concat).collect();
    std::fs::write(path("prompts.txt"), prompts.join("\n")).unwrap();
    let options = ConcordanceOptions { words_per_head: 97, ..Default::default() };
    let words = concordance(&model, &[path("prompts.txt")], &options, &mut |_| ()).unwrap();
    words.write_pages(path("pages")).unwrap();
    // All tables in one page, and again in an SVG's place: what a notebook has.
    let tables: Vec<String> = figures::tables(&model).iter().map(Table::to_html).collect();
    let document = format!("<!DOCTYPE html><meta charset=utf-8><title></title>{}", tables.join("\n"));
    std::fs::write(path("tables.html"), document).unwrap();
    in_browser(async |client| {
        let mut faults = Vec::new();
        open(&client, &path("tables.html")).await?;
        let scanned = scan(&client, &server, false).await?;
        faults.extend(named("tables", &scanned));
        for token in 2..97 {
            assert!(scanned.body.contains(&label(token)), "{} is not in the tables", label(token));
        }
        let mut seen_words = String::new();
        for entry in std::fs::read_dir(path("pages")).unwrap() {
            let page = entry.unwrap().path();
            open(&client, &page).await?;
            let scanned = scan(&client, &server, false).await?;
            faults.extend(named(&page.display().to_string(), &scanned));
            seen_words += &scanned.body;
        }
        let missing = (2..97).filter(|&token| !seen_words.contains(&label(token))).count();
        assert!(missing < 30, "{missing} of 95 tokens are not in the concordance");
        // Exported pages and pictures of each kind of figure, opened by themselves.
        for (name, figure) in figures::of_model(&model).into_iter().chain(figures::of_text(&model, &payloads[3])) {
            figure.write_html(path("figure.html")).unwrap();
            open(&client, &path("figure.html")).await?;
            wait_for(&client, &name, "return !!document.querySelector('.js-plotly-plot .main-svg')").await?;
            let scanned = scan(&client, &server, false).await?;
            faults.extend(named(&format!("page of {name}"), &scanned));
            assert_eq!(scanned.title, seen(&figure.describe()), "{name}");
            figure.write_svg(path("figure.svg")).unwrap();
            open(&client, &path("figure.svg")).await?;
            faults.extend(named(&format!("picture of {name}"), &scan(&client, &server, false).await?));
        }
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
        Ok(())
    });
}

/// The scan finds what it should: each text that a page takes for HTML, and each that plotly takes for markup.
#[test]
#[ignore = "needs Chromium and chromedriver: cargo xtask test"]
fn the_scan_finds_what_runs() {
    let (server, scratch) = (Server::start(), tempfile::tempdir().unwrap());
    let payloads = payloads::payloads(server.port);
    let page = scratch.path().join("page.html");
    in_browser(async |client| {
        let mut found = 0;
        for text in &payloads {
            std::fs::write(&page, format!("<!DOCTYPE html><meta charset=utf-8><title></title><p>{text}</p>")).unwrap();
            open(&client, &page).await?;
            found += usize::from(!scan(&client, &server, false).await?.faults.is_empty());
        }
        assert!(found > 30 && server.requests() > 0, "{found} texts of {}", payloads.len());
        let figure = imshow(ndarray::arr2(&[[1.0]])).unwrap().figure();
        figure.write_html(&page).unwrap();
        open(&client, &page).await?;
        wait_for(&client, "the page", "return !!document.querySelector('.js-plotly-plot .main-svg')").await?;
        client.execute(FAKE_MATHJAX, vec![]).await?;
        for text in ["<b>__ran</b>", "<a href=\"http://127.0.0.1/\">a</a>", "$x$"] {
            let mut json: Value = serde_json::from_str(&figure.to_json()).unwrap();
            json["layout"]["title"] = json!({ "text": text });
            // plotly's promise waits for the formula, for which there is no MathJax.
            client
                .execute(
                    &format!("{} ; return true", DRAW.replace("return Plotly", "Plotly")),
                    vec![json.to_string().into()],
                )
                .await?;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            assert!(
                !scan(&client, &Server { port: 1, requests: Arc::default() }, false).await?.faults.is_empty(),
                "{text}"
            );
        }
        Ok(())
    });
}

/// Texts that are longer than the figures that have them, in figures of any size.
#[test]
fn long_texts_are_drawn_in_figures_of_any_size() {
    let scratch = tempfile::tempdir().unwrap();
    let tokens = payloads::payloads(10_000);
    let model = payloads::hostile_model(scratch.path(), &"very long ".repeat(25), &tokens);
    let mut figures = figures::of_model(&model);
    for text in ["word ".repeat(600), "x".repeat(3_000), "line\n".repeat(300)] {
        figures.extend(figures::of_text(&model, &text));
    }
    for (name, figure) in figures {
        for size in [None, Some((200, 200)), Some((200, 800)), Some((1_200, 200))] {
            let sized = size.map_or(figure.clone(), |(width, height)| figure.with_size(width, height).unwrap());
            let drawn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (sized.to_json().len(), sized.to_svg().map(|svg| svg.len()))
            }));
            assert!(drawn.is_ok(), "{} at {size:?}", name.chars().take(60).collect::<String>());
        }
    }
}
