//! Runs of characters that are too long for the library's regular-expression engine.
//!
//! GPT-2's expression takes a run of letters, of numbers, of white space or of others as one piece. The engine keeps a
//! state for each of its characters, and gives up after a million; the library then takes the rest of the text for one
//! piece. A text that ends with such a run is split correctly even so, and what follows can be tokenized on its own.

use std::sync::LazyLock;

use fancy_regex::Regex;

/// The length of a run, in characters, after which a text is cut.
const LONG: usize = 500_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        static LETTER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\p{L}").expect("a valid regular expression"));
        static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\p{N}").expect("a valid regular expression"));
        let is = |class: &Regex| class.is_match(c.encode_utf8(&mut [0; 4])).unwrap_or(false);
        match c {
            'a'..='z' | 'A'..='Z' => Self::Letter,
            '0'..='9' => Self::Number,
            c if c.is_whitespace() => Self::Space,
            c if c.is_ascii() => Self::Other,
            _ if is(&LETTER) => Self::Letter,
            _ if is(&NUMBER) => Self::Number,
            _ => Self::Other,
        }
    }
}

/// The places after each long run, as offsets in bytes, at which GPT-2's expression begins a new piece. The last of
/// several spaces belongs to what follows.
pub(super) fn cuts(text: &str) -> Vec<usize> {
    if text.len() < LONG {
        return Vec::new();
    }
    let mut cuts = Vec::new();
    let mut characters = text.char_indices().map(|(at, c)| (at, Class::of(c)));
    let Some((_, mut class)) = characters.next() else {
        return cuts;
    };
    let (mut length, mut last) = (1, 0);
    for (at, next) in characters {
        if next != class {
            if length >= LONG {
                cuts.push(if class == Class::Space { last } else { at });
            }
            (class, length) = (next, 0);
        }
        (length, last) = (length + 1, at);
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_after_each_long_run() {
        let run = |c: &str| c.repeat(LONG);
        assert_eq!(cuts(&(run("a") + " b")), [LONG]);
        assert_eq!(cuts(&(run("\n") + "b")), [LONG - 1]);
        // One byte, then two for each letter, one for the digit, three for each space but the last.
        let text = format!("x{}1{}!", run("é"), run("\u{3000}"));
        assert_eq!(cuts(&text), [1 + 2 * LONG, 2 + 2 * LONG + 3 * (LONG - 1)]);
        assert_eq!(cuts(&run("a")), [0; 0]);
        assert_eq!(cuts(&"ab1 ".repeat(LONG)), [0; 0]);
    }
}
