//! The watchdog: a process that waits for the lock of the journal and rolls back if the agent was killed.
//!
//! The lock is free when the agent and its changes in flight are gone. If the journal is still there then, the
//! agent was killed, perhaps in its own rollback.

use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use backon::{BlockingRetryable as _, ExponentialBuilder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, getppid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Rollback;
use super::replay::{ReplayError, Replayed, was_tried};
use crate::agent::flock::Wait;
use crate::agent::journal::lock::{LockError, UnlockedJournal};
use crate::agent::processes;
use crate::agent::tool::ENVIRONMENT;
use crate::proto::name::AgentName;

/// Byte by which the watchdog reports that it waits.
const READY: u8 = 0;
/// Maximum time for the watchdog to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Interval of checks whether the agent is still there.
const PARENT_POLL: Duration = Duration::from_secs(5);
/// Time for the programs of an agent that was killed to end by themselves.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time for them to end when they are told to.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Error of the watchdog.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchdogError {
    /// The process cannot be started.
    #[error("cannot start the watchdog: {0}")]
    Start(#[source] io::Error),
    /// The process has ended, or does not report.
    #[error("the watchdog is not ready within {} s", START_LIMIT.as_secs())]
    NotReady,
    /// The watchdog cannot prepare itself.
    #[error("the watchdog cannot wait for the journal: {0}")]
    Wait(#[source] io::Error),
    /// The journal cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal cannot be rolled back.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Starts a watchdog, by a command of the agent's own program, and returns when it waits for the lock. The watchdog
/// inherits nothing but the environment of programs.
pub(crate) fn start(mut command: Command) -> Result<Child, WatchdogError> {
    let kept: Vec<_> = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
    let given: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command.env_clear().envs(kept).envs(given);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let retries = ExponentialBuilder::new().without_max_times().with_total_delay(Some(START_LIMIT));
    let spawned =
        (|| command.spawn()).retry(retries).when(|error| error.kind() == io::ErrorKind::WouldBlock).call();
    let mut child = spawned.map_err(WatchdogError::Start)?;
    let is_ready = child.stdout.take().is_some_and(is_ready);
    if is_ready {
        Ok(child)
    } else {
        // It has nothing to roll back yet.
        let _ = child.kill();
        let _ = child.wait();
        Err(WatchdogError::NotReady)
    }
}

fn is_ready(mut output: ChildStdout) -> bool {
    let deadline = Instant::now() + START_LIMIT;
    let mut byte = [!READY];
    while byte[0] != READY {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(ready) if ready > 0 && output.read(&mut byte).is_ok_and(|read| read > 0) => {}
            _ => return false,
        }
    }
    true
}

impl Rollback<'_> {
    /// Waits for the lock of an agent's journal and rolls back, unless the agent has done or tried that. Reports
    /// to `ready` when it waits. Returns `None` if there was nothing to do.
    pub(crate) fn watch(
        &mut self,
        agent: &AgentName,
        ready: &mut dyn Write,
    ) -> Result<Option<Replayed>, WatchdogError> {
        let parent = getppid();
        ignore_signals().map_err(WatchdogError::Wait)?;
        // Away from the terminal and the process group of the agent. It fails for the leader of a group, which is
        // away from that already.
        let _ = rustix::process::setsid();
        let directory = self.directories.run(agent);
        let journal = UnlockedJournal::open(&directory)?;
        let is_locked = Arc::new(AtomicBool::new(false));
        let left = Programs { agent: parent, journal: journal.path().to_owned(), is_over: is_locked.clone() };
        left.end_in_time().map_err(WatchdogError::Wait)?;
        ready.write_all(&[READY]).and_then(|()| ready.flush()).map_err(WatchdogError::Wait)?;
        let locked = journal.lock(Wait::Forever);
        is_locked.store(true, Ordering::Relaxed);
        match locked {
            Ok(journal) if !was_tried(&directory) => Ok(Some(self.replay(agent, &journal, Vec::new())?)),
            Ok(_) => Ok(None),
            Err(LockError::Gone) => {
                // The agent may have died just before its last step.
                let _ = self.directories.forget(agent);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Programs that an agent may leave behind. One that makes a change holds the lock of the journal.
struct Programs {
    agent: Option<Pid>,
    journal: PathBuf,
    /// The lock is free.
    is_over: Arc<AtomicBool>,
}

impl Programs {
    /// Ends them some time after the agent: nobody else enforces their time limits any more.
    fn end_in_time(self) -> io::Result<()> {
        let wait = move || {
            while getppid() == self.agent {
                thread::sleep(PARENT_POLL);
            }
            thread::sleep(PATIENCE);
            if !self.is_over.load(Ordering::Relaxed) {
                // This process has the journal open, too, but is not among those that are ended.
                let _ = processes::end_all(&self.journal, END_LIMIT);
            }
        };
        thread::Builder::new().name("patience".into()).spawn(wait).map(drop)
    }
}

/// Ignores the signals that end an agent. They are caught, so that programs that a rollback starts do not ignore
/// them, too.
fn ignore_signals() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
