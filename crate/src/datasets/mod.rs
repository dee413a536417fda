//! Data sets of the tasks that interpretability studies with: prompts with their answers, the positions of their parts, and
//! corrupted variants that keep these positions.
//!
//! | data set | task | published in |
//! |---|---|---|
//! | [`IoiDataset`] | the indirect object: *When Mary and John went to the store, John gave a drink to* | Wang et al. 2022, arXiv 2211.00593 |
//! | [`GreaterThanDataset`] | a later year: *The war lasted from the year 1732 to the year 17* | Hanna et al. 2023, arXiv 2305.00586 |
//! | [`DocstringDataset`] | the next argument of a docstring | Heimersheim and Janiak 2023, *A circuit for Python docstrings in a 4-layer attention-only transformer* |
//! | [`RepeatedTokens`] | random tokens, twice: what induction heads complete | Olsson et al. 2022, arXiv 2209.11895 |
//! | [`tokenize_and_concatenate`] | rows of tokens from a text file | TransformerLens |
//!
//! The words are chosen so that each is a single token of the tokenizer at hand: then a corrupted prompt has as many tokens
//! as the clean one, and activations can be exchanged position by position. The same seed gives the same prompts.

mod docstring;
mod evaluation;
mod greater_than;
mod ioi;
mod ioi_template;
mod repeated_tokens;
mod text_file;
mod words;

pub use docstring::{DocstringCorruption, DocstringDataset, DocstringOptions, DocstringPrompt};
pub use greater_than::{GreaterThanDataset, GreaterThanOptions, GreaterThanPrompt, GreaterThanScores};
pub use ioi::{IoiCorruption, IoiDataset, IoiOptions, IoiPrompt, IoiScores};
pub use ioi_template::IoiOrder;
pub use repeated_tokens::RepeatedTokens;
pub use text_file::{SampleBy, TextFileOptions, TokenRows, tokenize_and_concatenate};
