//! Labels that a user gives to the rows and columns of an array, or to its points.

use crate::error::{Error, Result};
use crate::plot::fit;
use crate::tokenizer::visible;

/// Maximum width of a label along an axis in characters: what the largest margin has room for.
const MAX_WIDTH: usize = 32;

/// Converts labels to text and checks their number. The error calls the labelled things `what`.
///
/// # Errors
/// [`Error::Count`] if there are more or fewer of them.
pub(super) fn labels<L: ToString>(
    function: &'static str,
    what: String,
    labels: impl IntoIterator<Item = L>,
    n: usize,
) -> Result<Vec<String>> {
    let labels: Vec<String> = labels.into_iter().map(|label| shown(&label.to_string())).collect();
    if labels.len() == n {
        return Ok(labels);
    }
    let hint = Some("give one for each, in their order");
    Err(Error::Count { function, what, found: labels.len(), min: n, max: Some(n), hint })
}

/// A text of these lines, without the empty ones.
pub(super) fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A label for an axis, where there is no room for long ones.
pub(super) fn on_axis(label: &str) -> String {
    fit::shortened(label, MAX_WIDTH)
}

/// A label in one line. Tokens, which may begin with a space or be one, are shown as in all figures.
fn shown(label: &str) -> String {
    let is_spaced = label.starts_with(char::is_whitespace) || label.ends_with(char::is_whitespace);
    if is_spaced || label.contains(char::is_control) { visible(label.as_bytes()) } else { label.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_and_spaces_of_tokens_are_visible() {
        let of = |labels: &[&str], n| super::labels("imshow", "x_ticks of 3 columns".into(), labels, n);
        assert_eq!(of(&[" next", "\n", "head 1"], 3).unwrap(), ["␣next", "<nl>", "head 1"]);
        assert_eq!(super::labels("imshow", String::new(), 0..2, 2).unwrap(), ["0", "1"]);
        let message = of(&["a"], 3).unwrap_err().to_string();
        assert_eq!(message, "imshow: x_ticks of 3 columns: expected 3, found 1; give one for each, in their order");
        assert_eq!(on_axis(&"a".repeat(40)).chars().count(), 32);
    }
}
