//! Time-outs, redirects, repetitions, and downloads that continue earlier ones.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::server::{Answer, Files, Hub, Request, sha256, tiny};
use super::{assert_contains, child, in_child};

const WEIGHTS: &str = "model.safetensors";

fn is_storage(request: &Request) -> bool {
    request.path.starts_with("/storage/")
}

/// The partial file of the weights.
fn partial(home: &tempfile::TempDir) -> PathBuf {
    let blobs = home.path().join("hub/models--test--whole/blobs");
    fs::create_dir_all(&blobs).unwrap();
    blobs.join(format!("{}.incomplete", sha256(&tiny(WEIGHTS))))
}

#[test]
fn a_stalled_server_times_out() {
    let stall = Duration::from_secs(60);
    let silent = Hub::start(move |_, _| {
        std::thread::sleep(stall);
        Answer::default()
    });
    let in_the_body = Hub::changed(Files::whole(), move |request, _, answer| {
        if is_storage(request) { Answer { cut: Some(0), stall, ..answer } } else { answer }
    });
    let by_bytes = Hub::changed(Files::whole(), |request, _, answer| {
        if is_storage(request) { Answer { drip: Duration::from_millis(20), ..answer } } else { answer }
    });
    let times_out = |hub: &Hub, expected: &str| {
        let home = tempfile::tempdir().unwrap();
        let mut variables = hub.variables(home.path());
        variables.push(("HF_HUB_DOWNLOAD_TIMEOUT", "0.2"));
        if expected.starts_with("listing") {
            variables.push(("HF_HUB_ETAG_TIMEOUT", "0.2"));
        }
        let started = Instant::now();
        let printed = in_child("test/whole", None, &variables);
        assert_contains(&printed, &[expected, "trying again in 0.0 s (1 of 5)", "HF_HUB_DOWNLOAD_TIMEOUT and"]);
        assert!(started.elapsed() < stall / 2);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| times_out(&silent, "listing its files: timeout: "));
        scope.spawn(|| times_out(&in_the_body, "downloading model.safetensors: timeout: "));
        scope.spawn(|| times_out(&by_bytes, "model.safetensors: the server sent less than 1000 bytes in 0.2 s"));
    });
}

#[test]
fn redirects_are_bounded() {
    let turning = Hub::start(|request, _| Answer::redirect(302, &format!("{}x", request.path)));
    let to_itself = Hub::start(|request, _| Answer::redirect(307, &request.path));
    for hub in [turning, to_itself] {
        let home = tempfile::tempdir().unwrap();
        let printed = in_child("test/whole", None, &hub.variables(home.path()));
        assert_contains(&printed, &["20 redirects did not lead to an answer"]);
        assert_eq!(hub.requests().len(), 21);
    }
}

#[test]
fn a_redirect_without_a_usable_location_is_an_error() {
    let without = Hub::start(|_, _| Answer::new(302, &[], b""));
    let to_a_file = Hub::start(|_, _| Answer::redirect(302, "file:///etc/passwd"));
    let empty = Hub::start(|_, _| Answer::redirect(301, "http://"));
    for (hub, expected) in [
        (without, "a redirect with status 302 has no Location"),
        (to_a_file, "a redirect with status 302 leads to an address that is not one of http or https"),
        (empty, "a redirect with status 301 leads to an address that is not one of http or https"),
    ] {
        let home = tempfile::tempdir().unwrap();
        assert_contains(&in_child("test/whole", None, &hub.variables(home.path())), &[expected]);
    }
}

/// A renamed repository answers with a relative redirect.
#[test]
fn relative_redirects_are_followed() {
    let files = Files::whole();
    let hub = Hub::start(move |request, _| match request.path.strip_prefix("/test/old/") {
        Some(rest) => Answer::redirect(307, &format!("/test/new/{rest}")),
        None if request.path.starts_with("/api/models/test/old/") => Answer::redirect(307, "../../new/revision/main"),
        None => files.answer(request),
    });
    let home = tempfile::tempdir().unwrap();
    let printed = in_child("test/old", None, &hub.variables(home.path()));
    assert_contains(&printed, &["loaded d_model 48, tokenizer true"]);
    assert!(hub.requests().iter().any(|request| request.path == "/api/models/test/new/revision/main"));
}

/// Every request fails once in another way.
#[test]
fn passing_failures_are_repeated() {
    let hub = Hub::changed(Files::whole(), |request, number, answer| match (number, request.path.as_str()) {
        (0, path) if path.starts_with("/api/") => Answer::new(503, &[], b""),
        (1, path) if path.starts_with("/api/") => Answer::new(429, &[("Retry-After", "1")], b""),
        (0, path) if path.ends_with("config.json") => Answer::new(500, &[], b""),
        (0, path) if path.starts_with("/storage/") => Answer { cut: Some(100_000), ..answer },
        _ => answer,
    });
    let home = tempfile::tempdir().unwrap();
    let printed = in_child("test/whole", None, &hub.variables(home.path()));
    assert_contains(
        &printed,
        &[
            "loaded d_model 48, tokenizer true",
            "the server answered with status 503; trying again in 0.1 s (1 of 5)",
            "the server answered with status 429; trying again in 1.0 s (2 of 5)",
        ],
    );
    let storage = hub.requests_for("GET", WEIGHTS);
    let ranges: Vec<_> = storage.iter().filter(|request| is_storage(request)).map(|it| it.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-")], "a cut download continues");
}

#[test]
fn a_server_that_asks_for_too_long_a_wait_is_given_up() {
    let hub = Hub::start(|_, _| Answer::new(429, &[("Retry-After", "99999999999")], b""));
    let home = tempfile::tempdir().unwrap();
    let printed = in_child("test/whole", None, &hub.variables(home.path()));
    assert_contains(&printed, &["error ", "status 429", "wait a few minutes, or set a token in HF_TOKEN"]);
    assert_eq!(hub.requests().len(), 1);
}

/// A server that always cuts the connection, and knows no ranges: the download ends.
#[test]
fn cuts_without_progress_are_counted() {
    let hub = Hub::changed(Files::whole(), |request, _, answer| {
        let whole = Answer { cut: Some(1000), ..Answer::new(200, &[], &tiny(WEIGHTS)) };
        if is_storage(request) { whole } else { answer }
    });
    let home = tempfile::tempdir().unwrap();
    let mut variables = hub.variables(home.path());
    variables.push(("HF_HUB_DOWNLOAD_TIMEOUT", "0.3"));
    let printed = in_child("test/whole", None, &variables);
    assert_contains(&printed, &["the connection was cut after 1000 of 261976 bytes; load the model again to continue"]);
    assert_eq!(hub.requests_for("GET", WEIGHTS).iter().filter(|request| is_storage(request)).count(), 6);
}

#[test]
fn a_killed_download_continues() {
    let hub = Hub::changed(Files::whole(), |request, number, answer| {
        let first = is_storage(request) && number == 0;
        if first { Answer { cut: Some(200_000), stall: Duration::from_secs(60), ..answer } } else { answer }
    });
    let home = tempfile::tempdir().unwrap();
    let mut variables = hub.variables(home.path());
    variables.push(("HF_HUB_DOWNLOAD_TIMEOUT", "60"));
    let mut interrupted = child("test/whole", None, &variables).spawn().unwrap();
    let partial = partial(&home);
    let started = Instant::now();
    while partial.metadata().map_or(0, |file| file.len()) < 200_000 {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    interrupted.kill().unwrap();
    interrupted.wait().unwrap();
    let printed = in_child("test/whole", None, &variables);
    assert_contains(&printed, &["continuing model.safetensors at 0.2 MB, 0.3 MB", "loaded d_model 48"]);
    assert_eq!(hub.requests_for("GET", WEIGHTS).last().unwrap().header("range"), Some("bytes=200000-"));
}

/// Partial files of an earlier download: the beginning, the whole file, too much, another file.
#[test]
fn any_partial_file_leads_to_the_file() {
    let content = tiny(WEIGHTS);
    let other = vec![1; content.len() / 2];
    for (existing, ranges) in [
        (&content[..1000], vec![Some("bytes=1000-")]),
        (&content[..], vec![]),
        (&[&content[..], b"more"].concat(), vec![None]),
        (&other, vec![Some("bytes=130988-"), None]),
        (&vec![1; content.len()], vec![None]),
        (b"", vec![None]),
    ] {
        let (hub, home) = (Hub::with(Files::whole()), tempfile::tempdir().unwrap());
        let partial = partial(&home);
        fs::write(&partial, existing).unwrap();
        assert_contains(&in_child("test/whole", None, &hub.variables(home.path())), &["loaded d_model 48"]);
        let storage = hub.requests_for("GET", WEIGHTS);
        let found: Vec<_> = storage.iter().filter(|request| is_storage(request)).map(|it| it.header("range")).collect();
        assert_eq!(found, ranges);
        assert!(!partial.exists());
        assert_eq!(fs::read(partial.with_extension("")).unwrap(), content);
    }
}

/// Answers to a request for a range: the whole file, a range without `Content-Range`, another range, status 416.
#[test]
fn servers_without_ranges_send_the_file_again() {
    type Change = fn(Answer, Vec<u8>) -> Answer;
    let whole: Change = |_, content| Answer::new(200, &[], &content);
    let unnamed: Change = |answer, _| Answer::new(206, &[], &answer.body);
    let another: Change = |_, content| Answer::new(206, &[("Content-Range", "bytes 0-9/10")], &content);
    let refused: Change = |_, _| Answer::new(416, &[], b"");
    for change in [whole, unnamed, another, refused] {
        let hub = Hub::changed(Files::whole(), move |request, _, answer| {
            let ranged = is_storage(request) && request.header("range").is_some();
            if ranged { change(answer, tiny(WEIGHTS)) } else { answer }
        });
        let home = tempfile::tempdir().unwrap();
        let partial = partial(&home);
        fs::write(&partial, &tiny(WEIGHTS)[..1000]).unwrap();
        let printed = in_child("test/whole", None, &hub.variables(home.path()));
        assert_contains(&printed, &["loaded d_model 48"]);
        assert!(!printed.contains("trying again"), "{printed}");
        assert_eq!(fs::read(partial.with_extension("")).unwrap(), tiny(WEIGHTS));
    }
}
