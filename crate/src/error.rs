//! One error type for the whole crate.
//!
//! Each message is one line: the file, tensor, head or prompt, the value found, the values allowed, and a remedy.
//! `Display` includes the text of the [`source`](std::error::Error::source) once, because evcxr prints an
//! error with `Display` alone when `?` ends a cell. The variables that the cell neither moved nor declared stay alive.

mod checks;
mod constructors;
mod parts;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(crate) use checks::{check_count, check_index, check_position, check_setting};
use parts::{
    count_range, first, foreign, heads_found, index_range, position_range, prefixed, tokens_found, with_causes,
};
pub(crate) use parts::{shortened, shown};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. `Debug` is the message too, so that no field fills a notebook. Marked non-exhaustive: later versions may add variants.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model name that is neither a known name, nor `owner/name`, nor an existing folder.
    #[error(
        "unknown model \"{name}\": expected a folder, \"demo\", \"letters\", one of {}, or \"owner/name\" on the Hugging Face Hub",
        known.join(", ")
    )]
    UnknownModel {
        /// The name that was given.
        name: String,
        /// The names that can be given without an owner.
        known: Vec<String>,
    },
    /// A revision that is not a name of a branch, tag or commit.
    #[error("revision: expected a branch, a tag or a commit, found {found:?}")]
    Revision {
        /// The revision that was given.
        found: String,
    },
    /// A file that a model needs does not exist.
    #[error("{}: no such file; {hint}", path.display())]
    MissingFile {
        /// The missing file.
        path: PathBuf,
        /// What to do about it.
        hint: String,
    },
    /// A file that cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("{}: cannot be written: {}", path.display(), with_causes(&**source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system, or of the library that writes the format.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file whose content is not in the format that was expected.
    #[error("{}: expected {expected}, found {}", path.display(), foreign(found))]
    Format {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: String,
        /// The content; the beginning of the text of `source` where there is one.
        found: String,
        /// The error of the library that reads the format.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A setting of `config.json` that contradicts itself, or that GPT-2 does not have.
    #[error("{}: {field}: expected {expected}, found {}", path.display(), foreign(found))]
    Config {
        /// The `config.json`.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// The allowed values.
        expected: String,
        /// The value in the file.
        found: String,
    },
    /// A tensor that is missing, unknown, of the wrong shape or dtype, or not finite.
    #[error("{}: tensor {}: expected {expected}, found {}", path.display(), shown(tensor), foreign(found))]
    Tensor {
        /// The safetensors file (or the index of its shards).
        path: PathBuf,
        /// The name of the tensor in the file.
        tensor: String,
        /// The shape, dtype or values that were expected.
        expected: String,
        /// The shape, dtype or values in the file.
        found: String,
    },
    /// The Hugging Face Hub (or a mirror) did not deliver a file.
    #[error("{repo} at {endpoint}: {problem}{}; {hint}", prefixed(": ", source.as_ref()))]
    Hub {
        /// The repository, `owner/name`.
        repo: String,
        /// The address of the Hub.
        endpoint: String,
        /// What failed.
        problem: String,
        /// The HTTP status, if the Hub answered with an error.
        status: Option<u16>,
        /// What to do about it.
        hint: String,
        /// The error of the HTTP client or of the cache.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A file of the Hugging Face cache that cannot be used, and is or may be damaged.
    #[error("{source}; the cached file {problem}: delete {} and load the model again", path.display())]
    CachedFile {
        /// The file to delete.
        path: PathBuf,
        /// Whether the file is damaged, or may be.
        problem: &'static str,
        /// What is wrong with its content.
        source: Box<Error>,
    },
    /// An environment variable with a value that cannot be used.
    #[error("{variable}: expected {expected}, found {found}")]
    Environment {
        /// The name of the variable.
        variable: &'static str,
        /// The values that can be used.
        expected: String,
        /// The value, without passwords.
        found: String,
    },
    /// A conversion from or to text with a model that was loaded without a tokenizer.
    #[error(
        "{model} was loaded without a tokenizer: put tokenizer.json, or vocab.json and merges.txt, into its folder, \
         or give token ids instead of text"
    )]
    NoTokenizer {
        /// The name or folder of the model.
        model: String,
    },
    /// A text that the tokenizer cannot encode.
    #[error("tokenizing {:?} failed: {}", shortened(text), foreign(&source.to_string()))]
    Tokenize {
        /// The text.
        text: String,
        /// The tokenizer's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Token ids that the tokenizer's decoder cannot turn into text.
    #[error("turning tokens {} into text failed: {}", first(tokens), foreign(&source.to_string()))]
    Detokenize {
        /// The token ids, all within the vocabulary.
        tokens: Vec<u32>,
        /// The tokenizer's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text that should be a single token and is not.
    #[error("{:?} is not a single token: the tokenizer splits it into {}", shortened(text), first(found))]
    NotOneToken {
        /// The text.
        text: String,
        /// The tokens it consists of, as figures label them.
        found: Vec<String>,
    },
    /// A token that a prompt does not have.
    #[error("the prompt has no token {:?}: its tokens are {}", shortened(token), first(prompt))]
    TokenNotInPrompt {
        /// The token, as figures label it.
        token: String,
        /// The tokens of the prompt.
        prompt: Vec<String>,
    },
    /// An index beyond what the model or the data has.
    #[error("{what} {index} out of range: {owner} has {len}{}", index_range(*len))]
    OutOfRange {
        /// What the index counts: "layer", "head", "prompt", "token id", …
        what: &'static str,
        /// The index that was given.
        index: usize,
        /// What is indexed: "the model", "the cache", …
        owner: &'static str,
        /// The number of items it has.
        len: usize,
    },
    /// A position that a prompt does not have.
    #[error("position {position} out of range: prompt {prompt} has {len} tokens{}", position_range(*len))]
    Position {
        /// The position that was given; a negative one counts from the end.
        position: isize,
        /// The index of the prompt in its batch.
        prompt: usize,
        /// The number of its tokens.
        len: usize,
    },
    /// A count or a setting outside of its allowed range.
    #[error("{function}: {what}: expected {}, found {found}{}", count_range(*min, *max), prefixed("; ", hint.as_ref()))]
    Count {
        /// The function or option that has the limit.
        function: &'static str,
        /// What is counted: the name of an argument or option, "prompts", "heads", …
        what: String,
        /// The number that was given.
        found: usize,
        /// The smallest number allowed.
        min: usize,
        /// The largest number allowed, if there is one.
        max: Option<usize>,
        /// What to do about it, where that is not obvious.
        hint: Option<&'static str>,
    },
    /// An option with a value that cannot be used.
    #[error("{function}: {option}: expected {expected}, found {}", foreign(found))]
    Setting {
        /// The function or data set that has the option.
        function: &'static str,
        /// The option.
        option: &'static str,
        /// The values that can be used, and what to do instead.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// Two values whose shapes do not fit together.
    #[error("{what}: expected {axes} = {expected:?}, found {found:?}; {hint}")]
    Shape {
        /// The value or the function that takes it.
        what: String,
        /// The names of the axes, as `[n_heads, d_head]`.
        axes: &'static str,
        /// The shape that would fit.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
        /// What to do about it.
        hint: &'static str,
    },
    /// A prompt without tokens, or with more than the model's context has positions.
    #[error("prompt {prompt}: expected 1 to {n_ctx} tokens, the model's context, found {}", tokens_found(*len))]
    Prompt {
        /// The index of the prompt in its batch.
        prompt: usize,
        /// The number of its tokens.
        len: usize,
        /// The largest number of tokens that the model takes.
        n_ctx: usize,
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
    /// An activation read from a cache of several prompts without choosing one.
    #[error(
        "reading an activation: expected a cache of one prompt: choose one with cache.prompt(i), found a cache of \
         {n_prompts} prompts"
    )]
    SeveralPrompts {
        /// The number of prompts in the cache.
        n_prompts: usize,
    },
    /// An intervention that does not fit the model, the prompts or the run, or whose closure failed.
    #[error("{intervention}: {source}")]
    Intervention {
        /// The intervention in words.
        intervention: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// Heads of different prompts, where all must be of the same ones.
    #[error(
        "{function}: expected heads that saw the same prompts, found different tokens in prompt {prompt} of heads \
         {}.{} and {}.{}", first.0, first.1, other.0, other.1
    )]
    DifferentPrompts {
        /// The function that compares or draws the heads.
        function: &'static str,
        /// The index of the first prompt that differs.
        prompt: usize,
        /// Layer and head of the first of the two.
        first: (usize, usize),
        /// Layer and head of the other one.
        other: (usize, usize),
    },
    /// A list of heads that does not have every head of a model, layer by layer.
    #[error(
        "{function}: expected every head of a model, layer by layer, as all_heads_data gives them, found {}",
        heads_found(found)
    )]
    NotEveryHead {
        /// The function or type that needs every head.
        function: &'static str,
        /// Layer and head of each element of the list.
        found: Vec<(usize, usize)>,
    },
    /// A singular value decomposition that does not converge, which finite weights do not cause.
    #[error("{function}: the singular value decomposition of head {layer}.{head} does not converge; {hint}")]
    Svd {
        /// The processing step or function that decomposes the head's weights.
        function: &'static str,
        /// The layer.
        layer: usize,
        /// The head.
        head: usize,
        /// What to do about it.
        hint: &'static str,
    },
    /// A threshold outside of its allowed range.
    #[error("{function}: {what}: expected {min} to {max}, found {found}")]
    Threshold {
        /// The function that has the threshold.
        function: &'static str,
        /// The name of the option.
        what: &'static str,
        /// The number that was given.
        found: f32,
        /// The smallest number allowed.
        min: f32,
        /// The largest number allowed.
        max: f32,
    },
    /// A matrix that has no decomposition or norm, because an entry is not finite.
    #[error("{function}: expected finite numbers, found {found}")]
    Decomposition {
        /// The function.
        function: &'static str,
        /// The entry and its place.
        found: String,
    },
    /// A detection pattern that no attention pattern can have.
    #[error("detect_head: detection pattern: expected {expected}, found {found} at query {query}, key {key}")]
    DetectionPattern {
        /// The values that are allowed there.
        expected: &'static str,
        /// The value that was given.
        found: f32,
        /// The query position.
        query: usize,
        /// The key position.
        key: usize,
    },
    /// A figure of another kind than the function takes.
    #[error("{function}: expected {expected}, found {found}")]
    FigureKind {
        /// The function.
        function: &'static str,
        /// The kind of figure that it takes.
        expected: &'static str,
        /// The kind of figure that was given.
        found: &'static str,
    },
    /// Vocabulary counts made with other weights, or decoded with another projection.
    #[error(
        "counts: expected those of the same model and projection: projection {}, weights {:016x}, found projection {}, \
         weights {:016x}", expected.0, expected.1, found.0, found.1
    )]
    OtherCounts {
        /// The projection, and the fingerprint of the weights, of the counts that others are added to.
        expected: (String, u64),
        /// The projection and the fingerprint of the other counts, or of the model.
        found: (String, u64),
    },
    /// A list of prompt pairs without a pair of the kind to test.
    #[error("similarity_test: expected pairs of kind {kind:?}, found pairs of kinds {found:?}")]
    NoPairsOfKind {
        /// The kind to test.
        kind: String,
        /// The kinds that the pairs have.
        found: Vec<String>,
    },
    /// A perplexity of t-SNE that does not fit the number of tokens.
    #[error("embedding_map: expected a perplexity from 1 to {max:.1} for {n_tokens} tokens, found {found}")]
    Perplexity {
        /// The perplexity that was given.
        found: f64,
        /// The largest perplexity for this number of tokens.
        max: f64,
        /// The number of tokens on the map.
        n_tokens: usize,
    },
    /// A function that needs an optional feature of this crate, which this build lacks.
    #[error("{function} needs the feature `{feature}` of attention-tokens, which this build lacks; {hint}")]
    Feature {
        /// The function.
        function: &'static str,
        /// The feature.
        feature: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// No font is installed, so a picture would be without its letters.
    #[error(
        "write_png: expected a font for the letters of the figure, found none installed; install one (on Debian: apt install fonts-dejavu-core), or use write_svg"
    )]
    Fonts,
    /// A requirement of CUDA is missing: the feature `cuda` of this build, the driver, a library, or the GPU.
    #[error("CUDA needs {missing}; {hint}")]
    Cuda {
        /// What is missing.
        missing: String,
        /// What to do about it.
        hint: String,
    },
    /// The device failed: out of memory, or an error of the driver.
    #[error("{device}: {operation} failed: {source}")]
    Device {
        /// The device.
        device: String,
        /// The operation.
        operation: &'static str,
        /// The error of the driver or of the library that computes.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
