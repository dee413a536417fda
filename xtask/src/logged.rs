//! Commands whose output goes to a log file. A person sees its end only if the command fails, with a sentence about
//! the usual causes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::progress::{Step, lock};
use crate::stoppable::StoppableCommand;
use crate::tool::{Result, command_line};

/// Number of lines of the log that an error shows.
const SHOWN: usize = 15;

/// Time to read the last output of a command that has ended. Programs that it left behind, such as the kernel of a
/// notebook, may hold its output open for ever.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// What to do about the usual causes of a failure, each with the words by which it shows in a log.
const CAUSES: [(&[&str], &str); 8] = [
    (
        &["DO NOT MATCH THE HASHES"],
        "a downloaded Python package is not the one that was pinned (the log has its name and both hashes): the download is damaged, or a proxy or \
         mirror serves another file under its name. Nothing of it was installed. Run the command again; if it fails again, use pypi.org itself",
    ),
    (
        &["No space left on device", "os error 28", "Disk quota exceeded"],
        "the disk is full: the set-up needs about 5 GB for target and .venv; free some and run the command again, which \
         goes on where it stopped",
    ),
    (
        &["Read-only file system", "os error 30"],
        "a folder is read-only: copy the repository to one that you can write to, and set ATTENTION_TOKENS_VENV, \
         CARGO_HOME or TMPDIR if one of these is meant",
    ),
    (
        &[
            "CERTIFICATE_VERIFY_FAILED",
            "SSL certificate problem",
            "self-signed certificate",
            "self signed certificate",
            "invalid peer certificate",
            "Certificate verification failed",
        ],
        "a certificate is not trusted, usually because a proxy puts its own in place of the server's: set \
         CARGO_HTTP_CAINFO, PIP_CERT and SSL_CERT_FILE to a file with the proxy's certificate, and run the command again",
    ),
    (
        &[
            "Proxy Authentication Required",
            "ProxyError",
            "Could not resolve proxy",
            "Failed to connect to proxy",
            "CONNECT tunnel failed",
            "Received HTTP code 407",
        ],
        "the proxy refused: set HTTPS_PROXY (and HTTP_PROXY) to http://USER:PASSWORD@HOST:PORT, which cargo and pip read",
    ),
    (
        &[
            "Could not resolve host",
            "Couldn't resolve host",
            "Temporary failure in name resolution",
            "Temporary failure resolving",
            "Name or service not known",
            "NewConnectionError",
            "Network is unreachable",
            "Could not connect to server",
            "Couldn't connect to server",
            "Failed to connect to",
            "Connection refused",
            "Connection timed out",
            "Timeout was reached",
            "spurious network error",
            // pip, where it found no index at all.
            "(from versions: none)",
        ],
        "there is no network, which the set-up needs once: connect, or set HTTPS_PROXY if there is a proxy, and run the \
         command again, which goes on where it stopped",
    ),
    (
        &["signal: 9", "signal 9 [Killed]", "LLVM ERROR: out of memory", "os error 12"],
        "the system ended a program, usually for want of memory: close other programs, or set CARGO_BUILD_JOBS=1, which \
         compiles one crate at a time, and run the command again, which goes on where it stopped",
    ),
    (
        &["Permission denied", "os error 13"],
        "a folder belongs to another user: run the command as its owner, or set ATTENTION_TOKENS_VENV, CARGO_HOME or \
         TMPDIR to folders of your own",
    ),
];

/// Runs a command as (a part of) a step, and returns its stdout. Its stderr goes to `target/logs/NAME.log`, except for
/// cargo's progress, which is the step's.
pub(crate) fn run(step: &Step, name: &str, command: &mut Command) -> Result<Vec<u8>> {
    run_in(&folder(), step, name, command)
}

/// The log of the command of a name.
pub(crate) fn path(name: &str) -> PathBuf {
    in_folder(&folder(), name)
}

fn folder() -> PathBuf {
    crate::target_folder().join("logs")
}

fn in_folder(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

fn run_in(folder: &Path, step: &Step, name: &str, command: &mut Command) -> Result<Vec<u8>> {
    let path = in_folder(folder, name);
    let mut log = fs::create_dir_all(folder).and_then(|()| File::create(&path)).map_err(|error| {
        let error = format!("{}: {error}", path.display());
        cause(&error).map_or_else(|| error.clone(), |cause| format!("{error}\n{cause}"))
    })?;
    // cargo's progress, as it shows it on a terminal.
    command.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "80");
    command.env("CARGO_TERM_COLOR", "never");
    // The words of CAUSES are English. Names of files stay UTF-8; GNU's programs let LANGUAGE override LC_ALL.
    command.env("LC_ALL", "C.UTF-8").env_remove("LANGUAGE");
    let line = command_line(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{name} does not start: {error}: {line}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let child = Arc::new(StoppableCommand::new(child));
    step.progress().stops_on_failure(&child);
    // The threads are not joined, because their streams may stay open.
    let output = Arc::new(Mutex::new(Vec::new()));
    let (lines, received) = mpsc::channel();
    let (read, is_read) = mpsc::channel::<()>();
    let collected = Arc::clone(&output);
    thread::spawn(move || {
        let _read = read; // dropped at the end
        stdout.into_iter().for_each(|stdout| for_each_piece(stdout, |piece| lock(&collected).extend_from_slice(piece)));
    });
    thread::spawn(move || {
        stderr.into_iter().for_each(|stderr| for_each_line(stderr, |line| drop(lines.send(line.to_owned()))))
    });
    let mut each = |line: String| match crates(&line) {
        Some((done, total)) => step.parts(done, total),
        // The log is for people; a full disk shows in the command's own error.
        None => drop(writeln!(log, "{line}")),
    };
    let status = thread::scope(|scope| {
        let status = scope.spawn(|| child.wait());
        while !status.is_finished() {
            received.recv_timeout(Duration::from_millis(50)).into_iter().for_each(&mut each);
        }
        status.join().expect("waiting does not panic")
    })?;
    while let Ok(line) = received.recv_timeout(LAST_OUTPUT) {
        each(line);
    }
    let _ = is_read.recv_timeout(LAST_OUTPUT); // an error once the thread has ended
    let output = std::mem::take(&mut *lock(&output));
    if status.success() {
        return Ok(output);
    }
    let _ = log.write_all(&output);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
    let cause = cause(&format!("{text}\n{status}")).map_or_else(String::new, |cause| format!("\n{cause}"));
    Err(format!("{end}\n{name} failed ({status}): {line}\nall of its output: {}{cause}", path.display()).into())
}

/// Calls a function with what is read, piece by piece, until the stream ends.
fn for_each_piece(mut stream: impl Read, mut each: impl FnMut(&[u8])) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        each(&buffer[..read]);
    }
}

/// Calls a function with each line; cargo ends its progress with a carriage return.
fn for_each_line(stream: impl Read, mut each: impl FnMut(&str)) {
    let mut line = Vec::new();
    for_each_piece(stream, |piece| {
        for &byte in piece {
            if byte == b'\n' || byte == b'\r' {
                let text = String::from_utf8_lossy(&line);
                if !text.trim().is_empty() {
                    each(text.trim_end());
                }
                line.clear();
            } else {
                line.push(byte);
            }
        }
    });
    if !line.is_empty() {
        each(&String::from_utf8_lossy(&line));
    }
}

/// The crates done and in all, if this is a line of cargo's progress: `    Building [==>  ] 12/310: serde, …`.
fn crates(line: &str) -> Option<(usize, usize)> {
    let (_, rest) = line.split_once("Building [")?.1.split_once(']')?;
    let (done, rest) = rest.trim_start().split_once('/')?;
    let total: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((done.parse().ok()?, total.parse().ok()?))
}

/// What to do about the cause of a failure, if the log names a usual one.
pub(crate) fn cause(log: &str) -> Option<&'static str> {
    CAUSES.iter().find(|(words, _)| words.iter().any(|word| log.contains(word))).map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    #[test]
    fn progress_of_cargo_is_read() {
        assert_eq!(crates("    Building [=====>          ] 12/310: serde, syn(build.rs)"), Some((12, 310)));
        assert_eq!(crates("    Building [==============> ] 309/310"), Some((309, 310)));
        for line in ["   Compiling serde v1.0.0", "    Building [", "    Updating [==> ] (1/3)", ""] {
            assert_eq!(crates(line), None, "{line}");
        }
        let mut lines = Vec::new();
        for_each_line(&b"a\r\x20\rb\n\nc"[..], |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["a", "b", "c"]);
    }

    #[test]
    fn usual_causes_are_explained() {
        for (log, expected) in [
            ("error: failed to write x\n\nCaused by:\n  No space left on device (os error 28)", "the disk is full"),
            ("warning: spurious network error (3 tries remaining): [6] Couldn't resolve host name", "no network"),
            ("ERROR: No matching distribution: jupyterlab==4.6.6 (from versions: none)", "no network"),
            ("ERROR: NewConnectionError('<pip._vendor…>: Failed to establish a new connection')", "no network"),
            ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407'))", "the proxy refused"),
            ("[56] CONNECT tunnel failed, response 407", "the proxy refused"),
            (
                "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))\n\
                 (from versions: none)",
                "a certificate is not trusted",
            ),
            ("spurious network error: [60] SSL certificate problem: unable to get issuer", "not trusted"),
            ("W: Failed to fetch x  Temporary failure resolving 'deb.debian.org'", "no network"),
            ("process didn't exit successfully: `rustc …` (signal: 9, SIGKILL: kill)", "want of memory"),
            ("collect2: fatal error: ld terminated with signal 9 [Killed]", "want of memory"),
            ("error: failed to create directory\n  Read-only file system (os error 30)", "read-only"),
            ("Permission denied (os error 13)", "another user"),
            (
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have",
                "not the one that was pinned",
            ),
        ] {
            assert!(cause(log).is_some_and(|cause| cause.contains(expected)), "{log}: {:?}", cause(log));
        }
        assert_eq!(cause("error[E0308]: mismatched types"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_failing_command_shows_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str| {
            Progress::run(1, |progress| {
                progress.step("x", |step| run_in(folder.path(), step, "x", Command::new("sh").args(["-c", script])))
            })
        };
        assert_eq!(run("echo out; echo '   Building [=> ] 1/2: a' >&2").unwrap(), b"out\n");
        let script = "for i in $(seq 40); do echo line $i >&2; done; echo 'No space left on device' >&2; exit 3";
        let error = run(script).unwrap_err().to_string();
        assert!(error.starts_with("line 27\nline 28\n"), "{error}");
        assert!(
            error.contains("x.log") && error.contains("the disk is full") && error.contains("exit status: 3"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(folder.path().join("x.log")).unwrap().lines().count(), 41);
        let missing = Progress::run(1, |progress| {
            progress.step("x", |step| run_in(folder.path(), step, "x", &mut Command::new("no-such-program")))
        });
        assert!(missing.unwrap_err().to_string().contains("x does not start"));
    }

    #[cfg(unix)]
    #[test]
    fn commands_report_in_english_and_a_killed_one_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).env("LANGUAGE", "de").env("LC_ALL", "de_DE.UTF-8");
            Progress::run(1, |progress| progress.step("x", |step| run_in(folder.path(), step, "x", &mut command)))
        };
        assert_eq!(run("echo $LC_ALL-$LANGUAGE").unwrap(), b"C.UTF-8-\n");
        let error = run("kill -9 $$").unwrap_err().to_string();
        assert!(error.contains("want of memory"), "{error}");
    }

    /// A program that a command leaves behind holds its output open.
    #[cfg(unix)]
    #[test]
    fn a_program_left_behind_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let started = std::time::Instant::now();
        let script = "sleep 60 & echo out; echo err >&2";
        let output = Progress::run(1, |progress| {
            progress.step("x", |step| run_in(folder.path(), step, "x", Command::new("sh").args(["-c", script])))
        });
        assert_eq!(output.unwrap(), b"out\n");
        assert_eq!(fs::read_to_string(folder.path().join("x.log")).unwrap(), "err\n");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    /// A stopped command can end what it has started, as a notebook's program ends its kernel.
    #[cfg(unix)]
    #[test]
    fn a_command_is_asked_to_end_before_it_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let ended = folder.path().join("ended");
        let script = format!("trap 'touch {}; exit 1' TERM; while :; do sleep 0.05; done", ended.display());
        Progress::run(2, |progress| {
            thread::scope(|scope| {
                let slow = scope.spawn(|| {
                    progress.step("slow", |step| {
                        run_in(folder.path(), step, "slow", Command::new("sh").args(["-c", &script]))
                    })
                });
                thread::sleep(Duration::from_millis(300));
                assert!(progress.step("bad", |_| Err::<(), _>("bad".into())).is_err());
                assert!(slow.join().unwrap().is_err());
            });
        });
        assert!(ended.exists());
    }

    /// A failing step stops the commands of the others.
    #[cfg(unix)]
    #[test]
    fn a_failure_stops_the_other_commands() {
        let folder = tempfile::tempdir().unwrap();
        let started = std::time::Instant::now();
        Progress::run(2, |progress| {
            thread::scope(|scope| {
                let slow = scope.spawn(|| {
                    progress
                        .step("slow", |step| run_in(folder.path(), step, "slow", Command::new("sleep").arg("60")))
                        .is_err()
                });
                thread::sleep(Duration::from_millis(100));
                assert!(progress.step("bad", |_| Err::<(), _>("bad".into())).is_err());
                assert!(slow.join().unwrap());
            });
        });
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
