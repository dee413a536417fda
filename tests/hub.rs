//! Downloads from a local server with the Hub's protocol: `/api/models/{repo}/revision/{revision}` lists the files,
//! `/{repo}/resolve/{revision}/{file}` returns one, with `x-repo-commit`, an etag, and byte ranges.
//!
//! Environment variables belong to a process, so each test runs this binary again as a child process with its own: see
//! `in_child`.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use attention_tokens::prelude::*;
use tiny_http::{Header, Response, Server, StatusCode};

use crate::support::fixture;

const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";

/// Path and authorization of a request.
type Request = (String, Option<String>);

struct Hub {
    endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    /// The variables for this hub and a Hugging Face folder of the test.
    fn with_home<'a>(&'a self, home: &'a Path) -> [(&'static str, &'a str); 2] {
        [("HF_HOME", home.to_str().unwrap()), ("HF_ENDPOINT", &self.endpoint)]
    }
}

/// Serves the repositories `test/whole`, `test/sharded`, `test/pickle`, `test/private` and `openai-community/gpt2`;
/// `test/404-answers-STATUS` answers with that status.
fn serve() -> Hub {
    let server = Server::http("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", server.server_addr());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            let header = |name: &'static str| {
                let found = request.headers().iter().find(|header| header.field.equiv(name));
                found.map(|header| header.value.as_str().to_owned())
            };
            let (url, token, range) = (request.url().to_owned(), header("Authorization"), header("Range"));
            seen.lock().unwrap().push((url.clone(), token.clone()));
            let (status, body, extra) = answer(&url, token.as_deref(), range.as_deref());
            let extra = extra.into_iter().map(|(name, value)| Header::from_bytes(name, value).unwrap()).collect();
            let len = body.len();
            drop(request.respond(Response::new(StatusCode(status), extra, Cursor::new(body), Some(len), None)));
        }
    });
    Hub { endpoint, requests }
}

type Answer = (u16, Vec<u8>, Vec<(&'static str, String)>);

fn answer(url: &str, token: Option<&str>, range: Option<&str>) -> Answer {
    let not_found = (404, b"Entry not found".to_vec(), vec![]);
    if let Some((_, status)) = url.split_once("test/404-answers-") {
        return (status[..3].parse().unwrap(), b"401, 403 or 404".to_vec(), vec![]);
    }
    if url.contains("test/private") && token != Some("Bearer secret") {
        return (401, b"Invalid credentials".to_vec(), vec![]);
    }
    let tiny = |name: &str| fs::read(fixture("tiny").join(name)).unwrap();
    let files: Vec<(&str, Vec<u8>)> = match url {
        _ if url.contains("test/pickle") => vec![("config.json", tiny("config.json")), ("pytorch_model.bin", vec![])],
        _ if url.contains("test/sharded") => vec![
            ("config.json", tiny("config.json")),
            ("model.safetensors.index.json", br#"{"weight_map": {"wte.weight": "model-1.safetensors"}}"#.to_vec()),
            ("model-1.safetensors", tiny("model.safetensors")),
        ],
        _ if ["test/whole", "test/private", "openai-community/gpt2"].iter().any(|repo| url.contains(repo)) => {
            vec![("config.json", tiny("config.json")), ("model.safetensors", tiny("model.safetensors"))]
        }
        _ => return not_found,
    };
    if url.starts_with("/api/models/") && (url.ends_with("/revision/main") || url.ends_with("/revision/v2")) {
        let siblings: Vec<_> = files.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
        let info = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
        return (200, info.to_string().into_bytes(), vec![("Content-Type", "application/json".into())]);
    }
    let Some((_, file)) = url.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/')) else {
        return not_found;
    };
    let Some((name, content)) = files.into_iter().find(|(name, _)| *name == file) else { return not_found };
    let total = content.len();
    let (start, end) = match range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
        Some((start, end)) => {
            let start: usize = start.parse().unwrap();
            (start, end.parse().map_or(total, |end: usize| (end + 1).min(total)))
        }
        None => (0, total),
    };
    let headers = vec![
        ("x-repo-commit", COMMIT.into()),
        ("ETag", format!("\"etag-of-{name}\"")),
        ("Content-Range", format!("bytes {start}-{}/{total}", end.saturating_sub(1))),
    ];
    (206, content[start..end].to_vec(), headers)
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

/// Loads a model in a child process that has only these of the Hub's variables. Returns its output: the progress lines,
/// then `loaded` or the error.
fn in_child(name: &str, revision: Option<&str>, variables: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["hub::the_child_process", "--exact", "--nocapture", "--include-ignored"]);
    for variable in ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH"] {
        child.env_remove(variable);
    }
    child.env_remove("HF_HUB_OFFLINE").env_remove("XDG_CACHE_HOME").env("ATTENTION_TOKENS_TEST_LOAD", name);
    for proxy in ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
        child.env_remove(proxy);
    }
    child.env("ATTENTION_TOKENS_TEST_REVISION", revision.unwrap_or("")).envs(variables.iter().copied());
    String::from_utf8(child.output().unwrap().stdout).unwrap()
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
        Ok(model) => println!("loaded d_model {}", model.config().d_model),
        Err(error) => {
            println!("error {error}");
            if let Error::Hub { status, .. } = error {
                println!("status {status:?}, source {:?}", std::error::Error::source(&error).map(ToString::to_string));
            }
        }
    }
}

#[test]
fn a_download_is_cached_as_in_python_and_found_again() {
    let (hub, home) = (serve(), tempfile::tempdir().unwrap());
    let variables = hub.with_home(home.path());
    let printed = in_child("test/whole", None, &variables);
    assert!(printed.contains("loaded d_model 48"), "{printed}");
    assert!(printed.contains("downloading model.safetensors, 0.3 MB"), "{printed}");
    let root = home.path().join("hub/models--test--whole");
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let file = root.join("snapshots").join(COMMIT).join("model.safetensors");
    assert_eq!(fs::read(&file).unwrap(), fs::read(fixture("tiny").join("model.safetensors")).unwrap());
    assert!(file.canonicalize().unwrap().starts_with(root.join("blobs").canonicalize().unwrap()) || cfg!(windows));

    let before = hub.requests.lock().unwrap().len();
    let offline = [variables[0], variables[1], ("HF_HUB_OFFLINE", "1")];
    assert!(in_child("test/whole", None, &offline).contains("loaded d_model 48"));
    assert!(in_child("test/whole", Some(COMMIT), &offline).contains("loaded d_model 48"), "by its commit");
    assert_eq!(hub.requests.lock().unwrap().len(), before, "no request for a cached model");
    let printed = in_child("test/whole", Some("v2"), &offline);
    assert!(printed.contains("HF_HUB_OFFLINE is set"), "{printed}");
    assert!(in_child("test/whole", Some("v2"), &variables).contains("loaded d_model 48"));
    assert!(root.join("refs/v2").is_file());
}

#[test]
fn shards_of_an_index_are_downloaded() {
    let (hub, home) = (serve(), tempfile::tempdir().unwrap());
    let variables = hub.with_home(home.path());
    let printed = in_child("test/sharded", None, &variables);
    assert!(printed.contains("downloading model-1.safetensors") && printed.contains("loaded"), "{printed}");
}

#[test]
fn the_token_is_sent_if_one_is_set() {
    let (hub, home) = (serve(), tempfile::tempdir().unwrap());
    let variables = hub.with_home(home.path());
    let printed = in_child("test/private", None, &variables);
    assert!(printed.contains("error test/private at http://127.0.0.1") && printed.contains("HF_TOKEN"), "{printed}");
    fs::write(home.path().join("token"), "secret\n").unwrap();
    assert!(in_child("test/private", None, &variables).contains("loaded"), "from the token file");
    assert!(hub.requests.lock().unwrap().iter().any(|(_, token)| token.as_deref() == Some("Bearer secret")));
}

#[test]
fn errors_name_the_missing_repository_file_or_revision() {
    let (hub, home) = (serve(), tempfile::tempdir().unwrap());
    let variables = hub.with_home(home.path());
    let printed = in_child("test/nothing", None, &variables);
    assert!(
        printed.contains("error test/nothing at") && printed.contains("check the name and the revision"),
        "{printed}"
    );
    let printed = in_child("test/pickle", None, &variables);
    assert!(printed.contains("error test/pickle/pytorch_model.bin: expected model.safetensors"), "{printed}");
    let printed = in_child("test/whole", Some("../../x"), &variables);
    assert!(printed.contains("error revision: expected a branch"), "{printed}");
}

/// The number in the repository's name and those in the body of the answer do not matter.
#[test]
fn the_hint_follows_the_http_status() {
    let (hub, home) = (serve(), tempfile::tempdir().unwrap());
    let variables = hub.with_home(home.path());
    for (status, hint) in [
        (401, "a private or gated repository needs a token in HF_TOKEN"),
        (403, "a private or gated repository needs a token in HF_TOKEN"),
        (404, "check the name and the revision"),
        (429, "wait a few minutes, or set a token in HF_TOKEN"),
        (500, "the server failed: try again later"),
        (418, "check the network and HF_ENDPOINT"),
    ] {
        let printed = in_child(&format!("test/404-answers-{status}"), None, &variables);
        assert!(printed.contains(hint), "{printed}");
        let source = format!("request error: http status: {status}");
        assert!(printed.contains(&format!("status Some({status}), source Some({source:?})")), "{printed}");
        assert_eq!(printed.lines().find(|line| line.starts_with("error")).unwrap().matches(&source).count(), 1);
    }
}

#[test]
fn a_hub_that_cannot_be_reached_is_an_error() {
    // A port that was just free, so that no server listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let home = tempfile::tempdir().unwrap();
    let endpoint = format!("http://127.0.0.1:{port}");
    let variables = [("HF_HOME", home.path().to_str().unwrap()), ("HF_ENDPOINT", endpoint.as_str())];
    let printed = in_child("gpt2", None, &variables);
    assert!(printed.contains(&format!("error openai-community/gpt2 at {endpoint}: listing its files")), "{printed}");
    assert!(printed.contains("check the network and HF_ENDPOINT, or give a folder"), "{printed}");
    assert!(printed.contains("status None, source Some(\"request error: "), "{printed}");
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
        assert!(in_child("gpt2-medium", None, &variables).contains("error openai-community/gpt2-medium"));
    }
    // A snapshot without the weights is not a model.
    let cache = tempfile::tempdir().unwrap();
    write_to_cache(cache.path(), "models--gpt2");
    fs::remove_file(cache.path().join("models--gpt2/snapshots").join(COMMIT).join("model.safetensors")).unwrap();
    let hub = serve();
    let variables = [("HF_HUB_CACHE", cache.path().to_str().unwrap()), ("HF_ENDPOINT", hub.endpoint.as_str())];
    assert!(in_child("gpt2", None, &variables).contains("downloading model.safetensors"));
}
