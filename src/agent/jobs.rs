//! Jobs of a run, as its agent sees them: starts them, passes controls on, forwards their reports, and reports the
//! end of those that were killed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use command_fds::{CommandFdExt as _, FdMapping};

use super::job::channel::{ChannelError, send_order};
use super::job::{LOCK, STOPPED, clean_environment, patiently, status};
use super::processes::create_lock;
use crate::proto::job::{JobName, JobReport};
use crate::proto::journal::Undo;
use crate::proto::secret::Secret;
use crate::proto::task::{Control, Held, Order, Task};
use crate::proto::{Text, frame};

/// Parts of an agent that its jobs need, also from other threads.
pub(crate) trait Handlers: Send + Sync {
    /// Forwards a report of a job.
    fn report(&self, job: JobName, report: JobReport);
    /// Ends all processes that have the lock file open. Fails with the reason if some are left.
    fn end(&self, lock: &Path) -> Result<(), Text>;
}

/// Error of a job that cannot be started, controlled or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The lock file cannot be created.
    #[error("cannot create {path}: {source}", path = path.display())]
    Lock {
        /// Path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The undo of the job cannot be recorded.
    #[error("{0}")]
    Journal(Text),
    /// The process cannot be started.
    #[error("cannot start the {} job: {source}", job.name())]
    Start {
        /// Job.
        job: JobName,
        /// Cause.
        source: io::Error,
    },
    /// The process cannot be reached.
    #[error("cannot reach the {} job: {source}", job.name())]
    Channel {
        /// Job.
        job: JobName,
        /// Cause.
        source: ChannelError,
    },
    /// The job does not run.
    #[error("the {} job does not run", .0.name())]
    Gone(JobName),
    /// The processes of the job do not end.
    #[error("cannot stop the {} job: {reason}", job.name())]
    Survives {
        /// Job.
        job: JobName,
        /// Reason.
        reason: Text,
    },
}

/// Job to start.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// Name.
    pub(crate) name: JobName,
    /// Task.
    pub(crate) task: Task,
    /// Key of the stream.
    pub(crate) key: Option<Secret>,
    /// Held descriptors that the task needs.
    pub(crate) held: Vec<(Held, BorrowedFd<'a>)>,
}

/// Jobs of a run.
pub(crate) struct Jobs {
    launcher: Launcher,
    directory: PathBuf,
    nice: u8,
    handlers: Arc<dyn Handlers>,
    running: BTreeMap<JobName, Running>,
}

/// Program that becomes a job.
#[derive(Debug)]
struct Launcher {
    program: PathBuf,
    args: Vec<OsString>,
}

/// Job that was started.
struct Running {
    channel: UnixStream,
    is_stopping: Arc<AtomicBool>,
    forwarder: JoinHandle<()>,
}

impl Default for Launcher {
    fn default() -> Self {
        // The very file of this agent, whatever has its name now.
        Self { program: "/proc/self/exe".into(), args: vec!["job".into()] }
    }
}

impl Jobs {
    /// Creates the jobs of the run with this directory.
    pub(crate) fn new(directory: PathBuf, nice: u8, handlers: Arc<dyn Handlers>) -> Self {
        Self { launcher: Launcher::default(), directory, nice, handlers, running: BTreeMap::new() }
    }

    /// Returns the lock file of a job.
    pub(crate) fn lock(&self, name: JobName) -> PathBuf {
        self.directory.join(format!("{}.job", name.name()))
    }

    /// Starts a job. `journal` records its undo before there is a process.
    pub(crate) fn start(
        &mut self,
        start: Start<'_>,
        journal: impl FnOnce(&Undo) -> Result<(), Text>,
    ) -> Result<(), JobError> {
        let job = start.name;
        // Processes of an earlier job of this name may still be ending, and hold the lock.
        if self.running.contains_key(&job) {
            self.stop(job)?;
        }
        let path = self.lock(job);
        let lock = create_lock(&path).map_err(|source| JobError::Lock { path: path.clone(), source })?;
        journal(&Undo::Job { lock: path.as_os_str().into() }).map_err(JobError::Journal)?;
        let failed = |source| JobError::Start { job, source };
        let (channel, theirs) = UnixStream::pair().map_err(failed)?;
        let (mut child, output) = self.launch(theirs.into(), lock).map_err(failed)?;
        let (names, held): (Vec<Held>, Vec<BorrowedFd<'_>>) = start.held.into_iter().unzip();
        let order = Order {
            directory: self.directory.as_os_str().into(),
            nice: self.nice,
            task: start.task,
            key: start.key,
            held: names,
        };
        if let Err(source) = send_order(&channel, &order, &held) {
            end(&mut child);
            return Err(JobError::Channel { job, source });
        }
        let is_stopping = Arc::new(AtomicBool::new(false));
        let forwarder = Forwarder {
            job,
            lock: path,
            handlers: Arc::clone(&self.handlers),
            is_stopping: Arc::clone(&is_stopping),
        };
        // Without the thread the channel is closed, at which the job ends.
        let forwarder = thread::Builder::new()
            .name(job.name().into())
            .spawn(move || forwarder.run(child, output))
            .map_err(failed)?;
        self.running.insert(job, Running { channel, is_stopping, forwarder });
        Ok(())
    }

    /// Sends a control to a job.
    pub(crate) fn control(&mut self, job: JobName, control: Control) -> Result<(), JobError> {
        let Some(running) = self.running.get(&job) else { return Err(JobError::Gone(job)) };
        frame::write(&mut &running.channel, &control)
            .map_err(|source| JobError::Channel { job, source: source.into() })
    }

    /// Ends all processes of a job, whose last reports were forwarded then.
    pub(crate) fn stop(&mut self, job: JobName) -> Result<(), JobError> {
        let running = self.running.remove(&job);
        if let Some(running) = &running {
            running.is_stopping.store(true, Ordering::Relaxed);
            // The job gets to report its log. One that has ended has no channel.
            let _ = running.channel.shutdown(Shutdown::Both);
        }
        self.handlers.end(&self.lock(job)).map_err(|reason| JobError::Survives { job, reason })?;
        if let Some(running) = running {
            // The process has ended, and so has the pipe that the thread reads. A panic was reported.
            let _ = running.forwarder.join();
        }
        Ok(())
    }

    fn launch(&self, channel: OwnedFd, lock: File) -> io::Result<(Child, ChildStdout)> {
        let mut command = Command::new(&self.launcher.program);
        clean_environment(&mut command);
        command.arg0("transfer-agent").args(&self.launcher.args);
        command.stdin(channel).stdout(Stdio::piped()).stderr(Stdio::null());
        // From its first moment the process is one that is found by the lock.
        let mapping = FdMapping { parent_fd: lock.into(), child_fd: LOCK };
        command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
        let mut child = patiently(|| command.spawn())?;
        let output = child.stdout.take();
        Ok((child, output.ok_or_else(|| io::Error::other("it has no output"))?))
    }
}

/// Thread that forwards the reports of a job.
struct Forwarder {
    job: JobName,
    lock: PathBuf,
    handlers: Arc<dyn Handlers>,
    is_stopping: Arc<AtomicBool>,
}

impl Forwarder {
    fn run(self, mut child: Child, mut output: ChildStdout) {
        let mut has_exited = false;
        // A job that cannot be understood has failed.
        while let Ok(Some(report)) = frame::read(&mut output) {
            has_exited = matches!(report, JobReport::Exit(_));
            match report {
                // Its programs may end before the job itself notices that it is stopped.
                JobReport::Stages(_) if self.is_stopping() => {}
                JobReport::Exit(_) if self.is_stopping() => {
                    self.handlers.report(self.job, JobReport::Exit(STOPPED));
                }
                report => self.handlers.report(self.job, report),
            }
            if has_exited {
                break;
            }
        }
        if has_exited {
            let _ = child.wait();
            return;
        }
        // The process that would report the end was killed; its programs go on.
        drop(output);
        if !self.is_stopping() {
            // Survivors are found again by the rollback.
            let _ = self.handlers.end(&self.lock);
        }
        let status = end(&mut child).max(1);
        self.handlers.report(self.job, JobReport::Exit(if self.is_stopping() { STOPPED } else { status }));
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}

/// Ends a process, unless it has ended, and returns its exit status.
fn end(child: &mut Child) -> i32 {
    let _ = child.kill();
    child.wait().map_or(1, status)
}

#[cfg(test)]
mod tests;
