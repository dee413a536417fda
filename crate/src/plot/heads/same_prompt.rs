//! Several heads on one prompt.

use crate::attention_tokens::{HeadData, PromptHeadData};
use crate::error::{Error, Result};

/// The data of one prompt from each head. `what` is the function that asks.
///
/// # Errors
/// [`Error::Mismatch`] if there are no heads, or if they ran on different prompts; [`Error::OutOfRange`] if there is no such prompt.
pub(super) fn same_prompt(heads: &[HeadData], prompt: usize, what: &'static str) -> Result<Vec<PromptHeadData>> {
    let data = heads.iter().map(|head| head.prompt(prompt)).collect::<Result<Vec<_>>>()?;
    let Some(first) = data.first() else {
        return Err(Error::Mismatch { what, expected: "at least one head".into(), found: "none".into() });
    };
    match data.iter().find(|data| data.input != first.input) {
        None => Ok(data),
        Some(other) => Err(Error::Mismatch {
            what,
            expected: format!("the prompt that head {}.{} saw, for every head", first.layer, first.head),
            found: format!("another one for head {}.{}", other.layer, other.head),
        }),
    }
}
