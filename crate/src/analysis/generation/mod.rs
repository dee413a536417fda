//! Generation of text, token by token, with a key-value cache: `HookedTransformer.generate`.

mod options;
mod printer;
mod run;
mod sampling;
mod text_stream;

pub use options::GenerateOptions;
pub use run::{Generated, NewToken};
pub(crate) use sampling::most_likely;
