//! Records of a journal, and their encoding.

mod codec;
#[cfg(test)]
pub(crate) mod samples;
mod shell;
mod words;

use serde::{Deserialize, Serialize};

use super::server::{Account, DataDirectory, Login, StartState, Threads};
use super::{HostBytes, Text};

pub use codec::{DecodeError, Decoded, PREFIX, decode, encode};

/// Version of the format. An agent that finds another one does not touch that journal.
pub const VERSION: u16 = 2;

/// Record of a journal, in the order in which they were written.
///
/// In every version the first record begins with a zero byte (the variant), the version of the format and the
/// version of the program: another version can be named that way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// First record.
    Header(Header),
    /// Undo of a change that may have been made.
    Lease(Undo),
    /// The newest equal lease was undone before the end.
    Closed(Undo),
    /// Provisional data was committed: the records that would bring back the old server no longer count.
    Committed,
    /// Result of the run, for hooks.
    Concluded {
        /// Every copy was published.
        done: bool,
    },
}

/// First record of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub version: u16,
    /// Version of the program that wrote it.
    pub program: Text,
    /// Boot ID.
    pub boot: Text,
    /// End of the run: `source`, `target`, `controller` or `primary`.
    pub role: Text,
    /// Controller of the run.
    pub controller: Text,
    /// Start of the agent, in seconds since the epoch.
    pub started: u64,
    /// Path that the run copies, for `status`.
    pub path: HostBytes,
}

/// When an undo is replayed. The order of the variants is that of the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Processes, firewall rules, locks: gone after a reboot.
    Boot,
    /// Names and modes.
    Disk,
    /// Servers and their replication.
    Server,
    /// Directories whose removal may take long.
    Tree,
    /// Commands of the user.
    End,
}

impl Scope {
    /// All scopes, in the order of the replay.
    pub const ALL: [Self; 5] = [Self::Boot, Self::Disk, Self::Server, Self::Tree, Self::End];
}

/// Undo of one change. Every name in it was chosen before the change was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undo {
    /// Ends the processes of a job.
    Job {
        /// Lock file that all of them have open.
        lock: HostBytes,
    },
    /// Frees a port.
    Port(u16),
    /// Frees a final name.
    Name {
        /// Lock file.
        lock: HostBytes,
    },
    /// Removes firewall rules.
    Rules {
        /// Layer of the firewall.
        layer: Layer,
        /// Address family.
        family: Family,
        /// Comment of the rules.
        tag: String,
    },
    /// Starts replication that was stopped while its server ran.
    Replication {
        /// The server.
        server: Login,
        /// Name of the connection.
        connection: String,
        /// Threads that ran.
        threads: Threads,
    },
    /// Takes back an unpublished copy that has the name for old data.
    Unpublished {
        /// Path.
        path: HostBytes,
        /// Inode of the copy.
        inode: u64,
    },
    /// Takes back the entries of a copy, unless all of them have their names.
    Filled {
        /// Directory that was filled.
        directory: HostBytes,
        /// Staged directory.
        staged: HostBytes,
    },
    /// Restores the mode of a directory that had to be writable to be moved.
    Mode {
        /// Path.
        path: HostBytes,
        /// Inode.
        inode: u64,
        /// Mode.
        mode: u32,
    },
    /// Frees a server for other runs.
    ServerLock {
        /// Lock file.
        lock: HostBytes,
    },
    /// Starts a stopped server.
    Server {
        /// Unit of systemd.
        unit: String,
        /// The server.
        server: Login,
        /// State in which it is started.
        start: StartState,
        /// Data directory; with other data in it, replication is not started.
        data: DataDirectory,
    },
    /// Restores the replication of a server that was stopped.
    ServerReplication {
        /// The server.
        server: Login,
        /// Name of the connection.
        connection: String,
        /// Threads that ran.
        threads: Threads,
        /// Data directory; with other data in it, nothing is restored.
        data: DataDirectory,
    },
    /// Stops a server and gives it its old data back.
    Provisional {
        /// Unit of systemd.
        unit: String,
        /// Data directory and the inode of the new data.
        data: DataDirectory,
        /// Inode of the old data, if there was any.
        old: Option<u64>,
        /// Path for the old data, or for the new data if there was no old data.
        aside: HostBytes,
        /// Maximum time for the server to stop, in seconds.
        seconds: u64,
    },
    /// Drops a replication account.
    Account(Account),
    /// Removes a staging directory.
    Staging {
        /// Path.
        path: HostBytes,
        /// Keep it, unless it is empty.
        keep: bool,
    },
    /// Removes provisional data that was rolled back.
    RolledBack {
        /// Path.
        path: HostBytes,
        /// Inode of the data.
        inode: u64,
    },
    /// Removes replaced data.
    Replaced {
        /// Path.
        path: HostBytes,
    },
    /// Runs an after-hook.
    Hook(Hook),
}

/// After-hook of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// End of the run: `source`, `target` or `controller`.
    pub end: String,
    /// Position among the hooks of that end.
    pub number: u32,
    /// Command.
    pub command: String,
    /// Source as typed.
    pub source: String,
    /// Targets as typed.
    pub targets: String,
}

/// Part of the firewall that can drop packets; each one in use must be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layer {
    /// Base chains of nftables, including those of iptables-nft.
    Nftables,
    /// Chains of iptables-nft, changed through iptables.
    IptablesNft,
    /// Tables of iptables-legacy.
    IptablesLegacy,
}

impl Layer {
    /// Returns the name of the layer.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Undo {
    /// Returns when the undo is replayed.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Job { .. }
            | Self::Port(_)
            | Self::Name { .. }
            | Self::Rules { .. }
            | Self::Replication { .. } => Scope::Boot,
            Self::Unpublished { .. } | Self::Filled { .. } | Self::Mode { .. } => Scope::Disk,
            Self::ServerLock { .. }
            | Self::Server { .. }
            | Self::ServerReplication { .. }
            | Self::Provisional { .. }
            | Self::Account(_) => Scope::Server,
            Self::Staging { .. } | Self::RolledBack { .. } | Self::Replaced { .. } => Scope::Tree,
            Self::Hook(_) => Scope::End,
        }
    }

    /// Returns whether a commit makes the undo void.
    #[must_use]
    pub fn ends_with_commit(&self) -> bool {
        matches!(self, Self::Provisional { .. } | Self::Server { .. } | Self::ServerReplication { .. })
    }
}
