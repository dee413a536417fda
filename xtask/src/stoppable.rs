//! A running command that can be stopped from another thread.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::progress::lock;
use crate::tool::Result;

/// Time between asking a command to end and ending it: a notebook's program ends its kernel first.
const GRACE: Duration = Duration::from_secs(10);

/// A running command.
pub(crate) struct StoppableCommand {
    child: Mutex<Child>,
    /// When it was asked to end.
    asked: Mutex<Option<Instant>>,
}

impl StoppableCommand {
    pub(crate) fn new(child: Child) -> Self {
        Self { child: Mutex::new(child), asked: Mutex::new(None) }
    }

    /// Asks the command to end. Only Unix can ask; elsewhere it is ended.
    pub(crate) fn stop(&self) {
        lock(&self.asked).get_or_insert_with(Instant::now);
        let mut child = lock(&self.child);
        let id = child.id().to_string();
        let ask = || {
            let mut kill = Command::new("kill");
            kill.args(["-TERM", &id]).stdout(Stdio::null()).stderr(Stdio::null());
            cfg!(unix) && kill.status().is_ok_and(|status| status.success())
        };
        // The system can give a process id to another process only after `try_wait` has read the status, under this lock.
        if matches!(child.try_wait(), Ok(None)) && !ask() {
            let _ = child.kill();
        }
    }

    /// Waits for the end of the command.
    pub(crate) fn wait(&self) -> Result<ExitStatus> {
        loop {
            // Not `Child::wait`, which would hold the lock that `stop` needs.
            if let Some(status) = lock(&self.child).try_wait()? {
                return Ok(status);
            }
            if lock(&self.asked).is_some_and(|asked| asked.elapsed() > GRACE) {
                let _ = lock(&self.child).kill();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
