//! The digest of a file that its ETag, and so the name of its blob, promises.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::failure::Failure;
use super::metadata::is_lower_hex;
use crate::files::hexadecimal;

/// Digests of the bytes of a file so far, of the kinds that its ETag can be.
pub(super) struct Digests {
    etag: String,
    /// Names and states.
    contexts: Vec<(&'static str, Context)>,
}

impl Digests {
    /// 64 hexadecimal digits are a SHA-256, the Hub's ETag of large files. 40 are git's SHA-1 of the file, which begins
    /// with its size, or on some mirrors the plain SHA-1. Another ETag promises nothing.
    pub(super) fn new(etag: &str, size: Option<u64>) -> Self {
        let contexts = match (etag.len(), size) {
            (64, _) if is_lower_hex(etag) => vec![("sha256", Context::new(&SHA256))],
            (40, Some(size)) if is_lower_hex(etag) => {
                let mut git = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                git.update(format!("blob {size}\0").as_bytes());
                vec![("git's sha1", git), ("sha1", Context::new(&SHA1_FOR_LEGACY_USE_ONLY))]
            }
            _ => vec![],
        };
        Self { etag: etag.into(), contexts }
    }

    /// Whether the ETag is a digest.
    pub(super) fn is_known(&self) -> bool {
        !self.contexts.is_empty()
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.contexts.iter_mut().for_each(|(_, context)| context.update(bytes));
    }

    /// # Errors
    /// [`Failure::Digest`] if the ETag is a digest, and not that of the bytes.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let hex = |context: &Context| hexadecimal(context.clone().finish());
        match self.contexts.first() {
            Some((digest, first)) if self.contexts.iter().all(|(_, context)| hex(context) != self.etag) => {
                Err(Failure::Digest { digest, expected: self.etag.clone(), found: hex(first) })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(etag: &str, bytes: &[u8]) -> Result<(), Failure> {
        let mut digests = Digests::new(etag, Some(bytes.len() as u64));
        bytes.chunks(3).for_each(|chunk| digests.update(chunk));
        digests.check()
    }

    /// From `printf 'hello world' | git hash-object --stdin`, `sha1sum` and `sha256sum`.
    #[test]
    fn digests_are_those_of_git_and_coreutils() {
        for etag in [
            "95d09f2b10159347eece71399a7e2e907ea3df4f",
            "2aae6c35c94fcfb415dbe95f408b9ce91ee846ed",
            "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
            "a plain name",
        ] {
            check(etag, b"hello world").unwrap();
        }
        for etag in [&"0".repeat(40), &"0".repeat(64)] {
            assert!(matches!(check(etag, b"hello world"), Err(Failure::Digest { .. })));
        }
    }
}
