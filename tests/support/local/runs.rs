//! Runs of the program on this machine.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::output::{Collector, Output};
use crate::support::waiting::eventually;

/// Limit for any run. No test gets near it, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);
/// Time after the end of a run within which all processes have closed its outputs.
const CLOSED: Duration = Duration::from_secs(10);

/// Waits for an event, which has to happen within a limit.
#[track_caller]
pub(crate) fn wait_until(what: &str, limit: Duration, happened: impl FnMut() -> bool) {
    assert!(eventually(limit, happened), "not within {limit:?}: {what}");
}

/// The program while it runs. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    /// Standard output and standard error.
    outputs: Option<[Collector; 2]>,
    began: Instant,
}

impl Running {
    /// Starts a command and collects its output.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut running = Self::unread(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let stdout = Collector::start(running.child.stdout.take().unwrap());
        running.outputs = Some([stdout, Collector::start(running.child.stderr.take().unwrap())]);
        running
    }

    /// Starts a command whose output the test does not collect.
    pub(crate) fn unread(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap(), outputs: None, began: Instant::now() }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(mut self, limit: Duration) -> Output {
        let mut status = None;
        eventually(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let took = self.began.elapsed();
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let [stdout, stderr] = self.outputs.take().map(|outputs| outputs.map(text)).unwrap_or_default();
        let Some(status) = status else {
            panic!("no end within {limit:?}\nstdout: {stdout}\nstderr: {stderr}")
        };
        Output { status, stdout, stderr, took }
    }
}

#[track_caller]
fn text(mut output: Collector) -> String {
    assert!(eventually(CLOSED, || output.is_complete()), "a process keeps the output open");
    output.read_to_end()
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Asserts that either output has a text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "does not say {text:?}: {self}");
        self
    }
}
