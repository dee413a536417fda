//! Parts of messages that depend on a value.

use crate::terminal::without_controls;

pub(super) fn index_range(len: usize) -> String {
    match len {
        0 => String::new(),
        1 => ", number 0".into(),
        len => format!(", 0 to {}", len - 1),
    }
}

pub(super) fn position_range(len: usize) -> String {
    match len.checked_sub(1) {
        Some(last) => format!(", positions 0 to {last}, or -{len} to -1 from the end"),
        None => String::new(),
    }
}

pub(super) fn count_range(min: usize, max: Option<usize>) -> String {
    match max {
        Some(max) if max == min => min.to_string(),
        Some(max) => format!("{min} to {max}"),
        None => format!("at least {min}"),
    }
}

pub(super) fn tokens_found(len: usize) -> String {
    if len == 0 { "no token (is the beginning-of-sequence token left out?)".into() } else { len.to_string() }
}

pub(super) fn heads_found(heads: &[(usize, usize)]) -> String {
    match heads {
        [] => "none".into(),
        [(layer, head)] => format!("head {layer}.{head} alone"),
        [first, .., last] => format!("{} heads, from {}.{} to {}.{}", heads.len(), first.0, first.1, last.0, last.1),
    }
}

/// The separator and the value, or nothing.
pub(super) fn prefixed(separator: &str, value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(String::new, |value| format!("{separator}{value}"))
}

/// A text for a message: its first 100 characters.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// A name from a foreign file for a message: its first 100 characters, without control characters.
pub(crate) fn shown(name: &str) -> String {
    shortened(name).escape_debug().to_string()
}

/// What a foreign file has in the place of something else, for a message: its first 1,000 characters, with control
/// characters written out, because a terminal acts on them.
pub(super) fn foreign(text: &str) -> String {
    bounded(&without_controls(text, &[]))
}

/// The text of a value for a message, without the rest of a long one.
fn bounded(value: &impl std::fmt::Display) -> String {
    const MAX: usize = 1_000;
    let text = value.to_string();
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()),
        None => text,
    }
}

/// An error with its causes, as far as its own message does not have them: some libraries leave the system's reason out.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text += &format!(": {message}");
        }
        cause = error.source();
    }
    text
}

/// A list for a message: its first 20 items, each without the rest of a long one.
pub(super) fn first<T: std::fmt::Debug>(items: &[T]) -> String {
    let shown: Vec<String> = items.iter().take(20).map(|item| shortened(&format!("{item:?}"))).collect();
    let more = if items.len() > 20 { format!(" and {} more", items.len() - 20) } else { String::new() };
    format!("[{}]{more}", shown.join(", "))
}

impl std::fmt::Debug for super::Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
