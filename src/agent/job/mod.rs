//! Job of an agent: a process that does one task, with the programs that it starts, and reports.
//!
//! The agent starts `transfer-agent job` with a socket as its standard input and a pipe as its standard output. The
//! socket carries the [`Order`], the held descriptors and [`Control`](crate::proto::task::Control)s; the pipe carries
//! [`JobReport`]s, of which the last one is the exit. The process leads a session of its own. It and all of its
//! programs have the job's lock file open as descriptor [`LOCK`], by which others find and end them. A job ends when
//! its agent does.

mod backup_files;
mod bucket;
pub(super) mod channel;
mod complaints;
mod confine;
mod digest;
mod faults;
pub(super) mod files;
mod hook;
pub(super) mod limits;
mod lines;
mod log;
mod meter;
mod pipeline;
mod pipes;
mod place;
mod program;
mod read;
mod report;
mod sink;
mod stages;
mod thread;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{setsid, umask};

use crate::proto::Text;
use crate::proto::job::{JobReport, Program};
use crate::proto::secret::Secret;
use crate::proto::server::Login;
use crate::proto::task::{Held, Order, Place, Task};
use channel::{ChannelError, Inbox};
use place::{Directory, PlaceError};
pub(super) use program::{clean_environment, patiently, status};
use report::Reports;

/// Descriptor of the job's lock file, in the job and in all of its programs.
pub(crate) const LOCK: i32 = 8;
/// Exit status of a job that was stopped, as of a process that SIGTERM ended.
pub(crate) const STOPPED: i32 = 143;
/// Time for the programs of a stopped job to end before they are killed. Whoever ends a job by its lock file gives it
/// half a second.
const GRACE: Duration = Duration::from_millis(300);
/// Maximum time to write the last reports of a job that has ended. An agent may wait for its controller for long, and
/// one that is gone breaks the pipe.
const LAST_REPORTS: Duration = Duration::from_secs(24 * 3600);
/// Maximum time to write the last reports of a job that was stopped, whose agent may be gone.
const STOPPED_REPORTS: Duration = Duration::from_millis(100);

/// Checks of an agent that a job repeats right before it starts a program.
pub(crate) trait Checks {
    /// Vouches for a login that a program makes by itself, and returns more arguments for the program.
    fn login(&self, login: &Login, program: &OsStr) -> Result<Vec<OsString>, Text>;
}

/// Context of a task.
pub(crate) struct Context<'a> {
    /// Directory of the run.
    directory: PathBuf,
    source: Option<OwnedFd>,
    staging: Option<OwnedFd>,
    /// Key of the stream.
    key: Option<Secret>,
    /// Reports to the agent.
    reports: Reports,
    /// Checks before logins.
    checks: &'a dyn Checks,
}

/// End of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The task has ended with this status.
    Exit(i32),
    /// The agent is gone, or someone asked the job to end.
    Stopped,
}

impl<'a> Context<'a> {
    fn new(order: &Order, held: Vec<OwnedFd>, reports: Reports, checks: &'a dyn Checks) -> Self {
        let mut context = Self {
            directory: order.directory.clone().into(),
            source: None,
            staging: None,
            key: order.key.clone(),
            reports,
            checks,
        };
        for (name, fd) in order.held.iter().zip(held) {
            match name {
                Held::Source => context.source = Some(fd),
                Held::Staging => context.staging = Some(fd),
            }
        }
        context
    }

    /// Returns the held source.
    fn source(&self) -> Result<BorrowedFd<'_>, PlaceError> {
        self.source.as_ref().map(AsFd::as_fd).ok_or(PlaceError::NotHeld(Held::Source))
    }

    /// Returns the held staging directory.
    fn staging(&self) -> Result<BorrowedFd<'_>, PlaceError> {
        self.staging.as_ref().map(AsFd::as_fd).ok_or(PlaceError::NotHeld(Held::Staging))
    }
}

/// Does the task that comes on standard input, and reports on standard output.
pub(crate) fn run(stdin: impl AsFd, stdout: impl Write + Send + 'static, checks: &dyn Checks) -> ExitCode {
    match prepare(stdin, stdout, checks) {
        Ok((context, order, mut inbox)) => {
            let end = perform(&context, &order.task, &mut inbox);
            ExitCode::from(u8::try_from(conclude(&context.reports, end)).unwrap_or(u8::MAX))
        }
        // The agent reports the end of a job that does not.
        Err(_) => ExitCode::FAILURE,
    }
}

fn prepare(
    stdin: impl AsFd,
    stdout: impl Write + Send + 'static,
    checks: &dyn Checks,
) -> Result<(Context<'_>, Order, Inbox), ChannelError> {
    // Fails for a process that leads a session already.
    let _ = setsid();
    limits::no_core_dumps();
    let signals = channel::signals()?;
    let channel = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
    let (mut order, held) = channel::receive_order(&channel)?;
    limits::stand_back(order.nice);
    umask(if writes_file(&order.task) { Mode::from_raw_mode(0o077) } else { Mode::from_raw_mode(0o022) });
    if matches!(&order.task, Task::Pipeline(pipeline) if pipeline.has_log()) {
        limits::many_files();
    }
    let reports = Reports::start(stdout)?;
    let context = Context::new(&order, held, reports, checks);
    order.key = None;
    Ok((context, order, Inbox::new(channel, Some(signals))?))
}

/// Does a task. Its failures are reported.
fn perform(context: &Context<'_>, task: &Task, inbox: &mut Inbox) -> End {
    let (name, ended) = match task {
        Task::Pipeline(pipeline) => return pipeline::run(context, pipeline, inbox),
        Task::Inspect(place) => ("inspect", inspect(context, place, inbox)),
        Task::Hook(hook) => ("hook", hook::run(context, hook, inbox)),
        task => files::run(context, task, inbox),
    };
    let end = ended.unwrap_or_else(|error| {
        context.reports.send(JobReport::Complaint(Text::from(&error)));
        End::Exit(1)
    });
    if let End::Exit(status) = end {
        context.reports.send(JobReport::Stages(vec![(Program::Other(name.into()), status)]));
        return End::Exit(i32::from(status != 0));
    }
    end
}

fn inspect(context: &Context<'_>, place: &Place, inbox: &mut Inbox) -> io::Result<End> {
    let directory = Directory::open(context, place).map_err(io::Error::other)?;
    let reports = context.reports.clone();
    thread::attended(inbox, move || {
        let (report, status) = match backup_files::read(directory) {
            Some(facts) => (JobReport::Backup(facts), 0),
            None => (JobReport::Complaint(Text::new("the directory contains no checkpoints of a backup")), 1),
        };
        reports.send(report);
        status
    })
}

/// Reports the end, and returns the exit status.
fn conclude(reports: &Reports, end: End) -> i32 {
    let (status, limit) = match end {
        End::Exit(status) => (status, LAST_REPORTS),
        End::Stopped => (STOPPED, STOPPED_REPORTS),
    };
    reports.send(JobReport::Exit(status));
    reports.finish(limit);
    status
}

/// Returns whether a stage writes a file. No account may read an archive that cannot read the files in it.
fn writes_file(task: &Task) -> bool {
    matches!(task, Task::Pipeline(pipeline) if pipeline.into.is_some())
}

#[cfg(test)]
mod tests;
