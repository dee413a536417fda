//! Counting the words of heads over a text file of prompts, a line each: streamed, in bounded memory, to be stopped and gone on with.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::counts::VocabularyCounts;
use crate::decode::Projection;
use crate::error::{Error, Result, check_count, check_index};
use crate::model::Gpt2;

/// Longer lines are no prompts, and would take memory.
const MOST_BYTES: u64 = 1 << 20;

/// How to go through a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepOptions {
    /// The projection that tokens are decoded with.
    pub projection: Projection,
    /// Prompts are cut to so many tokens, the beginning-of-sequence token included.
    pub max_tokens: usize,
    /// Prompts are run together up to so many tokens: what bounds the memory.
    pub batch_tokens: usize,
    /// Of `shard.1` shards, the `shard.0`-th, from 0: every `shard.1`-th prompt. Shards are merged with
    /// [`VocabularyCounts::merge`].
    pub shard: (u64, u64),
    /// Where the counts and the place in the file are kept, to go on from there. Written after each `save_every`, and at the end.
    pub state: Option<PathBuf>,
    /// How often the state is written and progress is told.
    pub save_every: Duration,
    /// Stop after about so many prompts in this call, batch by batch; `None` for all.
    pub stop_after: Option<u64>,
}

impl Default for SweepOptions {
    /// The `Notebook` projection, 30 tokens as in the original, batches of 1024 tokens, one shard, no state, every 10 seconds.
    fn default() -> Self {
        Self {
            projection: Projection::default(),
            max_tokens: 30,
            batch_tokens: 1024,
            shard: (0, 1),
            state: None,
            save_every: Duration::from_secs(10),
            stop_after: None,
        }
    }
}

/// How far a sweep has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepProgress {
    /// Prompts that are counted, those of earlier calls included.
    pub prompts: u64,
    /// Bytes of the file that are behind it, of `bytes.1`.
    pub bytes: (u64, u64),
    /// Since this call began.
    pub elapsed: Duration,
    /// Estimated from this call's rate.
    pub remaining: Duration,
}

impl fmt::Display for SweepProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, all) = self.bytes;
        let share = 100.0 * done as f64 / all.max(1) as f64;
        let Self { prompts, elapsed, remaining, .. } = self;
        let (elapsed, remaining) = (duration(*elapsed), duration(*remaining));
        write!(f, "{prompts} prompts, {share:.0}% of the file, {elapsed}; some {remaining} to go (an estimate)")
    }
}

/// Seconds, minutes, hours or days, with as many digits as an estimate has.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

/// Counts the tokens of every head over the prompts of a text file, one prompt a line; empty lines are passed over. `progress` is
/// told from time to time how far it has come, and at the end.
///
/// The file is read as it goes, and memory grows with the number of distinct tokens alone. With a
/// [`state`](SweepOptions::state), a sweep that was stopped, in whatever way, goes on from what was last saved when it is called
/// again; one that has come to the end gives its counts at once.
///
/// # Errors
/// [`Error::Io`] or [`Error::Write`] naming the file; [`Error::Format`] for a line that is no text or longer than a
/// megabyte, naming the line, and for a state that does not fit the file or the options; [`Error::Shape`] or
/// [`Error::OtherCounts`] for a state of another model or projection; [`Error::Count`] or [`Error::OutOfRange`] for
/// options outside their range; and as for [`Gpt2::run_with_cache`].
pub fn count_file(
    model: &Gpt2,
    path: impl AsRef<Path>,
    options: &SweepOptions,
    progress: &mut dyn FnMut(SweepProgress),
) -> Result<VocabularyCounts> {
    sweep(model, path.as_ref(), options, progress)
}

fn sweep(
    model: &Gpt2,
    path: &Path,
    options: &SweepOptions,
    progress: &mut dyn FnMut(SweepProgress),
) -> Result<VocabularyCounts> {
    check(model, options)?;
    let started = Instant::now();
    let mut prompts = PromptFile::open(path)?;
    let mut counts = VocabularyCounts::new(model, options.projection)?;
    let key = prompts.key(options);
    if let Some(state) = options.state.as_deref().filter(|state| state.exists()) {
        let offset;
        (counts, offset, prompts.n_read) = VocabularyCounts::load_state(state, &counts, &key)?;
        prompts.seek(offset)?;
    }
    let (first_byte, first_prompts) = (prompts.offset, counts.n_prompts());
    let mut saved = Instant::now();
    let tell = |counts: &VocabularyCounts, prompts: &PromptFile, progress: &mut dyn FnMut(SweepProgress)| {
        let elapsed = started.elapsed();
        let (done, left) = (prompts.offset - first_byte, prompts.len.saturating_sub(prompts.offset));
        let remaining = elapsed.mul_f64(left as f64 / done.max(1) as f64);
        progress(SweepProgress {
            prompts: counts.n_prompts(),
            bytes: (prompts.offset, prompts.len),
            elapsed,
            remaining,
        });
    };
    let save = |counts: &VocabularyCounts, prompts: &PromptFile| match &options.state {
        Some(state) => counts.save_state(state, &key, prompts.offset, prompts.n_read),
        None => Ok(()),
    };
    let mut at_end = false;
    while !at_end && options.stop_after.is_none_or(|stop| counts.n_prompts() - first_prompts < stop) {
        let mut batch: Vec<Vec<u32>> = Vec::new();
        let mut tokens = 0;
        while tokens < options.batch_tokens {
            let Some((index, line)) = prompts.next_prompt()? else {
                at_end = true;
                break;
            };
            if index % options.shard.1 == options.shard.0 {
                batch.push(cut(model, &line, options)?);
                tokens += batch.last().map_or(0, Vec::len);
            }
        }
        if !batch.is_empty() {
            counts.add_checked(model, batch.into())?;
        }
        if !at_end && saved.elapsed() >= options.save_every {
            save(&counts, &prompts)?;
            tell(&counts, &prompts, progress);
            saved = Instant::now();
        }
    }
    save(&counts, &prompts)?;
    tell(&counts, &prompts, progress);
    Ok(counts)
}

fn check(model: &Gpt2, options: &SweepOptions) -> Result<()> {
    const OPTIONS: &str = "SweepOptions";
    let saturating = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let SweepOptions { max_tokens, batch_tokens, shard: (shard, shards), .. } = *options;
    check_count(OPTIONS, "max_tokens", max_tokens, 1, Some(model.config().n_ctx))?;
    check_count(OPTIONS, "batch_tokens", batch_tokens, 1, None)?;
    check_index("shard", saturating(shard), "the sweep", saturating(shards)).map(drop)
}

/// A prompt's tokens, as many as are wanted.
fn cut(model: &Gpt2, text: &str, options: &SweepOptions) -> Result<Vec<u32>> {
    let mut prompt = model.to_tokens(text)?;
    prompt.truncate(options.max_tokens);
    Ok(prompt)
}

/// A text file, read line by line.
struct PromptFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// Bytes of the file.
    len: u64,
    /// Where the next line begins.
    offset: u64,
    /// Prompts so far, of all shards.
    n_read: u64,
}

impl PromptFile {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(Self { path: path.into(), reader: BufReader::new(file), len, offset: 0, n_read: 0 })
    }

    /// What must be the same for a sweep to go on.
    fn key(&self, options: &SweepOptions) -> String {
        let (shard, shards) = options.shard;
        format!("{} bytes, {} tokens a prompt, shard {shard} of {shards}", self.len, options.max_tokens)
    }

    fn seek(&mut self, offset: u64) -> Result<()> {
        self.reader.seek(SeekFrom::Start(offset)).map_err(Error::io(&self.path))?;
        self.offset = offset;
        Ok(())
    }

    /// The next line that is not empty, with its index among these.
    fn next_prompt(&mut self) -> Result<Option<(u64, String)>> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.reader).take(MOST_BYTES);
            let read = limited.read_until(b'\n', &mut line).map_err(Error::io(&self.path))? as u64;
            if read == 0 {
                return Ok(None);
            }
            let wrong = |expected: &str, found: String| Error::Format {
                path: self.path.clone(),
                expected: expected.into(),
                found: format!("{found} at byte {}, in prompt {}", self.offset, self.n_read + 1),
                source: None,
            };
            if read == MOST_BYTES && line.last() != Some(&b'\n') {
                return Err(wrong("one prompt a line, of less than a megabyte", "a longer line".into()));
            }
            let text = String::from_utf8(line).map_err(|error| wrong("text in UTF-8", error.to_string()))?;
            self.offset += read;
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.is_empty() {
                self.n_read += 1;
                return Ok(Some((self.n_read - 1, text.into())));
            }
        }
    }
}

/// How long a sweep over a file would take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepEstimate {
    /// Prompts that were run to measure the rate.
    pub measured: u64,
    /// How long they took.
    pub seconds: f64,
    /// Prompts in the file, of the shard.
    pub prompts: u64,
}

impl SweepEstimate {
    /// Prompts a second.
    pub fn rate(&self) -> f64 {
        self.measured as f64 / self.seconds
    }
}

impl fmt::Display for SweepEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = duration(Duration::from_secs_f64(self.prompts as f64 / self.rate().max(1e-9)));
        let Self { measured, prompts, .. } = self;
        write!(f, "{:.2} prompts a second, measured on {measured}; an estimate for all {prompts}: {all}", self.rate())
    }
}

/// Runs the first `sample` prompts of a file, counts the lines of the rest, and says how long all would take. The first half of the
/// sample makes the model ready (its projections are folded as heads come to decode much) and is not measured.
///
/// # Errors
/// As for [`count_file`], and [`Error::Count`] if `sample` is less than two, or the file has fewer than two prompts.
pub fn estimate_sweep(
    model: &Gpt2,
    path: impl AsRef<Path>,
    options: &SweepOptions,
    sample: u64,
) -> Result<SweepEstimate> {
    estimate(model, path.as_ref(), options, sample)
}

fn estimate(model: &Gpt2, path: &Path, options: &SweepOptions, sample: u64) -> Result<SweepEstimate> {
    check(model, options)?;
    let mut file = PromptFile::open(path)?;
    let (mut texts, mut prompts) = (Vec::new(), 0);
    while let Some((index, line)) = file.next_prompt()? {
        if index % options.shard.1 == options.shard.0 {
            prompts += 1;
            if prompts <= sample {
                texts.push(line);
            }
        }
    }
    check_count("estimate_sweep", "sample", usize::try_from(sample).unwrap_or(usize::MAX), 2, None)?;
    check_count("estimate_sweep", format!("prompts in {}", path.display()), texts.len(), 2, None)?;
    let mut counts = VocabularyCounts::new(model, options.projection)?;
    let mut run = |texts: &[String]| -> Result<f64> {
        let started = Instant::now();
        let mut batch: Vec<Vec<u32>> = Vec::new();
        for text in texts {
            batch.push(cut(model, text, options)?);
            if batch.iter().map(Vec::len).sum::<usize>() >= options.batch_tokens {
                counts.add_checked(model, std::mem::take(&mut batch).into())?;
            }
        }
        if !batch.is_empty() {
            counts.add_checked(model, batch.into())?;
        }
        Ok(started.elapsed().as_secs_f64())
    };
    let (first, second) = texts.split_at(texts.len() / 2);
    run(first)?;
    Ok(SweepEstimate { seconds: run(second)?, measured: second.len() as u64, prompts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_fits() {
        let of = |seconds: u64| duration(Duration::from_secs(seconds));
        assert_eq!([of(5), of(600), of(7_200), of(604_800)], ["5 s", "10 min", "2.0 h", "7.0 days"]);
        let estimate = SweepEstimate { measured: 20, seconds: 4.0, prompts: 100_000 };
        let text = "5.00 prompts a second, measured on 20; an estimate for all 100000: 5.6 h";
        assert_eq!(estimate.to_string(), text);
    }
}
