//! Several heads on one prompt.

use crate::attention_tokens::{HeadData, PromptHeadData};
use crate::error::{Error, Result, check_count};

/// The data of one prompt from each head. `function` is the caller, for the error.
///
/// # Errors
/// [`Error::Count`] if there are no heads, [`Error::DifferentPrompts`] if they ran on different prompts,
/// [`Error::OutOfRange`] if there is no such prompt.
pub(super) fn same_prompt(heads: &[HeadData], prompt: usize, function: &'static str) -> Result<Vec<PromptHeadData>> {
    let data = heads.iter().map(|head| head.prompt(prompt)).collect::<Result<Vec<_>>>()?;
    check_count(function, "heads", data.len(), 1, None)?;
    let first = &data[0];
    if let Some(other) = data.iter().find(|data| data.input != first.input) {
        let (first, other) = ((first.layer, first.head), (other.layer, other.head));
        return Err(Error::DifferentPrompts { function, prompt, first, other });
    }
    Ok(data)
}
