//! The Hugging Face cache, and downloads into it.
//!
//! A client of our own over `ureq`, after the behaviour of `huggingface_hub` 2.4. Servers are treated as hostile: what
//! becomes a path is checked ([`metadata`]), the token stays with the endpoint's origin and redirects are bounded
//! ([`client`]), a body gets its name only after its size and digest were compared ([`transfer`]).

mod cache;
mod certificates;
mod client;
mod damage;
mod digest;
mod download;
mod failure;
mod lock;
mod metadata;
mod progress;
mod proxies;
mod retry;
mod settings;
mod transfer;
mod url;

use super::files::{BOS_FILES, CollectError, MERGES, Missing, ModelFiles, TOKENIZER, VOCAB};
use super::{LoadOptions, other_weights};
use crate::error::{Error, Result};
use cache::RepoCache;
pub(crate) use damage::explain;
use download::Download;
use settings::{Environment, Settings};

/// The files of a repository on the Hub: from the cache if it has all of them, else downloaded.
/// `aliases` are other names of the same repository, under which the cache may have it.
pub(crate) fn find(repo: &str, aliases: &[&str], options: &LoadOptions) -> Result<ModelFiles> {
    let read = |name: &str| std::env::var_os(name);
    let environment = Environment::new(&read);
    let settings = Settings::from_env(&environment);
    let cache = options.cache_dir.clone().unwrap_or_else(|| settings.cache.clone());
    let revision = options.revision.as_deref().unwrap_or("main");
    check_revision(revision)?;
    let mut found_instead = None;
    for name in std::iter::once(repo).chain(aliases.iter().copied()) {
        let cache = RepoCache::new(&cache, name, settings.symlinks);
        let Some(commit) = cache.commit(revision) else { continue };
        match in_cache(&cache, &commit) {
            Ok(files) if settings.offline => return Ok(files),
            Ok(files) => {
                return Ok(match lacking(&cache, &commit, &files) {
                    Some(lacking) => completed(files, lacking, name, &commit, &cache, &settings, &environment),
                    None => files,
                });
            }
            Err(CollectError::Missing(Missing::Config | Missing::Weights)) => {
                let snapshot = cache.pointer(&commit, "");
                found_instead = found_instead.or(other_weights::find_in(&snapshot).map(|other| other.error(&snapshot)));
            }
            Err(CollectError::Missing(Missing::Shard(_))) => {}
            Err(CollectError::Failed(error)) => return Err(error),
        }
    }
    if settings.offline {
        return Err(found_instead.unwrap_or_else(|| Error::Hub {
            repo: repo.into(),
            endpoint: url::without_password(&settings.endpoint),
            problem: format!("not asked: HF_HUB_OFFLINE is set, and {} does not have the model", cache.display()),
            status: None,
            hint: "download it first (hf download), or unset HF_HUB_OFFLINE".into(),
            source: None,
        }));
    }
    let cache = RepoCache::new(&cache, repo, settings.symlinks);
    Download::new(repo, revision, &cache, &settings, &environment)?.model()
}

/// [`Error::Revision`] unless the text is safe in a path and in a URL: a revision becomes a part of both.
fn check_revision(revision: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let valid = !revision.is_empty()
        && revision.chars().all(allowed)
        && revision.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if valid { Ok(()) } else { Err(Error::Revision { found: revision.into() }) }
}

/// The model in the cache, if every file that it needs is there. Half a tokenizer counts as none.
fn in_cache(cache: &RepoCache, commit: &str) -> Result<ModelFiles, CollectError> {
    let exists = |name: &str| cache.pointer(commit, name).is_file();
    let has = |name: &str| match name {
        VOCAB | MERGES => exists(VOCAB) && exists(MERGES),
        name => exists(name),
    };
    ModelFiles::collect(has, |name| Ok(cache.pointer(commit, name)))
}

/// What the cache lacks of a model's tokenizer, unless the Hub was asked for it before and the repository has none: the
/// tokenizer, or a file beside it that can name the beginning-of-sequence token.
fn lacking(cache: &RepoCache, commit: &str, files: &ModelFiles) -> Option<&'static str> {
    let absent = |name| cache.is_known_absent(commit, name);
    if files.tokenizer.is_none() {
        let is_known = absent(TOKENIZER) && (absent(VOCAB) || absent(MERGES));
        return (!is_known).then_some("tokenizer");
    }
    BOS_FILES.into_iter().find(|&name| !absent(name) && !cache.pointer(commit, name).is_file())
}

/// Fetches what the cache lacks of a tokenizer. If that fails, the model is used without it, and a line says so.
fn completed(
    mut files: ModelFiles,
    lacking: &str,
    repo: &str,
    commit: &str,
    cache: &RepoCache,
    settings: &Settings,
    environment: &Environment,
) -> ModelFiles {
    let download = Download::new(repo, commit, cache, settings, environment);
    match download.and_then(|download| download.once().tokenizer()) {
        Ok(tokenizer) => files.tokenizer = tokenizer.or(files.tokenizer),
        Err(error) => println!("{repo}: the cache has no {lacking}, and it cannot be downloaded: {error}"),
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_cannot_leave_the_cache() {
        for good in ["main", "v1.0", "refs/pr/3", "607a30d783dfa663caf39e06633721c8d4cfcd7e"] {
            check_revision(good).unwrap();
        }
        for bad in ["", "..", "../../etc", "a//b", "/root", "a?b", "a b"] {
            assert!(check_revision(bad).is_err(), "{bad:?}");
        }
    }
}
