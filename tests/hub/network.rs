//! Where the token goes, proxies, and certificates.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::server::{Answer, Files, Hub, Request, tiny};
use super::{assert_contains, in_child};
use crate::support::fixture;

#[test]
fn the_token_is_sent_to_the_endpoint_only() {
    // Another port is another origin.
    let files = Files::whole();
    let storage = Hub::start({
        let files = files.clone();
        move |request, _| files.answer(request)
    });
    let elsewhere = storage.endpoint.replace("127.0.0.1", "localhost");
    let hub = Hub::changed(files, move |request, _, answer| {
        if request.header("authorization") != Some("Bearer secret") {
            return Answer::new(401, &[], b"Invalid credentials");
        }
        match answer.headers.iter().find(|(name, _)| *name == "Location") {
            Some((_, url)) => {
                let path = url.split_once("/storage").unwrap().1;
                answer.clone().header("Location", &format!("{elsewhere}/storage{path}"))
            }
            None => answer,
        }
    });
    let home = tempfile::tempdir().unwrap();
    let variables = hub.variables(home.path());
    let printed = in_child("test/private", None, &variables);
    assert_contains(&printed, &["error test/private at http://127.0.0.1", "HF_TOKEN"]);
    std::fs::write(home.path().join("token"), "secret\n").unwrap();
    let printed = in_child("test/private", None, &variables);
    assert_contains(&printed, &["loaded d_model 48"]);
    assert!(!printed.contains("secret"), "{printed}");
    assert_eq!(storage.requests_for("GET", "model.safetensors").len(), 1);
    assert!(storage.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(hub.requests().iter().rev().take(6).all(|request| request.header("authorization").is_some()));
}

/// In a message, there is no token, no password of the endpoint or the proxy, and no signature of an address.
#[test]
fn messages_have_no_secrets() {
    let refusing = Hub::start(|_, _| Answer::new(403, &[], b""));
    let turning = Hub::start(|_, _| Answer::redirect(302, "/x?Signature=secret-signature"));
    let downgrade = Hub::start(|_, _| Answer::redirect(302, "ftp://user:secret-ftp@host/x"));
    for hub in [refusing, turning, downgrade] {
        let home = tempfile::tempdir().unwrap();
        let endpoint = hub.endpoint.replace("http://", "http://user:secret-user@");
        let variables = hub.variables(home.path());
        let variables = [&variables[..], &[("HF_TOKEN", "hf_secret"), ("HF_ENDPOINT", &endpoint)]].concat();
        let printed = in_child("test/whole", None, &variables);
        assert_contains(&printed, &["error test/whole at http://127.0.0.1:"]);
        assert!(!printed.contains("secret"), "{printed}");
        // Settings that cannot be used, and offline mode.
        for (name, value) in [
            ("HF_TOKEN", "hf_secret\u{e9}"),
            ("HTTP_PROXY", "gopher://user:secret@proxy"),
            ("HF_ENDPOINT", "user:secret@host"),
            ("HF_HUB_OFFLINE", "1"),
        ] {
            let printed = in_child("test/whole", None, &[&variables[..], &[(name, value)]].concat());
            assert_contains(&printed, &["error ", name]);
            assert!(!printed.contains("secret"), "{printed}");
        }
    }
}

/// Connects its clients to the hosts that they ask for, and records the requests.
fn proxy(status: &'static str) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let seen = seen.clone();
            std::thread::spawn(move || {
                let request = Request::read(&mut BufReader::new(&client)).unwrap();
                let target = request.path.clone();
                seen.lock().unwrap().push(request);
                client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).unwrap();
                if status.starts_with("200") {
                    let mut server = TcpStream::connect(target).unwrap();
                    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                    drop(std::io::copy(&mut server, &mut client));
                    drop(client.shutdown(std::net::Shutdown::Both));
                }
            });
        }
    });
    (address, requests)
}

#[test]
fn proxies_are_used_unless_no_proxy_lists_the_host() {
    let (address, requests) = proxy("200 OK");
    let hub = Hub::with(Files::whole());
    let with_password = format!("http://user:p%40ss@{address}");
    for (variable, no_proxy, proxied) in [
        ("HTTP_PROXY", "", true),
        ("all_proxy", "", true),
        ("HTTPS_PROXY", "", false),
        ("http_proxy", "localhost,127.0.0.0/8", false),
    ] {
        let home = tempfile::tempdir().unwrap();
        let variables = hub.variables(home.path());
        let variables = [&variables[..], &[(variable, with_password.as_str()), ("NO_PROXY", no_proxy)]].concat();
        requests.lock().unwrap().clear();
        assert_contains(&in_child("test/whole", None, &variables), &["loaded d_model 48"]);
        let requests = requests.lock().unwrap();
        assert_eq!(!requests.is_empty(), proxied, "{variable} {no_proxy}");
        for request in requests.iter() {
            assert_eq!(request.method, "CONNECT");
            // printf user:p@ss | base64
            assert_eq!(request.header("proxy-authorization"), Some("Basic dXNlcjpwQHNz"));
        }
    }
}

#[test]
fn a_proxy_that_refuses_is_named() {
    let (address, _) = proxy("407 Proxy Authentication Required");
    let (hub, home) = (Hub::with(Files::whole()), tempfile::tempdir().unwrap());
    let proxy = format!("http://user:secret@{address}");
    let variables = [&hub.variables(home.path())[..], &[("HTTP_PROXY", &proxy)]].concat();
    let printed = in_child("test/whole", None, &variables);
    assert_contains(
        &printed,
        &["proxy server responded 407", "check the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"],
    );
    assert!(!printed.contains("secret"), "{printed}");
}

/// A Hub with a certificate of `tests/fixtures/hub/authority.pem`. Returns its address.
fn tls_hub(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> String {
    let folder = fixture("hub");
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (config, answer) = (config.clone(), answer.clone());
            std::thread::spawn(move || {
                let connection = rustls::ServerConnection::new(config).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, socket);
                let Some(request) = Request::read(&mut BufReader::new(&mut stream)) else { return };
                let mut answer = answer(&request);
                for (_, value) in &mut answer.headers {
                    *value = value.replace("http://localhost", "https://localhost");
                }
                drop(answer.write(&mut stream, request.method == "HEAD"));
                stream.conn.send_close_notify();
                drop(stream.flush());
            });
        }
    });
    address
}

fn variables_of<'a>(endpoint: &'a str, home: &'a Path) -> Vec<(&'a str, &'a str)> {
    vec![("HF_ENDPOINT", endpoint), ("HF_HOME", home.to_str().unwrap()), ("HF_HUB_ETAG_TIMEOUT", "5")]
}

#[test]
fn a_certificate_authority_of_a_company_is_trusted_if_it_is_named() {
    let endpoint = tls_hub(|request| Files::whole().answer(request));
    let authority = fixture("hub").join("authority.pem");
    let authority = authority.to_str().unwrap();
    let home = tempfile::tempdir().unwrap();
    let printed = in_child("test/whole", None, &variables_of(&endpoint, home.path()));
    assert_contains(&printed, &["UnknownIssuer", "name its file in SSL_CERT_FILE"]);
    for variable in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        let home = tempfile::tempdir().unwrap();
        let variables = [&variables_of(&endpoint, home.path())[..], &[(variable, authority)]].concat();
        assert_contains(&in_child("test/whole", None, &variables), &["loaded d_model 48"]);
    }
    // A folder in OpenSSL's format: the names are hashes, of which only the form matters here.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(authority, folder.path().join("01234567.0")).unwrap();
    let several = std::env::join_paths([home.path(), folder.path()]).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let settings = [("SSL_CERT_DIR", several.to_str().unwrap())];
    let variables = [&variables_of(&endpoint, fresh.path())[..], &settings].concat();
    assert_contains(&in_child("test/whole", None, &variables), &["loaded d_model 48"]);
    for value in ["no/such/file", fixture("tiny").join("config.json").to_str().unwrap()] {
        let variables = [&variables_of(&endpoint, home.path())[..], &[("SSL_CERT_FILE", value)]].concat();
        let printed = in_child("test/whole", None, &variables);
        assert_contains(&printed, &["error SSL_CERT_FILE: expected a file or a folder of certificates in PEM", value]);
    }
}

/// A redirect from an encrypted address to one that is not.
#[test]
fn a_redirect_does_not_leave_encryption() {
    let plain = Hub::with(Files(vec![("model.safetensors", tiny("model.safetensors"))]));
    let target = plain.endpoint.clone();
    let endpoint = tls_hub(move |request| {
        let answer = Files::whole().answer(request);
        let leaves = request.path.ends_with("model.safetensors") && request.method == "GET";
        if leaves { Answer::redirect(302, &format!("{target}/storage/model.safetensors")) } else { answer }
    });
    let (home, authority) = (tempfile::tempdir().unwrap(), fixture("hub").join("authority.pem"));
    let settings = [("SSL_CERT_FILE", authority.to_str().unwrap()), ("HF_TOKEN", "secret")];
    let printed = in_child("test/whole", None, &[&variables_of(&endpoint, home.path())[..], &settings].concat());
    assert_contains(&printed, &[&format!("leads from https to {}, which is not encrypted", plain.endpoint)]);
    assert!(plain.requests().is_empty());
}
