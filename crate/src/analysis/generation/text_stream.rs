//! The text of tokens as they come.

use crate::tokenizer::TokenLabels;

/// Tokens before a new one that are decoded with it: some decoders treat the beginning of a text in a special way.
const CONTEXT: usize = 5;

/// Turns tokens into pieces of text, one after the other. A token may end inside a character: its text is then part of a
/// later piece.
pub(super) struct TextStream {
    labels: TokenLabels,
    /// The tokens so far, those before the stream included.
    tokens: Vec<u32>,
    /// The first token that is decoded with the next one.
    start: usize,
    /// The tokens whose text was returned.
    returned: usize,
    /// Whether these end with a whole character. Only the tokens before the stream may not.
    ends_whole: bool,
}

impl TextStream {
    /// A stream after these tokens.
    pub(super) fn after(tokens: &[u32], labels: TokenLabels) -> Self {
        let returned = tokens.len();
        let start = returned.saturating_sub(CONTEXT);
        let ends_whole = !labels.joined(&tokens[start..]).ends_with(char::REPLACEMENT_CHARACTER);
        Self { labels, tokens: tokens.into(), start, returned, ends_whole }
    }

    /// The text that a token completes.
    pub(super) fn push(&mut self, token: u32) -> String {
        self.tokens.push(token);
        let text = self.rest();
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        if self.ends_whole {
            self.start = self.returned;
        }
        self.ends_whole = true;
        self.returned = self.tokens.len();
        text
    }

    /// The text that is held back, at the end of the tokens.
    pub(super) fn finish(&mut self) -> String {
        let text = if self.returned < self.tokens.len() { self.rest() } else { String::new() };
        self.returned = self.tokens.len();
        text
    }

    /// The text of the tokens that was not returned.
    fn rest(&self) -> String {
        let before = self.labels.joined(&self.tokens[self.start..self.returned]);
        let all = self.labels.joined(&self.tokens[self.start..]);
        // They differ where a new token completes a character.
        let common = before.chars().zip(all.chars()).take_while(|(one, other)| one == other);
        all[common.map(|(one, _)| one.len_utf8()).sum()..].into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Gpt2;
    use crate::pretrained::LoadOptions;

    #[test]
    fn pieces_are_whole_characters_and_add_up_to_the_text() {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap();
        let text = "Monday. 日本語のテキスト 👩‍👩‍👧‍👧 naïve đem\n\n  x\u{fffd}y";
        let tokens = model.to_tokens_without_bos(text).unwrap();
        let spelled: Vec<String> = tokens.iter().map(|&token| model.to_single_str_token(token).unwrap()).collect();
        assert!(spelled.iter().filter(|text| text.contains('\u{fffd}')).count() > 10, "{spelled:?}");
        for n_before in [0, 1, 3, 4, 5, 6] {
            let mut stream = TextStream::after(&tokens[..n_before], model.token_labels());
            let mut pieces: Vec<String> = tokens[n_before..].iter().map(|&token| stream.push(token)).collect();
            pieces.push(stream.finish());
            let before = model.to_string(&tokens[..n_before]).unwrap();
            assert_eq!(before.trim_end_matches('\u{fffd}').to_owned() + &pieces.concat(), text);
            let broken = pieces.iter().filter(|piece| piece.contains('\u{fffd}') && !piece.contains("x\u{fffd}y"));
            assert!(broken.count() <= 1, "{pieces:?}"); // the text has one such character itself
        }
    }

    #[test]
    fn a_character_that_is_never_completed_comes_at_the_end() {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap();
        let tokens = model.to_tokens_without_bos("日").unwrap();
        assert!(tokens.len() > 1);
        let mut stream = TextStream::after(&[], model.token_labels());
        assert_eq!(stream.push(tokens[0]), "");
        assert_eq!((stream.finish(), stream.finish()), ("\u{fffd}".into(), String::new()));
    }

    #[test]
    fn without_a_tokenizer_pieces_are_ids() {
        let mut stream = TextStream::after(&[1, 2], TokenLabels::new(None));
        assert_eq!([stream.push(7), stream.push(11), stream.finish()], [" #7", " #11", ""]);
    }
}
