//! The regular expressions that split a text.
//!
//! The library takes a search that exceeds a limit of its regular-expression engine (a million steps back, or a million
//! states) for the end of the matches, and goes on with other tokens than Python. Such a text is refused here; with
//! GPT-2's expression, it is tokenized in pieces.

use fancy_regex::Regex;
use serde_json::Value;

use super::runs;

/// The regular expressions of a tokenizer.
#[derive(Default)]
pub(super) struct Patterns {
    /// Whether GPT-2's expression is among them.
    byte_level: bool,
    /// Whether GPT-2's expression sees the text as it is and nothing else splits it.
    only_gpt2: bool,
    others: Vec<Regex>,
}

impl Patterns {
    /// The expression of GPT-2, for a text as it is or with a space in front.
    pub(super) fn gpt2(add_prefix_space: bool) -> Self {
        Self { byte_level: true, only_gpt2: !add_prefix_space, others: Vec::new() }
    }

    /// Those of a normalizer and a pre-tokenizer.
    pub(super) fn new(normalizer: &Value, pre_tokenizer: &Value) -> Self {
        let mut patterns = Self::default();
        [normalizer, pre_tokenizer].iter().for_each(|part| patterns.collect(part));
        let is_gpt2 = pre_tokenizer["type"] == "ByteLevel"
            && pre_tokenizer["add_prefix_space"] == false
            && pre_tokenizer["use_regex"] != false;
        patterns.only_gpt2 = normalizer.is_null() && is_gpt2;
        patterns
    }

    /// Adds those of a part. The library reports one that is not valid.
    fn collect(&mut self, part: &Value) {
        match part {
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            Value::Object(object) => {
                self.byte_level |= part["type"] == "ByteLevel";
                let regex = part["Regex"].as_str().and_then(|regex| Regex::new(regex).ok());
                self.others.extend(regex);
                object.values().for_each(|value| self.collect(value));
            }
            _ => {}
        }
    }

    /// Searches a text, and returns the pieces of it that can be tokenized one after the other, most often the whole;
    /// or the message of a search that exceeds a limit. `added` are the added tokens.
    pub(super) fn pieces<'a>(
        &self,
        text: &'a str,
        added: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<&'a str>, String> {
        let too_long = |error: String| format!("its regular expression takes too long on this text: {error}");
        let search = |regex: &Regex| match regex.find_iter(text).find_map(Result::err) {
            Some(error) => Err(too_long(error.to_string())),
            None => Ok(()),
        };
        self.others.iter().try_for_each(search)?;
        let cuts = if self.byte_level { runs::cuts(text) } else { Vec::new() };
        if cuts.is_empty() {
            return Ok(vec![text]);
        }
        let inside = |token: &str, cut: usize| {
            let mut found = text.match_indices(token).map(|(at, _)| at);
            !token.is_empty() && found.any(|at| at < cut && cut < at + token.len())
        };
        if !self.only_gpt2 || added.into_iter().any(|token| cuts.iter().any(|&cut| inside(token, cut))) {
            return Err(too_long("a run of more than 500,000 characters of a kind".into()));
        }
        let ends = cuts.iter().copied().chain([text.len()]);
        Ok(std::iter::once(0).chain(cuts.iter().copied()).zip(ends).map(|(start, end)| &text[start..end]).collect())
    }
}
