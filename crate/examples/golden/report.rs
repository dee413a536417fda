//! The verdict on each quantity.

use ndarray::{Array, ArrayD, Dimension};

/// The absolute limit for tensors that are zero everywhere.
const ZERO_LIMIT: f64 = 1e-7;

/// The number of quantities checked, of those that failed, and of those whose tool the library does not have yet.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) checked: usize,
    pub(crate) failed: usize,
    pub(crate) not_yet: usize,
}

/// Prints a line for each quantity, and counts them.
pub(super) struct Report {
    pub(super) outcome: Outcome,
    pub(super) only_failures: bool,
}

impl Report {
    /// A quantity with its verdict and details.
    pub(super) fn line(&mut self, name: &str, passed: bool, text: &str) {
        self.outcome.checked += 1;
        self.outcome.failed += usize::from(!passed);
        if passed && self.only_failures {
            return;
        }
        println!("{} {name:<56} {text}", if passed { "ok  " } else { "FAIL" });
    }

    /// A name in the file that this program does not know, which is a failure.
    pub(super) fn unknown(&mut self, name: &str) {
        self.line(name, false, "unknown name");
    }

    /// A quantity whose tool the library does not have yet; it is not checked.
    pub(super) fn not_yet(&mut self, name: &str) {
        self.outcome.not_yet += 1;
        if !self.only_failures {
            println!("-    {name:<56} not yet known");
        }
    }

    /// Compares numbers; `limit` is relative to the largest magnitude of `want`. Shape: all the same.
    pub(super) fn numbers<D: Dimension>(&mut self, name: &str, got: &Array<f32, D>, want: &ArrayD<f32>, limit: f64) {
        if got.shape() != want.shape() {
            return self.line(name, false, &format!("shape {:?}, expected {:?}", got.shape(), want.shape()));
        }
        let magnitude = want.iter().fold(0.0_f64, |largest, &x| largest.max(f64::from(x).abs()));
        // `max` ignores NaN, so a NaN difference counts as infinite.
        let difference = |(got, want): (&f32, &f32)| match (f64::from(*got) - f64::from(*want)).abs() {
            difference if difference.is_nan() => f64::INFINITY,
            difference => difference,
        };
        let absolute = got.iter().zip(want).map(difference).fold(0.0, f64::max);
        let (passed, relative) = match magnitude {
            0.0 => (absolute <= ZERO_LIMIT, f64::NAN),
            _ => (absolute <= limit * magnitude, absolute / magnitude),
        };
        self.line(name, passed, &format!("abs {absolute:.1e}  rel {relative:.1e}  limit {limit:.0e}"));
    }
}
