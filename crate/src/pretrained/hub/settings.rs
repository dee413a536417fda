//! The environment variables of the Hugging Face Hub: cache folder, endpoint, token, offline mode, time-outs.
//!
//! Names and order of precedence are those of the Python library (`huggingface_hub.constants`), so that files
//! downloaded by either are found by both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::HeaderValue;

use crate::error::{Error, Result};

/// The environment variables. An empty one counts as unset.
pub(super) struct Environment<'a> {
    get: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Environment<'a> {
    /// `get` returns a variable by its name.
    pub(super) fn new(get: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { get }
    }

    fn set(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.set(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn is_true(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| is_true(&value))
    }

    /// A path, in which `~` is the user's home folder.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.set(name).map(|value| match Path::new(&value).strip_prefix("~") {
            Ok(rest) => self.user_home().join(rest),
            Err(_) => PathBuf::from(value),
        })
    }

    fn user_home(&self) -> PathBuf {
        self.set("HOME").or_else(|| self.set("USERPROFILE")).map(PathBuf::from).unwrap_or_default()
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// The settings of the Hub in the environment.
pub(super) struct Settings {
    /// The folder of the cache.
    pub(super) cache: PathBuf,
    /// The address of the Hub or a mirror, without a slash at its end.
    pub(super) endpoint: String,
    token: Option<String>,
    /// Whether only the cache is used.
    pub(super) offline: bool,
    /// Whether snapshots are links to blobs.
    pub(super) symlinks: bool,
}

impl Settings {
    pub(super) fn from_env(environment: &Environment) -> Self {
        let text = |name: &str| environment.text(name);
        let path = |name: &str| environment.path(name);
        let hf_home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME").unwrap_or_else(|| environment.user_home().join(".cache")).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty() && !environment.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Self {
            cache: cache.unwrap_or_else(|| hf_home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').into(),
            token,
            offline: text("HF_HUB_OFFLINE")
                .or_else(|| text("TRANSFORMERS_OFFLINE"))
                .is_some_and(|value| is_true(&value)),
            symlinks: !environment.is_true("HF_HUB_DISABLE_SYMLINKS"),
        }
    }

    /// # Errors
    /// [`Error::Environment`] for a token that cannot be sent. It does not show the token.
    pub(super) fn token(&self) -> Result<Option<Token>> {
        let Some(token) = &self.token else { return Ok(None) };
        let header = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| token.is_ascii());
        let mut header = header.ok_or_else(|| Error::Environment {
            variable: "HF_TOKEN",
            expected: "a token (hf_…) of visible ASCII characters, here or in the token file".into(),
            found: format!("{} characters with others among them", token.chars().count()),
        })?;
        header.set_sensitive(true);
        Ok(Some(Token(header)))
    }
}

/// The token as a header. Without `Debug`, so that it cannot get into a message.
pub(super) struct Token(HeaderValue);

impl Token {
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// How long a request may wait for its server.
pub(super) struct Timeouts {
    /// For lists and descriptions of files.
    pub(super) etag: Duration,
    /// For each part of a file.
    pub(super) download: Duration,
}

impl Timeouts {
    /// # Errors
    /// [`Error::Environment`] for a variable that is not a number of seconds.
    pub(super) fn from_env(environment: &Environment) -> Result<Self> {
        let seconds = |variable| {
            // Zero is the default in Python, too.
            let default = Duration::from_secs(10);
            let Some(text) = environment.text(variable) else { return Ok(default) };
            let seconds = text.trim().parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
            let seconds: f64 = seconds.ok_or_else(|| Error::Environment {
                variable,
                expected: "seconds, from 0 to 86400".into(),
                found: format!("{text:?}"),
            })?;
            Ok(if seconds == 0.0 { default } else { Duration::from_secs_f64(seconds) })
        };
        Ok(Self { etag: seconds("HF_HUB_ETAG_TIMEOUT")?, download: seconds("HF_HUB_DOWNLOAD_TIMEOUT")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::from_env(&Environment::new(&|name| get(variables, name)))
    }

    fn get(variables: &[(&str, &str)], name: &str) -> Option<OsString> {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    #[test]
    fn the_cache_folder_is_that_of_python() {
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
    fn the_token_is_read_from_the_variable_else_from_the_file() {
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
        assert!(!settings(&[("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
        assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_an_error_that_hides_it() {
        for token in ["se\ncret", "secret\u{e9}"] {
            let error = settings(&[("HF_TOKEN", token)]).token().err().unwrap().to_string();
            assert!(error.starts_with("HF_TOKEN: expected a token") && !error.contains("se"), "{error}");
        }
        assert_eq!(settings(&[("HF_TOKEN", "hf_x")]).token().unwrap().unwrap().header(), "Bearer hf_x");
    }

    #[test]
    fn timeouts_are_seconds() {
        let timeouts = |etag| {
            let variables = [("HF_HUB_ETAG_TIMEOUT", etag)];
            Timeouts::from_env(&Environment::new(&|name| get(&variables, name)))
                .map(|timeouts| timeouts.etag.as_secs_f64())
        };
        assert_eq!(timeouts("").unwrap(), 10.0);
        assert_eq!(timeouts("0").unwrap(), 10.0);
        assert_eq!(timeouts("30").unwrap(), 30.0);
        assert_eq!(timeouts("0.5").unwrap(), 0.5);
        for bad in ["-1", "ten", "inf", "NaN", "1e300"] {
            assert!(matches!(timeouts(bad), Err(Error::Environment { variable: "HF_HUB_ETAG_TIMEOUT", .. })), "{bad}");
        }
    }
}
