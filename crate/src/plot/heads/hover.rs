//! Hover texts of a head's cells: one form for all figures, which begins with the value that is plotted.

use crate::attention_tokens::{Feature, PromptHeadData};

/// Maximum number of positions of a prompt with a full hover text for each cell, and with a token for each cell; longer
/// ones would fill most of a notebook.
pub(super) const MAX_FULL: usize = 192;
pub(super) const MAX_TOKENS: usize = 512;

/// The text of each cell, row by row, empty where key > query; `None` for long prompts. Positions are left out if plotly
/// has them as names of rows and columns.
pub(super) fn texts(data: &PromptHeadData, feature: Option<Feature>, with_positions: bool) -> Option<Vec<String>> {
    let pos = data.n_pos();
    if pos > MAX_TOKENS {
        return None;
    }
    let text = |query, key| match data.cell(query, key) {
        None => String::new(),
        Some(_) if pos > MAX_FULL => plotted(data, feature, query, key),
        Some(_) if with_positions => full(data, feature, query, key),
        Some(_) => without_positions(data, feature, query, key),
    };
    Some(
        (0..pos).flat_map(|query| (0..pos).map(move |key| (query, key))).map(|(query, key)| text(query, key)).collect(),
    )
}

/// The value of a cell, its positions, and what else is known of it, a line each.
pub(super) fn full(data: &PromptHeadData, feature: Option<Feature>, query: usize, key: usize) -> String {
    let positions = format!("query {}, key {}", position(data, query), position(data, key));
    let text = without_positions(data, feature, query, key);
    match text.split_once('\n') {
        Some((value, rest)) => format!("{value}\n{positions}\n{rest}"),
        None => format!("{text}\n{positions}"),
    }
}

fn without_positions(data: &PromptHeadData, feature: Option<Feature>, query: usize, key: usize) -> String {
    let Some(row) = data.cell(query, key) else { return String::new() };
    let mut lines = vec![plotted(data, feature, query, key)];
    if !matches!(feature, None | Some(Feature::Qk)) {
        lines.push(format!("attention token {}", data.token_label(data.qk.tokens[[row, 0]])));
    }
    let (tokens, logits) = (data.qk.tokens.row(row), data.qk.logits.row(row));
    let mut numbers = format!("logit {}", significant(logits[0]));
    if feature != Some(Feature::Attn) {
        numbers += &format!(", attention {}", significant(data.attn[[query, key]]));
    }
    lines.push(numbers);
    let next = tokens.iter().zip(logits).skip(1);
    let next = next.map(|(&token, logit)| format!("{} −{}", data.token_label(token), significant(logits[0] - logit)));
    let next: Vec<String> = next.collect();
    if !next.is_empty() {
        lines.push(format!("then {}", next.join(", ")));
    }
    if let Some(lowest) = &data.lowest {
        let against = format!(
            "against {}, logit {}",
            data.token_label(lowest.tokens[[row, 0]]),
            significant(lowest.logits[[row, 0]])
        );
        lines.push(against);
    }
    lines.join("\n")
}

/// The value of a cell and what it is. A pattern of unknown values counts as one of attention tokens.
fn plotted(data: &PromptHeadData, feature: Option<Feature>, query: usize, key: usize) -> String {
    let Some(row) = data.cell(query, key) else { return String::new() };
    let label = |token: u32| data.token_label(token);
    match feature {
        None | Some(Feature::Qk) => format!("attention token {}", label(data.qk.tokens[[row, 0]])),
        Some(Feature::Attn) => format!("attention {}", significant(data.attn[[query, key]])),
        Some(Feature::Input) => format!("input token {}", label(data.input[key])),
        Some(Feature::Q) => format!("query token {}", label(data.q.tokens[[key, 0]])),
        Some(Feature::K) => format!("key token {}", label(data.k.tokens[[key, 0]])),
        Some(Feature::V) => format!("value token {}", label(data.v.tokens[[key, 0]])),
    }
}

/// A position and its token.
pub(super) fn position(data: &PromptHeadData, position: usize) -> String {
    format!("{position} {}", data.token_label(data.input[position]))
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
