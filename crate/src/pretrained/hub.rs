//! The Hugging Face cache, and downloads into it.
//!
//! Where the cache lies, the endpoint, the token and offline mode follow the Python library's environment variables
//! and their order (`huggingface_hub.constants`), so that files downloaded by either are found by both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::checkpoint;
use super::{CONFIG, INDEX, LoadOptions, ModelFiles, PICKLE, WEIGHTS, only_pickle};
use crate::error::{Error, Result};

const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "vocab.json", "merges.txt"];

/// The files of a repository on the Hub: from the cache if all are there, else downloaded.
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

/// What the environment says.
struct Settings {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    offline: bool,
}

impl Settings {
    fn from_env(get: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let truthy = |name: &str| {
            text(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let user = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from).unwrap_or_default();
        let path = |value: OsString| match Path::new(&value).strip_prefix("~") {
            Ok(rest) => user.join(rest),
            Err(_) => PathBuf::from(value),
        };
        let home = set("HF_HOME").map(path).unwrap_or_else(|| {
            set("XDG_CACHE_HOME").map(path).unwrap_or_else(|| user.join(".cache")).join("huggingface")
        });
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).map(path);
        let token_file = set("HF_TOKEN_PATH").map(path).unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty() && !truthy("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Self {
            cache: cache.unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').into(),
            token,
            offline: truthy("HF_HUB_OFFLINE") || truthy("TRANSFORMERS_OFFLINE"),
        }
    }
}

/// A revision becomes a part of a path and of an address.
fn check_revision(revision: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let fine = !revision.is_empty()
        && revision.chars().all(allowed)
        && revision.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    match fine {
        true => Ok(()),
        false => Err(Error::Revision { found: revision.into() }),
    }
}

/// The model in the cache, if everything that it needs is there.
fn in_cache(cache: &Path, repo: &str, revision: &str) -> Result<Option<ModelFiles>> {
    let repo = Repo::new(repo.into(), RepoType::Model);
    let root = cache.join(repo.folder_name());
    // A branch or tag is a file that names the commit; a commit is a snapshot of that name.
    let commit = match std::fs::read_to_string(root.join("refs").join(revision)) {
        Ok(commit) => commit.trim().to_owned(),
        Err(_) => revision.to_owned(),
    };
    if check_revision(&commit).is_err() {
        return Ok(None);
    }
    let snapshot = root.join("snapshots").join(commit);
    let there = |name: &str| Some(snapshot.join(name)).filter(|path| path.is_file());
    let Some(config) = there(CONFIG) else { return Ok(None) };
    let weights = match (there(WEIGHTS), there(INDEX)) {
        (Some(whole), _) => Some(vec![whole]),
        (None, Some(index)) => checkpoint::shards_of_index(&index)?.iter().map(|shard| there(shard)).collect(),
        (None, None) => None,
    };
    Ok(weights.map(|weights| ModelFiles { config, weights, folder: snapshot }))
}

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
            .map_err(|error| failed(repo, &settings.endpoint, "starting", error))?;
        let remote = Repo::with_revision(repo.into(), RepoType::Model, revision.into());
        Ok(Self { repo, endpoint: &settings.endpoint, api: api.repo(remote) })
    }

    fn run(&self) -> Result<ModelFiles> {
        let info = self.api.info().map_err(|error| failed(self.repo, self.endpoint, "listing its files", error))?;
        let has = |name: &str| info.siblings.iter().any(|file| file.rfilename == name);
        let missing = |name: &str, hint: &str| Error::Hub {
            repo: self.repo.into(),
            endpoint: self.endpoint.into(),
            problem: format!("the repository has no {name}"),
            status: None,
            hint: hint.into(),
            source: None,
        };
        if !has(CONFIG) {
            return Err(missing(CONFIG, "is it a model of transformers?"));
        }
        if !has(WEIGHTS) && !has(INDEX) {
            return Err(match has(PICKLE) {
                true => only_pickle(&Path::new(self.repo).join(PICKLE)),
                false => missing(WEIGHTS, "is it a model of transformers?"),
            });
        }
        let config = self.get(CONFIG)?;
        for name in TOKENIZER_FILES.into_iter().filter(|name| has(name)) {
            self.get(name)?;
            if name == "tokenizer.json" {
                break;
            }
        }
        let weights = if has(WEIGHTS) {
            vec![self.get(WEIGHTS)?]
        } else {
            let shards = checkpoint::shards_of_index(&self.get(INDEX)?)?;
            shards.iter().map(|shard| self.get(shard)).collect::<Result<_>>()?
        };
        let folder = config.parent().map(Path::to_owned).unwrap_or_default();
        Ok(ModelFiles { config, weights, folder })
    }

    fn get(&self, file: &str) -> Result<PathBuf> {
        self.api
            .download_with_progress(file, ProgressLines::default())
            .map_err(|error| failed(self.repo, self.endpoint, file, error))
    }
}

fn failed(repo: &str, endpoint: &str, problem: &str, error: ApiError) -> Error {
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

/// A line at the start, every tenth of a large file, and at the end: a notebook shows lines, not progress bars.
#[derive(Default)]
struct ProgressLines {
    name: String,
    size: usize,
    done: usize,
    tenths: usize,
    started: Option<Instant>,
}

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

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::from_env(&|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_cache_lies_where_python_has_it() {
        let cache = |variables: &[(&str, &str)]| {
            let all: Vec<_> = [("HOME", "/h")].iter().chain(variables).copied().collect();
            settings(&all).cache.to_string_lossy().replace('\\', "/")
        };
        assert_eq!(cache(&[]), "/h/.cache/huggingface/hub");
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")]), "/f/hub");
        assert_eq!(cache(&[("HF_HOME", "~/f")]), "/h/f/hub");
        assert_eq!(cache(&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/old")]), "/old");
        let both = [("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/c")];
        assert_eq!(cache(&both), "/c");
        assert_eq!(cache(&[("HF_HUB_CACHE", "")]), "/h/.cache/huggingface/hub");
    }

    #[test]
    fn the_token_comes_from_the_variable_then_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token, None);
        std::fs::write(folder.path().join("token"), "of the file\n").unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token.as_deref(), Some("of the file"));
        let other = folder.path().join("other");
        std::fs::write(&other, " of the other\n").unwrap();
        let path = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(settings(&[("HF_HOME", home), path]).token.as_deref(), Some("of the other"));
        assert_eq!(settings(&[("HF_TOKEN", "mine\n"), path]).token.as_deref(), Some("mine"));
        assert_eq!(settings(&[("HF_TOKEN", "mine"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
    }

    #[test]
    fn offline_and_endpoint_are_read_as_in_python() {
        for (value, offline) in [("1", true), ("on", true), ("Yes", true), ("TRUE", true), ("0", false), ("", false)] {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value:?}");
        }
        assert!(settings(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
        assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    }

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
