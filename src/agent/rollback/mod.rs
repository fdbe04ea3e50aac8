//! Rollback: the replay of journals. docs/design/rollback.md describes it.
//!
//! The replay decides what is undone, when, and how often. How a kind of change is undone is behind [`Undoer`],
//! except for processes and locks, which are undone here.

pub(crate) mod orphans;
pub(crate) mod other;
pub(crate) mod replay;
pub(crate) mod status;
pub(crate) mod watchdog;

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use super::journal::contents::Conclusion;
use super::state::Directories;
use crate::proto::Text;
use crate::proto::journal::Undo;
use crate::proto::name::AgentName;
use crate::proto::status::RollbackEvent;

/// Undoes changes of one kind or several. Each undo may be repeated: by a second attempt, or because the process
/// that made the first one was killed.
pub(crate) trait Undoer {
    /// Undoes one change.
    fn undo(&mut self, context: &Context<'_>, undo: &Undo) -> Undone;
}

/// Result of an undo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// Nothing of the change is left.
    Done,
    /// A staging directory was kept, as requested.
    Kept,
    /// A hook was forgotten, as requested.
    Forgotten,
    /// The change could not be undone, for this reason, which may be empty.
    Left(Text),
}

/// Run whose changes are undone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// Name of its agent.
    pub(crate) agent: &'a AgentName,
    /// Directory of the run.
    pub(crate) directory: &'a Path,
    /// Result of the run.
    pub(crate) conclusion: Conclusion,
    /// The host was rebooted since the start of the agent.
    pub(crate) is_rebooted: bool,
    /// Scope of the rollback.
    pub(crate) policy: Policy,
    /// Attempt to undo the change.
    pub(crate) attempt: Attempt,
    /// Lock of the journal, which programs that undo a change hold (`tool::hold`), but hooks do not.
    pub(crate) lock: BorrowedFd<'a>,
}

#[cfg(test)]
impl Context<'_> {
    /// Returns whether servers may be started and hooks may run.
    pub(crate) fn may_start(&self) -> bool {
        match self.policy.may_start {
            MayStart::All => true,
            MayStart::Own => !self.is_rebooted,
            MayStart::None => false,
        }
    }
}

/// Limits of a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Runs whose servers are started and whose hooks run.
    pub(crate) may_start: MayStart,
    /// Treatment of hooks that have not run.
    pub(crate) hooks: Hooks,
    /// Treatment of removed names.
    pub(crate) durability: Durability,
}

impl Policy {
    /// Limits for the agent of a run and its watchdog.
    pub(crate) const OWN: Self =
        Self { may_start: MayStart::Own, hooks: Hooks::Run, durability: Durability::Synced };
    /// Limits for an agent that rolls back other runs.
    pub(crate) const OTHERS: Self = Self { may_start: MayStart::None, ..Self::OWN };
}

/// Runs whose servers a rollback starts and whose hooks it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayStart {
    /// Any run, on request.
    All,
    /// The run itself, unless its host was rebooted.
    Own,
    /// No run.
    None,
}

/// Treatment of hooks that have not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hooks {
    /// They run, if anything may be started.
    Run,
    /// They are forgotten, on request.
    Forget,
}

/// Treatment of removed names: a power cut must not bring back one that no journal knows any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Synced.
    Synced,
    /// Not waited for, as the run requested.
    Hasty,
}

/// Attempt to undo a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The first one.
    First,
    /// The last one, with more patience.
    Last,
}

impl Attempt {
    /// Returns the time to wait for a lock of the firewall.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Self::First => Duration::from_secs(3),
            Self::Last => Duration::from_secs(30),
        }
    }
}

/// Rollback of one run or several.
pub(crate) struct Rollback<'a> {
    /// Directories of the runs.
    pub(crate) directories: &'a Directories,
    /// Limits.
    pub(crate) policy: Policy,
    /// Undoes changes.
    pub(crate) undoer: &'a mut dyn Undoer,
    /// Receives events. The agent reports them after the rollback: a full pipe must not delay it.
    pub(crate) observer: &'a mut dyn FnMut(RollbackEvent),
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
