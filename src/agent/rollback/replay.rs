//! The replay of one journal: scope by scope, the newest lease first.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Attempt, Context, Rollback, Undone};
use crate::agent::journal::contents::{Contents, ReadError};
use crate::agent::journal::lock::JournalLock;
use crate::agent::locks::{self, Lock};
use crate::agent::{processes, state};
use crate::proto::Text;
use crate::proto::journal::{Scope, Undo};
use crate::proto::name::AgentName;
use crate::proto::status::RollbackEvent;

/// Scopes of which each group is undone before the next one, second attempts included: no server waits for the
/// removal of terabytes, and hooks find everything else undone.
const GROUPS: [&[Scope]; 3] = [&[Scope::Boot, Scope::Disk, Scope::Server], &[Scope::Tree], &[Scope::End]];
/// File in the directory of a run that shows that its agent has tried to roll back.
const TRIED: &str = "tried";
/// Maximum time for the processes of a job to end.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Result of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replayed {
    /// Everything is undone, and the journal removed.
    Clean,
    /// Some changes are left.
    Remains,
}

/// Error of a journal that was not replayed to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The journal cannot be read: nothing was touched.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal cannot be removed, although everything is undone.
    #[error("everything is rolled back, but cannot remove {}: {source}", directory.display())]
    Remove {
        /// Directory of the run.
        directory: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl Rollback<'_> {
    /// Rolls back the run of this agent, whose watchdog does not repeat in vain what was tried. `server_locks` are
    /// the locks of servers that the run has quiesced; the agent has released all others.
    pub(crate) fn release(
        &mut self,
        agent: &AgentName,
        journal: JournalLock,
        server_locks: Vec<Lock>,
    ) -> Result<Replayed, ReplayError> {
        let replayed = self.replay(agent, &journal, server_locks);
        if !matches!(replayed, Ok(Replayed::Clean)) {
            // Without the mark the watchdog tries once more, which does no harm.
            let _ = File::create(self.directories.run(agent).join(TRIED));
        }
        replayed
    }

    /// Replays a journal whose lock the caller holds. When nothing is left, removes the directory of the run, and
    /// those above it if they are empty.
    pub(crate) fn replay(
        &mut self,
        agent: &AgentName,
        journal: &JournalLock,
        server_locks: Vec<Lock>,
    ) -> Result<Replayed, ReplayError> {
        let contents = Contents::read(journal.file())?;
        let directory = self.directories.run(agent);
        let boot = state::boot_id().map_err(ReadError::from)?;
        let context = Context {
            agent,
            directory: &directory,
            conclusion: contents.conclusion,
            is_rebooted: contents.header.boot.as_str() != boot,
            policy: self.policy,
            attempt: Attempt::First,
            lock: journal.as_fd(),
        };
        let mut replay = Replay { rollback: self, server_locks, is_provisional: false, remains: false };
        if !context.is_rebooted {
            replay.lock_servers(&contents.undos);
        }
        for scopes in GROUPS {
            replay.group(context, scopes, &contents.undos);
        }
        if replay.remains {
            return Ok(Replayed::Remains);
        }
        let removed = self.remove(agent, &directory);
        removed.map(|()| Replayed::Clean).map_err(|source| ReplayError::Remove { directory, source })
    }

    /// Removes the directory of a run. It loses its name first: without its journal it would be no run's.
    fn remove(&self, agent: &AgentName, directory: &Path) -> io::Result<()> {
        fs::rename(directory, self.directories.old_run(agent))?;
        self.directories.forget(agent)
    }
}

/// Returns whether the agent of a run has tried to roll back.
pub(super) fn was_tried(directory: &Path) -> bool {
    directory.join(TRIED).exists()
}

/// State of a replay.
struct Replay<'a, 'b> {
    rollback: &'a mut Rollback<'b>,
    /// Locks of quiesced servers, each held until its undo.
    server_locks: Vec<Lock>,
    /// A server has provisional data that could not be rolled back.
    is_provisional: bool,
    /// Some changes are left.
    remains: bool,
}

impl Replay<'_, '_> {
    /// Locks quiesced servers: no other run takes one for a server that does not run, until it runs again.
    fn lock_servers(&mut self, undos: &[Undo]) {
        for undo in undos {
            if let Undo::ServerLock { lock } = undo {
                let path = lock.as_path();
                if !self.server_locks.iter().any(|held| held.path() == path) {
                    self.server_locks.extend(Lock::of_existing(path));
                }
            }
        }
    }

    /// Undoes the leases of some scopes, and tries once more what has failed.
    fn group(&mut self, context: Context<'_>, scopes: &[Scope], undos: &[Undo]) {
        let mut failed = Vec::new();
        for &scope in scopes.iter().filter(|&&scope| scope != Scope::Boot || !context.is_rebooted) {
            for undo in undos.iter().rev().filter(|undo| undo.scope() == scope) {
                if let Err(reason) = self.attempt(context, undo) {
                    failed.push((undo, reason));
                }
            }
        }
        for (undo, reason) in failed {
            // Hooks are not repeated.
            let last = Context { attempt: Attempt::Last, ..context };
            let result = if undo.scope() == Scope::End { Err(reason) } else { self.attempt(last, undo) };
            if let Err(reason) = result {
                self.remains = true;
                let agent = context.agent.clone();
                (self.rollback.observer)(RollbackEvent::Left { agent, undo: undo.clone(), reason });
            }
        }
    }

    /// Undoes one lease and reports it, or returns the reason why it is left.
    fn attempt(&mut self, context: Context<'_>, undo: &Undo) -> Result<(), Text> {
        let undone = self.undo(context, undo);
        let agent = context.agent.clone();
        let event = match (undone, undo) {
            (Undone::Left(reason), _) => return Err(reason),
            (Undone::Kept, Undo::Staging { path, .. }) => RollbackEvent::Kept { agent, path: path.clone() },
            (Undone::Forgotten, Undo::Hook(hook)) => RollbackEvent::Forgotten { agent, hook: hook.clone() },
            _ => RollbackEvent::Undone { agent, undo: undo.clone() },
        };
        (self.rollback.observer)(event);
        Ok(())
    }

    fn undo(&mut self, context: Context<'_>, undo: &Undo) -> Undone {
        match undo {
            Undo::Job { lock } => match processes::end_all(lock.as_path(), END_LIMIT) {
                Ok(()) => Undone::Done,
                Err(error) => Undone::Left(Text::from(&error)),
            },
            Undo::Port(port) => {
                locks::free(&self.rollback.directories.runtime().join(locks::port_lock(*port)));
                Undone::Done
            }
            Undo::Name { lock } => {
                locks::free(lock.as_path());
                Undone::Done
            }
            Undo::ServerLock { lock } => {
                let path = lock.as_path();
                match self.server_locks.iter().position(|held| held.path() == path) {
                    Some(at) => self.server_locks.swap_remove(at).remove(),
                    None => locks::free(path),
                }
                Undone::Done
            }
            // The server must not start with data that it must not have.
            Undo::Server { .. } | Undo::ServerReplication { .. } if self.is_provisional => {
                Undone::Left(Text::new("its provisional data was not rolled back"))
            }
            Undo::Provisional { .. } => {
                let undone = self.rollback.undoer.undo(&context, undo);
                self.is_provisional = matches!(undone, Undone::Left(_));
                undone
            }
            _ => self.rollback.undoer.undo(&context, undo),
        }
    }
}
