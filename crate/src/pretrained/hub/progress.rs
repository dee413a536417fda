//! Progress as lines, because a notebook cannot redraw a progress bar: one at the start, one per tenth of a large file,
//! one at the end.

use std::time::Instant;

/// Downloads of fewer bytes are reported only when they start and end.
const LARGE: u64 = 10_000_000;

pub(super) struct ProgressLines<'a> {
    name: &'a str,
    size: Option<u64>,
    /// Tenths of the file that were reported.
    tenths: u64,
    started: Instant,
}

impl<'a> ProgressLines<'a> {
    /// `done`: bytes of an earlier download, which is continued.
    pub(super) fn start(name: &'a str, size: Option<u64>, done: u64) -> Self {
        let size_text = size.map_or_else(|| "of unknown size".into(), |size| format!("{:.1} MB", size as f64 / 1e6));
        if done == 0 {
            println!("downloading {name}, {size_text}");
        } else {
            println!("continuing {name} at {:.1} MB, {size_text}", done as f64 / 1e6);
        }
        Self { name, size, tenths: tenths(done, size), started: Instant::now() }
    }

    pub(super) fn update(&mut self, done: u64) {
        let tenths = tenths(done, self.size);
        if self.size.is_some_and(|size| size >= LARGE) && tenths > self.tenths && tenths < 10 {
            self.tenths = tenths;
            println!("  {} {tenths}0 %", self.name);
        }
    }

    pub(super) fn finish(self) {
        println!("  {} done in {:.1} s", self.name, self.started.elapsed().as_secs_f64());
    }
}

fn tenths(done: u64, size: Option<u64>) -> u64 {
    size.map_or(0, |size| done.saturating_mul(10) / size.max(1))
}
