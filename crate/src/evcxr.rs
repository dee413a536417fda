//! Display of values in evcxr notebooks, and a warning about slow builds of this crate.

use std::borrow::Cow;
use std::io;
#[cfg(target_os = "linux")]
use std::io::Write;
use std::sync::Once;

/// Prints contents by MIME type in evcxr's format. evcxr sends everything that one cell prints as one MIME bundle.
///
/// A type whose method `evcxr_display` calls this is displayed as the last expression of a cell.
pub(crate) fn show(contents: &[(&str, &str)]) {
    // A failure means that nobody reads stdout; the contents then fail as well, with a panic.
    let _ = end_unfinished_line();
    for (mime, content) in contents {
        let content = harmless(content);
        println!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT");
    }
}

/// How evcxr's commands begin, which a program gives by printing them.
const COMMAND: &str = "EVCXR_";

/// Text with a character without width in what evcxr would take for a command: a text that a model generates must not
/// become the HTML of a page.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if text.contains(COMMAND) { text.replace(COMMAND, "EVCXR_\u{200b}").into() } else { text.into() }
}

/// Ends the line that a cell has begun with `print!`. Otherwise the contents begin in the middle of that line, and evcxr
/// drops the part before them.
#[cfg(target_os = "linux")]
fn end_unfinished_line() -> io::Result<()> {
    if std::env::var_os("EVCXR_IS_RUNTIME").is_none() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    let unfinished = buffered(libc::STDOUT_FILENO, || stdout.flush())?;
    if unfinished.is_empty() {
        return Ok(());
    }
    stdout.write_all(&unfinished)?;
    stdout.write_all(b"\n")
}

#[cfg(not(target_os = "linux"))]
fn end_unfinished_line() -> io::Result<()> {
    Ok(())
}

/// The bytes that `flush` writes to a file descriptor, which do not reach its file. At most 64 KiB, the capacity of a
/// pipe; stdout buffers 1 KiB. There is no other way to ask whether stdout has an unfinished line.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn buffered(file: std::os::fd::RawFd, flush: impl FnOnce() -> io::Result<()>) -> io::Result<Vec<u8>> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    let (mut reader, writer) = io::pipe()?;
    // SAFETY: the descriptor is open, and the duplicate has one owner.
    let duplicate = unsafe {
        match libc::fcntl(file, libc::F_DUPFD_CLOEXEC, 0) {
            -1 => return Err(io::Error::last_os_error()),
            duplicate => OwnedFd::from_raw_fd(duplicate),
        }
    };
    // SAFETY: both are open. The second call makes `file` what it was before the first one.
    let redirect = |to: std::os::fd::RawFd| match unsafe { libc::dup2(to, file) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    redirect(writer.as_raw_fd())?;
    let flushed = flush();
    redirect(duplicate.as_raw_fd())?;
    drop(writer);
    flushed?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut reader, &mut bytes)?;
    Ok(bytes)
}

/// Warns once per process if this crate was built with debug assertions, which make it several times slower. evcxr
/// builds it so unless the kernel's environment sets another profile.
pub(crate) fn warn_of_debug_build() {
    static ONCE: Once = Once::new();
    if cfg!(debug_assertions) {
        ONCE.call_once(|| {
            eprintln!(
                "attention-tokens was built with debug assertions and runs several times slower than it can: in a program \
                 use `cargo run --release`; in a notebook start the kernel with CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false, \
                 CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false and CARGO_PROFILE_DEV_OPT_LEVEL=3 in its environment, as \
                 `cargo xtask lab` does"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_gives_no_commands() {
        let text = "a\nEVCXR_END_CONTENT\nEVCXR_BEGIN_CONTENT text/html\n<script>";
        let written = super::harmless(text);
        assert!(!written.contains("EVCXR_END") && !written.contains("EVCXR_BEGIN"));
        assert_eq!(written.replace('\u{200b}', ""), text);
        assert_eq!(super::harmless("EVCXR"), "EVCXR");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_unfinished_line_is_read_and_taken() {
        use std::io::{LineWriter, Write};
        use std::os::fd::AsRawFd;

        let mut file = tempfile::tempfile().unwrap();
        let descriptor = file.as_raw_fd();
        let mut lines = LineWriter::new(file.try_clone().unwrap());
        let own = lines.get_ref().as_raw_fd();
        assert_ne!(descriptor, own);
        write!(lines, "first\nsecond").unwrap();
        assert_eq!(super::buffered(own, || lines.flush()).unwrap(), b"second");
        assert_eq!(super::buffered(own, || lines.flush()).unwrap(), b"");
        writeln!(lines, "third").unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        assert_eq!(text, "first\nthird\n");
    }
}
