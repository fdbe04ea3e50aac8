//! Database servers of a host.

use serde::{Deserialize, Serialize};

use super::HostBytes;

/// How a server is logged in to: through its socket, as the agent's own user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Socket; empty if unknown.
    pub socket: HostBytes,
    /// File with login options; empty for the client's own.
    pub defaults_file: HostBytes,
}

/// Threads of a replication connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// The IO thread runs, or tries to connect.
    pub io: bool,
    /// The SQL thread runs.
    pub sql: bool,
}

/// Data directory and the inode that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDirectory {
    /// Path.
    pub path: HostBytes,
    /// Inode, which a reboot does not change.
    pub inode: u64,
}

/// State of replication for which a server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartState {
    /// As the server is configured.
    Configured,
    /// Without replication.
    NoReplication,
    /// Without replication, writing clients and events.
    Isolated,
}

/// Replication account of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The server.
    pub server: Login,
    /// Name of the account.
    pub user: String,
    /// Host from which it may log in.
    pub host: String,
}
