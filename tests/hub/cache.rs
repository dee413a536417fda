//! The cache: its layout is Python's, processes exclude each other, and damaged or missing files are named.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::server::{Answer, COMMIT, Files, Hub, MERGES, VOCAB, sha256, tiny};
use super::{assert_contains, child, in_child, listing, output, write_to_cache};
use crate::support::root;

const WEIGHTS: &str = "model.safetensors";

fn snapshot(home: &Path) -> PathBuf {
    home.join("hub/models--test--whole/snapshots").join(COMMIT)
}

fn blob(home: &Path, content: &[u8]) -> PathBuf {
    home.join("hub/models--test--whole/blobs").join(sha256(content))
}

/// `layout.txt` is written by `both_ways.py`, from a cache into which Python's `huggingface_hub` has downloaded the same
/// files from a server with the same answers.
#[cfg(unix)]
#[test]
fn the_layout_is_pythons() {
    let (hub, home) = (Hub::with(Files::whole()), tempfile::tempdir().unwrap());
    assert_contains(&in_child("test/whole", None, &hub.variables(home.path())), &["loaded"]);
    let cache = home.path().join("hub");
    let mut found: Vec<String> = listing(&cache).into_iter().filter(|line| !line.starts_with("CACHEDIR.TAG")).collect();
    found.push(format!("refs/main = {}", fs::read_to_string(cache.join("models--test--whole/refs/main")).unwrap()));
    let expected = fs::read_to_string(root().join("tests/fixtures/hub/layout.txt")).unwrap();
    assert_eq!(found.join("\n"), expected.trim_end());
    assert!(fs::read(cache.join("CACHEDIR.TAG")).unwrap().starts_with(b"Signature: 8a477f597d28d172789f06886806bc55"));
}

/// Where links are impossible, snapshots hold the files, and no blob is left.
#[test]
fn without_links_snapshots_hold_the_files() {
    let (hub, home) = (Hub::with(Files::whole()), tempfile::tempdir().unwrap());
    let variables = [&hub.variables(home.path())[..], &[("HF_HUB_DISABLE_SYMLINKS", "1")]].concat();
    assert_contains(&in_child("test/whole", None, &variables), &["loaded d_model 48, tokenizer true"]);
    assert!(snapshot(home.path()).join(WEIGHTS).symlink_metadata().unwrap().is_file());
    assert!(!blob(home.path(), &tiny(WEIGHTS)).exists());
    let before = hub.requests().len();
    assert_contains(&in_child("test/whole", None, &variables), &["loaded d_model 48, tokenizer true"]);
    assert_eq!(hub.requests().len(), before);
}

/// The lock is taken by this process as Python's `filelock` takes it, then by a child.
#[test]
fn processes_wait_for_each_other() {
    let hub = Hub::changed(Files::whole(), |request, _, answer| {
        let slow = request.path.starts_with("/storage/");
        if slow { Answer { stall: Duration::from_millis(500), ..answer } } else { answer }
    });
    let home = tempfile::tempdir().unwrap();
    let locks = home.path().join("hub/.locks/models--test--whole");
    fs::create_dir_all(&locks).unwrap();
    let path = locks.join(format!("{}.lock", sha256(&tiny(WEIGHTS))));
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    let variables = hub.variables(home.path());
    let children = [0, 1].map(|_| child("test/whole", None, &variables).spawn().unwrap());
    let started = Instant::now();
    while hub.requests_for("HEAD", WEIGHTS).len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(hub.requests_for("GET", WEIGHTS).len(), 0, "a child does not respect the lock");
    drop(lock);
    for child in children {
        let waiting = format!("waiting: another process downloads {WEIGHTS} and holds the lock {}", path.display());
        assert_contains(&output(child), &["loaded d_model 48, tokenizer true", &waiting]);
    }
    assert_eq!(hub.requests_for("GET", WEIGHTS).len(), 2, "the file and its redirect, once");
}

#[test]
fn a_missing_tokenizer_is_fetched_and_its_absence_remembered() {
    for files in [Files::whole(), Files::without_tokenizer()] {
        let has_tokenizer = files.0.len() > 2;
        let (hub, home) = (Hub::with(files), tempfile::tempdir().unwrap());
        write_to_cache(&home.path().join("hub"), "models--test--whole");
        let variables = hub.variables(home.path());
        let offline = [&variables[..], &[("HF_HUB_OFFLINE", "1")]].concat();
        assert_contains(&in_child("test/whole", None, &offline), &["loaded d_model 48, tokenizer false"]);
        let loaded = format!("loaded d_model 48, tokenizer {has_tokenizer}");
        assert_contains(&in_child("test/whole", None, &variables), &[&loaded]);
        assert_eq!(hub.requests_for("GET", WEIGHTS).len(), 0);
        let before = hub.requests().len();
        assert_contains(&in_child("test/whole", None, &variables), &[&loaded]);
        assert_eq!(hub.requests().len(), before, "the answer is remembered");
        let absent = home.path().join("hub/models--test--whole/.no_exist").join(COMMIT);
        assert!(absent.join("tokenizer.json").is_file());
        assert_eq!(absent.join("vocab.json").is_file(), !has_tokenizer);
    }
}

/// Half a tokenizer in the cache is completed; a Hub that fails leaves the model usable with token ids.
#[test]
fn a_tokenizer_that_cannot_be_fetched_does_not_stop_the_model() {
    let (hub, home) = (Hub::start(|_, _| Answer::new(500, &[], b"")), tempfile::tempdir().unwrap());
    write_to_cache(&home.path().join("hub"), "models--test--whole");
    fs::write(snapshot(home.path()).join("vocab.json"), VOCAB).unwrap();
    let printed = in_child("test/whole", None, &hub.variables(home.path()));
    let line = "test/whole: the cache has no tokenizer, and it cannot be downloaded: test/whole at http";
    assert_contains(&printed, &[line, "loaded d_model 48, tokenizer false"]);
    assert_eq!(hub.requests().len(), 1, "not repeated");
    let hub = Hub::with(Files(vec![("vocab.json", VOCAB.into()), ("merges.txt", MERGES.into())]));
    assert_contains(&in_child("test/whole", None, &hub.variables(home.path())), &["tokenizer true"]);
}

/// The files that name the beginning-of-sequence token are fetched for a tokenizer in the cache, once, also if the
/// repository has none; a Hub that fails leaves the tokenizer usable.
#[test]
fn files_of_special_tokens_are_fetched() {
    for special_tokens in [Some(br#"{"bos_token": {"content": "ab"}}"#.to_vec()), None] {
        let mut files = Files(vec![("vocab.json", VOCAB.into()), ("merges.txt", MERGES.into())]);
        files.0.extend(special_tokens.clone().map(|content| ("special_tokens_map.json", content)));
        let (hub, home) = (Hub::with(files), tempfile::tempdir().unwrap());
        write_to_cache(&home.path().join("hub"), "models--test--whole");
        let snapshot = snapshot(home.path());
        fs::write(snapshot.join("vocab.json"), VOCAB).unwrap();
        fs::write(snapshot.join("merges.txt"), MERGES).unwrap();

        let broken = Hub::start(|_, _| Answer::new(500, &[], b""));
        let printed = in_child("test/whole", None, &broken.variables(home.path()));
        let line =
            "test/whole: the cache has no special_tokens_map.json, and it cannot be downloaded: test/whole at http";
        assert_contains(&printed, &[line, "loaded d_model 48, tokenizer true, bos Some(0)"]);
        assert_eq!(broken.requests().len(), 1, "not repeated");

        let variables = hub.variables(home.path());
        let loaded = if special_tokens.is_some() { "bos Some(2)" } else { "bos Some(0)" };
        assert_contains(&in_child("test/whole", None, &variables), &[loaded]);
        let before = hub.requests().len();
        assert_contains(&in_child("test/whole", None, &variables), &[loaded]);
        let offline = [&variables[..], &[("HF_HUB_OFFLINE", "1")]].concat();
        assert_contains(&in_child("test/whole", None, &offline), &[loaded]);
        assert_eq!(hub.requests().len(), before, "the answer is remembered");
        let absent = home.path().join("hub/models--test--whole/.no_exist").join(COMMIT);
        assert!(absent.join("tokenizer_config.json").is_file());
        assert_eq!(absent.join("special_tokens_map.json").is_file(), special_tokens.is_none());
    }
}

/// A file of special tokens that is broken or too large.
#[test]
fn hostile_files_of_special_tokens() {
    let load = |content: &[u8]| {
        let mut files = Files::whole();
        files.0.push(("special_tokens_map.json", content.to_vec()));
        let (hub, home) = (Hub::with(files), tempfile::tempdir().unwrap());
        in_child("test/whole", None, &hub.variables(home.path()))
    };
    assert_contains(&load(b"[]"), &["error ", "special_tokens_map.json: expected a JSON object of special tokens"]);
    assert_contains(
        &load(br#"{"bos_token": {}}"#),
        &["special_tokens_map.json: expected bos_token: a text, or an object"],
    );
    assert_contains(
        &load(b"<html>"),
        &["special_tokens_map.json: expected a JSON object of special tokens, found a web"],
    );
    assert_contains(&load(&vec![b' '; 16_000_001]), &["special_tokens_map.json: expected at most 16000000 bytes"]);
}

#[test]
fn a_repository_with_weights_in_another_form_says_so() {
    let config = || ("config.json", tiny("config.json"));
    for (files, expected) in [
        (
            vec![("gpt2.gguf", vec![])],
            "error test/other/gpt2.gguf: expected model.safetensors beside it, found only a GGUF",
        ),
        (
            vec![config(), ("gpt2.gguf", vec![])],
            "error test/other/gpt2.gguf: expected model.safetensors beside it, found only",
        ),
        (
            vec![config(), ("pytorch_model-00001-of-00002.bin", vec![])],
            "error test/other/pytorch_model-00001-of-00002.bin: expected model.safetensors beside it, found only this pickle",
        ),
        (vec![("tf_model.h5", vec![])], "the repository has no config.json; it has tf_model.h5, an HDF5 file"),
        (vec![("README.md", vec![])], "the repository has no config.json; is it a model of transformers?"),
    ] {
        let (hub, home) = (Hub::with(Files(files.clone())), tempfile::tempdir().unwrap());
        assert_contains(&in_child("test/other", None, &hub.variables(home.path())), &[expected]);
        assert_eq!(hub.requests_for("GET", files[0].0).len(), 0, "nothing is downloaded");
    }
    // Offline, with what Python has downloaded.
    let home = tempfile::tempdir().unwrap();
    write_to_cache(&home.path().join("hub"), "models--test--whole");
    fs::remove_file(snapshot(home.path()).join(WEIGHTS)).unwrap();
    fs::write(snapshot(home.path()).join("gpt2.Q4.gguf"), "").unwrap();
    let variables = [("HF_HOME", home.path().to_str().unwrap()), ("HF_HUB_OFFLINE", "1")];
    assert_contains(
        &in_child("test/whole", None, &variables),
        &[COMMIT, "gpt2.Q4.gguf: expected model.safetensors beside it"],
    );
    fs::remove_file(snapshot(home.path()).join("config.json")).unwrap();
    assert_contains(&in_child("test/whole", None, &variables), &[COMMIT, "found only a GGUF file of llama.cpp"]);
}

#[test]
fn offline_with_only_a_pickle_says_so() {
    let home = tempfile::tempdir().unwrap();
    write_to_cache(&home.path().join("hub"), "models--test--whole");
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let snapshot = snapshot(home.path());
        drop(fs::remove_file(snapshot.join(WEIGHTS)));
        fs::write(snapshot.join(name), "").unwrap();
        let variables = [("HF_HOME", home.path().to_str().unwrap()), ("HF_HUB_OFFLINE", "1")];
        let printed = in_child("test/whole", None, &variables);
        let expected = [COMMIT, "only this pickle, which can run any code when it is read; convert it in Python"];
        assert_contains(&printed, &expected);
        fs::remove_file(snapshot.join(name)).unwrap();
    }
}

/// As the message says: delete the file, load again.
#[test]
fn a_damaged_cached_file_is_named_with_the_remedy() {
    let (hub, home) = (Hub::with(Files::whole()), tempfile::tempdir().unwrap());
    let variables = hub.variables(home.path());
    assert_contains(&in_child("test/whole", None, &variables), &["loaded"]);
    let file = snapshot(home.path()).join(WEIGHTS).canonicalize().unwrap();
    let content = tiny(WEIGHTS);
    for damaged in [&content[..content.len() / 2], b"", b"<html>"] {
        fs::write(&file, damaged).unwrap();
        let printed = in_child("test/whole", None, &variables);
        let (problem, remedy) = if cfg!(unix) {
            ("the cached file is damaged: its digest is not the one that the Hub gave", ": delete ")
        } else {
            ("the cached file may be damaged", ": delete ")
        };
        let remedy = format!("{remedy}{} and load the model again", file.display());
        assert_contains(&printed, &["error ", WEIGHTS, problem, &remedy]);
        fs::remove_file(&file).unwrap();
        assert_contains(
            &in_child("test/whole", None, &variables),
            &["downloading model.safetensors", "loaded d_model"],
        );
        assert_eq!(fs::read(&file).unwrap(), content);
    }
}

/// A file that its author published like this is not damaged.
#[cfg(unix)]
#[test]
fn a_file_that_is_as_published_gets_no_wrong_advice() {
    let mut files = Files::whole();
    files.0[1].1 = b"not safetensors at all".to_vec();
    let (hub, home) = (Hub::with(files), tempfile::tempdir().unwrap());
    let printed = in_child("test/whole", None, &hub.variables(home.path()));
    assert_contains(&printed, &["error ", WEIGHTS]);
    assert!(!printed.contains("delete"), "{printed}");
}

/// A limit on the size of files stands for a full disk: both are errors of `write`.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let (hub, home) = (Hub::with(Files::whole()), tempfile::tempdir().unwrap());
    let limited = child("test/whole", None, &hub.variables(home.path()));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 300; exec \"$0\" \"$@\""]).arg(limited.get_program());
    shell.args(limited.get_args()).stdout(std::process::Stdio::piped());
    for (name, value) in limited.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let printed = output(shell.spawn().unwrap());
    let partial = format!("{}.incomplete: cannot be written: ", sha256(&tiny(WEIGHTS)));
    assert_contains(&printed, &[&partial, "HF_HUB_CACHE or LoadOptions::cache_dir chooses another folder"]);
    // With more room, the download continues.
    let printed = in_child("test/whole", None, &hub.variables(home.path()));
    assert_contains(&printed, &["continuing model.safetensors", "loaded d_model 48"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error_that_names_it() {
    // Below a file; a folder without permission stops no administrator.
    let file = root().join("Cargo.toml");
    let hub = Hub::with(Files::whole());
    let cache = file.join("cache");
    let variables = [&hub.variables(&file)[..], &[("HF_HUB_CACHE", cache.to_str().unwrap())]].concat();
    let printed = in_child("test/whole", None, &variables);
    assert_contains(
        &printed,
        &["cannot be written: ", "HF_HUB_CACHE or LoadOptions::cache_dir chooses another folder"],
    );
    assert_contains(&printed, &[cache.to_str().unwrap()]);
}
