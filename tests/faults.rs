//! Faults: processes that are killed, full disks, folders that cannot be written, files that shrink, clocks that jump. What
//! was written stays, what is written is whole, and messages name the file.
//!
//! `ATTENTION_TOKENS_KILLS` is the number of times that each process is killed. `ATTENTION_TOKENS_SMALL_DISK` is a folder on
//! a file system without room, which the tests then use in place of a limit on the size of files:
//!
//!     mount -t tmpfs -o size=64k tmpfs FOLDER && ATTENTION_TOKENS_SMALL_DISK=FOLDER cargo nextest run -E 'test(faults::)'

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use attention_tokens::experiments::*;
use attention_tokens::prelude::*;

use crate::support::{Folder, example, load, rng};

mod writers;

use writers::{KINDS, READY, SWEEP, Writer, compared, letters, process};

/// How often each process is killed.
fn kills() -> usize {
    std::env::var("ATTENTION_TOKENS_KILLS").map_or(2, |kills| kills.parse().unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Killed while it writes, a process leaves no file, the former one, or the new one, as a whole.
#[test]
fn a_process_that_is_killed_leaves_whole_files() {
    let mut rng = rng();
    let writers = [0, 1].map(Writer::new);
    for (kind, _) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let whole = [0, 1].map(|variant| {
            let path = folder.path().join(variant.to_string()).join(kind);
            fs::create_dir(path.parent().unwrap()).unwrap();
            writers[variant].write(kind, &path).unwrap();
            writers[variant].contents(&path).unwrap()
        });
        assert_ne!(whole[0], whole[1], "{kind}");
        fs::create_dir(folder.path().join("killed")).unwrap();
        let path = folder.path().join("killed").join(kind);
        let mut was_there = false;
        for kill in 0..kills() {
            let mut child = process(kind, "both", &path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains(READY)));
            std::thread::sleep(Duration::from_micros(rng.u64(..60_000)));
            child.kill().unwrap();
            assert!(!child.wait().unwrap().success());
            if compared(&path).exists() || was_there {
                let found = writers[0].contents(&path);
                let found = found.unwrap_or_else(|error| panic!("{kind}, kill {kill}: {error}"));
                assert!(whole.contains(&found), "{kind}, kill {kill}: {} bytes, a part of the file", found.len());
                was_there = true;
            }
        }
        // What the killed processes left is in nobody's way.
        writers[1].write(kind, &path).unwrap();
        assert_eq!(writers[1].contents(&path).unwrap(), whole[1], "{kind}");
    }
}

/// The `vocabulary` example in a folder.
fn vocabulary(folder: &Path, counts: &str) -> Command {
    let mut command = example("vocabulary");
    command.args(["letters", "prompts.txt", counts, "--tokens", "6", "--save-every", "0"]).current_dir(folder);
    command
}

/// A folder with a file of prompts of letters.
fn prompts(n: usize) -> tempfile::TempDir {
    let (folder, mut rng) = (tempfile::tempdir().unwrap(), fastrand::Rng::with_seed(5));
    let mut line = || (0..8).map(|_| format!("{} ", rng.lowercase())).collect::<String>();
    let lines: Vec<String> = (0..n).map(|_| line()).collect();
    fs::write(folder.path().join("prompts.txt"), lines.join("\n") + "\n").unwrap();
    folder
}

/// Killed at any moment, a sweep goes on where it was: the files that it writes at its end are those of a sweep that was
/// not killed.
#[test]
fn a_sweep_that_is_killed_loses_and_repeats_nothing() {
    const OUTPUTS: [&str; 2] = ["csv", "parquet"];
    let (folder, mut rng) = (prompts(160), rng());
    let path = |name: &str| folder.path().join(name);
    let started = std::time::Instant::now();
    assert!(process(SWEEP, "whole", folder.path()).output().unwrap().status.success());
    let (all, like) = (started.elapsed(), VocabularyCounts::new(&letters(), Projection::Notebook).unwrap());
    let (mut killed, mut finished, mut reached) = (0, 0, std::collections::BTreeSet::new());
    let mut check = |killed: usize| {
        for extension in OUTPUTS {
            let [whole, own] = ["whole", "counts"].map(|name| fs::read(path(&format!("{name}.{extension}"))).unwrap());
            assert!(whole == own, "{extension} after {killed} kills");
            fs::remove_file(path(&format!("counts.{extension}"))).unwrap();
        }
        fs::remove_file(path("counts")).unwrap();
        finished += 1;
    };
    while killed < 4 * kills() {
        let mut sweep = process(SWEEP, "counts", folder.path());
        let mut sweep = sweep.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(all.mul_f64(1.1 * rng.f64()));
        let _ = sweep.kill();
        if sweep.wait().unwrap().success() {
            check(killed);
            continue;
        }
        killed += 1;
        if path("counts").exists() {
            // Whole, whenever it was.
            reached.insert(VocabularyCounts::load(path("counts"), &like).unwrap().n_prompts());
        }
    }
    let output = process(SWEEP, "counts", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(killed);
    println!("{killed} kills, {} states, {finished} sweeps came to their end", reached.len());
}

/// Where there is no room: a folder, and a command that runs another there.
struct NoRoom {
    folder: PathBuf,
    given: bool,
    _scratch: tempfile::TempDir,
}

impl NoRoom {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let small = std::env::var_os("ATTENTION_TOKENS_SMALL_DISK");
        let folder = small
            .as_ref()
            .map_or_else(|| scratch.path().to_owned(), |small| tempfile::tempdir_in(small).unwrap().keep());
        Self { folder, given: small.is_some(), _scratch: scratch }
    }

    /// Runs a command where a file can have this many bytes, or where the disk has no more.
    fn run(&self, command: &Command, bytes: u64) -> Output {
        let filler = self.folder.with_extension("filler");
        let mut limited = Command::new("sh");
        if self.given {
            // All but these bytes, in pages.
            let mut file = File::create(&filler).unwrap();
            while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
            let len = file.metadata().unwrap().len();
            file.set_len(len.saturating_sub(bytes / 4096 * 4096)).unwrap();
            limited.args(["-c", "exec \"$0\" \"$@\""]);
        } else {
            // In blocks of 512 bytes. Without the signal, the write fails.
            limited.args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512)]);
        }
        limited.arg(command.get_program()).args(command.get_args());
        limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited.current_dir(command.get_current_dir().unwrap_or(&self.folder));
        let output = limited.output().unwrap();
        let _ = fs::remove_file(filler);
        output
    }

    fn reason(&self) -> &'static str {
        if self.given { "No space left on device" } else { "File too large" }
    }
}

impl Drop for NoRoom {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Without room for the new file, the former one stays, nothing else does, and the message names the file. Also where all but
/// the last bytes have room, which only the end of the writing notices.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_former_file() {
    let (room, writers) = (NoRoom::new(), [0, 1].map(Writer::new));
    for (kind, _) in KINDS {
        let elsewhere = tempfile::tempdir().unwrap().keep();
        let new = elsewhere.join(kind);
        writers[1].write(kind, &new).unwrap();
        let size = if kind == "pages" { fs::metadata(new.join("index.html")) } else { fs::metadata(&new) };
        let size = size.unwrap().len();
        fs::remove_dir_all(elsewhere).unwrap();
        let path = room.folder.join(kind);
        if size > 40_000 && room.given {
            continue;
        }
        writers[0].write(kind, &path).unwrap();
        let (former, beside) = (writers[0].contents(&path).unwrap(), names(&room.folder));
        for bytes in [512, size - 1] {
            let output = room.run(&process(kind, "1", &path), bytes);
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().find(|line| line.starts_with("error: ") || *line == "written");
            let line = line.unwrap_or_else(|| panic!("{kind}: {text}{}", String::from_utf8_lossy(&output.stderr)));
            let named = line.starts_with(&format!("error: {}", path.display()));
            assert!(
                named && line.contains("cannot be written: ") && line.contains(room.reason()),
                "{kind}, {bytes}: {line}"
            );
            // Of a folder of pages, some may be new.
            assert!(kind == "pages" || writers[0].contents(&path).unwrap() == former, "{kind}, {bytes}");
            assert_eq!(names(&room.folder), beside, "{kind}, {bytes}");
        }
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    // A device without room.
    let message = writers[0].write("figure.svg", Path::new("/dev/full")).unwrap_err().to_string();
    assert_eq!(message, "/dev/full: cannot be written: No space left on device (os error 28)");
}

/// A sweep without room for its state ends with a message, and goes on once there is room.
#[cfg(target_os = "linux")]
#[test]
fn a_sweep_goes_on_after_a_full_disk() {
    let (room, folder) = (NoRoom::new(), prompts(200));
    fs::copy(folder.path().join("prompts.txt"), room.folder.join("prompts.txt")).unwrap();
    let output = room.run(&vocabulary(&room.folder, "counts"), 512);
    let message = String::from_utf8(output.stderr).unwrap();
    let expected = format!("vocabulary: counts: cannot be written: {}", room.reason());
    assert!(!output.status.success() && message.contains(&expected), "{message}");
    assert_eq!(names(&room.folder), ["prompts.txt"]);
    // A prefix of the file, and then the rest.
    let counts = vocabulary(folder.path(), "counts").args(["--stop-after", "50"]).output().unwrap();
    assert!(counts.status.success());
    let state = fs::read(folder.path().join("counts")).unwrap();
    if !room.given {
        let output = room.run(&vocabulary(folder.path(), "counts"), 512);
        assert!(!output.status.success());
        assert!(state == fs::read(folder.path().join("counts")).unwrap(), "the state of the last save");
    }
    for name in ["counts", "whole"] {
        assert!(vocabulary(folder.path(), name).output().unwrap().status.success());
    }
    let [counts, whole] = ["counts.csv", "whole.csv"].map(|name| fs::read(folder.path().join(name)).unwrap());
    assert!(counts == whole);
}

/// A folder in which nobody can make a file, not even root.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let writer = Writer::new(0);
    for (kind, _) in KINDS {
        let path = Path::new("/sys").join(kind);
        let message = writer.write(kind, &path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: cannot be written: ", path.display())), "{kind}: {message}");
    }
    let folder = prompts(3);
    let options = SweepOptions { state: Some("/sys/counts".into()), ..Default::default() };
    let message =
        count_file(&letters(), folder.path().join("prompts.txt"), &options, &mut |_| ()).unwrap_err().to_string();
    assert!(message.starts_with("/sys/counts.lock: cannot be written: "), "{message}");
}

/// A checkpoint that another program cuts and writes again all the time loads, or is an error that names it.
#[test]
fn a_checkpoint_that_shrinks_while_it_is_read_is_an_error() {
    let (folder, mut rng) = (Folder::copy_of("tiny"), rng());
    let whole = fs::read(folder.weights()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (weights, done) = (folder.weights(), &done);
        scope.spawn(move || {
            let file = File::options().write(true).open(&weights).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                file.set_len(rng.u64(..whole.len() as u64)).unwrap();
                std::thread::sleep(Duration::from_micros(rng.u64(..300)));
                fs::write(&weights, &whole).unwrap();
                std::thread::sleep(Duration::from_micros(rng.u64(..900)));
            }
        });
        let _ends = Ends(done);
        let mut outcomes = [0, 0];
        let started = std::time::Instant::now();
        while outcomes.contains(&0) || outcomes[0] + outcomes[1] < 100 {
            match load(folder.path()) {
                Ok(_) => outcomes[0] += 1,
                // It says where: numbers that are not whole are not in the file either.
                Err(error) => {
                    assert!(error.to_string().contains("model.safetensors: "), "{error}");
                    outcomes[1] += 1;
                }
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{outcomes:?}");
        }
    });
}

/// Ends a thread, also when the test panics.
struct Ends<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The times of files say nothing: a clock that jumps changes no result, and no lock outlives its process.
#[test]
fn a_clock_that_jumps_changes_nothing() {
    let folder = prompts(40);
    let path = |name: &str| folder.path().join(name);
    let (past, future) = (SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(10 * 365 * 86_400));
    for stop in ["7", "8", "1000"] {
        // The lock of a process that was killed, in the future.
        File::create(path("counts.lock")).unwrap().set_modified(future).unwrap();
        let output = vocabulary(folder.path(), "counts").args(["--stop-after", stop]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        File::options().write(true).open(path("counts")).unwrap().set_modified(future).unwrap();
        File::options().write(true).open(path("prompts.txt")).unwrap().set_modified(past).unwrap();
    }
    assert!(vocabulary(folder.path(), "whole").output().unwrap().status.success());
    assert!(fs::read(path("counts.csv")).unwrap() == fs::read(path("whole.csv")).unwrap());
    // A held lock from the past is a lock.
    let lock = File::create(path("counts.lock")).unwrap();
    lock.set_modified(past).unwrap();
    lock.lock().unwrap();
    let output = vocabulary(folder.path(), "counts").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && message.contains("another sweep counts into it and holds the lock"),
        "{message}"
    );
}
