//! Vocabulary counts over a text file of prompts: streamed in bounded memory, resumable, in shards.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::counts::VocabularyCounts;
use super::prompt_file::PromptFile;
use super::state_lock::StateLock;
use crate::decode::Reading;
use crate::error::{Result, check_count, check_index};
use crate::model::Gpt2;

/// Options of [`count_file`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepOptions {
    /// How cells are read as tokens. A [`Projection`](crate::Projection) converts into a reading, with `b_U`.
    pub reading: Reading,
    /// Maximum tokens of a prompt, including the beginning-of-sequence token. Longer prompts are truncated.
    pub max_tokens: usize,
    /// Tokens in a batch: prompts are added until there are this many. It bounds the memory of the activations.
    pub batch_tokens: usize,
    /// The shard to count, as (index from 0, number of shards): every `shard.1`-th prompt, from the `shard.0`-th.
    /// Shards are merged with [`VocabularyCounts::merge`].
    pub shard: (u64, u64),
    /// File that stores the counts and the position in the prompts, from which a later call resumes. It is written
    /// every `save_every`, and at the end, each time as a whole and with a checksum. Two sweeps cannot have the same state:
    /// the file `STATE.lock` exists while one runs.
    pub state: Option<PathBuf>,
    /// Interval at which the state is written and progress is reported.
    pub save_every: Duration,
    /// Stop this call after the batch in which it has counted this many prompts; `None` to count all.
    pub stop_after: Option<u64>,
}

impl Default for SweepOptions {
    /// The original's reading, [`Reading::NOTEBOOK`], 30 tokens a prompt as in the original, batches of 1024 tokens, one shard,
    /// no state, progress every 10 seconds.
    fn default() -> Self {
        Self {
            reading: Reading::NOTEBOOK,
            max_tokens: 30,
            batch_tokens: 1024,
            shard: (0, 1),
            state: None,
            save_every: Duration::from_secs(10),
            stop_after: None,
        }
    }
}

/// Progress of [`count_file`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepProgress {
    /// Prompts counted so far, including those of earlier calls with the same state.
    pub prompts: u64,
    /// Bytes of the file read so far, and the length of the file.
    pub bytes: (u64, u64),
    /// Time since this call began.
    pub elapsed: Duration,
    /// Remaining time, estimated from this call's rate in bytes.
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

/// A duration in seconds, minutes, hours or days, with the few digits of an estimate.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

/// Counts the tokens of every head over the prompts of a text file, one prompt per line; empty lines are skipped, and
/// for a model without a beginning-of-sequence token those that its tokenizer makes no token of. Calls `progress` every
/// [`save_every`](SweepOptions::save_every), and at the end.
///
/// The file is streamed, so memory grows only with the number of distinct tokens. With a
/// [`state`](SweepOptions::state), a sweep that was interrupted in any way resumes from the last save when it is called
/// again, and a finished one returns its counts at once. Lines that were added to the file since are counted as well; if
/// what was counted has changed, the call is refused.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) or [`Error::Write`](crate::Error::Write) naming the file;
/// [`Error::Format`](crate::Error::Format) for a line that is not UTF-8 or longer than a megabyte, naming the line, for a
/// file that becomes shorter, and for a state that is damaged or does not fit the file or the options; [`Error::Shape`](crate::Error::Shape) or
/// [`Error::OtherCounts`](crate::Error::OtherCounts) for a state of another model or decoding;
/// [`Error::Count`](crate::Error::Count) or [`Error::OutOfRange`](crate::Error::OutOfRange) for options outside their
/// range; and as for [`Gpt2::run_with_cache`].
pub fn count_file(
    model: &Gpt2,
    path: impl AsRef<Path>,
    options: &SweepOptions,
    progress: &mut dyn FnMut(SweepProgress),
) -> Result<VocabularyCounts> {
    sweep(model, path.as_ref(), options, progress)
}

/// [`count_file`] without the generic parameter.
fn sweep(
    model: &Gpt2,
    path: &Path,
    options: &SweepOptions,
    progress: &mut dyn FnMut(SweepProgress),
) -> Result<VocabularyCounts> {
    check(model, options)?;
    let started = Instant::now();
    let mut prompts = PromptFile::open(path)?;
    let mut counts = VocabularyCounts::new(model, options.reading)?;
    let key = state_key(options);
    let _lock = options.state.as_deref().map(StateLock::acquire).transpose()?;
    if let Some(state) = options.state.as_deref().filter(|state| state.exists()) {
        let place;
        (counts, place) = VocabularyCounts::load_state(state, &counts, &key)?;
        prompts.go_to(&place, state)?;
    }
    let (first_byte, first_prompts) = (prompts.offset, counts.n_prompts());
    let mut saved = Instant::now();
    let report = |counts: &VocabularyCounts, prompts: &PromptFile, progress: &mut dyn FnMut(SweepProgress)| {
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
        Some(state) => counts.save_state(state, &key, &prompts.place()),
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
                let prompt = truncated_tokens(model, &line, options)?;
                tokens += prompt.len();
                batch.extend(Some(prompt).filter(|prompt| !prompt.is_empty()));
            }
        }
        if !batch.is_empty() {
            counts.add_checked(model, batch.into())?;
        }
        if !at_end && saved.elapsed() >= options.save_every {
            save(&counts, &prompts)?;
            report(&counts, &prompts, progress);
            saved = Instant::now();
        }
    }
    save(&counts, &prompts)?;
    report(&counts, &prompts, progress);
    Ok(counts)
}

/// Checks the options against the model.
///
/// # Errors
/// [`Error::Count`](crate::Error::Count) or [`Error::OutOfRange`](crate::Error::OutOfRange) if an option is out of
/// range.
fn check(model: &Gpt2, options: &SweepOptions) -> Result<()> {
    const OPTIONS: &str = "SweepOptions";
    let saturating = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let SweepOptions { max_tokens, batch_tokens, shard: (shard, shards), .. } = *options;
    check_count(OPTIONS, "max_tokens", max_tokens, 1, Some(model.config().n_ctx))?;
    check_count(OPTIONS, "batch_tokens", batch_tokens, 1, None)?;
    check_index("shard", saturating(shard), "the sweep", saturating(shards)).map(drop)
}

/// The properties of a sweep that must not change if it is to be resumed, as text. It is stored with the counts.
fn state_key(options: &SweepOptions) -> String {
    let (shard, shards) = options.shard;
    format!("{} tokens a prompt, shard {shard} of {shards}", options.max_tokens)
}

/// The first `max_tokens` tokens of a prompt. Shape: → `[pos]`.
fn truncated_tokens(model: &Gpt2, text: &str, options: &SweepOptions) -> Result<Vec<u32>> {
    let mut prompt = model.to_tokens(text)?;
    prompt.truncate(options.max_tokens);
    Ok(prompt)
}

/// Estimated duration of a sweep over a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepEstimate {
    /// Prompts in the measurement.
    pub measured: u64,
    /// Duration of the measurement in seconds.
    pub seconds: f64,
    /// Prompts of the shard in the file.
    pub prompts: u64,
}

impl SweepEstimate {
    /// Prompts per second.
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

/// Estimates the duration of [`count_file`] from the first `sample` prompts of a file. The first half of the sample
/// warms up the per-head decoding cache and is not measured; the rest of the file is only read, to count its prompts.
///
/// # Errors
/// As for [`count_file`], and [`Error::Count`](crate::Error::Count) if `sample` is less than two, or the file has fewer
/// than two prompts.
pub fn estimate_sweep(
    model: &Gpt2,
    path: impl AsRef<Path>,
    options: &SweepOptions,
    sample: u64,
) -> Result<SweepEstimate> {
    estimate(model, path.as_ref(), options, sample)
}

/// [`estimate_sweep`] without the generic parameter.
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
    let mut counts = VocabularyCounts::new(model, options.reading)?;
    let mut run = |texts: &[String]| -> Result<f64> {
        let started = Instant::now();
        let mut batch: Vec<Vec<u32>> = Vec::new();
        for text in texts {
            batch.extend(Some(truncated_tokens(model, text, options)?).filter(|prompt| !prompt.is_empty()));
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
    fn durations_have_a_unit_of_their_size() {
        let text = |seconds: u64| duration(Duration::from_secs(seconds));
        assert_eq!([text(5), text(600), text(7_200), text(604_800)], ["5 s", "10 min", "2.0 h", "7.0 days"]);
        let estimate = SweepEstimate { measured: 20, seconds: 4.0, prompts: 100_000 };
        let expected = "5.00 prompts a second, measured on 20; an estimate for all 100000: 5.6 h";
        assert_eq!(estimate.to_string(), expected);
    }
}
