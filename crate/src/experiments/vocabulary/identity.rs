//! The identity of a count: what must agree on every machine that counts a part of one file of prompts.

use serde::Serialize;

use super::counts::VocabularyCounts;
use super::state::FORMAT;
use super::sweep::SweepOptions;
use crate::error::Result;
use crate::model::Gpt2;

/// The library, the model and the options of a count. Counts of two machines are those of one machine if their identities
/// are equal.
///
/// `cargo run --example vocabulary -- MODEL --identity` prints it as JSON, with which a cluster refuses a machine that has
/// another model or another version of the library.
///
/// ```
/// use attention_tokens::experiments::{CountIdentity, SweepOptions};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let identity = CountIdentity::new(&model, &SweepOptions::default())?;
/// assert_eq!((identity.n_layers, identity.n_heads, identity.max_tokens), (4, 8, 30));
/// assert!(identity.to_json().contains("\"reading\":\"notebook\""));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CountIdentity {
    /// The version of this library.
    pub version: String,
    /// The format of the files of counts, with its version.
    pub state_format: String,
    /// The number of layers.
    pub n_layers: usize,
    /// The number of heads of a layer.
    pub n_heads: usize,
    /// The size of the vocabulary.
    pub d_vocab: usize,
    /// The length of the context.
    pub n_ctx: usize,
    /// The hash of weights that files of counts have, as 16 hexadecimal digits: FNV-1a over `W_V` of the first head and `W_O`
    /// of the last one, after weight processing.
    pub fingerprint: String,
    /// The SHA-256 of the tokenizer as JSON and of its beginning-of-sequence token, as hexadecimal digits. The same tokenizer
    /// read from `tokenizer.json` and from `vocab.json` with `merges.txt` may have two.
    pub tokenizer: String,
    /// The name of the reading.
    pub reading: String,
    /// Maximum tokens of a prompt.
    pub max_tokens: usize,
    /// Whether a finished count is written as Parquet too: the feature `parquet`.
    pub parquet: bool,
}

impl CountIdentity {
    /// The identity of a count with these options; its shard, its batches and its state do not matter.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`](crate::Error::NoTokenizer) if the model has no tokenizer;
    /// [`Error::Device`](crate::Error::Device) if the device fails.
    pub fn new(model: &Gpt2, options: &SweepOptions) -> Result<Self> {
        let tokenizer = model.tokenizer()?.digest()?;
        let counts = VocabularyCounts::new(model, options.reading)?;
        let source = &counts.source;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            state_format: FORMAT.into(),
            n_layers: source.n_layers,
            n_heads: source.n_heads,
            d_vocab: source.d_vocab,
            n_ctx: model.config().n_ctx,
            fingerprint: format!("{:016x}", source.fingerprint),
            tokenizer,
            reading: source.reading.to_string(),
            max_tokens: options.max_tokens,
            parquet: cfg!(feature = "parquet"),
        })
    }

    /// The identity as one line of JSON, with the names of the fields.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers")
    }
}
