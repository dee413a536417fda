//! plotly's JSON, with the attributes that plotly.rs lacks.

use plotly::Plot;
use serde_json::json;

/// The plot as plotly's JSON, with the titles of axes further out than the names along them.
pub(in crate::plot) fn json(plot: &Plot) -> String {
    let mut layout = serde_json::to_value(plot.layout()).expect("a layout has only strings as keys");
    for axis in ["xaxis", "yaxis", "xaxis2", "yaxis2"] {
        let named = layout.get_mut(axis).filter(|axis| axis.get("ticktext").is_some() || axis["type"] == "category");
        if let Some(title) = named.and_then(|axis| axis.get_mut("title")) {
            title["standoff"] = json!(10);
        }
    }
    // Only the layout is replaced: the numbers of traces are `f32`, which a `Value` would write with the digits of an
    // `f64`.
    plot.to_json().replacen(&plot.layout().to_json(), &layout.to_string(), 1)
}
