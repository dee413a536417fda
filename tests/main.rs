//! The integration tests of the crate, as one binary.

/// The notebook in JupyterLab, and its page, in a real browser. Needs Jupyter, Chromium and chromedriver.
#[cfg(unix)]
mod browser;
/// A card of CUDA, or the stand-in for one.
#[cfg(all(feature = "cuda", unix))]
mod cuda;
/// The experiments: against TransformerLens, by hand, and their figures.
mod experiments;
/// Figures as plotly's JSON.
mod figures;
/// Every golden number, through the parity program; and that the program notices when one is wrong.
mod golden;
/// A folder or a checkpoint that is not what it should be: one test per way of being broken.
mod hostile_files;
/// Downloads from a local server that speaks the Hub's protocol, and caches laid out as Python does.
mod hub;
/// What must hold for any input: batches, filters, thread counts, the identities of attention.
mod invariants;
/// Many heads at once, long prompts, other looks, tables and files.
mod many_heads;
/// The executed notebooks: what they printed. Needs Jupyter.
mod notebooks;
/// The example programs: what they print, and what they say when something is wrong.
mod programs;
/// The README's code is a doctest, and the links of the guides lead somewhere.
mod readme;
/// Text and tokens, against Hugging Face's answers.
mod tokens;

/// Helpers.
mod support;
