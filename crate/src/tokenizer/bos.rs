//! The choice of a model's beginning-of-sequence token: the tokenizer's own, as in TransformerLens, else that of
//! `config.json`.

use super::special_tokens::NamedBos;
use crate::config::{Gpt2Config, StatedBos};
use crate::error::shortened;

/// The beginning-of-sequence token of a `config.json`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigBos {
    pub(crate) stated: StatedBos,
    /// The token that it stands for, if the model's vocabulary has it.
    pub(crate) token: Option<u32>,
    pub(crate) d_vocab: usize,
}

/// The token with which text begins, if there is one, and a line about it for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bos {
    pub(crate) token: Option<u32>,
    pub(crate) note: Option<String>,
}

impl ConfigBos {
    pub(crate) fn new(config: &Gpt2Config, stated: StatedBos) -> Self {
        Self { stated, token: config.bos_token_id, d_vocab: config.d_vocab }
    }

    /// The token of a model without a tokenizer.
    pub(crate) fn without_tokenizer(self) -> Bos {
        let note = match (self.token, self.stated) {
            (Some(_), _) | (None, StatedBos::Null) => None,
            (None, _) => Some(format!("{}: the prompts of experiments begin without that token", self.description(""))),
        };
        Bos { token: self.token, note }
    }

    /// The token of a model with a tokenizer, whose files name `own`. `id` and `text` look up a token in the tokenizer.
    ///
    /// A tokenizer without such files is taken at the word of `config.json`, where that has a token of both.
    pub(super) fn choose(
        self,
        own: &NamedBos,
        id: impl Fn(&str) -> Option<u32>,
        text: impl Fn(u32) -> Option<String>,
    ) -> Bos {
        let own_id = id(&own.text).filter(|&id| (id as usize) < self.d_vocab);
        let of_config = self.token.filter(|&token| text(token).is_some());
        let token = if own.has_files { own_id.or(of_config) } else { of_config.or(own_id) };
        let shown = |token: u32| format!("{:?} ({token})", shortened(&text(token).unwrap_or_default()));
        let unusable = own.file.filter(|_| own_id.is_none()).map(|file| {
            format!("{file} names {:?}, which is not in the vocabulary of the model", shortened(&own.text))
        });
        let differs = |token: u32| matches!(self.stated, StatedBos::Id(stated) if stated != u64::from(token));
        let note = match token {
            Some(token) if differs(token) => {
                let unknown = if self.token.is_some() && of_config.is_none() {
                    ", which the tokenizer does not have"
                } else {
                    ""
                };
                Some(format!(
                    "{}: text begins with the tokenizer's own beginning-of-sequence token, {}, as in TransformerLens",
                    self.description(unknown),
                    shown(token)
                ))
            }
            Some(token) => unusable.map(|unusable| {
                format!("{unusable}: text begins with the beginning-of-sequence token of config.json, {}", shown(token))
            }),
            None => {
                let unknown = if self.token.is_some() { ", which the tokenizer does not have" } else { "" };
                let tokenizer = unusable.unwrap_or_else(|| "the tokenizer has no beginning-of-sequence token".into());
                Some(format!("{}, and {tokenizer}: text begins without one", self.description(unknown)))
            }
        };
        Bos { token, note }
    }

    /// What `config.json` states; `unknown` is added to a token of the model's vocabulary.
    fn description(self, unknown: &str) -> String {
        let Self { stated, token, d_vocab } = self;
        let beyond = format!(", beyond the model's vocabulary of {d_vocab} tokens");
        let beyond = if token.is_some() { unknown } else { &beyond };
        match stated {
            StatedBos::Id(id) => format!("bos_token_id is {id}{beyond}"),
            StatedBos::Missing => format!("there is no bos_token_id, and its default is 50256{beyond}"),
            StatedBos::Null => "bos_token_id is null".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [&str; 4] = ["<s>", "the", "<|endoftext|>", "far"];

    /// The choice for a model of three tokens, with the tokenizer of `TOKENS`.
    fn choose(stated: StatedBos, own: &str, file: Option<&'static str>, has_files: bool) -> (Option<u32>, String) {
        let token = match stated {
            StatedBos::Id(id) => u32::try_from(id).ok().filter(|&id| id < 3),
            _ => None,
        };
        let config = ConfigBos { stated, token, d_vocab: 3 };
        let own = NamedBos { text: own.into(), file, has_files };
        let id = |text: &str| TOKENS.iter().position(|token| *token == text).map(|id| id as u32);
        let Bos { token, note } = config.choose(&own, id, |id| Some((*TOKENS.get(id as usize)?).to_owned()));
        (token, note.unwrap_or_default())
    }

    #[test]
    fn the_tokenizers_own_token_is_preferred() {
        const FILE: Option<&str> = Some("tokenizer_config.json");
        const GPT2: &str = "<|endoftext|>";
        let id = StatedBos::Id;
        assert_eq!(choose(id(0), "<s>", FILE, true), (Some(0), String::new()));
        assert_eq!(choose(StatedBos::Missing, "<s>", FILE, true), (Some(0), String::new()));
        assert_eq!(choose(StatedBos::Null, "<s>", FILE, true), (Some(0), String::new()));
        let own =
            "text begins with the tokenizer's own beginning-of-sequence token, \"<s>\" (0), as in TransformerLens";
        assert_eq!(choose(id(1), "<s>", FILE, true), (Some(0), format!("bos_token_id is 1: {own}")));
        let beyond = "bos_token_id is 50256, beyond the model's vocabulary of 3 tokens";
        assert_eq!(choose(id(50256), "<s>", FILE, true), (Some(0), format!("{beyond}: {own}")));
        // A token that the model does not have: `config.json` has a better one, or there is none.
        let unusable = "tokenizer_config.json names \"far\", which is not in the vocabulary of the model";
        let of_config = "text begins with the beginning-of-sequence token of config.json, \"the\" (1)";
        assert_eq!(choose(id(1), "far", FILE, true), (Some(1), format!("{unusable}: {of_config}")));
        let none = format!("{beyond}, and {unusable}: text begins without one");
        assert_eq!(choose(id(50256), "far", FILE, true), (None, none));
        // The default of GPT-2's tokenizer counts where files could have named another.
        assert_eq!(choose(id(2), GPT2, None, true), (Some(2), String::new()));
        assert_eq!(choose(id(1), GPT2, None, true).0, Some(2));
        assert_eq!(choose(id(1), GPT2, None, false), (Some(1), String::new()));
        assert_eq!(choose(StatedBos::Null, GPT2, None, false), (Some(2), String::new()));
        assert_eq!(choose(id(9), GPT2, None, false).0, Some(2));
    }

    #[test]
    fn a_model_without_one_says_so() {
        let (token, note) = choose(StatedBos::Null, "none", None, false);
        let expected =
            "bos_token_id is null, and the tokenizer has no beginning-of-sequence token: text begins without one";
        assert_eq!((token, note.as_str()), (None, expected));
        let (token, note) = choose(StatedBos::Missing, "none", None, false);
        assert!(token.is_none() && note.starts_with("there is no bos_token_id, and its default is 50256, beyond the"));
        let silent = ConfigBos { stated: StatedBos::Null, token: None, d_vocab: 3 };
        assert_eq!(silent.without_tokenizer(), Bos { token: None, note: None });
        let note = ConfigBos { stated: StatedBos::Id(7), ..silent }.without_tokenizer().note.unwrap();
        assert!(note.starts_with("bos_token_id is 7, beyond the model's vocabulary of 3 tokens: "), "{note}");
    }
}
