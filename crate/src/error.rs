//! One error type for the whole crate.
//!
//! Every message says which file, tensor, head or prompt it is about, what was found, what was expected, and what
//! to do. evcxr prints it with `Display` when `?` ends a cell, and every variable of the notebook stays alive.

use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. Marked non-exhaustive: later versions may add variants.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model name that is neither a known name, nor `owner/name`, nor an existing folder.
    #[error(
        "unknown model \"{name}\": expected a folder, \"demo\", one of {}, or \"owner/name\" on the Hugging Face Hub",
        known.join(", ")
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The names that need no owner.
        known: Vec<String>,
    },
    /// A file that a model needs is not there.
    #[error("{}: no such file; {hint}", path.display())]
    MissingFile {
        /// The file that was looked for.
        path: PathBuf,
        /// What to do about it.
        hint: String,
    },
    /// A file that cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("{}: cannot be written: {problem}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// A file whose content is not what its name promises.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A setting of `config.json` that contradicts itself, or that GPT-2 does not have.
    #[error("{}: {field}: expected {expected}, found {found}", path.display())]
    Config {
        /// The `config.json`.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// What is allowed.
        expected: String,
        /// What it says.
        found: String,
    },
    /// A tensor that is missing, unknown, of the wrong shape or dtype, or not finite.
    #[error("{}: tensor {tensor}: expected {expected}, found {found}", path.display())]
    Tensor {
        /// The safetensors file (or the index of its shards).
        path: PathBuf,
        /// The name of the tensor in the file.
        tensor: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The Hugging Face Hub (or a mirror) did not give a file.
    #[error("{repo} at {endpoint}: {problem}; {hint}")]
    Hub {
        /// The repository, `owner/name`.
        repo: String,
        /// The address that was asked.
        endpoint: String,
        /// What happened.
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// A call that takes or gives text, on a model that was loaded without a tokenizer.
    #[error(
        "{model} was loaded without a tokenizer: put tokenizer.json, or vocab.json and merges.txt, into its folder, \
         or give token ids instead of text"
    )]
    NoTokenizer {
        /// The name or folder of the model.
        model: String,
    },
    /// A text that should be a single token and is not.
    #[error("{text:?} is not a single token: the tokenizer splits it into {found:?}")]
    NotOneToken {
        /// The text.
        text: String,
        /// The tokens it consists of.
        found: Vec<String>,
    },
    /// An index beyond what the model or the data has.
    #[error("{what} {index} out of range: {owner} has {len}{}", allowed(*len))]
    OutOfRange {
        /// What is counted: "layer", "head", "prompt", "token id", …
        what: &'static str,
        /// The index that was asked for.
        index: usize,
        /// Who has so many of them: "the model", "the cache", …
        owner: &'static str,
        /// How many there are.
        len: usize,
    },
    /// A prompt that the model cannot take: no token at all, or more than its context.
    #[error("prompt {prompt}: expected {expected}, found {found}")]
    Prompt {
        /// The index of the prompt in its batch.
        prompt: usize,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// An activation that the cache does not hold.
    #[error("{activation} of layer {layer} is not in the cache: {hint}")]
    NotCached {
        /// The activation.
        activation: &'static str,
        /// The layer.
        layer: usize,
        /// What to do about it.
        hint: String,
    },
    /// Two values that do not fit together, or an option with a value it cannot have.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// What was being done, or which option it is.
        what: &'static str,
        /// What would fit.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Something is missing that a CUDA GPU needs: the feature `cuda` of this build, the driver, a library, the GPU.
    #[error("CUDA needs {missing}; {hint}")]
    Cuda {
        /// What is missing.
        missing: String,
        /// What to do about it.
        hint: String,
    },
    /// The device failed (out of memory, driver).
    #[error("{device}: {operation} failed: {problem}")]
    Device {
        /// The device.
        device: String,
        /// What it was asked to do.
        operation: &'static str,
        /// What it said.
        problem: String,
    },
}

impl Error {
    pub(crate) fn write(path: impl Into<PathBuf>, problem: &dyn std::fmt::Display) -> Self {
        Self::Write { path: path.into(), problem: problem.to_string() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// `index` if it is below `len`, else [`Error::OutOfRange`].
pub(crate) fn check_index(what: &'static str, index: usize, owner: &'static str, len: usize) -> Result<usize> {
    if index < len { Ok(index) } else { Err(Error::OutOfRange { what, index, owner, len }) }
}

fn allowed(len: usize) -> String {
    match len {
        0 => String::new(),
        1 => ", 0".into(),
        len => format!(", 0 to {}", len - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_error_says_what_is_allowed() {
        let message = |index, len| check_index("head", index, "the model", len).unwrap_err().to_string();
        assert_eq!(message(12, 12), "head 12 out of range: the model has 12, 0 to 11");
        assert_eq!(message(1, 1), "head 1 out of range: the model has 1, 0");
        assert_eq!(message(0, 0), "head 0 out of range: the model has 0");
        assert_eq!(check_index("head", 11, "the model", 12).unwrap(), 11);
    }
}
