//! Headers of the Hub that become parts of a path: a commit, and an ETag, which names a blob in the cache.
//!
//! A server can send anything, so a value that could leave its folder is refused.

use ureq::http::HeaderMap;

use super::failure::{Failure, quoted};

/// The Hub's description of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) commit: String,
    /// The name of the file's blob in the cache: a SHA-256 for large files, git's SHA-1 for others.
    pub(super) etag: String,
    /// Size in bytes, where the Hub reports it.
    pub(super) size: Option<u64>,
}

impl Metadata {
    /// Reads the headers of the answer to a `HEAD` request. `is_redirect`: the answer is a redirect to another host, and
    /// its own length is not the file's.
    pub(super) fn from_headers(headers: &HeaderMap, is_redirect: bool) -> Result<Self, Failure> {
        let bytes = |name: &str| headers.get(name).map(|value| value.as_bytes());
        let commit = bytes("x-repo-commit");
        let commit = commit.and_then(|value| std::str::from_utf8(value).ok()).filter(|commit| is_commit(commit));
        let etag = bytes("x-linked-etag").or_else(|| bytes("etag"));
        let normalized = etag.and_then(|value| std::str::from_utf8(value).ok()).map(normalize_etag);
        let header_error = |name, expected, found: Option<&[u8]>| Failure::Header {
            name,
            expected,
            found: found.map_or_else(|| "none".into(), quoted),
        };
        let size = match bytes("x-linked-size") {
            Some(size) => Some(size),
            None if is_redirect => None,
            None => bytes("content-length"),
        };
        Ok(Self {
            commit: commit.ok_or_else(|| header_error("x-repo-commit", COMMIT, bytes("x-repo-commit")))?.to_owned(),
            etag: normalized
                .filter(|etag| is_blob_name(etag))
                .ok_or_else(|| header_error("etag", "a digest or a plain name", etag))?
                .to_owned(),
            size: size.and_then(|size| std::str::from_utf8(size).ok()?.trim().parse().ok()),
        })
    }
}

/// The expected form of a commit, for messages.
pub(super) const COMMIT: &str = "40 hexadecimal digits";

/// Whether a text is the full name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_lower_hex(text)
}

pub(super) fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An ETag as `huggingface_hub` stores it: without the mark `W/` of a weak one, and without quotes.
fn normalize_etag(etag: &str) -> &str {
    etag.trim_start_matches(['W', '/']).trim_matches('"')
}

/// Whether a text can name a blob: a digest, or a name without a separator that no other file of the cache has.
fn is_blob_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+={}~@,".contains(&byte);
    (1..=128).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('.')
        && !name.ends_with('.')
        && ![".incomplete", ".lock", ".tmp"].iter().any(|suffix| name.to_ascii_lowercase().ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        pairs.iter().map(|&(name, value)| (name.parse().unwrap(), value.try_into().unwrap())).collect()
    }

    fn etag(value: &[u8]) -> Result<String, Failure> {
        let headers = headers(&[("x-repo-commit", SHA1.as_bytes()), ("etag", value)]);
        Metadata::from_headers(&headers, false).map(|metadata| metadata.etag)
    }

    #[test]
    fn etags_are_stored_as_python_stores_them() {
        let sha256 = "a".repeat(64);
        assert_eq!(etag(format!("\"{sha256}\"").as_bytes()).unwrap(), sha256);
        assert_eq!(etag(format!("W/\"{SHA1}\"").as_bytes()).unwrap(), SHA1);
        assert_eq!(etag(SHA1.as_bytes()).unwrap(), SHA1);
        assert_eq!(etag(b"\"5eb63bbbe01eeed093cb22bb8f5acdc3-2\"").unwrap(), "5eb63bbbe01eeed093cb22bb8f5acdc3-2");
    }

    #[test]
    fn an_etag_that_is_a_path_is_refused() {
        for bad in [
            "",
            "\"\"",
            "\"..\"",
            "\".\"",
            "\"../x\"",
            "\"../../../../tmp/x\"",
            "\"/etc/passwd\"",
            "\"a/b\"",
            "\"a\\b\"",
            "\"C:x\"",
            "\"a\tb\"",
            "\".hidden\"",
            "\"x.incomplete\"",
            "\"x.LOCK\"",
            "\"\u{e9}\"",
        ] {
            let error = etag(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, Failure::Header { name: "etag", .. }), "{bad}: {error}");
        }
        assert!(etag("a".repeat(129).as_bytes()).is_err());
        assert!(etag(b"\xff").is_err());
    }

    #[test]
    fn a_commit_is_forty_digits() {
        for bad in ["", "..", "main", "../../../../tmp", &SHA1[1..], &SHA1.to_uppercase(), &format!("{SHA1}/..")] {
            let headers = headers(&[("x-repo-commit", bad.as_bytes()), ("etag", b"\"x\"")]);
            let error = Metadata::from_headers(&headers, false).unwrap_err();
            assert!(matches!(error, Failure::Header { name: "x-repo-commit", .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn headers_of_a_linked_file_come_first() {
        let linked: [(&str, &[u8]); 5] = [
            ("x-repo-commit", SHA1.as_bytes()),
            ("etag", b"\"of-the-pointer\""),
            ("content-length", b"1234"),
            ("x-linked-etag", b"\"of-the-file\""),
            ("x-linked-size", b"5678"),
        ];
        let metadata = Metadata::from_headers(&headers(&linked), true).unwrap();
        assert_eq!((metadata.etag.as_str(), metadata.size), ("of-the-file", Some(5678)));
        let plain = Metadata::from_headers(&headers(&linked[..3]), false).unwrap();
        assert_eq!((plain.etag.as_str(), plain.size), ("of-the-pointer", Some(1234)));
        assert_eq!(Metadata::from_headers(&headers(&linked[..3]), true).unwrap().size, None);
        let lie = [linked[0], linked[1], ("content-length", b"-1".as_slice())];
        assert_eq!(Metadata::from_headers(&headers(&lie), false).unwrap().size, None);
    }
}
