//! The program, started: its signals, its outputs and its end.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far more than any run here takes on a busy machine. A test that needs it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// Waits for something that has to happen.
#[track_caller]
pub(crate) fn wait_until(what: &str, limit: Duration, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !happened() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The program, started.
pub(crate) struct Running {
    child: Child,
    /// Standard output and standard error, each sent at its end.
    outputs: Option<[Receiver<Vec<u8>>; 2]>,
    began: Instant,
}

impl Running {
    /// Starts a command and reads what it prints.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut running = Self::unread(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let stdout = collect(running.child.stdout.take().unwrap());
        running.outputs = Some([stdout, collect(running.child.stderr.take().unwrap())]);
        running
    }

    /// Starts a command whose outputs are somebody else's business.
    pub(crate) fn unread(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap(), outputs: None, began: Instant::now() }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let took = self.began.elapsed();
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let text = |output: &Receiver<Vec<u8>>| {
            let bytes = output.recv_timeout(Duration::from_secs(10)).expect("somebody keeps the output open");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) =
            self.outputs.as_ref().map(|[out, err]| (text(out), text(err))).unwrap_or_default();
        let Some(status) = status else {
            panic!("no end within {limit:?}\nstdout: {stdout}\nstderr: {stderr}")
        };
        Ended { status, stdout, stderr, took }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut output: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// The program's end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ended {
    /// It ended with this exit code, and no panic.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "signal {:?}, {self}", self.status.signal());
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }

    /// It printed this on either output.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "does not say {text:?}: {self}");
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} after {:?}\nstdout: {}\nstderr: {}", self.status, self.took, self.stdout, self.stderr)
    }
}
