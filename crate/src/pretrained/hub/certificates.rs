//! The certificate authorities that are trusted: those of `SSL_CERT_FILE` or `SSL_CERT_DIR`, else of
//! `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` (which Python's `requests` reads), else the system's, else Mozilla's.

use std::path::Path;

use ureq::tls::{Certificate, RootCerts};

use super::settings::Environment;
use crate::error::{Error, Result};

/// # Errors
/// [`Error::Environment`] for a variable that names no file or folder with certificates.
pub(super) fn trusted(environment: &Environment) -> Result<RootCerts> {
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        if let Some(value) = environment.path(variable) {
            return from_paths(variable, &value);
        }
    }
    // SSL_CERT_FILE and SSL_CERT_DIR, which this function reads too, are not set here.
    let system = rustls_native_certs::load_native_certs();
    Ok(if system.certs.is_empty() { RootCerts::WebPki } else { roots(&system.certs) })
}

/// A file, a folder in OpenSSL's format, or several of them as in `PATH`.
fn from_paths(variable: &'static str, value: &Path) -> Result<RootCerts> {
    let (mut certificates, mut problem) = (Vec::new(), "no certificate in it".to_owned());
    for path in std::env::split_paths(value) {
        let (file, folder) = if path.is_dir() { (None, Some(path.as_path())) } else { (Some(path.as_path()), None) };
        let loaded = rustls_native_certs::load_certs_from_paths(file, folder);
        certificates.extend(loaded.certs);
        problem = loaded.errors.first().map_or(problem, ToString::to_string);
    }
    if certificates.is_empty() {
        return Err(Error::Environment {
            variable,
            expected: "a file or a folder of certificates in PEM".into(),
            found: format!("{}: {problem}", value.display()),
        });
    }
    Ok(roots(&certificates))
}

fn roots(certificates: &[impl AsRef<[u8]>]) -> RootCerts {
    RootCerts::from(certificates.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()))
}
