//! Text with everything visible: spaces, control characters, marks without a letter, and bytes that are no character.
//!
//! | in the text | as it is shown |
//! |---|---|
//! | space | `␣` |
//! | newline, tab, carriage return | `<nl>`, `<tab>`, `<cr>` |
//! | no-break space, zero-width space, joiner, non-joiner, soft hyphen | `<nbsp>`, `<zwsp>`, `<zwj>`, `<zwnj>`, `<shy>` |
//! | other invisible characters, and combining marks without a letter before them | `<U+200E>` |
//! | bytes that are no character | `<0xF0>` |
//! | a text that looks like one of these | its first character as `<U+003C>` |
//!
//! Different texts are shown differently: reading from the left, `<name>` and `␣` are what the table says, and every
//! other character is itself.

use std::fmt::Write;
use std::sync::LazyLock;

use fancy_regex::Regex;

/// Bytes of text with everything visible.
pub(crate) fn visible(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        push_visible(&mut shown, chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(shown, "<0x{byte:02X}>");
        }
    }
    shown
}

/// Text whose first character is shown as its code point, to be different from a name.
pub(super) fn not_a_name(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, code_point) + &visible(chars.as_str().as_bytes())
}

fn push_visible(shown: &mut String, text: &str) {
    // Whether a combining mark would be drawn on a letter of the text.
    let mut on_a_letter = false;
    for (at, c) in text.char_indices() {
        let name = match c {
            ' ' => Some("␣"),
            '\n' => Some("<nl>"),
            '\t' => Some("<tab>"),
            '\r' => Some("<cr>"),
            '\u{a0}' => Some("<nbsp>"),
            '\u{ad}' => Some("<shy>"),
            '\u{200b}' => Some("<zwsp>"),
            '\u{200c}' => Some("<zwnj>"),
            '\u{200d}' => Some("<zwj>"),
            _ => None,
        };
        let is_mark = !c.is_ascii() && is_combining(c);
        match name {
            Some(name) => shown.push_str(name),
            None if is_mark && on_a_letter && !is_variation_selector(c) => shown.push(c),
            None if is_mark || c == '␣' || is_invisible(c) || (c == '<' && is_name(&text[at..])) => {
                shown.push_str(&code_point(c));
            }
            None => shown.push(c),
        }
        on_a_letter = name.is_none() && (!is_mark || on_a_letter) && !is_invisible(c);
    }
}

fn code_point(c: char) -> String {
    format!("<U+{:04X}>", u32::from(c))
}

/// Whether a text begins with something in the form of a name: `<`, letters, digits, `+` or `#`, `>`.
fn is_name(text: &str) -> bool {
    let inside = text[1..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'#'));
    let len = inside.count();
    len > 0 && text.as_bytes().get(len + 1) == Some(&b'>')
}

fn is_variation_selector(c: char) -> bool {
    matches!(c, '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Marks that are drawn on the character before them.
fn is_combining(c: char) -> bool {
    static MARK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\p{M}").expect("a valid regular expression"));
    MARK.is_match(c.encode_utf8(&mut [0; 4])).unwrap_or(false)
}

/// Characters without a picture of their own: control and format characters, separators, unassigned code points, letters
/// that are blank, and the replacement character, which stands for any.
fn is_invisible(c: char) -> bool {
    static INVISIBLE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[\p{C}\p{Z}]").expect("a valid regular expression"));
    match c {
        '!'..='~' => false,
        '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{fffd}' => true,
        c => INVISIBLE.is_match(c.encode_utf8(&mut [0; 4])).unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_has_a_name() {
        let shown = [
            (" the", "␣the"),
            ("a  b", "a␣␣b"),
            ("\r\n\t", "<cr><nl><tab>"),
            ("\0\u{1b}\u{7f}", "<U+0000><U+001B><U+007F>"),
            ("\u{a0}\u{200b}\u{feff}\u{202e}", "<nbsp><zwsp><U+FEFF><U+202E>"),
            ("❤\u{fe0f}\u{200d}", "❤<U+FE0F><zwj>"),
            ("e\u{301}", "e\u{301}"),
            ("\u{301}e", "<U+0301>e"),
            (" \u{301}", "␣<U+0301>"),
            ("日本 é\u{fffd}", "日本␣é<U+FFFD>"),
            ("a < b <- <", "a␣<␣b␣<-␣<"),
        ];
        for (text, want) in shown {
            assert_eq!(visible(text.as_bytes()), want, "{text:?}");
        }
        assert_eq!(visible(b" \xf0\x9f"), "␣<0xF0><0x9F>");
        assert_eq!(not_a_name("EOS"), "<U+0045>OS");
    }

    #[test]
    fn a_text_that_looks_like_a_name_is_shown_differently() {
        assert_eq!(visible(b"<nl>"), "<U+003C>nl>");
        assert_eq!(visible("␣".as_bytes()), "<U+2423>");
        assert_eq!(visible(b"<0xF0>"), "<U+003C>0xF0>");
        assert_eq!(visible(b"<<nl>"), "<<U+003C>nl>");
        assert_eq!(visible(b"<\n"), "<<nl>");
    }

    /// All texts of up to four of these pieces are shown differently.
    #[test]
    fn different_texts_are_shown_differently() {
        let pieces = ["<", ">", "nl", "<nl>", "\n", " ", "␣", "\u{301}", "\\", "U+000A", "0xF0", "é", "#1", "EOS"];
        let mut texts: Vec<String> = vec![String::new()];
        for _ in 0..4 {
            let longer = texts.iter().flat_map(|text| pieces.iter().map(move |piece| format!("{text}{piece}")));
            texts = texts.iter().cloned().chain(longer).collect();
            texts.sort_unstable();
            texts.dedup();
        }
        let shown: std::collections::HashSet<String> = texts.iter().map(|text| visible(text.as_bytes())).collect();
        assert!(texts.len() > 20_000);
        assert_eq!(shown.len(), texts.len());
    }
}
