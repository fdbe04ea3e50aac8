//! Commands on hosts of the lab: before they run, while they run, and their end.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hosts::{Host, LAB_SH};
use super::output::{Collector, Output};
use super::waiting::eventually;

/// Standard input of a command.
pub(super) enum Input {
    Bytes(Vec<u8>),
    File(File),
}

/// A command on a host, before it runs.
#[must_use]
pub(crate) struct Invocation {
    host: Host,
    args: Vec<String>,
    env: Vec<String>,
    pub(super) user: Option<String>,
    stdin: Input,
    /// Whether the input stays open, with nothing in it.
    pub(super) holds_stdin: bool,
}

impl Invocation {
    pub(super) fn new(host: &Host, args: &[&str]) -> Self {
        Self {
            host: host.clone(),
            args: args.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            user: None,
            stdin: Input::Bytes(Vec::new()),
            holds_stdin: false,
        }
    }

    /// Adds arguments.
    pub(super) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Gives the command a file to read.
    pub(super) fn stdin_file(mut self, file: File) -> Self {
        self.stdin = Input::File(file);
        self
    }

    /// Adds a variable to the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Gives the command an input, which is empty by default.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// Passes the command to a bash script, as `$0` and `$@`.
    pub(crate) fn in_script(mut self, script: &str) -> Self {
        self.args.splice(0..0, ["bash", "--norc", "-c", script].map(ToOwned::to_owned));
        self
    }

    /// Runs the command to its end.
    pub(crate) fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts the command.
    pub(crate) fn spawn(self) -> Running {
        // The shell prints its pid on the host and then becomes the command, through exec all the way.
        let mut command = Command::new(LAB_SH);
        command.args(["exec", &self.host.lab, &self.host.name, "--"]);
        command.args(["sh", "-c", r#"echo "$$" && exec "$@""#, "sh"]);
        if let Some(user) = &self.user {
            command.args(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]);
            command.args([
                "env",
                &format!("HOME=/home/{user}"),
                &format!("USER={user}"),
                &format!("LOGNAME={user}"),
            ]);
        } else if !self.env.is_empty() {
            command.arg("env");
        }
        command.args(&self.env).args(&self.args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let bytes = match self.stdin {
            Input::File(file) => {
                command.stdin(file);
                None
            }
            Input::Bytes(bytes) if bytes.is_empty() && !self.holds_stdin => {
                command.stdin(Stdio::null());
                None
            }
            Input::Bytes(bytes) => {
                command.stdin(Stdio::piped());
                Some(bytes)
            }
        };
        let began = Instant::now();
        let mut child = command.spawn().expect("lab.sh cannot be started");
        let mut stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let mut stdin = child.stdin.take();
        // In a thread: a command that answers while it reads would block until its output is read.
        let writer = bytes.filter(|bytes| !bytes.is_empty()).and_then(|bytes| {
            let mut stdin = stdin.take()?;
            // A command may end before it has read everything; its status shows whether that was an error.
            Some(thread::spawn(move || drop(stdin.write_all(&bytes))))
        });
        let pid = read_pid(&mut stdout);
        Running {
            host: self.host,
            pid,
            child,
            stdin: stdin.filter(|_| self.holds_stdin),
            writer,
            stdout: Collector::start(stdout),
            stderr: Collector::start(stderr),
            began,
            ended: false,
        }
    }
}

/// Reads the line with the shell's pid, and not a byte more. `None` when there is none because the host is
/// down; the command's status and output then report that.
fn read_pid(stdout: &mut impl Read) -> Option<u32> {
    let mut line = String::new();
    let mut byte = [0];
    while stdout.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'\n' {
        line.push(char::from(byte[0]));
    }
    line.parse().ok()
}

/// A command that runs on a host. Dropping it kills it, and only it.
pub(crate) struct Running {
    host: Host,
    pid: Option<u32>,
    child: Child,
    pub(super) stdin: Option<ChildStdin>,
    writer: Option<JoinHandle<()>>,
    stdout: Collector,
    stderr: Collector,
    began: Instant,
    ended: bool,
}

impl Running {
    /// Pid of the command on the host.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.pid.expect("the command did not start")
    }

    /// Sends a signal (`"INT"`, `"TERM"`, `"KILL"`, `"STOP"`…) to exactly this process. No error when it has
    /// ended.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        self.host.run(&["/bin/kill", "-s", name, &pid]);
        if name == "CONT" || name == "KILL" {
            // nsenter, the command's parent on this machine, stops itself when the command is stopped.
            let _ = kill(self.outer(), Signal::SIGCONT);
        }
    }

    fn outer(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Whether the command still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the command has printed a text on either stream; fails when it ends or `within` passes
    /// first.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str, within: Duration) {
        let found = eventually(within, || {
            self.stdout.so_far().contains(text) || self.stderr.so_far().contains(text) || !self.is_running()
        });
        if found && !self.is_running() {
            // The last output may arrive after the end was seen.
            eventually(within, || self.stdout.is_complete() && self.stderr.is_complete());
        }
        let (stdout, stderr) = (self.stdout.so_far(), self.stderr.so_far());
        assert!(
            stdout.contains(text) || stderr.contains(text),
            "waited for '{text}' in vain\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        );
    }

    /// Waits for the end, and until all processes, including children of the command, have closed the pipes.
    pub(crate) fn wait(mut self) -> Output {
        self.stdin = None;
        let stdout = self.stdout.read_to_end();
        let stderr = self.stderr.read_to_end();
        let status = self.child.wait().expect("a child can be waited for");
        let took = self.began.elapsed();
        self.ended = true;
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the writer panicked");
        }
        Output { status, stdout, stderr, took }
    }

    /// Waits for the end of the command only, for at most `within`; its children may still hold the pipes.
    #[track_caller]
    pub(crate) fn wait_end(&mut self, within: Duration) -> ExitStatus {
        assert!(
            eventually(within, || !self.is_running()),
            "still running after {within:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout.so_far(),
            self.stderr.so_far()
        );
        self.ended = true;
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended && self.is_running() {
            if self.pid.is_some() {
                self.signal("KILL");
            }
            // The parent on this machine may be stopped.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
