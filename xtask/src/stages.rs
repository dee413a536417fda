//! Stages of a long run, each with its seconds.

use std::time::Instant;

use crate::tool::Result;

/// The name and the seconds of each stage so far.
#[derive(Default)]
pub(crate) struct Stages(Vec<(&'static str, f64)>);

impl Stages {
    /// Prints the stage's name, runs it, and prints its seconds, also where it fails.
    pub(crate) fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("== {name}");
        let started = Instant::now();
        let outcome = stage();
        let seconds = started.elapsed().as_secs_f64();
        println!("== {name}: {seconds:.0} s");
        self.0.push((name, seconds));
        outcome
    }

    /// Prints a table of all stages.
    pub(crate) fn print(&self) {
        println!("== seconds of each stage");
        for (name, seconds) in &self.0 {
            println!("{seconds:7.0}  {name}");
        }
    }
}
