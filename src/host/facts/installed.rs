//! The one server of a host that is meant where no socket and no path was named.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{Fields, Instance};

/// How many of each kind are kept.
const MOST: usize = 64;

/// A server that is installed, whether it runs or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Its unit of systemd; empty where it runs in none.
    pub unit: String,
    /// It runs.
    pub runs: bool,
    /// The units of all servers that run.
    pub running: Vec<String>,
    /// What its program says of its version.
    pub version: String,
    /// Where it listens.
    pub socket: String,
    /// Where its data is, symbolic links resolved; it need not be there.
    pub datadir: PathBuf,
    /// Something is mounted at the data directory or below it.
    pub mounted: bool,
    /// The file in which it keeps for which version its system tables were last upgraded, and that version.
    pub upgraded: Option<(String, String)>,
    /// What it would start with, by its files of options, as far as a replica needs it.
    pub configured: BTreeMap<String, String>,
    /// What it says itself, if it runs.
    pub instance: Instance,
    /// What it replicates.
    pub upstreams: Vec<Upstream>,
    /// Who replicates from it: server ids and hosts.
    pub downstreams: Vec<(u32, String)>,
    /// Some of its databases, those that are not its own.
    pub databases: Vec<String>,
    /// Who is connected to it over the network, `USER@HOST`; asked of targets.
    pub clients: Vec<String>,
    /// Somebody writes to it; asked of targets.
    pub written: bool,
    /// The agents of earlier runs that died while their data was on trial, and whether the host has gone down since.
    pub stale: Vec<(String, bool)>,
}

/// Where a replica gets its data from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "what was told, each once")]
pub struct Upstream {
    /// The name of the connection.
    pub name: String,
    /// Both threads run.
    pub runs: bool,
    /// The other server's host, as this one calls it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// By GTID.
    pub by_gtid: bool,
    /// With TLS.
    pub ssl: bool,
    /// The other server's id; 0 where it was never connected.
    pub server_id: u32,
    /// It does not replicate everything.
    pub filtered: bool,
}

impl Installed {
    /// Its server id: the one that it has, or that it would start with.
    #[must_use]
    pub fn server_id(&self) -> u32 {
        let running = self.instance.variable("server_id");
        let configured = self.configured.get("server_id").map_or("", String::as_str);
        if running.is_empty() { configured } else { running }.parse().unwrap_or_default()
    }

    /// The id that it will have when it is started again.
    #[must_use]
    pub fn next_server_id(&self) -> u32 {
        let configured = self.configured.get("server_id").and_then(|id| id.parse().ok());
        configured.unwrap_or_else(|| self.server_id())
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        let running = self.instance.variable("port");
        let configured = self.configured.get("port").map_or("", String::as_str);
        if running.is_empty() { configured } else { running }.parse().unwrap_or(3306)
    }

    /// It would start with that switch on.
    #[must_use]
    pub fn starts_with(&self, switch: &str) -> bool {
        self.configured.get(switch).is_some_and(|value| matches!(value.as_str(), "TRUE" | "1" | "ON"))
    }

    /// Options that name a place of its files outside its data directory.
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

    pub(super) fn take(&mut self, key: &[u8], fields: Fields<'_>) {
        let text = |index: usize| fields.text(index);
        match key {
            b"installed" => (self.unit, self.runs) = (text(0), text(1) == "runs"),
            b"installed_running" if self.running.len() < MOST => self.running.push(text(0)),
            b"installed_version" => self.version = text(0),
            b"installed_socket" => self.socket = text(0),
            b"installed_datadir" => self.datadir = fields.path(0),
            b"installed_upgraded" => self.upgraded = Some((text(0), text(1))),
            b"installed_mounted" => self.mounted = true,
            b"configured" if self.configured.len() < MOST => drop(self.configured.insert(text(0), text(1))),
            b"upstream" if self.upstreams.len() < MOST => self.upstreams.push(Upstream {
                name: text(0),
                runs: text(1) == "Yes" && text(2) == "Yes",
                host: text(3),
                port: text(4).parse().unwrap_or(3306),
                by_gtid: !matches!(text(5).as_str(), "" | "No"),
                ssl: text(6) == "Yes",
                server_id: text(7).parse().unwrap_or_default(),
                filtered: (8..16).any(|index| !text(index).is_empty()),
            }),
            b"downstream" if self.downstreams.len() < MOST => {
                self.downstreams.extend(text(0).parse().ok().map(|id| (id, text(1))));
            }
            b"database" if self.databases.len() < MOST => self.databases.push(text(0)),
            b"client" if self.clients.len() < MOST => self.clients.push(text(0)),
            b"written" => self.written = true,
            b"stale" if self.stale.len() < MOST => self.stale.push((text(0), text(1) != "same")),
            _ => {}
        }
    }
}

impl Upstream {
    /// `db1:3306`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}
