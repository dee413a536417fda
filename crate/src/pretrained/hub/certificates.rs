//! The certificate authorities that are trusted: those of `SSL_CERT_FILE` or `SSL_CERT_DIR`, else of
//! `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` (which Python's `requests` reads), else the system's, else Mozilla's.

use std::path::Path;

use rustls_native_certs::CertificateResult;
use ureq::tls::{Certificate, RootCerts};

use super::settings::Environment;
use crate::error::{Error, Result};

/// # Errors
/// [`Error::Environment`] for a variable that names no file or folder with certificates.
pub(super) fn trusted(environment: &Environment) -> Result<RootCerts> {
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        if let Some(path) = environment.path(variable) {
            return from_path(variable, &path);
        }
    }
    // The variables SSL_CERT_FILE and SSL_CERT_DIR, which this function reads too, are not set here.
    let system = rustls_native_certs::load_native_certs();
    Ok(if system.certs.is_empty() { RootCerts::WebPki } else { roots(system) })
}

fn from_path(variable: &'static str, path: &Path) -> Result<RootCerts> {
    let (file, folder) = if path.is_dir() { (None, Some(path)) } else { (Some(path), None) };
    let loaded = rustls_native_certs::load_certs_from_paths(file, folder);
    if loaded.certs.is_empty() {
        let problem = loaded.errors.first().map_or_else(|| "no certificate in it".into(), ToString::to_string);
        return Err(Error::Environment {
            variable,
            expected: "a file or a folder of certificates in PEM".into(),
            found: format!("{}: {problem}", path.display()),
        });
    }
    Ok(roots(loaded))
}

fn roots(loaded: CertificateResult) -> RootCerts {
    RootCerts::from(loaded.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()))
}
