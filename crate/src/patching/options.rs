//! Options of a sweep.

/// Options of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepOptions {
    pub(super) max_bytes: usize,
    pub(super) progress: bool,
}

impl Default for SweepOptions {
    /// 512 MiB, with progress lines.
    fn default() -> Self {
        Self { max_bytes: 512 << 20, progress: true }
    }
}

impl SweepOptions {
    /// Memory limit in bytes for the runs that are computed together: their activations, keys and values, logits, and the
    /// numbers that their interventions set. The model, the caches and the unchanged run come on top of it, and in path
    /// patching to heads what the receivers of these runs read. At least one run is computed at a time.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Whether a sweep of more than 5 seconds prints a line to stderr every 5 seconds.
    pub fn progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }
}
