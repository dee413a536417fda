//! Servers that answer with something else than the file: nothing wrong gets a name in the cache, and nothing is
//! written outside of it.

use std::fs;
use std::path::Path;

use super::server::{Answer, COMMIT, Files, Hub, Request, git_sha1, sha256, tiny};
use super::{assert_contains, in_child, listing};

/// Whether the request is for the content of a file, not a redirect to it.
fn is_content(request: &Request, name: &str) -> bool {
    let storage = request.path.starts_with("/storage/") || !name.ends_with(".safetensors");
    request.method == "GET" && request.path.contains(name) && storage
}

/// The blobs in the cache, by their names.
fn blobs(home: &Path) -> Vec<String> {
    let is_blob = |line: &String| line.contains("/blobs/");
    listing(home).into_iter().filter(is_blob).map(|line| line.rsplit_once("/blobs/").unwrap().1.to_owned()).collect()
}

/// A bit that is not where it was, bytes that are missing, too many bytes; with and without a `Content-Length`.
#[test]
fn a_wrong_body_does_not_become_the_cached_file() {
    for name in ["model.safetensors", "config.json"] {
        for (kind, expected) in [
            ("flipped", "expected "),
            ("truncated", "in Content-Length"),
            ("truncated without length", "the connection was cut after"),
            ("overlong", "in Content-Length"),
            ("overlong without length", "bytes, found more"),
        ] {
            let hub = Hub::changed(Files::whole(), move |request, _, mut answer| {
                if is_content(request, name) {
                    match kind.split(' ').next().unwrap() {
                        "flipped" => answer.body[20] ^= 1,
                        "truncated" => drop(answer.body.pop()),
                        _ => answer.body.push(b' '),
                    }
                    if kind.ends_with("without length") {
                        return answer.header("Transfer-Encoding", "chunked").chunked();
                    }
                }
                answer
            });
            let home = tempfile::tempdir().unwrap();
            let mut variables = hub.variables(home.path());
            variables.extend([("HF_HUB_ETAG_TIMEOUT", "0.5"), ("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")]);
            let printed = in_child("test/whole", None, &variables);
            assert_contains(&printed, &["error test/whole at http", &format!("downloading {name}"), expected]);
            let content = tiny(name);
            let etag = if name == "config.json" { git_sha1(&content) } else { sha256(&content) };
            assert!(!blobs(home.path()).iter().any(|blob| blob.starts_with(&format!("{etag} "))), "{kind}: {printed}");
        }
    }
}

/// The first answer is damaged on its way, the second is not.
#[test]
fn a_damaged_body_is_requested_again() {
    let hub = Hub::changed(Files::whole(), |request, number, mut answer| {
        if is_content(request, "model.safetensors") && number == 0 {
            answer.body[300] ^= 1;
        }
        answer
    });
    let home = tempfile::tempdir().unwrap();
    let printed = in_child("test/whole", None, &hub.variables(home.path()));
    assert_contains(&printed, &["sha256: expected ", "trying again in 0.1 s (1 of 1)", "loaded d_model 48"]);
}

#[test]
fn etags_and_commits_do_not_lead_out_of_the_cache() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    let victim_path = victim.to_str().unwrap().to_owned();
    for (header, value) in [
        ("X-Linked-ETag", "\"../../../../victim\"".to_owned()),
        ("X-Linked-ETag", format!("\"{victim_path}\"")),
        ("X-Linked-ETag", "\"..\"".into()),
        ("X-Repo-Commit", "../../../../victim".into()),
        ("X-Repo-Commit", victim_path.clone()),
        ("X-Repo-Commit", "1".repeat(40)),
    ] {
        let hub = Hub::changed(Files::whole(), {
            let value = value.clone();
            move |request, _, answer| {
                let described = request.path.contains("resolve") && request.path.ends_with("model.safetensors");
                if described { answer.header(header, &value) } else { answer }
            }
        });
        let home = outside.path().join("home");
        let printed = in_child("test/whole", None, &hub.variables(&home));
        let name = if header == "X-Repo-Commit" { "x-repo-commit: expected" } else { "etag: expected" };
        assert_contains(&printed, &["error test/whole at", name]);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2, "{header} {value}");
        assert!(!listing(&home).iter().any(|line| line.contains("safetensors")));
    }
    // The commit of the list of files becomes a path, too.
    let hub = Hub::changed(Files::whole(), |request, _, mut answer| {
        if request.path.starts_with("/api/") {
            let text = String::from_utf8(answer.body).unwrap();
            answer.body = text.replace(COMMIT, "../../../../victim").into_bytes();
        }
        answer
    });
    let printed = in_child("test/whole", None, &hub.variables(&outside.path().join("home")));
    assert_contains(&printed, &["sha: expected 40 hexadecimal digits, found \"../../../../victim\""]);
}

#[test]
fn weak_etags_are_stored_as_in_python() {
    let etag = git_sha1(&tiny("config.json"));
    let hub = Hub::changed(Files::whole(), {
        let etag = etag.clone();
        move |request, _, answer| {
            let weak = request.path.ends_with("config.json");
            if weak { answer.header("ETag", &format!("W/\"{etag}\"")) } else { answer }
        }
    });
    let home = tempfile::tempdir().unwrap();
    assert_contains(&in_child("test/whole", None, &hub.variables(home.path())), &["loaded d_model 48"]);
    assert!(blobs(home.path()).iter().any(|blob| blob.starts_with(&etag)));
}

/// Login pages of networks, compressed answers, and what is no Hub at all.
#[test]
fn an_answer_that_is_not_the_hubs_is_named() {
    const PAGE: &[u8] = b"<!DOCTYPE html><title>Log in</title>";
    let page = |_: &Request, _: usize| Answer::new(200, &[("Content-Type", "text/html")], PAGE);
    let page_for_files = |request: &Request, _: usize, answer: Answer| {
        if request.path.contains("/resolve/") { Answer::new(200, &[], PAGE) } else { answer }
    };
    let page_for_content = |request: &Request, _: usize, answer: Answer| {
        if is_content(request, "model.safetensors") { Answer::new(200, &[], PAGE) } else { answer }
    };
    let compressed = |request: &Request, _: usize, answer: Answer| {
        let changed = request.method == "GET" && request.path.ends_with("config.json");
        if changed { answer.header("Content-Encoding", "gzip") } else { answer }
    };
    for (hub, expected) in [
        (Hub::start(page), "the answer is not the Hub's list of files: a web page; is HF_ENDPOINT a Hub"),
        (Hub::changed(Files::whole(), page_for_files), "x-repo-commit: expected 40 hexadecimal digits, found none"),
        (Hub::changed(Files::whole(), page_for_content), "bytes, found 36 in Content-Length"),
        (Hub::changed(Files::whole(), compressed), "content-encoding: expected identity, as requested, found \"gzip\""),
    ] {
        let home = tempfile::tempdir().unwrap();
        assert_contains(&in_child("test/whole", None, &hub.variables(home.path())), &["error ", expected]);
    }
}

/// Without an end: bodies of small files, lists of files, headers.
#[test]
fn endless_answers_are_bounded() {
    use std::io::Write;
    fn endless(stream: &mut std::net::TcpStream, head: &str, piece: &[u8]) {
        let mut more = stream.write_all(head.as_bytes());
        while more.is_ok() {
            more = stream.write_all(piece);
        }
    }
    let files = Files::whole();
    let huge = Hub::changed(files.clone(), |request, _, answer| {
        let described = request.method == "HEAD" && request.path.ends_with("config.json");
        if described { answer.header("Content-Length", "10000000000") } else { answer }
    });
    let chunk = [&b"100000\r\n"[..], &[b' '; 1 << 20], b"\r\n"].concat();
    let without_size = Hub::start_with({
        let (files, chunk) = (files.clone(), chunk.clone());
        move |stream, request, _| {
            let answer = files.answer(request);
            if !request.path.ends_with("config.json") {
                drop(answer.write(stream, request.method == "HEAD"));
            } else if request.method == "HEAD" {
                drop(answer.header("Transfer-Encoding", "chunked").write(stream, true));
            } else {
                endless(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk);
            }
        }
    });
    let list = Hub::start_with(move |stream, _, _| {
        endless(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk);
    });
    let headers = Hub::start_with(|stream, _, _| endless(stream, "HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"));
    let one_header = Hub::start_with(|stream, _, _| endless(stream, "HTTP/1.1 200 OK\r\nX: ", &[b'x'; 1000]));
    let is_bounded = |hub: Hub, expected: &str| {
        let home = tempfile::tempdir().unwrap();
        let printed = in_child("test/whole", None, &hub.variables(home.path()));
        assert_contains(&printed, &["error ", expected]);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| is_bounded(huge, "config.json: expected at most 16000000 bytes, found 10000000000"));
        scope.spawn(|| is_bounded(without_size, "config.json: expected at most 16000000 bytes, found more"));
        scope.spawn(|| is_bounded(list, "listing its files: expected at most 32000000 bytes, found more"));
        scope.spawn(|| is_bounded(headers, "listing its files: "));
        scope.spawn(|| is_bounded(one_header, "listing its files: response header is too big"));
    });
}
