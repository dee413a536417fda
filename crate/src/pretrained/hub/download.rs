//! Downloads of a repository's files into the cache.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cache::RepoCache;
use super::client::Client;
use super::failure::{Failure, quoted};
use super::metadata::{COMMIT, is_commit};
use super::retry::Retries;
use super::settings::{Environment, Settings};
use super::transfer::Transfer;
use super::url::{Url, encode, without_password};
use crate::error::{Error, Result};
use crate::pretrained::files::{self, CONFIG, CollectError, INDEX, Missing, ModelFiles, WEIGHTS};
use crate::pretrained::other_weights;
use crate::tokenizer::TokenizerFiles;

/// The largest list of files, in bytes; a repository of 100,000 files has about 6 MB.
const MAX_LISTING: u64 = 32_000_000;

/// The expected commit of an answer, for messages.
const REQUESTED: &str = "the commit that was requested";

/// A download of one repository into the cache.
pub(super) struct Download<'a> {
    repo: &'a str,
    revision: &'a str,
    cache: &'a RepoCache,
    endpoint: &'a str,
    client: Client,
    retry: bool,
}

/// The files of a commit.
#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "sha")]
    commit: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Listing {
    fn has(&self, name: &str) -> bool {
        self.names().any(|other| other == name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.siblings.iter().map(|file| file.rfilename.as_str())
    }
}

impl<'a> Download<'a> {
    /// # Errors
    /// [`Error::Environment`] for an invalid setting.
    pub(super) fn new(
        repo: &'a str,
        revision: &'a str,
        cache: &'a RepoCache,
        settings: &'a Settings,
        environment: &Environment,
    ) -> Result<Self> {
        let endpoint = Url::parse(&settings.endpoint).ok_or_else(|| Error::Environment {
            variable: "HF_ENDPOINT",
            expected: "the address of a Hub, such as https://huggingface.co".into(),
            found: without_password(&settings.endpoint),
        })?;
        let token = settings.token()?;
        let client = Client::new(endpoint, token, environment)?;
        Ok(Self { repo, revision, cache, endpoint: &settings.endpoint, client, retry: true })
    }

    /// Reports the first failure, for what a model can do without.
    pub(super) fn once(mut self) -> Self {
        self.retry = false;
        self
    }

    /// Downloads the files that the model consists of.
    pub(super) fn model(&self) -> Result<ModelFiles> {
        const NO_MODEL: &str = "is it a model of transformers?";
        let listing = self.listing()?;
        let get = |name: &str| self.file(&listing, name);
        let files = ModelFiles::collect(|name| listing.has(name), get).map_err(|error| match error {
            CollectError::Failed(error) => error,
            CollectError::Missing(missing @ (Missing::Config | Missing::Weights)) => {
                let has_weights = listing.has(WEIGHTS) || listing.has(INDEX);
                let other = other_weights::find(listing.names()).filter(|_| !has_weights);
                match other.map(|other| other.beside_missing(&missing, Path::new(self.repo))) {
                    Some(Err(error)) => error,
                    Some(Ok(found)) => self.missing(CONFIG, &format!("it has {found}")),
                    None if missing == Missing::Config => self.missing(CONFIG, NO_MODEL),
                    None => self.missing(WEIGHTS, NO_MODEL),
                }
            }
            CollectError::Missing(Missing::Shard(shard)) => self.missing(&shard, &format!("{INDEX} names it")),
        })?;
        self.remember_absences(&listing);
        // At the end: an interrupted update must not hide the complete snapshot of an older commit.
        self.cache.set_ref(self.revision, &listing.commit)?;
        Ok(files)
    }

    /// Downloads the files of the tokenizer, if there is one.
    pub(super) fn tokenizer(&self) -> Result<Option<TokenizerFiles>> {
        let listing = self.listing()?;
        let tokenizer = files::tokenizer_files(&|name| listing.has(name), &|name| self.file(&listing, name))?;
        self.remember_absences(&listing);
        Ok(tokenizer)
    }

    fn remember_absences(&self, listing: &Listing) {
        let absent = files::TOKENIZER_FILES.iter().filter(|name| !listing.has(name));
        absent.for_each(|name| self.cache.remember_absence(&listing.commit, name));
    }

    /// [`Error::Hub`] for a file that the repository lacks.
    fn missing(&self, file: &str, hint: &str) -> Error {
        Error::Hub {
            repo: self.repo.into(),
            endpoint: self.client.endpoint().to_string(),
            problem: format!("the repository has no {file}"),
            status: None,
            hint: hint.into(),
            source: None,
        }
    }

    /// The commit of the revision, and the names of its files.
    fn listing(&self) -> Result<Listing> {
        let path = format!("api/models/{}/revision/{}", self.repo, encode(self.revision));
        self.retries().run(|| self.read_listing(&path)).map_err(|failure| self.error("listing its files", failure))
    }

    fn read_listing(&self, path: &str) -> Result<Listing, Failure> {
        let text = self.client.text(&self.url(path)?, MAX_LISTING)?;
        let listing: Listing = serde_json::from_slice(&text).map_err(|error| Failure::Listing {
            found: if text.trim_ascii_start().starts_with(b"<") { "a web page".into() } else { error.to_string() },
        })?;
        let found = || quoted(listing.commit.as_bytes());
        if !is_commit(&listing.commit) {
            return Err(Failure::Header { name: "sha", expected: COMMIT, found: found() });
        }
        if is_commit(self.revision) && listing.commit != self.revision {
            return Err(Failure::Header { name: "sha", expected: REQUESTED, found: found() });
        }
        Ok(listing)
    }

    /// The path of a file in the cache, after downloading it if necessary.
    fn file(&self, listing: &Listing, name: &str) -> Result<PathBuf> {
        let pointer = self.cache.pointer(&listing.commit, name);
        if pointer.is_file() {
            return Ok(pointer);
        }
        self.fetch(&listing.commit, name).map_err(|failure| self.error(&format!("downloading {name}"), failure))
    }

    fn fetch(&self, commit: &str, name: &str) -> Result<PathBuf, Failure> {
        // Addressed by the commit, so that all files are of one commit.
        let url = self.url(&format!("{}/resolve/{commit}/{}", self.repo, encode(name)))?;
        let metadata = self.retries().run(|| self.client.metadata(&url))?;
        if metadata.commit != commit {
            let found = quoted(metadata.commit.as_bytes());
            return Err(Failure::Header { name: "x-repo-commit", expected: REQUESTED, found });
        }
        let limit = files::max_bytes(name);
        if let Some(size) = metadata.size.filter(|&size| size > limit) {
            return Err(Failure::TooLarge { limit, found: size.to_string() });
        }
        let etag = &metadata.etag;
        let lock = self.cache.lock(etag, name)?;
        let pointer = self.cache.pointer(commit, name);
        if pointer.is_file() {
            return Ok(pointer); // Another process has downloaded it.
        }
        let blob = self.cache.blob(etag);
        let has_blob =
            blob.metadata().is_ok_and(|blob| blob.is_file() && metadata.size.is_none_or(|size| size == blob.len()));
        if !has_blob {
            // Without a lock, processes that download the same file at the same time write different files.
            let partial = match lock {
                Some(_) => format!("{etag}.incomplete"),
                None => format!("{etag}.{:016x}.incomplete", RandomState::new().build_hasher().finish()),
            };
            let (client, retry) = (&self.client, self.retry);
            let transfer = Transfer { client, url: &url, name, metadata: &metadata, limit, retry };
            transfer.run(&blob.with_file_name(partial), &blob)?;
        }
        Ok(self.cache.link(etag, commit, name, !has_blob)?)
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        let invalid = || Failure::Http(ureq::Error::BadUri("the address of a file".into()));
        Url::parse(&format!("{}/{path}", self.endpoint)).ok_or_else(invalid)
    }

    fn retries(&self) -> Retries {
        Retries::new(self.client.timeouts.etag, self.retry)
    }

    fn error(&self, problem: &str, failure: Failure) -> Error {
        failure.into_error(self.repo, &self.client.endpoint().to_string(), problem)
    }
}
