//! The outputs of the notebooks that `cargo xtask test` has executed into target/notebooks.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::root;

pub(crate) const PLOTLY: &str = "application/vnd.plotly.v1+json";

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The path of a notebook, or page, that was executed.
pub(crate) fn executed(name: &str) -> PathBuf {
    target().join("notebooks").join(name)
}

/// Reads a notebook.
pub(crate) fn notebook(path: PathBuf) -> Value {
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The outputs of all cells.
pub(crate) fn outputs(notebook: &Value) -> Vec<Value> {
    let cells = notebook["cells"].as_array().unwrap();
    cells.iter().flat_map(|cell| cell["outputs"].as_array().cloned().unwrap_or_default()).collect()
}

/// The text of an output, which a notebook stores as a string or as a list of lines.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().unwrap_or_default().into(),
    }
}

/// Whether two values are equal up to a relative difference of 1e-3 in numbers, also in those between the words of a
/// text.
pub(crate) fn alike(a: &Value, b: &Value) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs()) + 1e-6;
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => close(a.as_f64().unwrap(), b.as_f64().unwrap()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        (Value::String(a), Value::String(b)) => {
            let parts = |text: &str| text.split([' ', '<', '>', ',']).map(str::to_owned).collect::<Vec<_>>();
            let (a, b) = (parts(a), parts(b));
            let number = |text: &str| text.replace('−', "-").parse::<f64>(); // hover texts have the typographic minus sign
            let same = |(a, b): (&String, &String)| match (number(a), number(b)) {
                (Ok(a), Ok(b)) => close(a, b),
                _ => a == b,
            };
            a.len() == b.len() && a.iter().zip(&b).all(same)
        }
        (a, b) => a == b,
    }
}

#[test]
fn alike_notices_one_changed_token_or_number() {
    let cell = |text: &str| serde_json::json!({"z": [[1.0, 2.0]], "hovertext": [[text]]});
    let stored = cell("key 3 “ the”<br>attention 0.1234, logit 12.34");
    assert!(alike(&stored, &cell("key 3 “ the”<br>attention 0.12341, logit 12.35")));
    for changed in ["key 3 “ a”<br>attention 0.1234, logit 12.34", "key 3 “ the”<br>attention 0.1239, logit 12.34"]
    {
        assert!(!alike(&stored, &cell(changed)));
    }
    assert!(!alike(&stored, &serde_json::json!({"z": [[1.0, 2.0]]})));
    assert!(alike(&cell("then T −0.05518"), &cell("then T −0.05519")));
    assert!(!alike(&cell("then T −0.05518"), &cell("then T −0.05533")) && !alike(&cell("−1"), &cell("1")));
}

/// The stored outputs equal those of a new run: the same texts, and the same tokens in every figure.
#[test]
#[ignore = "needs the notebooks executed by Jupyter: cargo xtask test"]
fn stored_outputs_equal_those_of_a_run() {
    let folder = std::fs::read_dir(root().join("notebooks")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name.ends_with(".ipynb")).collect();
    assert!(!names.is_empty());
    names.iter().for_each(|name| assert_stored_outputs_equal(name));
}

fn assert_stored_outputs_equal(name: &str) {
    let stored = outputs(&notebook(root().join("notebooks").join(name)));
    let fresh = outputs(&notebook(executed(name)));
    // Compiler messages depend on earlier runs; results do not.
    let results = |outputs: Vec<Value>| -> Vec<Value> {
        outputs.into_iter().filter(|output| output["output_type"] == "execute_result").collect()
    };
    let (stored, fresh) = (results(stored), results(fresh));
    assert!(!fresh.is_empty());
    assert_eq!(stored.len(), fresh.len(), "{name}");
    for (stored, fresh) in stored.iter().zip(&fresh) {
        assert_eq!(stored["data"]["text/plain"], fresh["data"]["text/plain"]);
        let tokens = |output: &Value| -> Vec<Value> {
            let labels = output["data"][PLOTLY]["layout"]["annotations"].as_array().cloned().unwrap_or_default();
            let in_cells = output["data"][PLOTLY]["data"].as_array().cloned().unwrap_or_default();
            let in_cells = in_cells.into_iter().map(|trace| trace["text"].clone());
            labels.into_iter().map(|label| label["text"].clone()).chain(in_cells).collect()
        };
        assert_eq!(tokens(stored), tokens(fresh));
        let data = |output: &Value| output["data"][PLOTLY]["data"].clone();
        assert!(alike(&data(stored), &data(fresh)), "{name}: the cells of the heat maps, and their hover texts");
        let types = |output: &Value| output["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(types(stored), types(fresh));
        for mime in ["image/svg+xml", "text/html"] {
            let len = |output: &Value| text(&output["data"][mime]).len() as f64;
            assert!(
                (len(stored) - len(fresh)).abs() <= 0.01 * len(fresh),
                "{mime}: {} and {}",
                len(stored),
                len(fresh)
            );
        }
    }
}

/// The picture in `docs/` is the one that notebook 04 shows.
#[test]
fn the_picture_in_docs_is_the_notebooks() {
    let outputs = outputs(&notebook(root().join("notebooks/04_contracting_expanding.ipynb")));
    let mut pictures = outputs.iter().map(|output| text(&output["data"]["image/svg+xml"]));
    let shown = pictures.rfind(|svg| svg.contains("The most contracting and the most expanding head")).unwrap();
    let committed = root().join("docs/contracting-and-expanding.svg");
    if std::fs::read_to_string(&committed).unwrap() != shown {
        let fresh = target().join("contracting-and-expanding.svg");
        std::fs::write(&fresh, shown).unwrap();
        panic!("{} differs from the notebook's figure: copy {} over it", committed.display(), fresh.display());
    }
}

/// Cells with the compiled library and cells with the plain dependency have the same types and outputs.
#[test]
#[ignore = "needs the notebooks executed by Jupyter: cargo xtask test"]
fn types_work_with_the_compiled_library_and_with_the_crate() {
    let results = |name: &str| -> Vec<Value> {
        outputs(&notebook(executed(name))).into_iter().filter(|output| output["output_type"] != "stream").collect()
    };
    let (compiled, plain) = (results("types.ipynb"), results("types_plain.ipynb"));
    let texts: Vec<String> = compiled.iter().map(|output| text(&output["data"]["text/plain"])).collect();
    let expected = [
        "true",
        "((6, 6), (16, 16), (21, 2), 8, (6, 50257), 1)",
        "([\"bus\", \"the\"], Some(2), 4, Some((\"the\", 2)))",
        "plotly figure with 1 traces",
        "(6, (4, 8), (4, 8), true, true, 9, true, 32)",
        "((4, 8), 2, 2, (2, 128), true)",
        "(1, 6, true, 6, [1, 6, 6, 6], 3, 1)",
    ];
    assert_eq!(texts, expected);
    assert_eq!(compiled[3]["data"][PLOTLY]["layout"]["title"]["text"], "mine");
    assert_eq!(compiled.len(), plain.len());
    for (compiled, plain) in compiled.iter().zip(&plain) {
        assert!(alike(&compiled["data"], &plain["data"]));
    }
}

/// Errors in cells leave the variables of earlier cells alive: the cells after them ran, and only the expected errors
/// were printed. (evcxr prints an error after it has reported the cell as done, so a headless run may miss one.)
#[test]
#[ignore = "needs the notebooks executed by Jupyter: cargo xtask test"]
fn errors_in_cells_lose_no_variable() {
    let outputs = outputs(&notebook(executed("errors.ipynb")));
    let (shown, printed): (Vec<Value>, Vec<Value>) =
        outputs.into_iter().partition(|output| output["output_type"] == "execute_result");
    assert_eq!(shown.len(), 2, "a result and a figure, both after the errors; {shown:?}");
    assert_eq!(shown[0]["data"]["text/plain"], serde_json::json!(["4"]));
    assert!(shown[1]["data"].get(PLOTLY).is_some());
    let expected = [
        "layer 4 out of range: the model has 4, 0 to 3",
        "head 8 out of range: each layer has 8, 0 to 7",
        "token id 50257 out of range",
        "found no token",
        "unknown model",
        "is not a single token",
    ];
    for line in printed.iter().flat_map(|output| output["text"].as_array().cloned().unwrap_or_default()) {
        let line = line.as_str().unwrap();
        assert!(expected.iter().any(|expected| line.contains(expected)), "{line}");
    }
    assert!(!printed.is_empty(), "none of the six errors was printed");
}
