//! Facts about database servers on a host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::client::LoginError;

/// Maximum number of variables and of connections of a server.
const MOST: usize = 64;

/// State of a running server, queried through its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Error of the query, if it failed.
    pub error: Option<LoginError>,
    /// Global variables, of those that a run needs.
    pub variables: BTreeMap<String, String>,
    /// Replication connections, running or not.
    pub connections: Vec<Connection>,
    /// Owner of the data directory, `USER:GROUP`.
    pub owner: String,
}

/// A replication connection and the state of its threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Connection name; empty for the default connection.
    pub name: String,
    /// The I/O thread is running.
    pub io: bool,
    /// The SQL thread is running.
    pub sql: bool,
}

impl Instance {
    /// Returns a global variable, or an empty string if it is unknown.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// Returns the version, such as `10.11.6-MariaDB-0+deb12u1`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.variable("version")
    }

    /// Returns the data directory.
    #[must_use]
    pub fn datadir(&self) -> PathBuf {
        PathBuf::from(self.variable("datadir"))
    }

    /// Returns the size of the buffer pool in bytes.
    #[must_use]
    pub fn buffer_pool(&self) -> u64 {
        self.variable("innodb_buffer_pool_size").parse().unwrap_or_default()
    }

    pub(crate) fn add_variable(&mut self, name: String, value: String) {
        if self.variables.len() < MOST {
            self.variables.insert(name, value);
        }
    }
}

/// A running server whose data a path concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Relation of the path to the server's data.
    pub relation: Relation,
    /// Data directory.
    pub datadir: PathBuf,
    /// Unit of systemd, or empty.
    pub unit: String,
    /// Path of the socket, or empty if it is unknown.
    pub socket: String,
    /// Error of our login, if it was tried and failed.
    pub error: Option<LoginError>,
}

/// A server that an ordinary account runs, with its data below the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherServer {
    /// Data directory.
    pub datadir: PathBuf,
    /// Account that runs the server.
    pub account: String,
}

/// Relation of a path to the data directory of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The path is the data directory, or inside it.
    Within,
    /// The data directory is below the path.
    Around,
}

impl Relation {
    /// Parses the probe's word for a relation.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "within" => Some(Self::Within),
            "around" => Some(Self::Around),
            _ => None,
        }
    }
}
