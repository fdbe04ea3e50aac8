//! The only server of a host, for commands that name neither a socket nor a path.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::Instance;

/// An installed server, running or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Unit of systemd, or empty.
    pub unit: String,
    /// The server is running.
    pub runs: bool,
    /// Units of all running servers.
    pub running: Vec<String>,
    /// Version output of the server program.
    pub version: String,
    /// Path of the server's socket.
    pub socket: String,
    /// Data directory with symbolic links resolved; it may be missing.
    pub datadir: PathBuf,
    /// Something is mounted at the data directory or below it.
    pub mounted: bool,
    /// File that records the version of the last mariadb-upgrade, and this version.
    pub upgraded: Option<(String, String)>,
    /// Settings from the option files, as far as a replica needs them.
    pub configured: BTreeMap<String, String>,
    /// State of the running server.
    pub instance: Instance,
    /// Replication connections to its upstreams.
    pub upstreams: Vec<Upstream>,
    /// Replicas of this server: server IDs and hosts.
    pub downstreams: Vec<(u32, String)>,
    /// Some of the databases, without the system ones.
    pub databases: Vec<String>,
    /// Clients connected over the network, `USER@HOST`; queried on targets.
    pub clients: Vec<String>,
    /// Clients write to the server; queried on targets.
    pub written: bool,
    /// Agents of earlier runs that died while their data was provisional, and whether the host was rebooted
    /// since.
    pub stale: Vec<(String, bool)>,
}

/// A replication connection to an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent columns of the replica status")]
pub struct Upstream {
    /// Connection name.
    pub name: String,
    /// Both replication threads are running.
    pub runs: bool,
    /// Host of the upstream, as configured in this server.
    pub host: String,
    /// Port of the upstream.
    pub port: u16,
    /// The connection uses GTIDs.
    pub by_gtid: bool,
    /// The connection uses TLS.
    pub ssl: bool,
    /// Server ID of the upstream; 0 if it was never connected.
    pub server_id: u32,
    /// Replication filters are configured.
    pub filtered: bool,
}

impl Installed {
    /// Returns the server ID: the current one, or else the configured one.
    #[must_use]
    pub fn server_id(&self) -> u32 {
        let running = self.instance.variable("server_id");
        let configured = self.configured.get("server_id").map_or("", String::as_str);
        if running.is_empty() { configured } else { running }.parse().unwrap_or_default()
    }

    /// Returns the server ID after the next start.
    #[must_use]
    pub fn next_server_id(&self) -> u32 {
        let configured = self.configured.get("server_id").and_then(|id| id.parse().ok());
        configured.unwrap_or_else(|| self.server_id())
    }

    /// Returns the port: the current one, or else the configured one.
    #[must_use]
    pub fn port(&self) -> u16 {
        let running = self.instance.variable("port");
        let configured = self.configured.get("port").map_or("", String::as_str);
        if running.is_empty() { configured } else { running }.parse().unwrap_or(3306)
    }

    /// Returns whether a boolean option is on in the option files.
    #[must_use]
    pub fn starts_with(&self, switch: &str) -> bool {
        self.configured.get(switch).is_some_and(|value| matches!(value.as_str(), "TRUE" | "1" | "ON"))
    }

    /// Returns the options that place files outside the data directory.
    pub fn files_elsewhere(&self) -> impl Iterator<Item = (&str, &str)> {
        const PLACES: [&str; 9] = [
            "aria_log_dir_path",
            "innodb_data_file_path",
            "log_bin_index",
            "relay_log_index",
            "innodb_data_home_dir",
            "innodb_log_group_home_dir",
            "innodb_undo_directory",
            "log_bin",
            "relay_log",
        ];
        let named = self.configured.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let outside = |path: &str| {
            let path = Path::new(path);
            path.is_absolute() && !path.starts_with(&self.datadir)
                || path.components().any(|part| part == Component::ParentDir)
        };
        named.filter(move |(name, value)| PLACES.contains(name) && value.split(';').any(outside))
    }
}

impl Upstream {
    /// Returns host and port, such as `db1:3306`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}
