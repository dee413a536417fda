//! Finds the files of a model by its name (a model that comes with the crate, a folder, the Hugging Face cache or the Hub), and reads and
//! processes its weights.

mod checkpoint;
mod files;
mod headers;
#[cfg(feature = "hub")]
mod hub;
mod load_options;
mod other_weights;
mod processed_file;
mod tensor_entry;
mod tensor_names;
#[cfg(any(test, not(feature = "hub")))]
mod without_hub;

use std::path::Path;

use crate::config::{Gpt2Config, StatedBos};
use crate::error::{Error, Result};
use crate::tokenizer::{ConfigBos, Tokenizer};
pub(crate) use checkpoint::Checkpoint;
pub(crate) use files::ModelFiles;
pub(crate) use hub::explain as explain_cached_file;
pub use load_options::LoadOptions;
pub(crate) use processed_file::{PROCESSED, ProcessedFile, save_processed};
pub(crate) use tensor_entry::{Header, TensorEntry, read_header};
#[cfg(not(feature = "hub"))]
use without_hub as hub;

/// The models that come with the crate: the name, its folder, and the size of its files.
const SHIPPED: [(&str, &str, &str); 2] = [("demo", "demo-model", "16 MB"), ("letters", "letters-model", "0.3 MB")];

/// Names without an owner, which are TransformerLens' names or old names on the Hub: the name, its repository, and the
/// repository's old name, under which the cache may have it.
const KNOWN: [(&str, &str, &str); 6] = [
    ("gpt2-small", "openai-community/gpt2", "gpt2"),
    ("gpt2", "openai-community/gpt2", "gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium", "gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large", "gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl", "gpt2-xl"),
    ("distilgpt2", "distilbert/distilgpt2", "distilgpt2"),
];

/// Finds the files of a model by its name or folder, and downloads those that are not on this machine.
pub(crate) fn find(name: &str, options: &LoadOptions) -> Result<ModelFiles> {
    let folder = Path::new(name);
    let known = KNOWN.iter().find(|&&(known, repo, _)| name == known || name == repo);
    let shipped = SHIPPED.iter().find(|&&(shipped, ..)| name == shipped);
    let is_name = shipped.is_some() || known.is_some_and(|&(known, ..)| name == known);
    // As in Python, a folder of that name is preferred to the Hub; a folder with a known name, only if it holds a
    // model.
    if ModelFiles::is_model(folder) || (folder.is_dir() && !is_name) {
        return ModelFiles::in_folder(folder);
    }
    if folder.is_file() && !is_name {
        return Err(other_weights::not_a_folder(folder));
    }
    if let Some(&(_, folder, size)) = shipped {
        return in_crate(folder, size);
    }
    if let Some(&(_, repo, alias)) = known {
        return hub::find(repo, &[alias], options);
    }
    match name.split_once('/') {
        Some((owner, repo)) if is_repo_part(owner) && is_repo_part(repo) => hub::find(name, &[], options),
        // A path of a folder that does not exist.
        _ if name.contains(['/', '\\']) => Err(files::no_model(folder)),
        _ => Err(Error::UnknownModel {
            name: name.into(),
            known: KNOWN.iter().map(|&(known, ..)| format!("\"{known}\"")).collect(),
        }),
    }
}

/// Reads a model's tokenizer, if it has one, and chooses the token that text begins with; `config` and `stated` are what
/// `config.json` says. A line on standard error reports a token that is not the one of `config.json`, or that there is none.
pub(crate) fn tokenizer(
    files: &ModelFiles,
    config: &Gpt2Config,
    stated: StatedBos,
) -> Result<(Option<Tokenizer>, Option<u32>)> {
    let of_config = ConfigBos::new(config, stated);
    let (tokenizer, bos) = match &files.tokenizer {
        Some(files) => Tokenizer::from_files(files, of_config).map(|(tokenizer, bos)| (Some(tokenizer), bos))?,
        None => (None, of_config.without_tokenizer()),
    };
    if let Some(note) = bos.note {
        eprintln!("{}: {note}", files.config.display());
    }
    Ok((tokenizer, bos.token))
}

/// Whether a text can be the owner or the name of a repository on the Hub.
fn is_repo_part(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.chars().all(allowed) && !text.starts_with('.')
}

/// The files of a model that comes with the crate.
fn in_crate(folder: &str, size: &str) -> Result<ModelFiles> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if folder.is_dir() {
        return ModelFiles::in_folder(&folder);
    }
    Err(Error::MissingFile {
        path: folder,
        hint: format!(
            "this model comes with the crate as a path or git dependency; a package registry's copy leaves out its {size}"
        ),
    })
}
