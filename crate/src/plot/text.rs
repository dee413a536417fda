//! Escaping of text for plotly and for XML, and rounding of numbers.

/// Escapes text that plotly would read as markup (`<b>`, `&amp;`) or, between two `$`, as a formula.
pub(super) fn escape(text: &str) -> String {
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

/// Escapes text of several lines for plotly, which breaks lines at `<br>`.
pub(super) fn escape_lines(text: &str) -> String {
    escape(text).replace('\n', "<br>")
}

/// Escapes text for the cells of a heat map, where plotly counts the characters of what is written: only what it would
/// read as a tag or as a character's name. (It shows other tags, such as `<nl>`, and reads no formulas there.)
pub(super) fn escape_minimally(text: &str) -> String {
    const TAGS: [&str; 11] = ["br", "sup", "sub", "b", "i", "a", "span", "em", "s", "u", "strong"];
    let mut escaped = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let rest = &text[at + c.len_utf8()..];
        let is_tag = || {
            let name = rest.strip_prefix('/').unwrap_or(rest);
            let end = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len());
            TAGS.contains(&&*name[..end].to_ascii_lowercase()) && name[end..].contains('>')
        };
        let is_name = || {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '#')).unwrap_or(rest.len());
            end > 0 && rest[end..].starts_with(';')
        };
        match c {
            '<' if is_tag() => escaped.push_str("&lt;"),
            '&' if is_name() => escaped.push_str("&amp;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Escapes text for XML and HTML, between tags or quotes. Characters that XML does not allow, such as control
/// characters, become U+FFFD.
pub(crate) fn escape_xml(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\u{0}'..'\u{20}' | '\u{7f}'..'\u{a0}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
        escaped
    })
}

/// All items, or every *n*-th if there are more than `max`.
pub(super) fn thinned<T>(items: &[T], max: usize) -> impl Iterator<Item = &T> {
    items.iter().step_by(items.len().div_ceil(max).max(1))
}

/// A number with four significant digits; more would only make a notebook larger.
pub(super) fn rounded(x: f64) -> f64 {
    if x.is_finite() { format!("{x:.3e}").parse().expect("a number that was just written") } else { x }
}

/// A number with four significant digits, for people.
pub(super) fn number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        1e-5..1e7 => rounded(x).to_string(),
        _ if x.is_finite() => format!("{x:.3e}"),
        _ => x.to_string(),
    }
}

/// Rounds a number to `digits` decimals. Zero has no sign, because a rounding error can be negative on one processor and
/// positive on another.
pub(crate) fn decimals(x: impl Into<f64>, digits: usize) -> String {
    without_sign_of_zero(format!("{:.digits$}", x.into()))
}

/// Like [`decimals`], with a plus sign before a positive number.
pub(crate) fn signed(x: impl Into<f64>, digits: usize) -> String {
    without_sign_of_zero(format!("{:+.digits$}", x.into()))
}

fn without_sign_of_zero(number: String) -> String {
    if number.parse() == Ok(0.0) { number.trim_start_matches(['+', '-']).into() } else { number }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_rounded_to_zero_has_no_sign() {
        let numbers = [0.0, -0.0, 4e-3, -4e-3, -6e-3, 1.5, -12.0, f64::NAN, f64::NEG_INFINITY];
        let want = ["0.00", "0.00", "0.00", "0.00", "-0.01", "1.50", "-12.00", "NaN", "-inf"];
        assert_eq!(numbers.map(|x| super::decimals(x, 2)), want);
        let want = ["0.00", "0.00", "0.00", "0.00", "-0.01", "+1.50", "-12.00", "NaN", "-inf"];
        assert_eq!(numbers.map(|x| super::signed(x, 2)), want);
        assert_eq!((super::decimals(-0.4_f32, 0), super::signed(-0.4_f32, 0)), ("0".into(), "0".into()));
    }

    #[test]
    fn numbers_are_short_whatever_their_size() {
        let numbers = [0.0, -1.23456, 98765.4, 1.5e-9, 2.5e30, f64::INFINITY, f64::NAN];
        assert_eq!(numbers.map(super::number), ["0", "-1.235", "98770", "1.500e-9", "2.500e30", "inf", "NaN"]);
    }

    #[test]
    fn rounding_leaves_four_significant_digits() {
        let numbers = [0.0, 1.23456, -98765.4, 0.000123449, f64::INFINITY];
        assert_eq!(numbers.map(super::rounded), [0.0, 1.235, -98770.0, 0.0001234, f64::INFINITY]);
    }

    #[test]
    fn plotly_reads_escaped_text_as_text() {
        assert_eq!(super::escape("<nl> a&b $x$"), "&lt;nl&gt; a&amp;b &#36;x&#36;");
        assert_eq!(super::escape_lines("<a>\nb"), "&lt;a&gt;<br>b");
    }

    #[test]
    fn in_cells_only_what_plotly_reads_is_escaped() {
        let texts = ["<nl>", "a<b", "<b>", "</SUB x>", "&amp;", "R&D;", "&", "<0xF0>"];
        let want = ["<nl>", "a<b", "&lt;b>", "&lt;/SUB x>", "&amp;amp;", "R&amp;D;", "&", "<0xF0>"];
        assert_eq!(texts.map(super::escape_minimally), want);
    }

    #[test]
    fn xml_is_well_formed_whatever_the_text() {
        assert_eq!(super::escape_xml("<a&'b'>\u{1}\n\u{ffff}é"), "&lt;a&amp;&#39;b&#39;&gt;\u{fffd} \u{fffd}é");
    }

    #[test]
    fn many_items_are_thinned_evenly() {
        let items: Vec<usize> = (0..10).collect();
        assert_eq!(super::thinned(&items, 4).collect::<Vec<_>>(), [&0, &3, &6, &9]);
        assert_eq!(super::thinned(&items, 10).count(), 10);
    }
}
