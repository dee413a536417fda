//! Text as plotly shows it.

/// Escapes text that plotly would take for markup (`<b>`, `&amp;`) or, between two `$`, for a formula.
pub(crate) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '$' => escaped.push_str("&#36;"),
            c => escaped.push(c),
        }
        escaped
    })
}

/// Texts of several lines, as plotly takes them.
pub(super) fn escaped(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| escape(text).replace('\n', "<br>")).collect()
}

/// A number with four significant digits: more of them only make a notebook larger.
pub(super) fn rounded(x: f64) -> f64 {
    match x.is_finite() {
        true => format!("{x:.3e}").parse().expect("a number that was just written"),
        false => x,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn four_digits_of_a_number_are_kept() {
        let numbers = [0.0, 1.23456, -98765.4, 0.000123449, f64::INFINITY];
        assert_eq!(numbers.map(super::rounded), [0.0, 1.235, -98770.0, 0.0001234, f64::INFINITY]);
    }

    #[test]
    fn markup_and_formulas_are_plain_text() {
        assert_eq!(super::escape("<nl> a&b $x$"), "&lt;nl&gt; a&amp;b &#36;x&#36;");
    }
}
