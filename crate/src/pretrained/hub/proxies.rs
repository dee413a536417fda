//! The proxy for an address, from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` as Python reads them: the
//! lower-case variable first, and one proxy for each scheme. (`ureq`'s own reader has one proxy for both.)

use std::net::IpAddr;

use super::settings::Environment;
use super::url::{Url, without_password};
use crate::error::{Error, Result};

#[derive(Debug, Default)]
pub(super) struct Proxies {
    http: Option<ureq::Proxy>,
    https: Option<ureq::Proxy>,
    /// Hosts that are reached without a proxy.
    exempt: Vec<Exempt>,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Exempt {
    All,
    /// A host and its subdomains, or the subdomains alone (`.example.com`, `*.example.com`); with a port, if it has one.
    Domain {
        name: String,
        subdomains_only: bool,
        port: Option<u16>,
    },
    /// The addresses whose first `bits` bits are those of `network`.
    Network {
        network: IpAddr,
        bits: u32,
    },
}

impl Proxies {
    /// # Errors
    /// [`Error::Environment`] for a value that is not the address of a proxy. It does not show a password.
    pub(super) fn from_env(environment: &Environment) -> Result<Self> {
        let any_case = |name: &'static str| {
            environment.text(&name.to_lowercase()).or_else(|| environment.text(name)).map(|value| (name, value))
        };
        let proxy = |name| any_case(name).or_else(|| any_case("ALL_PROXY")).map(parse).transpose();
        let exempt = any_case("NO_PROXY").map_or_else(Vec::new, |(_, hosts)| {
            hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(Exempt::parse).collect()
        });
        Ok(Self { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, exempt })
    }

    pub(super) fn for_url(&self, url: &Url) -> Option<ureq::Proxy> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.clone().filter(|_| !self.exempt.iter().any(|exempt| exempt.matches(url)))
    }
}

fn parse((variable, value): (&'static str, String)) -> Result<ureq::Proxy> {
    let value = if value.contains("://") { value } else { format!("http://{value}") };
    ureq::Proxy::new(&value).map_err(|_| Error::Environment {
        variable,
        expected: "the address of a proxy, such as http://proxy.example.com:3128".into(),
        found: without_password(&value),
    })
}

impl Exempt {
    fn parse(entry: &str) -> Self {
        let entry = entry.split_once("://").map_or(entry, |(_, host)| host).to_ascii_lowercase();
        if entry == "*" {
            return Self::All;
        }
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (entry.as_str(), None),
        };
        let address = address.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(address);
        if let Ok(network) = address.parse::<IpAddr>() {
            let width = if network.is_ipv4() { 32 } else { 128 };
            let bits = bits.and_then(|bits| bits.parse().ok()).unwrap_or(width).min(width);
            return Self::Network { network, bits };
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
            _ => (entry.as_str(), None),
        };
        let name = name.trim_start_matches('*');
        let subdomains_only = name.starts_with('.');
        Self::Domain { name: name.trim_start_matches('.').into(), subdomains_only, port }
    }

    fn matches(&self, url: &Url) -> bool {
        let host = url.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        match self {
            Self::All => true,
            Self::Domain { name, subdomains_only, port } => {
                let is_subdomain = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (is_subdomain || (!subdomains_only && host == *name)) && port.is_none_or(|port| port == url.port())
            }
            Self::Network { network, bits } => match (host.parse(), network) {
                (Ok(IpAddr::V4(host)), IpAddr::V4(network)) => {
                    (host.to_bits() ^ network.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
                }
                (Ok(IpAddr::V6(host)), IpAddr::V6(network)) => {
                    (host.to_bits() ^ network.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
                }
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::from_env(&Environment::new(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        }))
    }

    fn host_of_proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxy = proxies(variables).unwrap().for_url(&Url::parse(url).unwrap());
        proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let all = [("HTTP_PROXY", "http://plain:1"), ("https_proxy", "lower:2"), ("HTTPS_PROXY", "http://upper:3")];
        assert_eq!(host_of_proxy(&all, "http://hub.co").as_deref(), Some("plain:1"));
        assert_eq!(host_of_proxy(&all, "https://hub.co").as_deref(), Some("lower:2"));
        assert_eq!(host_of_proxy(&[("ALL_PROXY", "socks5h://any:4")], "https://hub.co").as_deref(), Some("any:4"));
        assert_eq!(host_of_proxy(&[("HTTPS_PROXY", "http://plain:1")], "http://hub.co"), None);
        assert_eq!(host_of_proxy(&[("HTTPS_PROXY", "")], "https://hub.co"), None);
    }

    #[test]
    fn no_proxy_is_read_as_in_python() {
        let proxied = |exempt: &str, url: &str| {
            host_of_proxy(&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", exempt)], url).is_some()
        };
        for (exempt, url) in [
            ("*", "https://hub.co"),
            ("x.co, hub.co", "https://hub.co"),
            ("HUB.co", "https://cdn.hub.CO"),
            (".hub.co", "https://cdn.hub.co"),
            ("*.hub.co", "https://cdn.hub.co"),
            ("hub.co:444", "https://hub.co:444"),
            ("https://hub.co", "https://hub.co"),
            ("127.0.0.1", "http://127.0.0.1:8080"),
            ("10.0.0.0/8", "http://10.1.2.3"),
            ("0.0.0.0/0", "http://10.1.2.3"),
            ("::1", "http://[::1]:8080"),
            ("[fe80::]/16", "http://[fe80::1]"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(!proxied(exempt, url), "{exempt} and {url}");
        }
        for (exempt, url) in [
            ("", "https://hub.co"),
            ("hub.co", "https://myhub.co"),
            ("hub.co", "https://hub.co.evil.co"),
            (".hub.co", "https://hub.co"),
            ("hub.co:444", "https://hub.co"),
            ("10.0.0.0/8", "http://11.1.2.3"),
            ("127.0.0.1", "http://127.0.0.2"),
        ] {
            assert!(proxied(exempt, url), "{exempt} and {url}");
        }
    }

    #[test]
    fn a_proxy_that_is_none_is_an_error_without_the_password() {
        let error = proxies(&[("HTTPS_PROXY", "gopher://user:secret@host")]).unwrap_err().to_string();
        assert!(error.starts_with("HTTPS_PROXY: expected the address of a proxy"), "{error}");
        assert!(error.contains("gopher://***@host") && !error.contains("secret"), "{error}");
    }
}
