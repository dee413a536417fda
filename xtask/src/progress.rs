//! Progress of the steps of a long run, for a person: one line that is rewritten on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::stoppable::StoppableCommand;
use crate::tool::{Error, Result};

/// Time between two updates of the line on a terminal.
const ON_TERMINAL: Duration = Duration::from_millis(500);
/// Time between two lines about a running step elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(30);

/// The steps of a run, several of which may run at the same time.
pub(crate) struct Progress {
    /// Number of steps in all.
    total: usize,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: usize,
    running: Vec<Running>,
    commands: Vec<Arc<StoppableCommand>>,
    /// The error of the first step that failed. No other step is started then.
    failed: Option<String>,
    finished: bool,
}

struct Running {
    number: usize,
    name: String,
    started: Instant,
    /// Parts done, those that were done before, and parts in all, for example crates.
    parts: Option<(usize, usize, usize)>,
    reported: Instant,
}

/// A running step.
pub(crate) struct Step<'a> {
    progress: &'a Progress,
    number: usize,
}

impl Progress {
    /// Runs `work`, and reports its steps while they run.
    pub(crate) fn run<T>(total: usize, work: impl FnOnce(&Self) -> T) -> T {
        let terminal = std::io::stdout().is_terminal();
        let progress = Self { total, terminal, state: Mutex::default() };
        thread::scope(|scope| {
            let reporter = scope.spawn(|| {
                while !progress.state().finished {
                    thread::park_timeout(ON_TERMINAL);
                    progress.report();
                }
            });
            // Also if `work` panics, so that the reporter ends.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&progress)));
            progress.state().finished = true;
            reporter.thread().unpark();
            if terminal {
                print!("\r\x1b[K");
            }
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a step and prints its seconds. If it fails, the commands of the other steps are stopped.
    pub(crate) fn step<T>(&self, name: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let number = {
            let mut state = self.state();
            if state.failed.is_some() {
                return Err("stopped, because another step failed".into());
            }
            state.started += 1;
            let number = state.started;
            state.running.push(Running { number, name: name.into(), started, parts: None, reported: started });
            number
        };
        let label = format!("[{number}/{}] {name}", self.total.max(number));
        if !self.terminal {
            println!("{label}");
        }
        let outcome = work(&Step { progress: self, number });
        let end = if outcome.is_ok() { "done in" } else { "failed after" };
        {
            let mut state = self.state();
            state.running.retain(|running| running.number != number);
            if let Err(error) = &outcome {
                state.failed.get_or_insert(error.to_string());
                state.commands.iter().for_each(|command| command.stop());
            }
        }
        self.say(&format!("{label}: {end} {}", duration(started.elapsed())));
        outcome
    }

    /// Prints a line, above the line of the running steps.
    pub(crate) fn say(&self, line: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        println!("{clear}{line}");
    }

    /// The error of the first step that failed; those after it failed because they were stopped.
    pub(crate) fn first_failure(&self) -> Option<Error> {
        self.state().failed.clone().map(Into::into)
    }

    /// Adds a command that is stopped if another step fails.
    pub(crate) fn stops_on_failure(&self, command: &Arc<StoppableCommand>) {
        let mut state = self.state();
        if state.failed.is_some() {
            command.stop();
        }
        state.commands.push(Arc::clone(command));
    }

    /// Number and total of the steps that have been started.
    fn report(&self) {
        let mut state = self.state();
        if state.finished {
            return;
        }
        if self.terminal {
            let lines: Vec<String> = state.running.iter().map(|running| running.line(self.total)).collect();
            print!("\r\x1b[K{}", cut_by_terminal(&lines.join("   ")));
            let _ = std::io::stdout().flush();
            return;
        }
        for running in state.running.iter_mut().filter(|running| running.reported.elapsed() >= ELSEWHERE) {
            running.reported = Instant::now();
            println!("{}", running.line(self.total));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Step<'_> {
    /// Reports the parts of the step that are done, and their number in all.
    pub(crate) fn parts(&self, done: usize, total: usize) {
        let mut state = self.progress.state();
        let running = state.running.iter_mut().find(|running| running.number == self.number);
        if let Some(running) = running {
            let before = running.parts.map_or(done, |(_, before, _)| before.min(done));
            running.parts = Some((done, before, total));
        }
    }

    pub(crate) fn progress(&self) -> &Progress {
        self.progress
    }
}

impl Running {
    fn line(&self, total: usize) -> String {
        let elapsed = self.started.elapsed();
        let (number, name, total) = (self.number, &self.name, total.max(self.number));
        let so_far = format!("[{number}/{total}] {name}: {}", duration(elapsed));
        match self.parts {
            Some((done, before, parts)) => match time_left(elapsed, done, before, parts) {
                Some(left) => format!("{so_far}, {done} of {parts} crates, about {} left", duration(left)),
                None => format!("{so_far}, {done} of {parts} crates"),
            },
            None => so_far,
        }
    }
}

/// As [`remaining`], for a build of which `before` crates were compiled earlier. `None` if these were more than half,
/// because the few that are left say little about the time.
fn time_left(elapsed: Duration, done: usize, before: usize, parts: usize) -> Option<Duration> {
    let to_do = parts.saturating_sub(before);
    if 2 * to_do < parts { None } else { remaining(elapsed, done - before, to_do) }
}

/// A line that the terminal cuts at its right edge: automatic wrapping is off while it is written. A line that wraps is
/// not cleared as a whole, and the terminal scrolls with each update.
fn cut_by_terminal(line: &str) -> String {
    format!("\x1b[?7l{line}\x1b[?7h")
}

/// An estimate of the time left, from the crates left; `None` at the very beginning.
///
/// The last crates of a build take longer than the first ones: on two cores, the last one of this library takes a fifth
/// of the time. So the crates count for four fifths of the time.
fn remaining(elapsed: Duration, done: usize, parts: usize) -> Option<Duration> {
    let share = 0.8 * done as f64 / parts.max(1) as f64;
    (done > 0 && share > 0.02).then(|| elapsed.mul_f64((1.0 - share) / share))
}

/// Seconds, or minutes and seconds.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs_f64().round() as u64 {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// A panic in another step leaves the state usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_crates_left() {
        let seconds = Duration::from_secs;
        assert_eq!(remaining(seconds(60), 0, 300), None);
        assert_eq!(remaining(seconds(40), 150, 300), Some(seconds(60)));
        // The last crate is a fifth of the time.
        assert_eq!(remaining(seconds(160), 300, 300), Some(seconds(40)));
        assert_eq!([5, 99, 100, 125].map(|s| duration(seconds(s))), ["5 s", "99 s", "1 min 40 s", "2 min 5 s"]);
    }

    #[test]
    fn a_line_names_the_step_the_parts_and_the_time() {
        let started = Instant::now().checked_sub(Duration::from_secs(40)).unwrap();
        let running = |parts: Option<(usize, usize, usize)>| Running {
            number: 2,
            name: "the library".into(),
            started,
            parts,
            reported: started,
        };
        assert_eq!(running(None).line(4), "[2/4] the library: 40 s");
        assert_eq!(running(Some((150, 0, 300))).line(4), "[2/4] the library: 40 s, 150 of 300 crates, about 60 s left");
        // Crates of an earlier run tell nothing of the time, and the last few crates tell little.
        assert_eq!(running(Some((299, 299, 300))).line(4), "[2/4] the library: 40 s, 299 of 300 crates");
        assert_eq!(running(Some((299, 295, 301))).line(4), "[2/4] the library: 40 s, 299 of 301 crates");
        assert_eq!(
            running(Some((225, 150, 300))).line(4),
            "[2/4] the library: 40 s, 225 of 300 crates, about 60 s left"
        );
    }

    #[test]
    fn wrapping_is_off_only_within_the_line() {
        assert_eq!(cut_by_terminal("a"), "\x1b[?7la\x1b[?7h");
    }

    #[test]
    fn after_a_failure_no_step_begins() {
        let (failed, next) = Progress::run(2, |progress| {
            let failed: Result<()> = progress.step("a", |_| Err("broken".into()));
            (failed.unwrap_err().to_string(), progress.step("b", |_| Ok(())).unwrap_err().to_string())
        });
        assert_eq!((failed.as_str(), next.as_str()), ("broken", "stopped, because another step failed"));
    }
}
