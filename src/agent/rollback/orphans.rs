//! Orphaned runs, whose agent and watchdog are gone, and remains of agents.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::Rollback;
use super::replay::{ReplayError, Replayed};
use super::status::{agent, foreign, runs};
use crate::agent::flock::{self, Wait};
use crate::agent::journal::lock::{JournalLock, LockError, UnlockedJournal};
use crate::agent::locks::{is_older, remove_stale};
use crate::agent::state::{self, AGENT, NEW, OLD, StateError};
use crate::proto::Text;
use crate::proto::name::AgentName;
use crate::proto::status::{Condition, Foreign, RollbackEvent};

/// Age at which the directory of an agent that was never ready is removed.
const NEW_AGE: Duration = Duration::from_secs(60);
/// Age at which the program of an agent without a journal is removed. It may still be on its way to the host.
const AGENT_AGE: Duration = Duration::from_secs(600);

/// Result of waiting for a lost agent.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The agent or its watchdog has rolled back everything.
    Gone,
    /// They could not: the journal was rolled back here.
    Replayed(Result<Replayed, ReplayError>),
    /// The journal is still in use.
    Held,
    /// The journal cannot be opened.
    Unreadable(LockError),
}

impl Rollback<'_> {
    /// Rolls back all runs whose journal no process holds, and removes remains of agents that were killed.
    pub(crate) fn clean(&mut self) -> Result<(), StateError> {
        if let Some(names) = runs(self.directories)? {
            for name in names {
                let directory = self.directories.state().join(&name);
                let reason = match (JournalLock::take(&directory, Wait::No), agent(&name)) {
                    (Ok(journal), Ok(agent)) => match self.replay(&agent, &journal, Vec::new()) {
                        Ok(_) => continue,
                        Err(ReplayError::Read(error)) => Foreign::from(&error),
                        Err(error @ ReplayError::Remove { .. }) => Foreign::Damaged(Text::from(&error)),
                    },
                    (Err(LockError::Held), Ok(agent)) => {
                        (self.observer)(RollbackEvent::Live { agent });
                        continue;
                    }
                    (Err(LockError::Gone), _) => continue,
                    (Err(LockError::Open(error)), _) => Foreign::Damaged(Text::from(&error)),
                    (_, Err(reason)) => reason,
                };
                let foreign = foreign(&directory, Condition::Orphaned, reason);
                (self.observer)(RollbackEvent::Foreign(foreign));
            }
        }
        self.remove_remains();
        Ok(())
    }

    /// Waits until the watchdog of a lost agent has done its work, then does what it could not.
    pub(crate) fn settle(&mut self, agent: &AgentName, limit: Duration) -> Settled {
        let journal = UnlockedJournal::open(&self.directories.run(agent));
        match journal.and_then(|journal| journal.lock(Wait::For(limit))) {
            Ok(journal) => Settled::Replayed(self.replay(agent, &journal, Vec::new())),
            Err(LockError::Held) => Settled::Held,
            Err(LockError::Gone) => {
                // Remains do no harm: the next clean-up removes them.
                let _ = self.directories.forget(agent);
                Settled::Gone
            }
            Err(error) => Settled::Unreadable(error),
        }
    }

    /// Removes remains of agents that had nothing to roll back. Those that cannot be removed do no harm.
    fn remove_remains(&self) {
        remove_stale(self.directories);
        for directory in [self.directories.state(), self.directories.runtime()] {
            if state::open_owned(directory).is_err() {
                continue;
            }
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                if name.as_bytes().starts_with(NEW.as_bytes()) {
                    remove_new(&path);
                } else if name.as_bytes().starts_with(OLD.as_bytes()) {
                    let _ = state::remove(&path);
                } else if name.as_bytes().starts_with(AGENT.as_bytes()) {
                    remove_program(&path);
                }
            }
        }
        self.directories.prune();
    }
}

/// Removes the directory of an agent that died before it was ready: it has changed nothing. A live one has locked
/// its journal, or is about to.
fn remove_new(path: &Path) {
    match JournalLock::take(path, Wait::No) {
        Ok(_lock) => {
            let _ = state::remove(path);
        }
        Err(LockError::Gone)
            if fs::symlink_metadata(path).is_ok_and(|found| is_older(found.mtime(), NEW_AGE)) =>
        {
            let _ = state::remove(path);
        }
        Err(_) => {}
    }
}

/// Removes the directory with the program of an agent, unless the agent has locked the program.
fn remove_program(path: &Path) {
    let mut locks = Vec::new();
    let mut newest = fs::symlink_metadata(path).map_or(i64::MAX, |found| found.mtime());
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        newest = newest.max(entry.metadata().map_or(i64::MAX, |found| found.mtime()));
        match flock::options().open(entry.path()) {
            Ok(file) if flock::lock(&file, Wait::No).is_ok_and(|locked| locked) => locks.push(file),
            _ => return,
        }
    }
    if is_older(newest, AGENT_AGE) {
        let _ = state::remove(path);
    }
}
