//! What takes long, stage by stage, with the seconds of each.

use std::time::Instant;

use crate::tool::Result;

/// The stages so far, and the seconds of each.
#[derive(Default)]
pub(crate) struct Stages(Vec<(&'static str, f64)>);

impl Stages {
    /// Says what is being done, and how long it took.
    pub(crate) fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("== {name}");
        let started = Instant::now();
        let outcome = work();
        let seconds = started.elapsed().as_secs_f64();
        println!("== {name}: {seconds:.0} s");
        self.0.push((name, seconds));
        outcome
    }

    /// The seconds of each.
    pub(crate) fn print(&self) {
        println!("== seconds of each stage");
        for (name, seconds) in &self.0 {
            println!("{seconds:7.0}  {name}");
        }
    }
}
