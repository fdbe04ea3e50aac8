//! Processes that work on the data directories of servers: those that have locked `ibdata1` or
//! `aria_log_control` for writing, or have it open for writing. By inode: the name, program and working directory
//! of a process are its user's choice.

mod listeners;
mod locks;
mod scan;
mod servers;

use std::io;
use std::path::PathBuf;

pub(crate) use listeners::{socket_inode, socket_of};
pub(crate) use scan::data_holders;
pub(crate) use servers::{Near, Servers, Serving};

use super::tool::ToolError;
use crate::proto::facts::server::Relation;
use crate::proto::files::FileId;

/// Maximum number of holders of the files of one account: no account can fill the answer.
const MOST_OF_AN_OWNER: usize = 64;
/// Maximum number of descriptors of one file that are examined in a process: a server has few of them.
const MOST_TIMES: usize = 8;

/// Process that works on a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Relation of the path in question to the directory; `None` if there was none in question.
    pub(crate) relation: Option<Relation>,
    /// Data directory.
    pub(crate) datadir: PathBuf,
    /// Identity of the directory.
    pub(crate) id: FileId,
    /// Process; `None` where it cannot be seen.
    pub(crate) pid: Option<u32>,
    /// Account of the process, or else the owner of the file.
    pub(crate) uid: u32,
    /// Owner of the file.
    pub(crate) owner: u32,
    /// Owner of the directory.
    pub(crate) directory_owner: u32,
    /// The process has locked the file.
    pub(crate) is_locked: bool,
    /// The process sees the same mounts as the agent.
    pub(crate) is_here: bool,
}

/// Error of a search for servers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldersError {
    /// The processes of the host cannot be listed.
    #[error("cannot list the processes of the host")]
    Processes(#[source] io::Error),
    /// A directory cannot be examined.
    #[error("cannot examine {}", path.display())]
    Examine {
        /// Path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The units of systemd or the accounts cannot be looked up.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

#[cfg(test)]
mod tests;
