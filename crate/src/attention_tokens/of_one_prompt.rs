//! What draws a head takes the data of one prompt; the compiler says so to those who give it a batch.

use super::head_data::PromptHeadData;

/// The data of a head on one prompt: a [`PromptHeadData`], or a reference to one.
///
/// A [`HeadData`](crate::HeadData) is the data of every prompt of a batch, also of a batch of one. Where one prompt is
/// needed, [`prompt`](crate::HeadData::prompt) chooses it, and the compiler's message says so.
#[diagnostic::on_unimplemented(
    message = "expected the data of one prompt, found `{Self}`",
    label = "choose a prompt first: `data.prompt(0)?` is the data of the first",
    note = "`calculate_attns`, `calculate_layer` and `head_data` return the data of every prompt of a batch, also of a \
            batch of one"
)]
pub trait OfOnePrompt {
    #[doc(hidden)]
    fn of_one_prompt(&self) -> &PromptHeadData;
}

impl OfOnePrompt for PromptHeadData {
    fn of_one_prompt(&self) -> &PromptHeadData {
        self
    }
}

impl<T: OfOnePrompt> OfOnePrompt for &T {
    fn of_one_prompt(&self) -> &PromptHeadData {
        (**self).of_one_prompt()
    }
}
