//! Words of data sets, and those of them that are single tokens.

use crate::error::{Result, check_setting};
use crate::tokenizer::Tokenizer;

/// Given names that are common in English.
pub(super) const NAMES: &str = "Aaron Adam Alan Alex Alice Amy Andrew Anna Anthony Arthur Ben Bill Bob Brian Charles Chris \
    Daniel David Edward Emily Emma Eric Frank George Grace Harry Helen Henry Jack Jacob James Jane Jason Jennifer Jessica \
    Jim Joe John Joseph Kate Kelly Kevin Laura Lisa Lucy Maria Mark Martin Mary Matthew Michael Mike Nick Patrick Paul Peter \
    Rachel Richard Robert Rose Ruth Ryan Sam Samuel Sarah Scott Simon Stephen Steve Steven Susan Thomas Tom Victoria William";

/// Places where two people can go.
pub(super) const PLACES: &str =
    "store market garden restaurant school hospital office house station park library museum";

/// Things that one person can give another.
pub(super) const OBJECTS: &str = "drink book ring letter key ticket picture flower map gift basket hat";

/// Events and states that last, after "The".
pub(super) const EVENTS: &str = "war siege trial dynasty journey expedition reign conflict campaign alliance strike drought \
    plague empire voyage treaty construction famine quest revolution rebellion occupation project dispute crisis program \
    career marriage investigation operation competition debate tour battle pilgrimage";

/// Nouns and adjectives that occur as names of variables.
pub(super) const VARIABLES: &str = "load size file last first page name read list line date time text code data form part \
    place point order group user image type field event state list model value table index count image color water light \
    house paper music world story field river table night month house class word body mind hand power paper plan record \
    result report sound space stone street system thing unit voice work area base block board bridge card case chain \
    change charge circle clock cover design drive engine figure fire floor force frame front game glass ground heat hill \
    horse island key labor land layer leaf length level limit link lock map market mass match metal mile milk mirror";

/// A word that is a single token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// With a space in front.
    pub(super) token: u32,
    /// At the beginning of a text, if it is a single token there.
    pub(super) at_start: Option<u32>,
}

/// The words that are single tokens after a space, each once. `function` and `option` name the list in the error.
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting) if they are fewer than `min`.
pub(super) fn single_tokens<'a>(
    tokenizer: &Tokenizer,
    words: impl IntoIterator<Item = &'a str>,
    min: usize,
    function: &'static str,
    option: &'static str,
) -> Result<Vec<Word>> {
    let mut found: Vec<Word> = Vec::new();
    let mut n_words = 0;
    for text in words {
        n_words += 1;
        let Some(token) = exact_token(tokenizer, &format!(" {text}")) else { continue };
        if found.iter().all(|word| word.token != token) {
            found.push(Word { text: text.into(), token, at_start: exact_token(tokenizer, text) });
        }
    }
    let expected = format!("at least {min} different words that are single tokens of the tokenizer after a space");
    check_setting(function, option, found.len() >= min, expected, format!("{} among {n_words} words", found.len()))?;
    Ok(found)
}

/// The token of a text that is a single one. A tokenizer may drop letters that it does not know, so the token is also held
/// against the text.
pub(super) fn exact_token(tokenizer: &Tokenizer, text: &str) -> Option<u32> {
    let token = tokenizer.to_single_token(text).ok()?;
    (tokenizer.to_single_str_token(token).ok()? == text).then_some(token)
}
