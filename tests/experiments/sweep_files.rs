//! The files of a sweep: nothing that it did not write is replaced, and what it wrote is whole or refused.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use attention_tokens::experiments::*;
use attention_tokens::prelude::*;

use crate::support::{demo, example};

fn options(state: &Path) -> SweepOptions {
    let state = Some(state.to_owned());
    SweepOptions { max_tokens: 6, batch_tokens: 12, save_every: Duration::ZERO, state, ..Default::default() }
}

fn count(file: &Path, options: &SweepOptions) -> Result<VocabularyCounts, String> {
    count_file(&demo(), file, options, &mut |_| {}).map_err(|error| error.to_string())
}

/// A folder with a file of prompts, one a line.
fn folder(prompts: &[String]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.txt");
    std::fs::write(&file, prompts.join("\n") + "\n").unwrap();
    (folder, file)
}

fn prompts(n: usize) -> Vec<String> {
    varied_prompts().into_iter().cycle().take(n).collect()
}

/// The text of the counts as CSV.
fn csv(counts: &VocabularyCounts) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counts.csv");
    counts.write_csv(&path).unwrap();
    std::fs::read_to_string(path).unwrap()
}

/// The `vocabulary` example in a folder.
fn vocabulary(folder: &Path, args: &[&str]) -> Command {
    let mut command = example("vocabulary");
    command.arg("demo").args(args).current_dir(folder);
    command
}

#[test]
fn outputs_that_would_replace_an_input_or_a_foreign_file_are_refused() {
    let (folder, _) = folder(&prompts(3));
    let path = |name: &str| folder.path().join(name);
    let error = |args: &[&str]| {
        let output = vocabulary(folder.path(), args).output().unwrap();
        assert!(!output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "nothing has run");
        String::from_utf8(output.stderr).unwrap()
    };
    std::fs::copy(path("prompts.txt"), path("prompts.csv")).unwrap();
    let message = error(&["prompts.csv", "prompts"]);
    assert!(message.contains("prompts.csv would replace the input prompts.csv"), "{message}");
    let message = error(&["prompts.txt", "prompts.txt"]);
    assert!(message.contains("would replace the input"), "{message}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("prompts.txt", path("linked")).unwrap();
        let message = error(&["prompts.txt", "linked"]);
        assert!(message.contains("linked would replace the input prompts.txt"), "{message}");
    }
    std::fs::copy(path("prompts.txt"), path("counts.lock")).unwrap();
    let message = error(&["counts.lock", "counts"]);
    assert!(message.contains("counts.lock would replace the input counts.lock"), "{message}");
    std::fs::remove_file(path("counts.lock")).unwrap();
    for name in ["notes", "notes.csv", "notes.parquet", "notes.lock"] {
        std::fs::write(path(name), "mine").unwrap();
        let message = error(&["prompts.txt", "notes"]);
        assert!(message.contains(&format!("{name} is there and is not a file of an earlier run")), "{message}");
        assert_eq!(std::fs::read_to_string(path(name)).unwrap(), "mine");
        std::fs::remove_file(path(name)).unwrap();
    }
    // COUNTS was forgotten: the first state would be replaced by the second one's counts.
    for name in ["first", "second"] {
        assert!(vocabulary(folder.path(), &["prompts.txt", name]).output().unwrap().status.success());
    }
    let first = std::fs::read(path("first")).unwrap();
    let message = error(&["--merge", "first", "second"]);
    assert!(message.contains("first is there and is not a file of an earlier run"), "{message}");
    assert_eq!(std::fs::read(path("first")).unwrap(), first);
    for _ in 0..2 {
        assert!(vocabulary(folder.path(), &["--merge", "both", "first"]).output().unwrap().status.success());
    }
    let message = error(&["--merge", "0-2", "0-2", "1-2"]);
    assert!(message.contains("0-2 would replace the input 0-2") || message.contains("cannot be read"), "{message}");
}

#[test]
fn files_beside_a_state_are_left_alone() {
    let (folder, _) = folder(&prompts(8));
    let others = ["x.writing", "x.tmp", "x.counts.tmp"].map(|name| folder.path().join(name));
    for other in &others {
        std::fs::copy(folder.path().join("prompts.txt"), other).unwrap();
    }
    let state = folder.path().join("x.counts");
    let counts = count(&others[0], &options(&state)).unwrap();
    assert_eq!(counts.n_prompts(), 8);
    let before = std::fs::read(folder.path().join("prompts.txt")).unwrap();
    for other in &others {
        assert_eq!(std::fs::read(other).unwrap(), before);
    }
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["prompts.txt", "x.counts", "x.counts.tmp", "x.tmp", "x.writing"], "no other file is left");
}

/// Sweeps of shards whose states differ in their extension only, at once, with a reader of both.
#[test]
fn shards_side_by_side_keep_their_own_states() {
    let (folder, file) = folder(&prompts(24));
    let shard =
        |index: u64| SweepOptions { shard: (index, 2), ..options(&folder.path().join(format!("counts.{index}"))) };
    let like = VocabularyCounts::new(&demo(), Projection::Notebook).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut read = 0;
    let counts = std::thread::scope(|scope| {
        let sweeps = [0, 1].map(|index| {
            scope.spawn({
                let file = &file;
                let options = shard(index);
                move || count(file, &options)
            })
        });
        let reader = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for index in 0..2 {
                    match VocabularyCounts::load(folder.path().join(format!("counts.{index}")), &like) {
                        Ok(_) => read += 1,
                        Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
                    }
                }
            }
        });
        let counts = sweeps.map(|sweep| sweep.join().unwrap().unwrap());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
        counts
    });
    assert!(read > 0);
    assert_eq!(counts.each_ref().map(VocabularyCounts::n_prompts), [12, 12]);
    let [mut merged, other] = counts;
    merged.merge(&other).unwrap();
    let whole = count(&file, &SweepOptions { state: None, shard: (0, 1), ..shard(0) }).unwrap();
    assert_eq!(csv(&merged), csv(&whole));
}

#[test]
fn two_sweeps_cannot_have_one_state() {
    let (folder, file) = folder(&prompts(4));
    let state = folder.path().join("state");
    let mut message = String::new();
    let counts = count_file(&demo(), &file, &options(&state), &mut |_| {
        message = count(&file, &options(&state)).unwrap_err();
    });
    assert_eq!(counts.unwrap().n_prompts(), 4);
    let lock = folder.path().join("state.lock");
    let expected = format!("another sweep counts into it and holds the lock {}", lock.display());
    assert!(message.starts_with(&state.display().to_string()) && message.contains(&expected), "{message}");
    assert!(!lock.exists());
    // A lock file whose process is gone is no lock.
    std::fs::write(&lock, "").unwrap();
    assert_eq!(count(&file, &options(&state)).unwrap().n_prompts(), 4);
}

#[test]
fn a_flipped_bit_of_a_state_is_noticed() {
    let (folder, file) = folder(&prompts(3));
    let state = folder.path().join("state");
    let like = count(&file, &options(&state)).unwrap();
    let whole = std::fs::read(&state).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut random = fastrand::Rng::with_seed(3);
    let places: Vec<usize> =
        (0..header).step_by(7).chain((0..200).map(|_| random.usize(header..whole.len()))).collect();
    for place in places {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << random.u32(0..8);
        std::fs::write(&state, &flipped).unwrap();
        let message = VocabularyCounts::load(&state, &like).unwrap_err().to_string();
        assert!(message.starts_with(&state.display().to_string()), "byte {place}: {message}");
    }
    std::fs::write(&state, &whole).unwrap();
    assert_eq!(count(&file, &options(&state)).unwrap().n_prompts(), 3);
}

#[test]
fn the_prompts_are_known_by_their_content() {
    let (folder, file) = folder(&prompts(6));
    let state = folder.path().join("state");
    assert_eq!(count(&file, &options(&state)).unwrap().n_prompts(), 6);
    let text = std::fs::read_to_string(&file).unwrap();
    // One letter, the same length.
    let changed = text.replacen(|letter: char| letter.is_ascii_lowercase(), "X", 1);
    std::fs::write(&file, &changed).unwrap();
    let message = count(&file, &options(&state)).unwrap_err();
    let expected = format!("{}: expected the first {} bytes as they were", file.display(), text.len());
    assert!(message.starts_with(&expected) && message.ends_with("found other bytes"), "{message}");
    assert!(message.contains("remove that file to begin anew"), "{message}");
    std::fs::write(&file, &text[..20]).unwrap();
    let message = count(&file, &options(&state)).unwrap_err();
    assert!(message.ends_with("found only 20 bytes"), "{message}");
    // Lines that were added are counted.
    let (seven, all) = (prompts(7), tempfile::tempdir().unwrap());
    std::fs::write(&file, seven.join("\n") + "\n").unwrap();
    let counts = count(&file, &options(&state)).unwrap();
    assert_eq!(counts.n_prompts(), 7);
    assert_eq!(csv(&counts), csv(&count(&file, &options(&all.path().join("state"))).unwrap()));
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let long = vec!["word ".repeat(20_000); 4];
    let (folder, file) = folder(&long);
    let shrink = |_| drop(std::fs::File::options().write(true).open(&file).unwrap().set_len(150_000));
    let message = count_file(&demo(), &file, &options(&folder.path().join("state")), &mut { shrink }).unwrap_err();
    assert!(message.to_string().contains("the file has become shorter while it was read"), "{message}");
}
