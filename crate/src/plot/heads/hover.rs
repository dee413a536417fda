//! What is said of a cell under the pointer.

use ndarray::Array2;

use crate::attention_tokens::PromptHeadData;
use crate::plot::text::escape;

/// Up to this many positions, everything is said of every cell.
const ALL_SAID: usize = 192;

/// The texts of the cells, in the order of rows; empty where key > query. `None` for prompts that are so long that the texts
/// would be most of the notebook: then plotly says positions and value.
pub(in crate::plot) fn texts(
    data: &PromptHeadData,
    lines: impl Fn(&PromptHeadData, usize, usize) -> String,
) -> Option<Array2<String>> {
    let pos = data.n_pos();
    let text = |(query, key)| if key <= query { lines(data, query, key) } else { String::new() };
    (pos <= ALL_SAID).then(|| Array2::from_shape_fn((pos, pos), text))
}

/// Everything, line by line.
pub(in crate::plot) fn in_full(data: &PromptHeadData, query: usize, key: usize) -> String {
    let position = |at| escape(&position(data, at));
    format!("query {}<br>key {}<br>{}", position(query), position(key), cell(data, query, key))
}

/// A position and its token, as plain text.
pub(in crate::plot) fn position(data: &PromptHeadData, position: usize) -> String {
    format!("{position} “{}”", data.token_label(data.input[position]))
}

/// Everything, in fewer characters.
pub(in crate::plot) fn in_two_lines(data: &PromptHeadData, query: usize, key: usize) -> String {
    let position = |at| escape(&position(data, at));
    format!("query {}, key {}<br>{}", position(query), position(key), in_short(data, query, key))
}

/// Everything of a cell but its positions, in few characters.
pub(in crate::plot) fn in_short(data: &PromptHeadData, query: usize, key: usize) -> String {
    let Some(row) = data.cell(query, key) else { return String::new() };
    let (best, logits) = (data.qk.tokens.row(row), data.qk.logits.row(row));
    let then = best.get(1).map(|&next| format!(", then {} (−{})", token(data, next), significant(data.qk.margin[row])));
    let then = then.unwrap_or_default();
    format!(
        "{} {}{then}; attention {}",
        token(data, best[0]),
        significant(logits[0]),
        significant(data.attn[[query, key]])
    )
}

/// What there is of a cell besides its positions.
fn cell(data: &PromptHeadData, query: usize, key: usize) -> String {
    let Some(row) = data.cell(query, key) else { return String::new() };
    let (best, logits) = (data.qk.tokens.row(row), data.qk.logits.row(row));
    let mut text = format!(
        "attention {}<br>attention token {}, logit {}",
        significant(data.attn[[query, key]]),
        token(data, best[0]),
        significant(logits[0])
    );
    if best.len() > 1 {
        text += &format!("<br>then {}, less by {}", token(data, best[1]), significant(data.qk.margin[row]));
    }
    text
}

fn token(data: &PromptHeadData, token: u32) -> String {
    format!("“{}”", escape(&data.token_label(token)))
}

/// A number with four significant digits.
fn significant(x: f32) -> String {
    let whole_digits = x.abs().log10().floor() + 1.0; // −∞ for 0
    format!("{x:.*}", (4.0 - whole_digits).clamp(0.0, 6.0) as usize)
}
