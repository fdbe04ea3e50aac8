//! Database servers of this host: logins, SQL, replication, accounts, units, and data that servers run on.
//!
//! docs/design/servers.md and replicas.md describe how they are used. A change is journaled before it is
//! made, by the caller's `journal`; the undos are in [`restore`].

pub(crate) mod account;
pub(crate) mod accounts;
pub(crate) mod client;
pub(crate) mod hooks;
pub(crate) mod login;
pub(crate) mod plugins;
pub(crate) mod programs;
pub(crate) mod provisional;
pub(crate) mod quiesce;
pub(crate) mod remote;
pub(crate) mod replication;
pub(crate) mod replication_account;
pub(crate) mod restore;
pub(crate) mod roll_back;
pub(crate) mod session;
pub(crate) mod sql;
pub(crate) mod start;
#[cfg(test)]
mod tests;
pub(crate) mod units;
pub(crate) mod xml;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::proto::journal::Record;

use programs::Programs;

/// Writes a record to the journal and syncs it.
pub(crate) type Journal<'a> = dyn FnMut(Record) -> io::Result<()> + 'a;

/// First component of a path that other accounts can replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedComponent {
    /// Path of the component.
    pub(crate) path: PathBuf,
    /// Name or number of its owner.
    pub(crate) owner: String,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Questions about the host that other parts of the agent answer.
pub(crate) trait Surroundings: Sync {
    /// Returns whether a server works in this data directory; with a unit, whether one of that unit does.
    fn is_served(&self, datadir: &Path, unit: Option<&str>) -> io::Result<bool>;

    /// Returns the first component of a path that an account other than root, the login or one of `servers`
    /// can replace.
    fn shared_component(&self, path: &Path, servers: &[u32]) -> io::Result<Option<SharedComponent>>;
}

/// Database servers of this host.
pub(crate) struct Service<'a> {
    surroundings: &'a dyn Surroundings,
    programs: Programs,
    /// Directory of the drop-ins of units until the next boot.
    units: PathBuf,
    /// Directory of the plugins that clients may load.
    plugins: PathBuf,
}

impl<'a> Service<'a> {
    /// Creates it, with the programs of the login.
    pub(crate) fn new(surroundings: &'a dyn Surroundings) -> Self {
        Self {
            surroundings,
            programs: Programs::of_login(),
            units: "/run/systemd/system".into(),
            plugins: "/etc/transfer/client-plugins".into(),
        }
    }
}

/// Returns the inode of the directory that a path leads to; `None` if there is none.
fn inode_behind(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}
