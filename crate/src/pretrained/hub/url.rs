//! Addresses: origins, redirects relative to an address, and what of an address may be shown.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, PercentEncode, percent_encode, utf8_percent_encode};
use ureq::http::Uri;

const NOT_IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const NOT_IN_ADDRESS: &AsciiSet = &CONTROLS.add(b' ');

/// An absolute `http` or `https` address. Its `Display` is the origin alone: a path or a query can hold a signature, and
/// the part before the host a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url(Uri);

/// Scheme, host and port: a token of one origin must not reach another.
#[derive(Debug, PartialEq, Eq)]
struct Origin<'a> {
    scheme: &'a str,
    host: String,
    port: u16,
}

impl Url {
    /// `None` unless the text is an address with the scheme `http` or `https` and a host.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.split('#').next()?.parse().ok()?;
        let host = uri.host()?;
        (matches!(uri.scheme_str(), Some("http" | "https")) && !host.is_empty()).then_some(Self(uri))
    }

    /// The address that a `Location` header names, which may be relative to this one (RFC 3986, section 5.2).
    pub(super) fn join(&self, location: &[u8]) -> Option<Self> {
        // The bytes that an address cannot hold, as browsers do.
        let location = percent_encode(location, NOT_IN_ADDRESS).to_string();
        let location = location.split('#').next()?;
        let scheme = self.scheme();
        let authority = self.0.authority()?;
        if has_scheme(location) {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}"));
        }
        let (path, query) = location.split_once('?').map_or((location, None), |(path, query)| (path, Some(query)));
        let path = match path {
            "" => self.0.path().to_owned(),
            path if path.starts_with('/') => without_dots(path),
            path => {
                let folder = self.0.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                without_dots(&format!("{folder}/{path}"))
            }
        };
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        Self::parse(&format!("{scheme}://{authority}{path}{query}"))
    }

    pub(super) fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or_default()
    }

    /// The host as in the address: an IPv6 address is in brackets.
    pub(super) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.scheme() == "https" { 443 } else { 80 })
    }

    fn origin(&self) -> Origin<'_> {
        Origin { scheme: self.scheme(), host: self.host().to_ascii_lowercase(), port: self.port() }
    }

    pub(super) fn has_origin_of(&self, other: &Self) -> bool {
        self.origin() == other.origin()
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host())?;
        self.0.port_u16().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A text from a user or an environment variable, without the user name and the password of an address in it.
pub(super) fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}{}***@{host}", if scheme.is_empty() { "" } else { "://" })
        }
        None => text.into(),
    }
}

/// A name as one segment of a path: everything but letters, digits and `-._~` is percent-encoded.
pub(super) fn encode(segment: &str) -> PercentEncode<'_> {
    utf8_percent_encode(segment, NOT_IN_SEGMENT)
}

/// Whether a reference begins with a scheme: a letter, then letters, digits and `+-.`, then a colon.
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// A path without its segments `.` and `..`.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (i, &segment) in segments.iter().enumerate() {
        let last = i + 1 == segments.len();
        match segment {
            ".." => drop(kept.pop()),
            "." => {}
            segment => kept.push(segment),
        }
        if last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_relative_to_the_address_that_answered() {
        let base = Url::parse("https://hub.co:8443/a/b/c?x=1").unwrap();
        for (location, expected) in [
            ("https://cdn.co/f?sig=1#part", "https://cdn.co/f?sig=1"),
            ("//cdn.co/f", "https://cdn.co/f"),
            ("/api/models/new/name", "https://hub.co:8443/api/models/new/name"),
            ("d", "https://hub.co:8443/a/b/d"),
            ("../d", "https://hub.co:8443/a/d"),
            ("../../../../d/.", "https://hub.co:8443/d/"),
            ("?y=2", "https://hub.co:8443/a/b/c?y=2"),
            ("/caf\u{e9} 1", "https://hub.co:8443/caf%C3%A9%201"),
        ] {
            assert_eq!(base.join(location.as_bytes()).unwrap().uri(), &expected.parse::<Uri>().unwrap(), "{location}");
        }
        for location in ["file:///etc/passwd", "ftp://x/y", "https://", "http:///x", "javascript:1"] {
            assert_eq!(base.join(location.as_bytes()), None, "{location}");
        }
    }

    #[test]
    fn origins_differ_in_scheme_host_or_port() {
        let hub = Url::parse("https://hub.co/x").unwrap();
        let same = |text: &str| Url::parse(text).unwrap().has_origin_of(&hub);
        assert!(same("https://HUB.co:443/y") && same("https://user:password@hub.co"));
        for other in ["http://hub.co", "https://hub.co:444", "https://hub.co.evil.co", "https://evil.co/hub.co"] {
            assert!(!same(other), "{other}");
        }
    }

    #[test]
    fn passwords_and_signatures_are_not_shown() {
        let url = Url::parse("http://user:secret@hub.co:81/p?signature=secret").unwrap();
        assert_eq!(url.to_string(), "http://hub.co:81");
        assert_eq!(without_password("http://user:se@cret@proxy:3128"), "http://***@proxy:3128");
        assert_eq!(without_password("user:secret@proxy"), "***@proxy");
        assert_eq!(without_password("http://proxy"), "http://proxy");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("model-00001-of-00002.safetensors").to_string(), "model-00001-of-00002.safetensors");
        assert_eq!(encode("refs/pr/3").to_string(), "refs%2Fpr%2F3");
        assert_eq!(encode("a?b#c d\u{e9}").to_string(), "a%3Fb%23c%20d%C3%A9");
    }
}
