//! The Hugging Face cache, and downloads into it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::LoadOptions;
use super::files::{self, CONFIG, CollectError, INDEX, Missing, ModelFiles, WEIGHTS};
use super::hub_settings::Settings;
use crate::error::{Error, Result};

/// The files of a repository on the Hub: from the cache if it has all of them, else downloaded.
/// `aliases` are other names of the same repository, under which the cache may have it.
pub(crate) fn find(repo: &str, aliases: &[&str], options: &LoadOptions) -> Result<ModelFiles> {
    let settings = Settings::from_env(&|name| std::env::var_os(name));
    let cache = options.cache_dir.clone().unwrap_or_else(|| settings.cache.clone());
    let revision = options.revision.as_deref().unwrap_or("main");
    check_revision(revision)?;
    for name in std::iter::once(repo).chain(aliases.iter().copied()) {
        if let Some(files) = in_cache(&cache, name, revision)? {
            return Ok(files);
        }
    }
    if settings.offline {
        return Err(Error::Hub {
            repo: repo.into(),
            endpoint: settings.endpoint,
            problem: format!("not asked: HF_HUB_OFFLINE is set, and {} does not have the model", cache.display()),
            status: None,
            hint: "download it first (hf download), or unset HF_HUB_OFFLINE".into(),
            source: None,
        });
    }
    Download::new(repo, revision, &cache, &settings)?.run()
}

/// [`Error::Revision`] unless the text is safe in a path and in a URL: a revision becomes a part of both.
fn check_revision(revision: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let valid = !revision.is_empty()
        && revision.chars().all(allowed)
        && revision.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if valid { Ok(()) } else { Err(Error::Revision { found: revision.into() }) }
}

/// The model in the cache, if every file that it needs is there.
fn in_cache(cache: &Path, repo: &str, revision: &str) -> Result<Option<ModelFiles>> {
    let repo = Repo::new(repo.into(), RepoType::Model);
    let root = cache.join(repo.folder_name());
    // refs/ has a file per branch or tag, which holds the commit; snapshots/ has a folder per commit.
    let commit = match std::fs::read_to_string(root.join("refs").join(revision)) {
        Ok(commit) => commit.trim().to_owned(),
        Err(_) => revision.to_owned(),
    };
    if check_revision(&commit).is_err() {
        return Ok(None);
    }
    let snapshot = root.join("snapshots").join(commit);
    match ModelFiles::collect(|name| snapshot.join(name).is_file(), |name| Ok(snapshot.join(name))) {
        Ok(files) => Ok(Some(files)),
        Err(CollectError::Missing(_)) => Ok(None),
        Err(CollectError::Failed(error)) => Err(error),
    }
}

/// A download of one repository into the cache.
struct Download<'a> {
    repo: &'a str,
    endpoint: &'a str,
    api: ApiRepo,
}

impl<'a> Download<'a> {
    fn new(repo: &'a str, revision: &str, cache: &Path, settings: &'a Settings) -> Result<Self> {
        let api = ApiBuilder::from_cache(Cache::new(cache.into()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_progress(false)
            .build()
            .map_err(|error| hub_error(repo, &settings.endpoint, "starting", error))?;
        let remote = Repo::with_revision(repo.into(), RepoType::Model, revision.into());
        Ok(Self { repo, endpoint: &settings.endpoint, api: api.repo(remote) })
    }

    /// Downloads the files that the model consists of.
    fn run(&self) -> Result<ModelFiles> {
        const NO_MODEL: &str = "is it a model of transformers?";
        let info = self.api.info().map_err(|error| hub_error(self.repo, self.endpoint, "listing its files", error))?;
        let has = |name: &str| info.siblings.iter().any(|file| file.rfilename == name);
        ModelFiles::collect(has, |name| self.get(name)).map_err(|error| match error {
            CollectError::Failed(error) => error,
            CollectError::Missing(Missing::Safetensors) => files::only_pickle(Path::new(self.repo)),
            CollectError::Missing(Missing::Config) => self.missing(CONFIG, NO_MODEL),
            CollectError::Missing(Missing::Weights) => self.missing(WEIGHTS, NO_MODEL),
            CollectError::Missing(Missing::Shard(shard)) => self.missing(&shard, &format!("{INDEX} names it")),
        })
    }

    /// [`Error::Hub`] for a file that the repository lacks.
    fn missing(&self, file: &str, hint: &str) -> Error {
        Error::Hub {
            repo: self.repo.into(),
            endpoint: self.endpoint.into(),
            problem: format!("the repository has no {file}"),
            status: None,
            hint: hint.into(),
            source: None,
        }
    }

    /// Downloads a file into the cache, and returns its path there.
    fn get(&self, file: &str) -> Result<PathBuf> {
        self.api
            .download_with_progress(file, ProgressLines::default())
            .map_err(|error| hub_error(self.repo, self.endpoint, file, error))
    }
}

/// [`Error::Hub`] with a hint that depends on the HTTP status.
fn hub_error(repo: &str, endpoint: &str, problem: &str, error: ApiError) -> Error {
    let status = http_status(&error);
    let hint = match status {
        Some(401 | 403) => "check the name; a private or gated repository needs a token in HF_TOKEN",
        Some(404) => "check the name and the revision",
        Some(429) => "the Hub limits the number of requests: wait a few minutes, or set a token in HF_TOKEN",
        Some(500..=599) => "the server failed: try again later",
        _ => "check the network and HF_ENDPOINT, or give a folder that holds config.json and model.safetensors",
    };
    Error::Hub {
        repo: repo.into(),
        endpoint: endpoint.into(),
        problem: problem.into(),
        status,
        hint: hint.into(),
        source: Some(error.into()),
    }
}

/// The status of the Hub's answer, if it answered with an error.
fn http_status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(last) => http_status(last),
        _ => None,
    }
}

/// Progress as lines, because a notebook cannot redraw a progress bar: one at the start, one per tenth of a large file,
/// one at the end.
#[derive(Default)]
struct ProgressLines {
    name: String,
    size: usize,
    done: usize,
    /// Tenths of the file that were reported.
    tenths: usize,
    started: Option<Instant>,
}

/// Downloads of fewer bytes are reported only when they start and end.
const LARGE: usize = 10_000_000;

impl Progress for ProgressLines {
    fn init(&mut self, size: usize, name: &str) {
        // hf-hub calls this twice, and again for every retry.
        if self.started.is_none() {
            self.started = Some(Instant::now());
            println!("downloading {name}, {:.1} MB", size as f64 / 1e6);
        }
        (self.name, self.size, self.done, self.tenths) = (name.into(), size, 0, 0);
    }

    fn update(&mut self, size: usize) {
        self.done += size;
        let tenths = self.done * 10 / self.size.max(1);
        if self.size >= LARGE && tenths > self.tenths && tenths < 10 {
            self.tenths = tenths;
            println!("  {} {}0 %", self.name, tenths);
        }
    }

    fn finish(&mut self) {
        let seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        println!("  {} done in {seconds:.1} s", self.name);
    }
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
