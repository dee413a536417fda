//! What plotly.rs has no word for, added to its JSON.

use plotly::Plot;
use serde_json::{Value, json};

/// The plot as plotly's JSON, with a dark edge around the white texts in cells: on light cells nobody could read them.
pub(super) fn json(plot: &Plot) -> String {
    let mut layout = serde_json::to_value(plot.layout()).expect("a layout has no keys but strings");
    let annotations = layout.pointer_mut("/annotations").and_then(Value::as_array_mut);
    for font in annotations.into_iter().flatten().filter_map(|annotation| annotation.get_mut("font")) {
        if font["color"] == "white" {
            font["shadow"] = json!("auto");
        }
    }
    // The rest as it is: numbers of traces are `f32`, which a `Value` would write with the digits of an `f64`.
    plot.to_json().replacen(&plot.layout().to_json(), &layout.to_string(), 1)
}
