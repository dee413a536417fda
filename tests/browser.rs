//! Notebook 01 in Chromium: executed in JupyterLab, and as the HTML page that needs no network.
//!
//! The tests save screenshots in `target/screenshots`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::error::CmdError;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::notebooks::{PLOTLY, alike, executed, notebook, outputs, target, text};
use crate::support::root;

const NOTEBOOK: &str = "01_attention_tokens";
const TIMEOUT: Duration = Duration::from_secs(150);

/// A process group that is terminated when the value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A negative number stands for the group. Without `-s` and `--`, some versions of `kill` misread it.
        let _ = Command::new("kill").args(["-s", "TERM", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

/// Starts a program in a process group of its own. `find_address` returns the address or port it listens on, given the
/// line of its output that has it, and `None` for other lines.
fn start(command: &mut Command, find_address: impl Fn(&str) -> Option<String>) -> (Running, String) {
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (lines, printed) = std::sync::mpsc::channel();
    let outputs: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    for output in outputs {
        let lines = lines.clone();
        // Read to the end: a program blocks when its pipe is full.
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| {
                let _ = lines.send(line);
            })
        });
    }
    drop(lines);
    let running = Running(child);
    let mut output = String::new();
    let deadline = Instant::now() + TIMEOUT;
    while let Ok(line) = printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(address) = find_address(&line) {
            return (running, address);
        }
        output += &format!("{line}\n");
    }
    panic!("{command:?} printed no address:\n{output}");
}

/// Runs a test in a headless browser.
pub(crate) fn in_browser<F: Future<Output = Result<(), CmdError>>>(test: impl FnOnce(Client) -> F) {
    let (_driver, port) = start(Command::new("chromedriver").arg("--port=0"), |line| {
        let port = line.split("started successfully on port ").nth(1)?;
        Some(port.trim_end_matches('.').to_owned())
    });
    // Host names are not resolved, so that nothing comes from a network.
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1700,1300",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ];
    let capabilities = json!({"goog:chromeOptions": {"args": arguments}}).as_object().unwrap().clone();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities).connect(&format!("http://127.0.0.1:{port}")).await.unwrap();
        let outcome = test(client.clone()).await;
        client.close().await.unwrap();
        outcome.unwrap();
    });
}

/// Waits until a script returns true in the page.
pub(crate) async fn wait_for(client: &Client, what: &str, script: &str) -> Result<(), CmdError> {
    let deadline = Instant::now() + TIMEOUT;
    while client.execute(script, vec![]).await? != json!(true) {
        if Instant::now() > deadline {
            save(client, "failed").await?;
            panic!("timeout while waiting for {what}; see target/screenshots/failed.png");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

pub(crate) async fn save(client: &Client, name: &str) -> Result<(), CmdError> {
    let folder = target().join("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.png")), client.screenshot().await?).unwrap();
    Ok(())
}

/// The outputs of a notebook that have a plotly figure.
fn figures(path: PathBuf) -> Vec<Value> {
    let mut outputs = outputs(&notebook(path));
    outputs.retain(|output| output["data"][PLOTLY].is_object());
    outputs
}

/// The plotly JSON of the figures that are stored in the notebook.
fn stored_figures() -> Vec<Value> {
    let stored = figures(root().join("notebooks").join(format!("{NOTEBOOK}.ipynb")));
    stored.into_iter().map(|output| output["data"][PLOTLY].clone()).collect()
}

/// A script that returns, for each figure in the page, the properties that [`figures_are_drawn`] compares.
const SHOWN: &str = r#"
return [...document.querySelectorAll(".js-plotly-plot")].map((figure) => ({
  maps: figure._fullData.map((trace) => [trace.z.length, trace.z[0].length]),
  drawn: [...figure.querySelectorAll(".hm image")].filter((image) => image.getAttribute("href")?.startsWith("data:")).length,
  texts: [...figure.querySelectorAll(".annotation-text")].map((text) => text.textContent),
  inCells: [...figure.querySelectorAll(".heatmap-label text")].map((text) => text.textContent.replaceAll("\u200b", "")),
  frames: figure.querySelectorAll(".shapelayer path").length,
  controls: figure.querySelectorAll(".updatemenu-header").length,
  width: Math.round(figure.querySelector(".main-svg").getBoundingClientRect().width),
}))"#;

/// Text as the browser shows it: without plotly's escapes and without spaces at the ends.
fn visible_text(text: &str) -> String {
    let unescaped = text.replace("&lt;", "<").replace("&gt;", ">").replace("&#36;", "$").replace("&amp;", "&");
    unescaped.trim_matches([' ', '\u{a0}']).to_owned()
}

/// Checks that every stored figure is drawn: its heat maps, texts in their order, frames, menus and width.
async fn figures_are_drawn(client: &Client) -> Result<(), CmdError> {
    let shown = client.execute(SHOWN, vec![]).await?;
    let (shown, stored) = (shown.as_array().unwrap().clone(), stored_figures());
    assert_eq!(shown.len(), stored.len());
    for (index, (shown, stored)) in shown.iter().zip(&stored).enumerate() {
        let layout = &stored["layout"];
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let maps: Vec<Value> = list(&stored["data"])
            .iter()
            .map(|trace| json!([list(&trace["z"]).len(), list(&trace["z"][0]).len()]))
            .collect();
        assert_eq!(shown["maps"], Value::from(maps.clone()), "figure {index}: the cells of its heat maps");
        assert_eq!(shown["drawn"], maps.len(), "figure {index}: heat maps that are drawn");
        assert_eq!(shown["frames"], list(&layout["shapes"]).len(), "figure {index}: frames");
        assert_eq!(shown["controls"], list(&layout["updatemenus"]).len(), "figure {index}: menus");
        assert_eq!(shown["width"], layout["width"], "figure {index}: its width");
        let texts = |value: &Value, key: &str| -> Vec<String> {
            list(value)
                .iter()
                .map(|text| visible_text(if key.is_empty() { text } else { &text[key] }.as_str().unwrap()))
                .collect()
        };
        let mut want = texts(&layout["annotations"], "text");
        let mut got = texts(&shown["texts"], "");
        want.retain(|text| !text.is_empty());
        got.retain(|text| !text.is_empty());
        assert_eq!(got, want, "figure {index}: its texts");
        let in_cells = list(&stored["data"]).into_iter().flat_map(|trace| list(&trace["text"]));
        let in_cells = in_cells.flat_map(|row| list(&row)).filter_map(|text| text.as_str().map(str::to_owned));
        let mut want: Vec<String> =
            in_cells.map(|text| visible_text(&text.replace("<br>", "").replace('\u{200b}', ""))).collect();
        let mut got = texts(&shown["inCells"], "");
        for texts in [&mut want, &mut got] {
            texts.retain(|text| !text.is_empty());
            texts.sort_unstable();
        }
        assert_eq!(got, want, "figure {index}: the texts in its cells");
    }
    Ok(())
}

/// Scrolls an element into view and returns its left, top, width and height in the window, in CSS pixels.
async fn scroll_to(client: &Client, script: &str) -> Result<[f64; 4], CmdError> {
    client.execute(&format!("{script}.scrollIntoView({{block: 'center', inline: 'center'}})"), vec![]).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let rectangle = client
        .execute(
            &format!("const at = {script}.getBoundingClientRect(); return [at.x, at.y, at.width, at.height]"),
            vec![],
        )
        .await?;
    Ok([0, 1, 2, 3].map(|index| rectangle[index].as_f64().unwrap()))
}

async fn drag(client: &Client, from: (f64, f64), to: (f64, f64)) -> Result<(), CmdError> {
    let at =
        |(x, y): (f64, f64), millis: u64| PointerAction::MoveTo { duration: Some(Duration::from_millis(millis)), x, y };
    let middle = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
    let mouse = MouseActions::new("mouse".into())
        .then(at(from, 0))
        .then(PointerAction::Down { button: MOUSE_BUTTON_LEFT })
        .then(at(middle, 200))
        .then(at(to, 200))
        .then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
    client.perform_actions(mouse).await
}

/// Zooms the left panel of the first pair with the mouse. The right panel follows: its axes match the left panel's.
async fn zoom_moves_both_panels(client: &Client) -> Result<(), CmdError> {
    let pair = "[...document.querySelectorAll('.js-plotly-plot')].find((figure) => figure._fullLayout.xaxis2)";
    let ranges =
        format!("const l = {pair}._fullLayout; return [l.xaxis.range, l.xaxis2.range, l.yaxis.range, l.yaxis2.range]");
    let before = client.execute(&ranges, vec![]).await?;
    assert_eq!((&before[0], &before[2]), (&before[1], &before[3]), "both panels show everything");
    let [x, y, width, height] = scroll_to(client, &format!("{pair}.querySelector('.nsewdrag')")).await?;
    drag(client, (x + 0.2 * width, y + 0.2 * height), (x + 0.7 * width, y + 0.7 * height)).await?;
    wait_for(client, "the zoom", &format!("return {pair}._fullLayout.xaxis.range[1] < {} - 1", before[0][1])).await?;
    let after = client.execute(&ranges, vec![]).await?;
    assert_eq!((&after[0], &after[2]), (&after[1], &after[3]), "both panels show the same range");
    assert_ne!(before[3], after[3]);
    Ok(())
}

/// Chooses the third head in the menu. The figure then shows that head's cells, tokens and name.
async fn menu_shows_another_head(client: &Client, name: &str) -> Result<(), CmdError> {
    let figure = "[...document.querySelectorAll('.js-plotly-plot')].find((figure) => figure.layout.updatemenus)";
    scroll_to(client, figure).await?;
    let click = async |selector: &str, nth: usize| -> Result<(), CmdError> {
        let [x, y, width, height] =
            scroll_to(client, &format!("{figure}.querySelectorAll('{selector}')[{nth}]")).await?;
        let at = (x + width / 2.0, y + height / 2.0);
        let mouse = MouseActions::new("mouse".into())
            .then(PointerAction::MoveTo { duration: None, x: at.0, y: at.1 })
            .then(PointerAction::Down { button: MOUSE_BUTTON_LEFT })
            .then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
        client.perform_actions(mouse).await
    };
    click(".updatemenu-header", 0).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    click(".updatemenu-dropdown-button", 2).await?;
    let stored = stored_figures().into_iter().find(|figure| figure["layout"]["updatemenus"].is_array()).unwrap();
    let button = stored["layout"]["updatemenus"][0]["buttons"][2].clone();
    assert_eq!(button["label"], "0.2");
    let caption = "head 0.2 of demo";
    let shows = format!("return {figure}.textContent.includes('{caption}')");
    wait_for(client, "the chosen head", &shows).await?;
    let texts = client
        .execute(
            &format!("return [...{figure}.querySelectorAll('.annotation-text')].map((text) => text.textContent)"),
            vec![],
        )
        .await?;
    let got: Vec<String> = texts.as_array().unwrap().iter().map(|text| visible_text(text.as_str().unwrap())).collect();
    let labels = button["args"][1].as_object().unwrap();
    let want = (0..)
        .map_while(|index| labels.get(&format!("annotations[{index}].text")))
        .map(|text| visible_text(text.as_str().unwrap()))
        .filter(|text| !text.is_empty());
    let got: Vec<String> = got.into_iter().filter(|text| !text.is_empty()).collect();
    assert_eq!(got, want.collect::<Vec<_>>());
    let z = client.execute(&format!("return {figure}._fullData[0].z.map((row) => [...row])"), vec![]).await?;
    assert!(alike(&z, &button["args"][0]["z"][0]), "the cells are that head's");
    save(client, &format!("{name}-head-0.2")).await
}

/// Makes a copy of the repository's layout that JupyterLab may write to: the notebook without outputs, and a link to
/// the crate.
fn scratch_repository() -> PathBuf {
    let folder = target().join("lab");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("notebooks")).unwrap();
    std::os::unix::fs::symlink(root().join("crate"), folder.join("crate")).unwrap();
    let file = format!("{NOTEBOOK}.ipynb");
    let mut notebook = notebook(root().join("notebooks").join(&file));
    for cell in notebook["cells"].as_array_mut().unwrap() {
        if cell["cell_type"] == "code" {
            (cell["outputs"], cell["execution_count"]) = (json!([]), Value::Null);
        }
    }
    std::fs::write(folder.join("notebooks").join(file), notebook.to_string()).unwrap();
    // Otherwise JupyterLab removes the cells out of view from the page.
    let settings = folder.join("settings/@jupyterlab/notebook-extension");
    std::fs::create_dir_all(&settings).unwrap();
    std::fs::write(settings.join("tracker.jupyterlab-settings"), r#"{"windowingMode": "none"}"#).unwrap();
    folder
}

/// The virtual environment that `cargo xtask` has set up.
fn environment() -> PathBuf {
    std::env::var_os("ATTENTION_TOKENS_VENV").map_or_else(|| root().join(".venv"), PathBuf::from)
}

/// Starts JupyterLab in `notebooks` of a folder, and returns its address.
fn lab(folder: &Path) -> (Running, String) {
    let bin = environment().join("bin");
    let path = std::env::join_paths(
        std::iter::once(bin.clone()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = Command::new(bin.join("jupyter-lab"));
    command
        .args(["--no-browser", "--allow-root", "--ServerApp.token=", "--ServerApp.port=0", "--expose-app-in-browser"])
        .arg(format!("--ServerApp.root_dir={}", folder.join("notebooks").display()))
        .env("PATH", path.unwrap())
        .env("JUPYTER_PREFER_ENV_PATH", "1")
        .env("JUPYTERLAB_SETTINGS_DIR", folder.join("settings"))
        .env("JUPYTERLAB_WORKSPACES_DIR", folder.join("workspaces"));
    start(&mut command, |line| {
        let port = line.split("http://127.0.0.1:").nth(1)?.split('/').next()?;
        Some(format!("http://127.0.0.1:{port}"))
    })
}

#[test]
#[ignore = "needs Jupyter, Chromium and chromedriver: cargo xtask test"]
fn jupyterlab_runs_the_notebook_and_draws_its_figures() {
    let folder = scratch_repository();
    let (_lab, address) = lab(&folder);
    in_browser(async |client| {
        client.goto(&format!("{address}/lab/tree/{NOTEBOOK}.ipynb")).await?;
        wait_for(
            &client,
            "the notebook with its kernel",
            "return !!document.querySelector('.jp-Notebook .jp-Cell') && \
            window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
        )
        .await?;
        client.execute("window.jupyterapp.commands.execute('notebook:run-all-cells')", vec![]).await?;
        let figures = stored_figures().len();
        let script = format!(
            "return document.querySelectorAll('.js-plotly-plot .hm image').length >= {figures} && \
            document.querySelectorAll('.js-plotly-plot').length === {figures} && \
            [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every((prompt) => /\\[\\d+\\]/.test(prompt.textContent))"
        );
        wait_for(&client, "all cells", &script).await?;
        save(&client, "lab").await?;
        figures_are_drawn(&client).await?;
        zoom_moves_both_panels(&client).await?;
        save(&client, "lab-zoomed").await?;
        menu_shows_another_head(&client, "lab").await
    });
}

#[test]
#[ignore = "needs Chromium, chromedriver and the notebooks executed by Jupyter: cargo xtask test"]
fn the_page_draws_its_figures_without_a_network() {
    let page = executed(&format!("{NOTEBOOK}.html"));
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("plotly.js v").count(), 1, "plotly.js is in the page once");
    in_browser(async |client| {
        client.goto(&format!("file://{}", page.display())).await?;
        let figures = stored_figures().len();
        let drawn = format!("return document.querySelectorAll('.js-plotly-plot .hm image').length >= {figures}");
        wait_for(&client, "the figures", &drawn).await?;
        save(&client, "page").await?;
        figures_are_drawn(&client).await?;
        zoom_moves_both_panels(&client).await?;
        menu_shows_another_head(&client, "page").await
    });
}

/// plotly.js from the environment's Python package.
fn plotly_js() -> String {
    let lib = environment().join("lib");
    let pythons = std::fs::read_dir(&lib).unwrap().map(|entry| entry.unwrap().path());
    let mut files = pythons.map(|python| python.join("site-packages/plotly/package_data/plotly.min.js"));
    std::fs::read_to_string(files.find(|file| file.is_file()).expect("plotly's package")).unwrap()
}

/// The HTML of the figures, for nbviewer and Colab: pictures, which plotly figures replace where plotly.js is loaded.
#[test]
#[ignore = "needs Jupyter, Chromium and chromedriver: cargo xtask test"]
fn the_html_of_a_figure_is_a_picture_until_plotly_is_loaded() {
    let figures = figures(executed(&format!("{NOTEBOOK}.ipynb")));
    let html: Vec<String> = figures.iter().map(|output| text(&output["data"]["text/html"])).collect();
    let page = |name: &str, head: &str| -> PathBuf {
        let path = target().join("notebooks").join(name);
        std::fs::write(&path, format!("<!DOCTYPE html><meta charset='utf-8'>{head}{}", html.join("\n"))).unwrap();
        path
    };
    let without_plotly = page("pictures.html", "");
    let with_plotly = page("figures.html", &format!("<script>{}</script>", plotly_js()));
    in_browser(async |client| {
        client.goto(&format!("file://{}", without_plotly.display())).await?;
        let pictures = "return [...document.querySelectorAll('.attention-tokens-figure > img')] \
            .filter((image) => image.complete && image.naturalWidth === 940).length";
        wait_for(&client, "pictures", &format!("{pictures} === {}", html.len())).await?;
        save(&client, "pictures").await?;
        client.goto(&format!("file://{}", with_plotly.display())).await?;
        let drawn = format!("return document.querySelectorAll('.js-plotly-plot .hm image').length >= {}", html.len());
        wait_for(&client, "figures in place of the pictures", &drawn).await?;
        assert_eq!(client.execute(pictures, vec![]).await?, 0);
        figures_are_drawn(&client).await
    });
}
