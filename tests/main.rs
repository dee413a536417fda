//! The integration tests of the crate, as one binary.

/// Activations that are computed when they are first read, and runs of a part of the model.
mod activations;
/// Analysis of runs: sums that must add up, and errors.
mod analysis;
/// Figures of any array, and of attention patterns.
mod arrays;
/// The beginning-of-sequence token: the tokenizer's own, that of `config.json`, or none.
mod bos;
/// Notebook 01 in JupyterLab, and its HTML page, in Chromium. Needs Jupyter, Chromium and chromedriver.
#[cfg(unix)]
mod browser;
/// Every kind of figure in Chromium: overlaps, contrast, colours, sizes. Needs Chromium and chromedriver.
#[cfg(unix)]
mod browser_figures;
/// Caches in files, and files that are broken or meant to do harm.
mod cache_files;
/// The activations of a cache by their names, and what a cache shows of itself.
mod cache_names;
/// Checkpoints in the forms that people have.
mod checkpoints;
/// Circuits: factored matrices against dense ones, invariance under refactoring, composition, top entries.
mod circuits;
/// The CUDA backend, on a GPU or with the fake driver.
#[cfg(all(feature = "cuda", unix))]
mod cuda;
/// Data sets: their prompts, their corrupted variants, text files.
mod datasets;
/// Each variant of `Error`: what causes it, its fields, its source.
mod errors;
/// The experiments: against TransformerLens, against results computed by hand, and their figures.
mod experiments;
/// Faults: processes that are killed, full disks, files that shrink, clocks that jump.
#[cfg(unix)]
mod faults;
/// Figures as plotly JSON.
mod figures;
/// The files that fuzzing has found.
mod fuzzing;
/// Generation of text, with and without the key-value cache.
mod generation;
/// Every golden number, through the example program `parity`, which must also fail on a wrong one.
mod golden;
/// Heads: those of the demo model are found, those of random weights are at chance; errors.
mod heads;
/// Broken model folders and checkpoints: a test for each kind of damage.
mod hostile_files;
/// Downloads from a local server with the Hugging Face Hub's protocol, and the cache that Python shares.
mod hub;
/// Hostile texts in every figure, table and page: nothing runs. Needs Chromium and chromedriver.
#[cfg(unix)]
mod injection;
/// Interventions: random edits against dfdx, batches, the rules of attention, errors.
mod interventions;
/// Invariants for any input: batches, filters, thread counts, the identities of attention.
mod invariants;
/// The lens with each scale of the layer norm, and means over the prompts of a batch.
mod lenses;
/// Many heads at once, long prompts, figure styles, tables and files.
mod many_heads;
/// The outputs of the executed notebooks. Needs Jupyter.
mod notebooks;
/// One run: predictions, neurons, figures, positions, and caches of other models.
mod one_run;
/// Sweeps of interventions: against one run after the other, metrics, figures, errors.
mod patching;
/// Path patching: against two runs for each sender, whatever the memory option.
mod paths;
/// Perplexity of texts of any length.
mod perplexity;
/// Processed weights that are saved and loaded again.
mod processed;
/// The example programs: their output and their error messages.
mod programs;
/// Readings of a head: against plain `f64`, in other bases of its weights, on every backend.
mod readings;
/// The README's code is a doctest, and the links of the guides lead to files and headings.
mod readme;
/// The files of tokenizers: added tokens, decoders of each kind, and files that are broken or meant to do harm.
mod tokenizer_files;
/// Tokenization, against Hugging Face's results.
mod tokens;

/// Helpers.
mod support;
