//! Runs that have changes in place on a host, and the progress of a rollback.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bounded::at_most;
use super::journal::{Header, Hook, Undo};
use super::name::AgentName;
use super::{HostBytes, Text};

/// Maximum number of leases of a journal of another version.
const MOST_FOREIGN: usize = 64;

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
    Shell {
        /// Leases that are still held, in words.
        #[serde(deserialize_with = "at_most::<MOST_FOREIGN, _, _>")]
        leases: Vec<Text>,
    },
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

/// Describes the journal and names the version that can roll it back.
impl fmt::Display for ForeignJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.directory)?;
        match &self.reason {
            Foreign::Shell { leases } => {
                write!(f, "is the journal of transfer 0.1, which alone can roll it back")?;
                if !leases.is_empty() {
                    let leases: Vec<&str> = leases.iter().map(Text::as_str).collect();
                    write!(f, "; it holds: {}", leases.join(", "))?;
                }
                Ok(())
            }
            Foreign::Version { program, format } => {
                write!(
                    f,
                    "is the journal of transfer {program} (format {format}), which alone can roll it back"
                )
            }
            Foreign::Damaged(text) => write!(f, "cannot be rolled back: {text}"),
        }
    }
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
    /// The agent of another version has rolled back its journal.
    Other {
        /// Name of the agent.
        agent: AgentName,
        /// Result.
        result: OtherUndo,
        /// The lease, in the words of that version.
        lease: Text,
    },
}

/// Result of an undo by the agent of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtherUndo {
    /// The lease was rolled back.
    Undone,
    /// The lease could not be rolled back.
    Left,
    /// The staging directory was kept, as requested.
    Kept,
    /// The hook was forgotten, as requested.
    Forgotten,
}
