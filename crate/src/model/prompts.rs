//! Prompts, as text or as token ids.

/// One prompt or several, as text or as token ids.
///
/// Converts from a `&str`, a `Vec<u32>` of token ids, or arrays and vectors of either. Text is tokenized with the
/// beginning-of-sequence token in front, if the model has one; a text that begins with it gets a second one, as in
/// TransformerLens. Token ids are used unchanged.
#[derive(Clone, Debug)]
pub struct Prompts(pub(crate) Vec<Prompt>);

#[derive(Clone, Debug)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl From<&str> for Prompts {
    fn from(text: &str) -> Self {
        Self(vec![Prompt::Text(text.into())])
    }
}

impl From<String> for Prompts {
    fn from(text: String) -> Self {
        Self(vec![Prompt::Text(text)])
    }
}

impl From<&String> for Prompts {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl<T: AsRef<str>> From<&[T]> for Prompts {
    fn from(texts: &[T]) -> Self {
        Self(texts.iter().map(|text| Prompt::Text(text.as_ref().into())).collect())
    }
}

impl<T: AsRef<str>> From<&Vec<T>> for Prompts {
    fn from(texts: &Vec<T>) -> Self {
        Self::from(texts.as_slice())
    }
}

impl From<Vec<&str>> for Prompts {
    fn from(texts: Vec<&str>) -> Self {
        Self::from(texts.as_slice())
    }
}

impl From<Vec<String>> for Prompts {
    fn from(texts: Vec<String>) -> Self {
        Self(texts.into_iter().map(Prompt::Text).collect())
    }
}

impl<T: AsRef<str>, const N: usize> From<[T; N]> for Prompts {
    fn from(texts: [T; N]) -> Self {
        Self::from(texts.as_slice())
    }
}

impl<T: AsRef<str>, const N: usize> From<&[T; N]> for Prompts {
    fn from(texts: &[T; N]) -> Self {
        Self::from(texts.as_slice())
    }
}

impl From<Vec<u32>> for Prompts {
    fn from(tokens: Vec<u32>) -> Self {
        Self(vec![Prompt::Tokens(tokens)])
    }
}

impl From<Vec<Vec<u32>>> for Prompts {
    fn from(prompts: Vec<Vec<u32>>) -> Self {
        Self(prompts.into_iter().map(Prompt::Tokens).collect())
    }
}
