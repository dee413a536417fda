//! JupyterLab on the notebooks: its address once, its log in a file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::prerequisites::is_root;
use crate::setup::{self, Jupyter};
use crate::tool::{Result, command_line};

/// What JupyterLab's option is for.
const ALLOW_ROOT: &str = "--allow-root";

/// JupyterLab otherwise asks whether to stop when Ctrl-C is pressed, and goes on without an answer after 5 seconds.
/// Ctrl-C also ends this program, so the question would be asked behind the user's next prompt.
const STOPS_AT_ONCE: &str = "--ServerApp.answer_yes=True";

/// Sets up, and starts JupyterLab until it is stopped. `arguments` are passed to it.
pub(crate) fn lab(arguments: &[String]) -> Result<()> {
    // Before the set-up, which takes minutes.
    let allow_root = allow_root(arguments, is_root()?, is_container())?;
    let jupyter = setup::jupyter()?;
    let mut lab = command(&jupyter, arguments, allow_root);
    let line = command_line(&lab);
    let path = crate::target_folder().join("logs/jupyterlab.log");
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    let mut log = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if allow_root {
        println!("JupyterLab runs as root ({ALLOW_ROOT}), because this is a container");
    }
    println!("starting JupyterLab; its log is {}", path.display());
    // The terminal stays its stdin, because JupyterLab handles Ctrl-C itself only at a terminal.
    let mut child = lab.stderr(Stdio::piped()).spawn().map_err(|error| format!("{line} does not start: {error}"))?;
    let mut printed = false;
    for text in child.stderr.take().map(BufReader::new).into_iter().flat_map(|stderr| stderr.split(b'\n')) {
        let text = text?;
        let text = String::from_utf8_lossy(&text);
        let _ = writeln!(log, "{text}");
        if let Some(address) = address(&text).filter(|_| !printed) {
            println!("JupyterLab: {address}   (begin with 00_start_here.ipynb; Ctrl-C stops it)");
            printed = true;
        }
    }
    let status = child.wait()?;
    // A user who stops it has seen the address.
    if status.success() || printed {
        return Ok(());
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(10)..].join("\n");
    Err(format!("{end}\nJupyterLab failed ({status}): {line}").into())
}

/// JupyterLab on the notebooks. Without arguments that say otherwise, it listens on this machine alone and asks for a
/// token, which are JupyterLab's defaults.
fn command(jupyter: &Jupyter, arguments: &[String], allow_root: bool) -> Command {
    let mut lab = jupyter.command("jupyter");
    lab.arg("lab").arg("--notebook-dir").arg(crate::root().join("notebooks")).arg(STOPS_AT_ONCE);
    lab.args(allow_root.then_some(ALLOW_ROOT)).args(arguments);
    lab
}

/// Whether to add `--allow-root`. Outside of a container, that is the user's decision.
fn allow_root(arguments: &[String], is_root: bool, is_container: bool) -> Result<bool> {
    let given = arguments.iter().any(|argument| argument.starts_with(ALLOW_ROOT));
    if !is_root || given {
        return Ok(false);
    }
    if is_container {
        return Ok(true);
    }
    Err("JupyterLab does not run as root unless it is told to, because everyone who has its address can then do \
         everything on this machine: run `cargo xtask lab --allow-root`, or work as another user"
        .into())
}

/// Whether this is a container of Docker, Podman or systemd.
fn is_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    marks.iter().any(|mark| Path::new(mark).exists()) || std::env::var_os("container").is_some()
}

/// The address in a line of Jupyter's log: `[I …] http://localhost:8888/lab?token=…`.
fn address(line: &str) -> Option<&str> {
    let start = line.find("http://").or_else(|| line.find("https://"))?;
    let address = line[start..].split_whitespace().next()?;
    address.contains("/lab").then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_to_allow_root_except_in_a_container() {
        let own = ["--no-browser".to_owned()];
        let given = ["--no-browser".to_owned(), "--allow-root".to_owned()];
        assert!(!allow_root(&own, false, false).unwrap() && !allow_root(&own, false, true).unwrap());
        assert!(!allow_root(&given, true, false).unwrap() && !allow_root(&given, true, true).unwrap());
        assert!(allow_root(&own, true, true).unwrap());
        let error = allow_root(&own, true, false).unwrap_err().to_string();
        assert!(error.contains("`cargo xtask lab --allow-root`") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn the_address_is_found_in_the_log() {
        let line = "[I 2026-01-01 10:00:00.000 ServerApp] http://localhost:8888/lab?token=abc";
        assert_eq!(address(line), Some("http://localhost:8888/lab?token=abc"));
        assert_eq!(address("        http://127.0.0.1:8888/lab?token=abc"), Some("http://127.0.0.1:8888/lab?token=abc"));
        assert_eq!(address("[I] see https://jupyter-server.readthedocs.io/config"), None);
        assert_eq!(address("[I ServerApp] jupyterlab | extension was successfully loaded."), None);
    }

    #[test]
    fn an_argument_of_the_user_comes_last() {
        let jupyter = Jupyter::in_folder(Path::new("/a")).unwrap();
        let command = command(&jupyter, &["--ServerApp.answer_yes=False".to_owned()], false);
        let arguments: Vec<_> = command.get_args().collect();
        assert!(
            arguments.ends_with(&["--ServerApp.answer_yes=True".as_ref(), "--ServerApp.answer_yes=False".as_ref()])
        );
    }

    /// The process group of JupyterLab, which ends with the value.
    #[cfg(target_os = "linux")]
    struct Running(std::process::Child);

    #[cfg(target_os = "linux")]
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = Command::new("kill").args(["-s", "TERM", "--", &format!("-{}", self.0.id())]).status();
            let _ = self.0.wait();
        }
    }

    /// The status line and the headers of the answer to a request.
    #[cfg(target_os = "linux")]
    fn request(port: u16, path: &str) -> String {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        answer.split("\r\n\r\n").next().unwrap_or_default().to_owned()
    }

    /// The addresses on which something listens at a port, in the kernel's notation: bytes in the order of the machine.
    #[cfg(target_os = "linux")]
    fn listening(port: u16) -> Vec<String> {
        const LISTEN: &str = "0A";
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        let local = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, own) = fields.get(1)?.split_once(':')?;
            (fields.get(3) == Some(&LISTEN) && own == format!("{port:04X}")).then(|| address.to_owned())
        };
        tables.iter().flat_map(|table| table.lines().filter_map(local)).collect()
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[ignore = "needs Jupyter: cargo xtask test"]
    fn jupyterlab_listens_on_this_machine_alone_and_asks_for_a_token() {
        use std::os::unix::process::CommandExt;
        let folder = std::env::var_os("ATTENTION_TOKENS_VENV").map_or_else(|| crate::root().join(".venv"), Into::into);
        let jupyter = Jupyter::in_folder(&folder).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let arguments = ["--no-browser".to_owned(), "--ServerApp.port=0".to_owned()];
        let mut lab = command(&jupyter, &arguments, is_root().unwrap());
        // Without the settings of the user who runs the test.
        for name in ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"] {
            lab.env(name, scratch.path());
        }
        lab.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running(lab.spawn().unwrap());
        let (found, addresses) = std::sync::mpsc::channel();
        let log = BufReader::new(running.0.stderr.take().unwrap());
        std::thread::spawn(move || {
            log.lines().map_while(std::io::Result::ok).for_each(|line| {
                if let Some(address) = address(&line) {
                    let _ = found.send(address.to_owned());
                }
            })
        });
        let address =
            addresses.recv_timeout(std::time::Duration::from_secs(120)).expect("JupyterLab prints its address");
        let (host, rest) = address.strip_prefix("http://").unwrap().split_once(':').unwrap();
        let (port, token) = rest.split_once("/lab?token=").unwrap();
        let port = port.parse().unwrap();
        assert!(["localhost", "127.0.0.1"].contains(&host), "{address}");
        assert!(token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{address}");

        let loopback = |address: &String| {
            let word = |at: usize| u32::from_str_radix(&address[at..at + 8], 16).unwrap();
            let words: Vec<u32> =
                (0..address.len()).step_by(8).map(|at| u32::from_be_bytes(word(at).to_ne_bytes())).collect();
            matches!(words[..], [0x7f00_0001] | [0, 0, 0, 1] | [0, 0, 0xffff, 0x7f00_0001])
        };
        // The address is printed a moment before.
        let listening = (0..600).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            Some(listening(port)).filter(|addresses| !addresses.is_empty())
        });
        let listening = listening.expect("JupyterLab listens at the port of its address");
        assert!(listening.iter().all(loopback), "{address}: {listening:?}");

        let refused = |answer: &str| {
            let status = answer.split(' ').nth(1).unwrap_or_default();
            status == "403" || (status == "302" && answer.contains("/login"))
        };
        for path in
            ["/lab", "/api/contents", "/api/kernels", "/api/contents?token=", "/api/contents?token=0123456789abcdef"]
        {
            let answer = request(port, path);
            assert!(refused(&answer), "{path}: {answer}");
        }
        let answer = request(port, &format!("/api/contents?token={token}"));
        assert!(answer.contains(" 200 "), "{answer}");
    }
}
