//! Repeats a request after a passing failure, and reports each wait.

use std::time::Duration;

use super::failure::Failure;

/// The longest wait that a server may ask for; one that asks for more is given up.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Counts the failures of a request, and waits between its repetitions.
pub(super) struct Retries {
    /// Waits are a tenth of it, doubled each time to at most four fifths: 1 to 8 s for the default of 10 s.
    timeout: Duration,
    enabled: bool,
    failures: u32,
}

impl Retries {
    pub(super) fn new(timeout: Duration, enabled: bool) -> Self {
        Self { timeout, enabled, failures: 0 }
    }

    /// Forgets the failures, because a download has progressed since.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the request is repeated.
    ///
    /// # Errors
    /// The failure itself, if it cannot pass, or happened too often.
    pub(super) fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        let retries = failure.retries();
        let backoff = self.timeout.mul_f64(0.1 * f64::from(1 << self.failures.min(3)));
        let wait = match failure {
            Failure::Status { retry_after: Some(wait), .. } => wait.max(backoff),
            _ => backoff,
        };
        if !self.enabled || self.failures >= retries || wait > MAX_WAIT {
            return Err(failure);
        }
        self.failures += 1;
        let (failures, seconds) = (self.failures, wait.as_secs_f64());
        println!("  {failure}; trying again in {seconds:.1} s ({failures} of {retries})");
        std::thread::sleep(wait);
        Ok(())
    }

    /// Runs a request until it succeeds or has failed too often.
    pub(super) fn run<T>(mut self, mut request: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        loop {
            match request() {
                Ok(value) => return Ok(value),
                Err(failure) => self.wait(failure)?,
            }
        }
    }
}
