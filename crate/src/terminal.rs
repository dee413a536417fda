//! Texts of others, shown where a terminal may read them: a terminal acts on control characters.

/// A text with its control characters written out (`\u{1b}`), except those of `kept`.
pub(crate) fn without_controls(text: &str, kept: &[char]) -> String {
    let mut written = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !kept.contains(&character) {
            written.extend(character.escape_default());
        } else {
            written.push(character);
        }
    }
    written
}

/// A text of several lines, with the control characters written out that do more than arrange it.
pub(crate) fn lines_without_controls(text: &str) -> String {
    without_controls(text, &['\n', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        let text = "a\u{1b}]0;x\u{7}\r\u{9b}2J\tb\nç";
        assert_eq!(without_controls(text, &[]), r"a\u{1b}]0;x\u{7}\r\u{9b}2J\tb\nç");
        assert_eq!(lines_without_controls(text), "a\\u{1b}]0;x\\u{7}\\r\\u{9b}2J\tb\nç");
    }
}
