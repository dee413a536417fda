//! Requests to the Hub: redirects, time-outs, the token, bounded bodies.

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use super::certificates;
use super::failure::{Failure, quoted};
use super::metadata::Metadata;
use super::proxies::Proxies;
use super::settings::{Environment, Timeouts, Token};
use super::url::Url;
use crate::error::Result;

/// As many as `huggingface_hub` follows.
const MAX_REDIRECTS: usize = 20;
/// A server that sends less than this during a whole time-out is stalled.
const MIN_BYTES: u64 = 1000;

/// An HTTP client for one endpoint.
pub(super) struct Client {
    agent: Agent,
    proxies: Proxies,
    endpoint: Url,
    token: Option<Token>,
    pub(super) timeouts: Timeouts,
}

/// The answer to a request, after all redirects.
pub(super) struct Answer {
    response: Response<Body>,
    timeout: Duration,
}

impl Client {
    /// # Errors
    /// [`Error::Environment`](crate::Error::Environment) for an invalid time-out, proxy or file of certificates.
    pub(super) fn new(endpoint: Url, token: Option<Token>, environment: &Environment) -> Result<Self> {
        let tls = TlsConfig::builder().root_certs(certificates::trusted(environment)?).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("attention-tokens/", env!("CARGO_PKG_VERSION")))
            // The size of a compressed body is not the file's.
            .accept_encoding("identity")
            .build();
        let proxies = Proxies::from_env(environment)?;
        Ok(Self { agent: config.into(), proxies, endpoint, token, timeouts: Timeouts::from_env(environment)? })
    }

    /// The endpoint in messages, without a user name or a password.
    pub(super) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The Hub's description of a file. The redirect to the storage of a large file has the description itself, and is
    /// not followed.
    pub(super) fn metadata(&self, url: &Url) -> Result<Metadata, Failure> {
        let timeout = self.timeouts.etag;
        let is_described = |response: &Response<Body>, leaves_origin: bool| {
            let has = |name: &str| response.headers().contains_key(name);
            has("x-repo-commit") && (leaves_origin || has("x-linked-etag"))
        };
        let response = self.follow(Method::HEAD, url, None, timeout, &is_described)?;
        Metadata::from_headers(response.headers(), response.status().is_redirection())
    }

    /// A small text, read whole.
    pub(super) fn text(&self, url: &Url, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut answer = self.get(url, None, self.timeouts.etag)?;
        if let Some(length) = answer.length().filter(|&length| length > limit) {
            return Err(Failure::TooLarge { limit, found: length.to_string() });
        }
        let mut text = Vec::new();
        answer.read(|bytes| {
            text.extend_from_slice(bytes);
            if text.len() as u64 > limit { Err(Failure::TooLarge { limit, found: "more".into() }) } else { Ok(()) }
        })?;
        Ok(text)
    }

    /// A file, from byte `start` on if the server can do that: see [`Answer::start`].
    pub(super) fn file(&self, url: &Url, start: u64) -> Result<Answer, Failure> {
        self.get(url, (start > 0).then_some(start), self.timeouts.download)
    }

    fn get(&self, url: &Url, start: Option<u64>, timeout: Duration) -> Result<Answer, Failure> {
        let response = self.follow(Method::GET, url, start, timeout, &|_, _| false)?;
        if let Some(encoding) = response.headers().get(header::CONTENT_ENCODING)
            && encoding != "identity"
        {
            let found = quoted(encoding.as_bytes());
            return Err(Failure::Header { name: "content-encoding", expected: "identity, as requested", found });
        }
        Ok(Answer { response, timeout })
    }

    /// Sends a request and follows redirects, up to one for which `stop` is true: it is passed the answer, and whether it
    /// leads to another origin.
    fn follow(
        &self,
        method: Method,
        url: &Url,
        start: Option<u64>,
        timeout: Duration,
        stop: &dyn Fn(&Response<Body>, bool) -> bool,
    ) -> Result<Response<Body>, Failure> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(method.clone(), &url, start, timeout)?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return if response.status().is_success() {
                    Ok(response)
                } else {
                    Err(Failure::Status { status, retry_after: retry_after(response.headers()) })
                };
            }
            let error = |problem: String| Failure::Redirect { status, problem };
            let location = response.headers().get(header::LOCATION);
            let location = location.ok_or_else(|| error("has no Location".into()))?.as_bytes();
            let target = url.join(location);
            let target = target.ok_or_else(|| error("leads to an address that is not one of http or https".into()))?;
            if url.scheme() == "https" && target.scheme() != "https" {
                return Err(error(format!("leads from https to {target}, which is not encrypted")));
            }
            if stop(&response, !target.has_origin_of(&url)) {
                return Ok(response);
            }
            url = target;
        }
        Err(Failure::TooManyRedirects { limit: MAX_REDIRECTS })
    }

    fn send(
        &self,
        method: Method,
        url: &Url,
        start: Option<u64>,
        timeout: Duration,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(url.uri().clone());
        if let Some(token) = self.token.as_ref().filter(|_| url.has_origin_of(&self.endpoint)) {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        if let Some(start) = start {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let request = request.body(()).map_err(ureq::Error::from)?;
        let request = self
            .agent
            .configure_request(request)
            .proxy(self.proxies.for_url(url))
            .timeout_resolve(Some(timeout))
            .timeout_connect(Some(timeout))
            .timeout_send_request(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_per_read(Some(timeout))
            .build();
        Ok(self.agent.run(request)?)
    }
}

impl Answer {
    /// The position of the first byte of the body in the file: 0 unless the server answered the request for a range
    /// with that range. `None` if it answered with another one.
    pub(super) fn start(&self, requested: u64) -> Option<u64> {
        if self.response.status() != StatusCode::PARTIAL_CONTENT {
            return Some(0);
        }
        let range = self.response.headers().get(header::CONTENT_RANGE);
        let start =
            range.and_then(|range| range.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
        start.filter(|&start: &u64| start == requested)
    }

    /// The length of the body, where the server reports it.
    pub(super) fn length(&self) -> Option<u64> {
        self.response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
    }

    /// Passes the body to `take`, piece by piece.
    ///
    /// # Errors
    /// Those of `take`, and of the network; [`Failure::Slow`] if a time-out passes with next to no progress.
    pub(super) fn read(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut reader = self.response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        let (mut since, mut bytes) = (Instant::now(), 0);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ureq::Error::from(error).into()),
            };
            take(&buffer[..count])?;
            bytes += count as u64;
            if since.elapsed() >= self.timeout {
                if bytes < MIN_BYTES {
                    return Err(Failure::Slow { bytes: MIN_BYTES, seconds: self.timeout });
                }
                (since, bytes) = (Instant::now(), 0);
            }
        }
    }
}

/// The seconds in a `Retry-After` header. As in Python, a date is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
