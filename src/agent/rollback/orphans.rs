//! Orphaned runs, whose agent and watchdog are gone, and remains of agents.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::replay::{ReplayError, Replayed};
use super::status::{agent, foreign, runs};
use super::{Rollback, other};
use crate::agent::flock::Wait;
use crate::agent::journal::lock::{JournalLock, LockError, UnlockedJournal};
use crate::agent::locks::{is_older, remove_stale};
use crate::agent::state::{self, AGENT, NEW, OLD, PROGRAM, StateError};
use crate::proto::Text;
use crate::proto::name::AgentName;
use crate::proto::status::{Condition, Foreign, RollbackEvent};

/// Age at which the directory of an agent that was never ready is removed.
const NEW_AGE: Duration = Duration::from_secs(60);
/// Age at which the program of an agent that was never started is removed.
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
                        Err(ReplayError::Read(error)) => {
                            drop(journal);
                            match self.by_its_agent(&directory, &agent, Foreign::from(&error)) {
                                None => continue,
                                Some(reason) => reason,
                            }
                        }
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

    /// Lets the agent of another version roll back its journal. Returns the reason if it cannot.
    fn by_its_agent(&mut self, directory: &Path, agent: &AgentName, reason: Foreign) -> Option<Foreign> {
        let is_possible = matches!(reason, Foreign::Version { .. }) && directory.join(PROGRAM).is_file();
        if !is_possible {
            return Some(reason);
        }
        match other::roll_back(directory, agent, self.policy) {
            Ok(events) => {
                events.into_iter().for_each(&mut *self.observer);
                None
            }
            // What is left of it is said by the journal.
            Err(_) => Some(reason),
        }
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

/// Removes the directory with the program of an agent, unless it may still be on its way to the host: the agent
/// removes it as soon as it runs.
fn remove_program(path: &Path) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let times = entries.map(|entry| entry.metadata()).chain([fs::symlink_metadata(path)]);
    let newest = times.map(|found| found.map_or(i64::MAX, |found| found.mtime())).max();
    if newest.is_some_and(|newest| is_older(newest, AGENT_AGE)) {
        let _ = state::remove(path);
    }
}
