//! Programs of a job: what they are started with, and their ends.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use backon::{BlockingRetryable as _, ConstantBuilder};
use command_fds::CommandFdExt as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Context;
use super::confine::{self, Confinement};
use super::pipes::pipe;
use super::place::{Directory, PlaceError, path_of};
use crate::agent::tool::ENVIRONMENT;
use crate::proto::Text;
use crate::proto::job::Program;
use crate::proto::secret::Secret;
use crate::proto::task::{Invocation, Word};

/// Exit status for a program that cannot be started.
const NOT_STARTED: i32 = 126;
/// Exit status for a program that is not installed.
const NOT_INSTALLED: i32 = 127;
/// Base of exit statuses for programs that a signal ended.
const KILLED: i32 = 128;

/// Program that runs.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pidfd: OwnedFd,
}

/// Reason why a program was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The program is not installed.
    #[error("{0} is not installed")]
    Missing(Text),
    /// The program cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Program.
        program: Text,
        /// Cause.
        source: io::Error,
    },
    /// A stage of the job itself cannot be started.
    #[error("cannot start the stage {stage}: {source}")]
    Stage {
        /// Stage.
        stage: Program,
        /// Cause.
        source: io::Error,
    },
    /// The login that the program would make is refused.
    #[error("cannot start {program}: {reason}")]
    Login {
        /// Program.
        program: Text,
        /// Reason.
        reason: Text,
    },
    /// An argument names something that the agent does not hold.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// An argument names the key, and there is none.
    #[error("the agent has no key for {0}")]
    NoKey(Text),
}

impl StartError {
    /// Returns the exit status that shells use for it.
    pub(super) fn status(&self) -> i32 {
        if matches!(self, Self::Missing(_)) { NOT_INSTALLED } else { NOT_STARTED }
    }
}

/// Input and output of a program.
#[derive(Debug)]
pub(super) struct Ends {
    /// Standard input.
    pub(super) input: OwnedFd,
    /// Standard output.
    pub(super) output: OwnedFd,
}

/// Program that was started, and the pipe of its standard error.
#[derive(Debug)]
pub(super) struct Started {
    /// Program.
    pub(super) running: Running,
    /// Pipe of its standard error.
    pub(super) stderr: OwnedFd,
    /// The program should be confined, and is not.
    pub(super) is_unconfined: bool,
}

/// Starts a program in a directory. It inherits the descriptors that its arguments name and the job's lock, and
/// nothing more.
pub(super) fn start(
    context: &Context<'_>,
    directory: &Directory,
    invocation: &Invocation,
    ends: Ends,
) -> Result<Started, StartError> {
    let name = Text::new(invocation.program.as_bytes());
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::NotFound => StartError::Missing(name.clone()),
        _ => StartError::Start { program: name.clone(), source },
    };
    let (mut args, inherited) = words(context, invocation)?;
    if let Some(login) = &invocation.login {
        let checked = context.checks.login(login, invocation.program.as_os_str());
        args.extend(checked.map_err(|reason| StartError::Login { program: name.clone(), reason })?);
    }
    let (said, stderr) = pipe().map_err(failed)?;
    let mut command = Command::new(invocation.program.as_os_str());
    command.args(args).stdin(ends.input).stdout(ends.output).stderr(stderr).current_dir(directory.path());
    clean_environment(&mut command);
    // Programs must see the real name of a directory that is held as a descriptor.
    command.envs(directory.real_path().map(|path| ("PWD", path)));
    command.preserved_fds(inherited);

    let spawn = || {
        if invocation.confined {
            confine::spawn(&mut command, context.staging().unwrap_or(directory.as_fd()))
        } else {
            Ok((command.spawn()?, Confinement::Full))
        }
    };
    let (child, confinement) = patiently(spawn).map_err(failed)?;
    let running = Running::new(child).map_err(failed)?;
    Ok(Started { running, stderr: said, is_unconfined: confinement == Confinement::Missing })
}

/// Repeats a start for a second while another user has taken all processes of the host.
pub(crate) fn patiently<T>(start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let retries = ConstantBuilder::new().with_delay(Duration::from_millis(50)).with_max_times(20);
    start.retry(retries).when(|error| error.kind() == ErrorKind::WouldBlock).call()
}

/// Leaves the environment of a program only the variables of the login that it may see.
pub(crate) fn clean_environment(command: &mut Command) {
    let kept = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.env_clear().envs(kept).env("LC_ALL", "C");
}

/// Returns the arguments, and the descriptors that they name.
fn words(
    context: &Context<'_>,
    invocation: &Invocation,
) -> Result<(Vec<OsString>, Vec<OwnedFd>), StartError> {
    let failed = |source| StartError::Start { program: Text::new(invocation.program.as_bytes()), source };
    let mut inherited = Vec::new();
    let mut args = Vec::new();
    let mut inherit = |fd: BorrowedFd<'_>| -> Result<OsString, StartError> {
        let fd = fd.try_clone_to_owned().map_err(failed)?;
        let path = path_of(&fd).into_os_string();
        inherited.push(fd);
        Ok(path)
    };
    for word in &invocation.args {
        args.push(match word {
            Word::Literal(bytes) => bytes.as_os_str().to_owned(),
            Word::RunFile(name) => context.directory.join(name).into_os_string(),
            Word::Source => inherit(context.source()?)?,
            Word::Staging => inherit(context.staging()?)?,
            Word::Key => {
                let name = || Text::new(invocation.program.as_bytes());
                let key = context.key.as_ref().ok_or_else(|| StartError::NoKey(name()))?;
                let path = inherit(pipe_with(key).map_err(failed)?.as_fd())?;
                let number = path.to_string_lossy();
                OsString::from(format!("fd:{}", number.rsplit('/').next().unwrap_or_default()))
            }
        });
    }
    Ok((args, inherited))
}

/// Returns a pipe that contains a secret and a newline.
fn pipe_with(secret: &Secret) -> io::Result<OwnedFd> {
    let (input, output) = pipe()?;
    let mut output = std::fs::File::from(output);
    output.write_all(secret.as_bytes())?;
    output.write_all(b"\n")?;
    Ok(input)
}

impl Running {
    /// Takes a program that was just started.
    pub(super) fn new(mut child: Child) -> io::Result<Self> {
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(error) => {
                // Without a descriptor its end would not be noticed.
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Returns the descriptor that is readable when the program has ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns the number of the process, which is its own until [`Self::wait`].
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the end, and returns the exit status.
    pub(super) fn wait(&mut self) -> i32 {
        self.child.wait().map_or(KILLED, status)
    }

    /// Kills the program and waits for its end.
    pub(super) fn kill(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.wait();
    }
}

/// Returns the exit status as shells do: 128 and the number of a signal where one ended it.
pub(crate) fn status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| KILLED + status.signal().unwrap_or_default())
}

/// Returns `/dev/null` for reading and writing.
pub(super) fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
}
