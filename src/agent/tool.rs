//! Programs of the host that the agent runs for a short answer: with a time limit, bounded output and a clean
//! environment, and without threads, which a host may not have left.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use backon::{BlockingRetryable as _, ExponentialBuilder};
use command_fds::CommandFdExt as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use zeroize::Zeroizing;

use crate::proto::Text;

/// Variables of a login that programs may see. Any other may change what they do.
pub(crate) const ENVIRONMENT: [&str; 8] =
    ["HOME", "LOGNAME", "PATH", "SSH_CONNECTION", "TMPDIR", "USER", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"];
/// Time limit unless another one is given.
const LIMIT: Duration = Duration::from_secs(60);
/// Maximum size of each output unless another one is given.
const MOST: usize = 4 << 20;
/// Time for a terminated program to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Maximum time to retry while the host has no free process.
const BUSY_LIMIT: Duration = Duration::from_secs(60);

/// Program with its arguments, to be run to its end.
#[must_use]
pub(crate) struct Tool {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Zeroizing<Vec<u8>>,
    limit: Duration,
    most: usize,
}

/// Output of a program that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Exit status.
    pub(crate) status: ExitStatus,
    /// Standard output.
    pub(crate) stdout: Vec<u8>,
    /// Standard error.
    pub(crate) stderr: Vec<u8>,
}

/// Error of a program that has not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// The program is not installed.
    #[error("{0} is not installed")]
    Missing(String),
    /// The program cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Program.
        program: String,
        /// Cause.
        source: io::Error,
    },
    /// The channels to the program failed.
    #[error("cannot talk to {program}: {source}")]
    Channel {
        /// Program.
        program: String,
        /// Cause.
        source: io::Error,
    },
    /// The program took too long and was ended.
    #[error("{program} has not ended within {} s", limit.as_secs())]
    Slow {
        /// Program.
        program: String,
        /// Time limit.
        limit: Duration,
    },
    /// The program wrote too much and was ended.
    #[error("{program} wrote more than {most} bytes")]
    TooMuch {
        /// Program.
        program: String,
        /// Limit in bytes.
        most: usize,
    },
    /// The program failed.
    #[error("{program}: {said}")]
    Failed {
        /// Program.
        program: String,
        /// Last line of its output, or its status.
        said: Text,
    },
}

thread_local! {
    /// Lock that the programs of this thread keep open.
    static HELD: RefCell<Option<OwnedFd>> = const { RefCell::new(None) };
}

/// Time in which the programs of a thread keep a lock open.
#[derive(Debug)]
#[must_use]
pub(crate) struct Holding {
    previous: Option<OwnedFd>,
    /// Belongs to its thread.
    _thread: PhantomData<*const ()>,
}

/// Makes all programs of this thread keep a descriptor open: the lock of the journal, so that no rollback overtakes
/// a change that a program is still making when the agent is killed. Hooks are not among them.
pub(crate) fn hold(lock: impl AsFd) -> io::Result<Holding> {
    let lock = lock.as_fd().try_clone_to_owned()?;
    Ok(Holding { previous: HELD.replace(Some(lock)), _thread: PhantomData })
}

impl Drop for Holding {
    fn drop(&mut self) {
        HELD.set(self.previous.take());
    }
}

/// Shows the program without its arguments and its input, which may be secret.
impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tool({})", self.program.to_string_lossy())
    }
}

impl Output {
    /// Returns the last line on standard error, or else on standard output, or else the status.
    pub(crate) fn last_words(&self) -> Text {
        let last = |bytes: &[u8]| {
            let line = bytes.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
            Text::new(line)
        };
        [last(&self.stderr), last(&self.stdout)]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| Text::from(&self.status))
    }
}

impl Tool {
    /// Creates a program without arguments, searched for in the `PATH` of the login.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            input: Zeroizing::default(),
            limit: LIMIT,
            most: MOST,
        }
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<T: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the standard input, which is empty otherwise. Secrets go this way, and never as arguments.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Zeroizing::new(bytes.into());
        self
    }

    /// Sets the time limit.
    pub(crate) fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Sets the maximum size in bytes of each output.
    pub(crate) fn most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Runs the program to its end, whatever its status is.
    pub(crate) fn run(self) -> Result<Output, ToolError> {
        let program = self.program.to_string_lossy().into_owned();
        let mut child = self.start().map_err(|source| match source.kind() {
            ErrorKind::NotFound => ToolError::Missing(program.clone()),
            _ => ToolError::Start { program: program.clone(), source },
        })?;
        match self.converse(&mut child) {
            Ok(Some(output)) if output.stdout.len() > self.most || output.stderr.len() > self.most => {
                Err(ToolError::TooMuch { program, most: self.most })
            }
            Ok(Some(output)) => Ok(output),
            Ok(None) => Err(ToolError::Slow { program, limit: self.limit }),
            Err(source) => {
                end(&mut child);
                Err(ToolError::Channel { program, source })
            }
        }
    }

    /// Runs the program, which has to succeed, and returns its standard output.
    pub(crate) fn succeed(self) -> Result<Vec<u8>, ToolError> {
        let program = self.program.to_string_lossy().into_owned();
        let output = self.run()?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(ToolError::Failed { program, said: output.last_words() })
        }
    }

    /// Returns the command with its clean environment and a process group of its own, for [`spawn`].
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let kept = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command
            .args(&self.args)
            .env_clear()
            .envs(kept)
            .env("LC_ALL", "C")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .process_group(0);
        command
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = self.command();
        command
            .stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let held = HELD.with_borrow(|held| held.as_ref().map(OwnedFd::try_clone)).transpose()?;
        command.preserved_fds(held.into_iter().collect());
        spawn(&mut command)
    }

    /// Passes input and output until the program ends; `None` when it was ended at its time limit.
    fn converse(&self, child: &mut Child) -> io::Result<Option<Output>> {
        let deadline = Instant::now() + self.limit;
        let (mut stdin, mut stdout, mut stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut rest = self.input.as_slice();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for fd in [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        loop {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                end(child);
                return Ok(None);
            };
            let has_ended = wait(pidfd.as_fd(), stdin.as_ref(), stdout.as_ref(), stderr.as_ref(), left)?;
            if let Some(pipe) = &mut stdin {
                match pipe.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if is_temporary(&error) => {}
                    // A program that does not read its input says why by its status.
                    Err(_) => rest = &[],
                }
                if rest.is_empty() {
                    stdin = None;
                }
            }
            drain(&mut stdout, &mut out, self.most)?;
            drain(&mut stderr, &mut err, self.most)?;
            // Processes that it leaves in the background may hold its output: they are not waited for.
            if has_ended || out.len() > self.most || err.len() > self.most {
                let status = if has_ended { child.wait()? } else { end(child) };
                return Ok(Some(Output { status, stdout: out, stderr: err }));
            }
        }
    }
}

/// Starts a program. Another user may have taken all processes of the host: that delays us, and no more.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let retries = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(1))
        .without_max_times()
        .with_total_delay(Some(BUSY_LIMIT));
    (|| command.spawn()).retry(retries).when(|error| error.kind() == ErrorKind::WouldBlock).call()
}

/// Waits until something can be passed or the program has ended, and returns whether it has.
fn wait(
    pidfd: BorrowedFd<'_>,
    stdin: Option<&impl AsFd>,
    stdout: Option<&impl AsFd>,
    stderr: Option<&impl AsFd>,
    left: Duration,
) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
    fds.extend(stdin.map(|fd| PollFd::new(fd, PollFlags::OUT)));
    fds.extend(stdout.map(|fd| PollFd::new(fd, PollFlags::IN)));
    fds.extend(stderr.map(|fd| PollFd::new(fd, PollFlags::IN)));
    let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
    match poll(&mut fds, Some(&left)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads what is there, up to one byte more than the limit. Closes the pipe at its end.
fn drain(pipe: &mut Option<impl Read>, into: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    while let Some(open) = pipe {
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(read) => {
                into.extend_from_slice(&buffer[..read]);
                if into.len() > most {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Ends a program and what is left of its process group.
pub(crate) fn end(child: &mut Child) -> ExitStatus {
    let pid = Pid::from_child(child);
    // It was not waited for, so its number is still its own.
    let _ = kill_process_group(pid, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                return status;
            }
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                let _ = kill_process_group(pid, Signal::KILL);
                return child.wait().unwrap_or_else(|_| ExitStatus::from_raw(9));
            }
            Err(_) => return ExitStatus::from_raw(9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Tool {
        Tool::new("sh").args(["-c", script])
    }

    #[test]
    fn input_and_both_outputs_pass_whole() {
        let text = vec![b'x'; 3 << 20];
        let output = sh("tee /dev/stderr").input(text.clone()).run().unwrap();
        assert!(output.status.success() && output.stdout == text && output.stderr == text);
    }

    #[test]
    fn failure_reports_the_last_line() {
        let error = sh("echo no; echo first >&2; echo last >&2; exit 3").succeed().unwrap_err();
        assert_eq!(error.to_string(), "sh: last");
        assert_eq!(sh("exit 3").succeed().unwrap_err().to_string(), "sh: exit status: 3");
        assert_eq!(Tool::new("no-such-tool").run().unwrap_err().to_string(), "no-such-tool is not installed");
    }

    #[test]
    fn slow_and_talkative_programs_are_ended() {
        let start = Instant::now();
        let slow = sh("sleep 100 & sleep 100").limit(Duration::from_millis(100)).run();
        assert!(matches!(slow, Err(ToolError::Slow { .. })));
        let much = Tool::new("yes").most(1000).run();
        assert!(matches!(much, Err(ToolError::TooMuch { most: 1000, .. })));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn background_processes_are_not_waited_for() {
        let start = Instant::now();
        assert_eq!(sh("sleep 20 & echo done").succeed().unwrap(), b"done\n");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn held_lock_is_free_when_the_program_has_ended() {
        use crate::agent::flock::{Wait, lock};

        let scratch = tempfile::tempdir().unwrap();
        let open = || std::fs::File::create(scratch.path().join("lock")).unwrap();
        let (held, other) = (open(), open());
        assert!(lock(&held, Wait::No).unwrap());
        let holding = hold(&held).unwrap();
        let tool = sh("read line; echo $line").input("done\n");
        // A process in the background stands for a program whose agent was killed.
        let background = sh("sleep 100 & echo $!").succeed().unwrap();
        drop(holding);
        drop(held);
        assert_eq!(tool.succeed().unwrap(), b"done\n");
        assert!(!lock(&other, Wait::No).unwrap());
        let pid = String::from_utf8(background).unwrap().trim().parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        assert!(lock(&other, Wait::Forever).unwrap());
    }

    #[test]
    fn environment_is_clean() {
        let environment = String::from_utf8(Tool::new("env").env("OURS", "1").succeed().unwrap()).unwrap();
        for line in environment.lines() {
            let name = line.split('=').next().unwrap();
            assert!(ENVIRONMENT.contains(&name) || ["LC_ALL", "OURS"].contains(&name), "{line}");
        }
        assert!(environment.contains("LC_ALL=C\n"));
    }
}
