//! Why a request or a download failed, whether to try it again, and what the user can do.

use std::time::Duration;

use crate::error::Error;

/// A failed request or download. The texts of a server are shown shortened, and without control characters.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Http(#[from] ureq::Error),
    #[error("the server answered with status {status}")]
    Status {
        status: u16,
        /// The time that the server asks to wait.
        retry_after: Option<Duration>,
    },
    #[error("a redirect with status {status} {problem}")]
    Redirect { status: u16, problem: String },
    #[error("{limit} redirects did not lead to an answer")]
    TooManyRedirects { limit: usize },
    #[error("{name}: expected {expected}, found {found}")]
    Header { name: &'static str, expected: &'static str, found: String },
    #[error("the answer is not the Hub's list of files: {found}")]
    Listing { found: String },
    #[error("expected {expected} bytes, found {found}")]
    Size { expected: u64, found: String },
    #[error("expected at most {limit} bytes, found {found}")]
    TooLarge { limit: u64, found: String },
    #[error("{digest}: expected {expected}, found {found}")]
    Digest { digest: &'static str, expected: String, found: String },
    #[error("the server sent less than {bytes} bytes in {} s", seconds.as_secs_f64())]
    Slow { bytes: u64, seconds: Duration },
    #[error("the connection was cut after {done} of {expected} bytes")]
    Cut { done: u64, expected: u64 },
    /// A failure of this machine, such as a full disk.
    #[error("{0}")]
    Local(#[from] Box<Error>),
}

/// How often a request is repeated, at most, after a passing failure of the server.
pub(super) const RETRIES: u32 = 5;
/// The same where no server was reached, so that a machine without a network reports it soon.
const CONNECT_RETRIES: u32 = 2;
/// A wrong body is requested once more: the first may have been damaged on its way, or an older download.
const WRONG_BODY_RETRIES: u32 = 1;

impl Failure {
    /// How often to try again, at most.
    pub(super) fn retries(&self) -> u32 {
        match self {
            Self::Http(error) if is_certificate_error(error) => 0,
            Self::Http(ureq::Error::HostNotFound | ureq::Error::ConnectionFailed) => CONNECT_RETRIES,
            Self::Http(ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)) => CONNECT_RETRIES,
            Self::Http(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                CONNECT_RETRIES
            }
            Self::Http(ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Protocol(_)) => RETRIES,
            Self::Status { status: 408 | 429 | 500..=599, .. } | Self::Slow { .. } | Self::Cut { .. } => RETRIES,
            Self::Size { .. } | Self::Digest { .. } => WRONG_BODY_RETRIES,
            _ => 0,
        }
    }

    /// Whether the bytes on disk cannot be a part of the file.
    pub(super) fn is_wrong_body(&self) -> bool {
        matches!(self, Self::Size { .. } | Self::TooLarge { .. } | Self::Digest { .. })
    }

    pub(super) fn status(&self) -> Option<u16> {
        match *self {
            Self::Status { status, .. } => Some(status),
            _ => None,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Status { status: 401 | 403, .. } => {
                "check the name; a private or gated repository needs a token in HF_TOKEN"
            }
            Self::Status { status: 404, .. } => "check the name and the revision",
            Self::Status { status: 407, .. } | Self::Http(ureq::Error::ConnectProxyFailed(_)) => {
                "check the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY; NO_PROXY lists hosts that need none"
            }
            Self::Status { status: 429, .. } => {
                "the Hub limits the number of requests: wait a few minutes, or set a token in HF_TOKEN"
            }
            Self::Status { status: 500..=599, .. } => "the server failed: try again later",
            Self::Http(error) if is_certificate_error(error) => {
                "if your network has a certificate authority of its own, name its file in SSL_CERT_FILE"
            }
            Self::Http(ureq::Error::Timeout(_)) | Self::Slow { .. } | Self::Cut { .. } => {
                "load the model again to continue; HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT are the seconds \
                 without an answer after which a request fails"
            }
            Self::Header { .. } | Self::Listing { .. } => {
                "is HF_ENDPOINT a Hub, and does no proxy or login page answer in its place?"
            }
            Self::Size { .. } | Self::TooLarge { .. } | Self::Digest { .. } => {
                "nothing was stored; load the model again, and if this repeats, the server or a proxy changes the file"
            }
            _ => "check the network and HF_ENDPOINT, or give a folder that holds config.json and model.safetensors",
        }
    }

    /// [`Error::Hub`], or the failure of this machine.
    pub(super) fn into_error(self, repo: &str, endpoint: &str, problem: &str) -> Error {
        match self {
            Self::Local(error) => *error,
            failure => Error::Hub {
                repo: repo.into(),
                endpoint: endpoint.into(),
                problem: problem.into(),
                status: failure.status(),
                hint: failure.hint().into(),
                source: Some(failure.into()),
            },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Local(error.into())
    }
}

/// Whether the server's certificate was refused. The TLS library's errors arrive as invalid data.
fn is_certificate_error(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) => true,
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// A text of the server for a message: quoted, at most 80 characters.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let short: String = text.chars().take(80).collect();
    format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
}
