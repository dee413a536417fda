//! Downloads from a local server with the Hub's protocol: `/api/models/{repo}/revision/{revision}` lists the files,
//! `/{repo}/resolve/{revision}/{file}` describes one and returns it, or redirects to its storage.
//!
//! Environment variables belong to a process, so each test runs this binary again as a child process with its own: see
//! `in_child`.

mod bodies;
mod cache;
mod network;
mod patience;
mod server;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use attention_tokens::prelude::*;

use crate::support::fixture;
use server::{Answer, COMMIT, Files, Hub, tiny};

/// A command that loads a model in a child process that has only these of the Hub's variables.
fn child(name: &str, revision: Option<&str>, variables: &[(&str, &str)]) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["hub::the_child_process", "--exact", "--nocapture", "--include-ignored"]);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy().to_uppercase();
        let ours = ["HF_", "HUGGING", "TRANSFORMERS_", "XDG_", "SSL_CERT"].iter().any(|start| name.starts_with(start));
        if ours || name.ends_with("_PROXY") || name.ends_with("_CA_BUNDLE") {
            child.env_remove(&variable);
        }
    }
    child.env("ATTENTION_TOKENS_TEST_LOAD", name).env("ATTENTION_TOKENS_TEST_REVISION", revision.unwrap_or(""));
    child.envs(variables.iter().copied()).stdout(Stdio::piped());
    child
}

/// Loads a model in a child process. Returns its output: the progress lines, then `loaded` or the error.
fn in_child(name: &str, revision: Option<&str>, variables: &[(&str, &str)]) -> String {
    output(child(name, revision, variables).spawn().unwrap())
}

fn output(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("loaded d_model 48") || printed.contains("\nerror "), "a panic: {printed}");
    printed
}

/// Asserts that a text has all these parts.
#[track_caller]
fn assert_contains(printed: &str, parts: &[&str]) {
    for part in parts {
        assert!(printed.contains(part), "without {part:?}: {printed}");
    }
}

/// The child process of `in_child`; without the variable, it does nothing.
#[test]
fn the_child_process() {
    let Ok(name) = std::env::var("ATTENTION_TOKENS_TEST_LOAD") else { return };
    let options = match std::env::var("ATTENTION_TOKENS_TEST_REVISION").ok().filter(|revision| !revision.is_empty()) {
        Some(revision) => LoadOptions::default().revision(revision),
        None => LoadOptions::default(),
    };
    match Gpt2::from_pretrained(&name, options) {
        Ok(model) => {
            let (config, has_tokenizer) = (model.config(), model.tokenizer().is_ok());
            println!("loaded d_model {}, tokenizer {has_tokenizer}, bos {:?}", config.d_model, config.bos_token_id);
        }
        Err(error) => {
            println!("\nerror {error}");
            if let Error::Hub { status, .. } = error {
                println!("status {status:?}, source {:?}", std::error::Error::source(&error).map(ToString::to_string));
            }
        }
    }
}

/// Every path below a folder, with the target of a link or the size of a file.
fn listing(root: &Path) -> Vec<String> {
    fn visit(folder: &Path, root: &Path, lines: &mut Vec<String>) {
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                visit(&path, root, lines);
            } else if metadata.is_symlink() {
                lines.push(format!("{name} -> {}", fs::read_link(&path).unwrap().to_str().unwrap()));
            } else {
                lines.push(format!("{name} {} bytes", metadata.len()));
            }
        }
    }
    let mut lines = Vec::new();
    visit(root, root, &mut lines);
    lines
}

#[test]
fn a_download_is_cached_and_found_again() {
    let (hub, home) = (Hub::with(Files::whole()), tempfile::tempdir().unwrap());
    let variables = hub.variables(home.path());
    let printed = in_child("test/whole", None, &variables);
    assert_contains(&printed, &["loaded d_model 48, tokenizer true", "downloading model.safetensors, 0.3 MB"]);
    let root = home.path().join("hub/models--test--whole");
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let file = root.join("snapshots").join(COMMIT).join("model.safetensors");
    assert_eq!(fs::read(&file).unwrap(), tiny("model.safetensors"));

    let before = hub.requests().len();
    let offline = [&variables[..], &[("HF_HUB_OFFLINE", "1")]].concat();
    let files = listing(home.path());
    for revision in [None, Some(COMMIT)] {
        assert_contains(&in_child("test/whole", revision, &variables), &["loaded d_model 48, tokenizer true"]);
        assert_contains(&in_child("test/whole", revision, &offline), &["loaded d_model 48, tokenizer true"]);
    }
    assert_eq!(hub.requests().len(), before, "no request for a cached model");
    assert_eq!(listing(home.path()), files, "nothing is written for a cached model, so the cache can be read-only");
    assert_contains(&in_child("test/whole", Some("v2"), &offline), &["HF_HUB_OFFLINE is set"]);
    assert_contains(&in_child("test/whole", Some("v2"), &variables), &["loaded d_model 48"]);
    assert!(root.join("refs/v2").is_file());
    assert_eq!(hub.requests_for("GET", "model.safetensors").len(), 2, "the file and its redirect, once");
}

#[test]
fn shards_of_an_index_are_downloaded() {
    let index = br#"{"weight_map": {"wte.weight": "model-1.safetensors"}}"#;
    let files = vec![
        ("config.json", tiny("config.json")),
        ("model.safetensors.index.json", index.to_vec()),
        ("model-1.safetensors", tiny("model.safetensors")),
    ];
    let (hub, home) = (Hub::with(Files(files)), tempfile::tempdir().unwrap());
    let printed = in_child("test/sharded", None, &hub.variables(home.path()));
    assert_contains(&printed, &["downloading model-1.safetensors", "loaded"]);
}

#[test]
fn names_in_an_index_cannot_leave_the_folder() {
    for name in ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b", "..", ".hidden", "C:x", "a\nb", ""] {
        let index = serde_json::json!({ "weight_map": { "wte.weight": name } }).to_string();
        let config = ("config.json", tiny("config.json"));
        let hub = Hub::with(Files(vec![config, ("model.safetensors.index.json", index.into_bytes())]));
        let home = tempfile::tempdir().unwrap();
        let printed = in_child("test/sharded", None, &hub.variables(home.path()));
        assert_contains(
            &printed,
            &["error ", "index.json: expected a \"weight_map\" from tensor names to files of the"],
        );
    }
}

#[test]
fn errors_name_the_missing_repository_file_or_revision() {
    let home = tempfile::tempdir().unwrap();
    let nothing = Hub::start(|_, _| Answer::new(404, &[], b"Repository not found"));
    let printed = in_child("test/nothing", None, &nothing.variables(home.path()));
    assert_contains(&printed, &["error test/nothing at", "check the name and the revision"]);
    let hub = Hub::with(Files(vec![("config.json", tiny("config.json")), ("pytorch_model.bin", vec![])]));
    let printed = in_child("test/pickle", None, &hub.variables(home.path()));
    assert_contains(&printed, &["error test/pickle/pytorch_model.bin: expected model.safetensors"]);
    let printed = in_child("test/whole", Some("../../x"), &hub.variables(home.path()));
    assert_contains(&printed, &["error revision: expected a branch"]);
}

#[test]
fn the_hint_follows_the_http_status() {
    for (status, hint) in [
        (401, "a private or gated repository needs a token in HF_TOKEN"),
        (403, "a private or gated repository needs a token in HF_TOKEN"),
        (404, "check the name and the revision"),
        (418, "check the network and HF_ENDPOINT"),
        (429, "wait a few minutes, or set a token in HF_TOKEN"),
        (500, "the server failed: try again later"),
    ] {
        let (hub, home) = (Hub::start(move |_, _| Answer::new(status, &[], b"404")), tempfile::tempdir().unwrap());
        let mut variables = hub.variables(home.path());
        variables.extend([("HF_HUB_ETAG_TIMEOUT", "0.2"), ("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")]);
        let printed = in_child("test/whole", None, &variables);
        let source = format!("the server answered with status {status}");
        assert_contains(&printed, &[hint, &format!("status Some({status}), source Some({source:?})")]);
        assert_eq!(printed.lines().find(|line| line.starts_with("error")).unwrap().matches(&source).count(), 1);
        let requests = if matches!(status, 429 | 500) { 6 } else { 1 };
        assert_eq!(hub.requests().len(), requests, "{status}");
    }
}

#[test]
fn a_hub_that_cannot_be_reached_is_an_error() {
    // A port that was just free, so that no server listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let home = tempfile::tempdir().unwrap();
    let endpoint = format!("http://127.0.0.1:{port}");
    let home = home.path().to_str().unwrap();
    let variables = [("HF_HOME", home), ("HF_ENDPOINT", &endpoint), ("HF_HUB_ETAG_TIMEOUT", "1")];
    let printed = in_child("gpt2", None, &variables);
    assert_contains(
        &printed,
        &[
            &format!("error openai-community/gpt2 at {endpoint}: listing its files: io: "),
            "check the network and HF_ENDPOINT, or give a folder",
            "trying again in 0.1 s (1 of 2)",
        ],
    );
}

/// Writes a model into a cache as the Python library does: blobs, a snapshot of links to them, a reference to the
/// commit.
fn write_to_cache(cache: &Path, folder: &str) {
    let root = cache.join(folder);
    let snapshot = root.join("snapshots").join(COMMIT);
    for folder in [&root.join("blobs"), &root.join("refs"), &snapshot] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(root.join("refs/main"), COMMIT).unwrap();
    for name in ["config.json", "model.safetensors"] {
        let blob = root.join("blobs").join(format!("blob-of-{name}"));
        fs::copy(fixture("tiny").join(name), &blob).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../blobs/blob-of-{name}"), snapshot.join(name)).unwrap();
        #[cfg(not(unix))]
        fs::copy(blob, snapshot.join(name)).unwrap();
    }
}

#[test]
fn old_and_new_names_of_gpt2_share_the_cache() {
    for folder in ["models--gpt2", "models--openai-community--gpt2"] {
        let cache = tempfile::tempdir().unwrap();
        write_to_cache(cache.path(), folder);
        let variables = [("HF_HUB_CACHE", cache.path().to_str().unwrap()), ("HF_HUB_OFFLINE", "yes")];
        for name in ["gpt2", "gpt2-small", "openai-community/gpt2"] {
            let printed = in_child(name, None, &variables);
            assert!(printed.contains("loaded d_model 48"), "{name} in {folder}: {printed}");
        }
        assert_contains(&in_child("gpt2-medium", None, &variables), &["error openai-community/gpt2-medium"]);
    }
    // A snapshot without the weights is not a model.
    let (hub, home) = (Hub::with(Files::whole()), tempfile::tempdir().unwrap());
    let cache = home.path().join("hub");
    write_to_cache(&cache, "models--gpt2");
    fs::remove_file(cache.join("models--gpt2/snapshots").join(COMMIT).join("model.safetensors")).unwrap();
    assert_contains(&in_child("gpt2", None, &hub.variables(home.path())), &["downloading model.safetensors"]);
}
