//! The environment variables of the Hugging Face Hub: cache folder, endpoint, token, offline mode.
//!
//! Names and order of precedence are those of the Python library (`huggingface_hub.constants`), so that files
//! downloaded by either are found by both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The settings of the Hub in the environment.
pub(super) struct Settings {
    /// The folder of the cache.
    pub(super) cache: PathBuf,
    /// The address of the Hub or a mirror, without a slash at its end.
    pub(super) endpoint: String,
    pub(super) token: Option<String>,
    /// Whether only the cache is used.
    pub(super) offline: bool,
}

impl Settings {
    /// Reads the environment variables that `get` returns by name; an empty one counts as unset.
    pub(super) fn from_env(get: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let truthy = |name: &str| {
            text(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let user_home = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from).unwrap_or_default();
        let path = |value: OsString| match Path::new(&value).strip_prefix("~") {
            Ok(rest) => user_home.join(rest),
            Err(_) => PathBuf::from(value),
        };
        let hf_home = set("HF_HOME").map(path).unwrap_or_else(|| {
            set("XDG_CACHE_HOME").map(path).unwrap_or_else(|| user_home.join(".cache")).join("huggingface")
        });
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).map(path);
        let token_file = set("HF_TOKEN_PATH").map(path).unwrap_or_else(|| hf_home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty() && !truthy("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Self {
            cache: cache.unwrap_or_else(|| hf_home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').into(),
            token,
            offline: truthy("HF_HUB_OFFLINE") || truthy("TRANSFORMERS_OFFLINE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::from_env(&|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
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
        assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
        assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    }
}
