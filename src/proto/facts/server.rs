//! Facts about the database servers of a host that need no login.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TreeSize;
use crate::proto::bounded::at_most;
use crate::proto::{HostBytes, Text};

/// Maximum number of facts of each kind about a server.
pub const MOST_OF_A_SERVER: usize = 64;
/// Maximum number of databases that are named.
pub const MOST_DATABASES: usize = 20;

/// Relation of a path to the data directory of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// The path is the data directory, or inside it.
    Within,
    /// The data directory is below the path.
    Around,
}

/// Running server whose data a path concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Relation of the path to the server's data.
    pub relation: Relation,
    /// Data directory.
    pub datadir: HostBytes,
    /// Unit of systemd, or empty.
    pub unit: Text,
    /// Socket, or empty if it is unknown.
    pub socket: HostBytes,
}

/// Server that an ordinary account runs, with its data below the path. No run heeds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherServer {
    /// Data directory.
    pub datadir: HostBytes,
    /// Account that runs the server.
    pub account: Text,
}

/// The only server of a host, for commands that name neither a socket nor a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Installed {
    /// Several servers are running: their units.
    Several(#[serde(deserialize_with = "at_most::<MOST_OF_A_SERVER, _, _>")] Vec<Text>),
    /// There is none, or not the requested one.
    Nothing,
    /// The server.
    Server(Box<InstalledServer>),
}

/// Installed server, running or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledServer {
    /// Unit of systemd, or empty.
    pub unit: Text,
    /// The server is running.
    pub running: bool,
    /// Version output of the server program; empty where there is no program that root alone controls.
    pub version: Text,
    /// Socket: the one on which the server listens, or else the configured one.
    pub socket: HostBytes,
    /// Settings from the option files, as far as a replica needs them.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_SERVER, _, _>")]
    pub configured: BTreeMap<Text, HostBytes>,
    /// Facts about the configured data directory. A running server may use another one.
    pub data: Option<DataFacts>,
}

/// Facts about the data directory of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFacts {
    /// Path with symbolic links resolved; the directory may be missing.
    pub real: HostBytes,
    /// Something is mounted at the directory or below it.
    pub mounted: bool,
    /// File that records the version of the last upgrade, and this version.
    pub upgraded: Option<(Text, Text)>,
    /// Some of the databases, without the system ones.
    #[serde(deserialize_with = "at_most::<MOST_DATABASES, _, _>")]
    pub databases: Vec<HostBytes>,
    /// The server of the unit works there.
    pub served: bool,
}

/// Files of a running server, as far as a backup contains them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceFiles {
    /// User who owns the data directory.
    pub user: Text,
    /// Group of the data directory.
    pub group: Text,
    /// Number and size of the files, without logs and temporary files.
    pub size: TreeSize,
}
