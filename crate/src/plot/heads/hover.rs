//! Hover texts of a head's cells.

use crate::attention_tokens::PromptHeadData;

/// Maximum number of positions of a prompt with a hover text for each cell; longer ones would fill most of a notebook.
const MAX_POSITIONS: usize = 192;

/// The text of each cell, row by row, empty where key > query; `None` for long prompts.
pub(super) fn texts(
    data: &PromptHeadData,
    text: impl Fn(&PromptHeadData, usize, usize) -> String,
) -> Option<Vec<String>> {
    let pos = data.n_pos();
    let text = |query, key| if key <= query { text(data, query, key) } else { String::new() };
    let texts = || (0..pos).flat_map(|query| (0..pos).map(move |key| (query, key)));
    (pos <= MAX_POSITIONS).then(|| texts().map(|(query, key)| text(query, key)).collect())
}

/// Positions, attention and best tokens, a line each.
pub(super) fn full(data: &PromptHeadData, query: usize, key: usize) -> String {
    let positions = format!("query {}\nkey {}\n", position(data, query), position(data, key));
    let Some(row) = data.cell(query, key) else { return positions };
    let (best, logits) = (data.qk.tokens.row(row), data.qk.logits.row(row));
    let mut text = format!(
        "{positions}attention {}\nattention token {}, logit {}",
        significant(data.attn[[query, key]]),
        token(data, best[0]),
        significant(logits[0])
    );
    if best.len() > 1 {
        text += &format!("\nthen {}, less by {}", token(data, best[1]), significant(data.qk.margin[row]));
    }
    text
}

/// Positions, best tokens and attention, in two lines.
pub(super) fn two_lines(data: &PromptHeadData, query: usize, key: usize) -> String {
    format!("query {}, key {}\n{}", position(data, query), position(data, key), without_positions(data, query, key))
}

/// Best tokens and attention, in one line.
pub(super) fn without_positions(data: &PromptHeadData, query: usize, key: usize) -> String {
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

/// A position and its token.
pub(super) fn position(data: &PromptHeadData, position: usize) -> String {
    format!("{position} {}", token(data, data.input[position]))
}

fn token(data: &PromptHeadData, token: u32) -> String {
    format!("“{}”", data.token_label(token))
}

/// A number with four significant digits.
fn significant(x: f32) -> String {
    let whole_digits = x.abs().log10().floor() + 1.0; // −∞ for 0
    format!("{x:.*}", (4.0 - whole_digits).clamp(0.0, 6.0) as usize)
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_have_four_significant_digits() {
        let numbers = [0.123456, 1.0, -12.3456, 12345.6, 0.000306, 0.0];
        assert_eq!(numbers.map(super::significant), ["0.1235", "1.000", "-12.35", "12346", "0.000306", "0.000000"]);
    }
}
