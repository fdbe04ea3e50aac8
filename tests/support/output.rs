//! The output of a command, while it runs and at its end.

use std::fmt;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Exit status and output of a command that has ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// As the command's parent sees it, including a signal.
    pub(crate) status: ExitStatus,
    /// Standard output, with replacement characters where it is not UTF-8.
    pub(crate) stdout: String,
    /// Standard error, likewise.
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Output {
    /// Asserts that the command succeeded.
    #[track_caller]
    pub(crate) fn expect_success(self) -> Self {
        self.expect_code(0)
    }

    /// Asserts the exit code, and that nothing panicked.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert!(self.status.code() == Some(code), "expected exit code {code}: {self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "exit code {code}")?,
            (None, signal) => write!(f, "killed by signal {}", signal.unwrap_or(0))?,
        }
        write!(f, " after {:.1?}\n--- stdout\n{}\n--- stderr\n{}", self.took, self.stdout, self.stderr)
    }
}

/// Reads a pipe to its end in a thread, so that a test can look at what has arrived so far.
pub(crate) struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collector {
    pub(crate) fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = vec![0; 65536];
            while let Ok(count) = pipe.read(&mut chunk) {
                if count == 0 {
                    return;
                }
                sink.lock().expect("a reader panicked").extend_from_slice(&chunk[..count]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    pub(crate) fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("a reader panicked")).into_owned()
    }

    /// Whether every process has closed the pipe, and all of it has been read.
    pub(crate) fn is_complete(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Returns all of the output as soon as every process has closed the pipe.
    pub(crate) fn read_to_end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader panicked");
        }
        self.so_far()
    }
}
