//! Runs that have changes in place on a host, and the progress of a rollback.

use serde::{Deserialize, Serialize};

use super::journal::{Header, Hook, Undo};
use super::name::AgentName;
use super::{HostBytes, Text};

/// State of the agent that wrote a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// A process holds the lock of the journal: the agent, its watchdog, or another rollback.
    Live,
    /// The agent and its watchdog are gone.
    Orphaned,
}

/// Entry of the listing of `transfer status`. The leases of a run follow its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatusEntry {
    /// A run.
    Run(RunStatus),
    /// Lease of the run before.
    Lease(Undo),
    /// A run whose journal this version cannot roll back.
    Foreign(ForeignJournal),
}

/// Run that has a journal on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Name of its agent.
    pub agent: AgentName,
    /// State of its agent.
    pub condition: Condition,
    /// The host was rebooted since the start of the agent.
    pub is_rebooted: bool,
    /// First record of its journal.
    pub header: Header,
}

/// Journal that this version cannot roll back and does not touch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignJournal {
    /// Directory of the journal.
    pub directory: HostBytes,
    /// State of its agent.
    pub condition: Condition,
    /// Reason.
    pub reason: Foreign,
    /// The agent that wrote the journal is still in the directory, and can roll it back.
    pub has_agent: bool,
}

/// Reason why a journal cannot be rolled back by this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Foreign {
    /// The journal of a version of `transfer` that worked with shell scripts.
    Shell,
    /// The journal has another version, or records that this version does not know.
    Version {
        /// Version of its format.
        format: u16,
        /// Version of the program that wrote it.
        program: Text,
    },
    /// The journal is damaged or cannot be read.
    Damaged(Text),
}

/// Event of a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RollbackEvent {
    /// A lease was rolled back.
    Undone {
        /// Name of the agent.
        agent: AgentName,
        /// The lease.
        undo: Undo,
    },
    /// A lease could not be rolled back.
    Left {
        /// Name of the agent.
        agent: AgentName,
        /// The lease.
        undo: Undo,
        /// Reason; empty if unknown.
        reason: Text,
    },
    /// A staging directory was kept, as requested.
    Kept {
        /// Name of the agent.
        agent: AgentName,
        /// Path of the staging directory.
        path: HostBytes,
    },
    /// An after-hook that had not run was forgotten, as requested.
    Forgotten {
        /// Name of the agent.
        agent: AgentName,
        /// The hook.
        hook: Hook,
    },
    /// The journal could not be read or removed.
    Failed {
        /// Name of the agent.
        agent: AgentName,
        /// Reason.
        reason: Text,
    },
    /// The journal is in use: nothing was touched.
    Live {
        /// Name of the agent.
        agent: AgentName,
    },
    /// The journal cannot be rolled back by this version: nothing was touched.
    Foreign(ForeignJournal),
}
