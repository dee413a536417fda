//! In place of the Hub and its cache, in a build without the feature `hub`.

use super::{LoadOptions, ModelFiles};
use crate::error::{Error, Result};

pub(crate) fn find(_: &str, _: &[&str], _: &LoadOptions) -> Result<ModelFiles> {
    Err(Error::Feature {
        function: "the name of a model on the Hugging Face Hub",
        feature: "hub",
        hint: "add features = [\"hub\"] to the dependency, or give the folder of the model's files",
    })
}

/// An error about a file of the cache, of which this build knows nothing.
pub(crate) fn explain(error: Error) -> Error {
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_on_the_hub_is_an_error_that_says_what_to_do() {
        let error = explain(find("openai-community/gpt2", &["gpt2"], &LoadOptions::default()).unwrap_err());
        assert!(matches!(error, Error::Feature { feature: "hub", .. }), "{error}");
        assert!(error.to_string().contains("or give the folder"), "{error}");
    }
}
