//! Errors that many places make.

use std::path::PathBuf;

use super::{Error, shortened};

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn write(path: impl Into<PathBuf>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Write { path: path.into(), source: source.into() }
    }

    /// A [`Format`](Self::Format) error whose cause is another library's.
    pub(crate) fn format(
        path: impl Into<PathBuf>,
        expected: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let found = shortened(&source.to_string());
        Self::Format { path: path.into(), expected: expected.into(), found, source: Some(source) }
    }

    pub(crate) fn device(
        device: impl Into<String>,
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Device { device: device.into(), operation, source: source.into() }
    }
}
