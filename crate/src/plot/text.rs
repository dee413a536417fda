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

#[cfg(test)]
mod tests {
    #[test]
    fn markup_and_formulas_are_plain_text() {
        assert_eq!(super::escape("<nl> a&b $x$"), "&lt;nl&gt; a&amp;b &#36;x&#36;");
    }
}
