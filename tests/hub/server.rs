//! A local server with the Hub's protocol, which a test can make misbehave in any way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use crate::support::fixture;

pub(super) const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Reads the head of a request; `None` at the end of the connection.
    pub(super) fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        Some(Self { method, path, headers })
    }
}

/// An answer. `Content-Length` is that of the body unless `headers` has one.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Send only this many bytes of the body, then close the connection.
    pub(super) cut: Option<usize>,
    /// After the last byte, keep the connection open for this time.
    pub(super) stall: Duration,
    /// Wait before each byte of the body.
    pub(super) drip: Duration,
}

impl Answer {
    pub(super) fn new(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        Self { status, headers, body: body.into(), ..Self::default() }
    }

    pub(super) fn redirect(status: u16, location: &str) -> Self {
        Self::new(status, &[("Location", location)], b"")
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(found, _)| *found != name);
        self.headers.push((name, value.into()));
        self
    }

    /// The body in one chunk, as `Transfer-Encoding: chunked` has it.
    pub(super) fn chunked(mut self) -> Self {
        self.body = [format!("{:x}\r\n", self.body.len()).as_bytes(), &self.body, b"\r\n0\r\n\r\n"].concat();
        self
    }

    pub(super) fn write(&self, to: &mut dyn Write, is_head: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", self.status);
        if !self.headers.iter().any(|(name, _)| matches!(*name, "Content-Length" | "Transfer-Encoding")) {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        to.write_all((head + "\r\n").as_bytes())?;
        if !is_head {
            let body = &self.body[..self.cut.unwrap_or(self.body.len()).min(self.body.len())];
            if self.drip.is_zero() {
                to.write_all(body)?;
            }
            for byte in body.iter().filter(|_| !self.drip.is_zero()) {
                std::thread::sleep(self.drip);
                to.write_all(&[*byte])?;
                to.flush()?;
            }
        }
        to.flush()?;
        std::thread::sleep(self.stall);
        Ok(())
    }
}

/// A running server. Its threads end with the test process.
pub(super) struct Hub {
    pub(super) endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    /// `answer` is called for every request, with its number among the requests of this method and path, from 0.
    pub(super) fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(move |stream, request, number| {
            drop(answer(request, number).write(stream, request.method == "HEAD"));
        })
    }

    /// A server that writes its answers itself.
    pub(super) fn start_with(answer: impl Fn(&mut TcpStream, &Request, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (requests, answer) = (Arc::new(Mutex::new(Vec::<Request>::new())), Arc::new(answer));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(request) = Request::read(&mut BufReader::new(&stream)) else { return };
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        let same = |other: &&Request| other.method == request.method && other.path == request.path;
                        let number = seen.iter().filter(same).count();
                        seen.push(request.clone());
                        number
                    };
                    answer(&mut stream, &request, number);
                    close(stream);
                });
            }
        });
        Self { endpoint, requests }
    }

    /// A Hub whose repositories all have these files.
    pub(super) fn with(files: Files) -> Self {
        Self::start(move |request, _| files.answer(request))
    }

    /// A Hub whose answers pass through `change`.
    pub(super) fn changed(
        files: Files,
        change: impl Fn(&Request, usize, Answer) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request, number| change(request, number, files.answer(request)))
    }

    /// The variables for this hub and a Hugging Face folder of the test, with a time-out of one second.
    pub(super) fn variables<'a>(&'a self, home: &'a Path) -> Vec<(&'static str, &'a str)> {
        vec![
            ("HF_HOME", home.to_str().unwrap()),
            ("HF_ENDPOINT", &self.endpoint),
            ("HF_HUB_ETAG_TIMEOUT", "1"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "1"),
        ]
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests of a method for a file.
    pub(super) fn requests_for(&self, method: &str, name: &str) -> Vec<Request> {
        let mut requests = self.requests();
        let is_for = |path: &str| path.split('?').next().unwrap().ends_with(name);
        requests.retain(|request| request.method == method && is_for(&request.path));
        requests
    }
}

/// Closes a connection without a reset, which could discard the last bytes before the client reads them.
fn close(mut stream: TcpStream) {
    drop(stream.shutdown(std::net::Shutdown::Write));
    drop(stream.set_read_timeout(Some(Duration::from_millis(200))));
    drop(stream.read(&mut [0; 1]));
}

/// The files of a repository.
#[derive(Clone)]
pub(super) struct Files(pub(super) Vec<(&'static str, Vec<u8>)>);

pub(super) const VOCAB: &str = r#"{"a": 0, "b": 1, "ab": 2}"#;
pub(super) const MERGES: &str = "#version: 0.2\na b\n";

pub(super) fn tiny(name: &str) -> Vec<u8> {
    std::fs::read(fixture("tiny").join(name)).unwrap()
}

impl Files {
    /// The model `tiny`, with a tokenizer of three tokens.
    pub(super) fn whole() -> Self {
        let mut files = Self::without_tokenizer();
        files.0.extend([("vocab.json", VOCAB.into()), ("merges.txt", MERGES.into())]);
        files
    }

    pub(super) fn without_tokenizer() -> Self {
        Self(["config.json", "model.safetensors"].map(|name| (name, tiny(name))).into())
    }

    /// The answer of a Hub. As there, safetensors are stored elsewhere, with their SHA-256 as ETag, and other files have
    /// git's SHA-1.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        if request.path.starts_with("/api/models/") && request.path.contains("/revision/") {
            let siblings: Vec<_> = self.0.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
            let info = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
            return Answer::new(200, &[("Content-Type", "application/json")], info.to_string().as_bytes());
        }
        let name = request.path.split('?').next().unwrap().rsplit('/').next().unwrap();
        let Some((_, content)) = self.0.iter().find(|(found, _)| *found == name) else {
            return Answer::new(404, &[("X-Error-Code", "EntryNotFound")], b"Entry not found");
        };
        if request.path.contains("/resolve/") && name.ends_with(".safetensors") {
            let port = request.header("host").unwrap().rsplit_once(':').unwrap().1;
            return Answer::redirect(302, &format!("http://localhost:{port}/storage/{name}?Signature=hidden"))
                .header("X-Repo-Commit", COMMIT)
                .header("ETag", "\"of-the-pointer\"")
                .header("X-Linked-ETag", &format!("\"{}\"", sha256(content)))
                .header("X-Linked-Size", &content.len().to_string())
                .header("X-Xet-Hash", &"1".repeat(64));
        }
        let answer = in_range(request, content);
        if request.path.starts_with("/storage/") {
            return answer;
        }
        answer.header("X-Repo-Commit", COMMIT).header("ETag", &format!("\"{}\"", git_sha1(content)))
    }
}

/// Bytes, or those of a range.
fn in_range(request: &Request, content: &[u8]) -> Answer {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((start, last)) = range else { return Answer::new(200, &[], content) };
    let start: usize = start.parse().unwrap();
    let end = last.parse().map_or(content.len(), |last: usize| (last + 1).min(content.len()));
    if start >= end {
        return Answer::new(416, &[], b"");
    }
    let range = format!("bytes {start}-{}/{}", end - 1, content.len());
    Answer::new(206, &[("Content-Range", &range)], &content[start..end])
}

pub(super) fn sha256(content: &[u8]) -> String {
    hex(digest(&SHA256, content).as_ref())
}

pub(super) fn git_sha1(content: &[u8]) -> String {
    let object = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &object).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
