//! Prints text as it is generated: piece by piece in a terminal, line by line in a notebook.

use std::io::{self, Write};

use crate::evcxr::harmless;
use crate::terminal::lines_without_controls;

/// Characters of a line in a notebook. Its output arrives line by line, so a text without line breaks would not show
/// before its end.
const WIDTH: usize = 100;

/// Prints the texts of a batch of prompts. Lines of several prompts begin with the number of the prompt.
pub(super) struct Printer {
    in_notebook: bool,
    /// Whether output shows up as it is written, without the end of a line.
    piece_by_piece: bool,
    /// The text of each prompt that is not printed yet.
    unfinished: Vec<String>,
}

impl Printer {
    pub(super) fn new(n_prompts: usize) -> Self {
        let in_notebook = std::env::var_os("EVCXR_IS_RUNTIME").is_some();
        Self { in_notebook, piece_by_piece: n_prompts == 1 && !in_notebook, unfinished: vec![String::new(); n_prompts] }
    }

    /// Prints more text of a prompt, as far as its lines are complete. Control characters are written out. A failing standard output is ignored, because
    /// nobody reads it.
    pub(super) fn print(&mut self, prompt: usize, text: &str) {
        let text = lines_without_controls(text);
        if self.piece_by_piece {
            print!("{text}");
            let _ = io::stdout().flush();
            return;
        }
        self.unfinished[prompt] += &text;
        let lines = complete_lines(&mut self.unfinished[prompt], WIDTH);
        lines.iter().for_each(|line| self.print_line(prompt, line));
    }

    /// Ends the text of a prompt.
    pub(super) fn finish(&mut self, prompt: usize) {
        if self.piece_by_piece {
            println!();
        } else {
            let rest = std::mem::take(&mut self.unfinished[prompt]);
            self.print_line(prompt, &rest);
        }
    }

    fn print_line(&self, prompt: usize, line: &str) {
        let line = if self.in_notebook { harmless(line) } else { line.into() };
        match self.unfinished.len() {
            1 => println!("{line}"),
            _ => println!("{prompt}: {line}"),
        }
    }
}

/// Removes the complete lines from a text: those that end, and those that are longer than `width`, which are broken at
/// their last space if there is one. The last word stays in the text, because it may go on.
fn complete_lines(text: &mut String, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let newline = text.find('\n');
        let line = &text[..newline.unwrap_or(text.len())];
        let (end, next) = match (line.char_indices().nth(width), newline) {
            (Some((limit, _)), _) => match line[..limit].rfind(' ') {
                Some(space) if space > 0 => (space, space + 1),
                _ => (limit, limit),
            },
            (None, Some(newline)) => (newline, newline + 1),
            (None, None) => return lines,
        };
        lines.push(text[..end].into());
        text.drain(..next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_complete_when_they_end_or_are_too_long() {
        let lines = |pieces: &[&str]| {
            let mut text = String::new();
            let lines: Vec<Vec<String>> = pieces
                .iter()
                .map(|piece| {
                    text += piece;
                    complete_lines(&mut text, 10)
                })
                .collect();
            (lines, text)
        };
        let (got, rest) = lines(&["The bus", " is", " late", ". Very late.\n\nEnd", "\n"]);
        assert_eq!(got, [vec![], vec![], vec!["The bus"], vec!["is late.", "Very late.", ""], vec!["End"]]);
        assert_eq!(rest, "");
        // Without a space a line is broken anywhere, but between characters.
        assert_eq!(lines(&["äöüäöüäöüäöüä b"]), (vec![vec!["äöüäöüäöüä".into()]], "öüä b".into()));
        assert_eq!(lines(&[" 0123456789012"]), (vec![vec![" 012345678".into()]], "9012".into()));
        assert_eq!(lines(&["0123456789"]).0, [Vec::<String>::new()]);
    }
}
