//! Variants of a transfer that take different leases, or take them elsewhere.

use super::lane::DATA;
use super::moments::Moment;

/// One variant. Its name is a part of the cell's name.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// Prefix of the source's path: login and host, or nothing for the controller.
    pub(crate) source: &'static str,
    /// Prefixes of the targets.
    pub(crate) targets: &'static [&'static str],
    /// Path of the data.
    pub(crate) data: &'static str,
    /// Target directory.
    pub(crate) directory: &'static str,
    pub(crate) options: &'static [&'static str],
}

/// Target directories: an empty one, one with an older tree of the copy's name, and one on a small file
/// system.
pub(crate) const EMPTY: &str = "/srv/damage/in";
pub(crate) const WITH_OLD: &str = "/srv/damage/old";
pub(crate) const SMALL: &str = "/srv/damage/small/in";

/// The same data as an archive, and as the data of a running server.
pub(crate) const ARCHIVE: &str = "/srv/damage/archive";
pub(crate) const SERVED: &str = "/srv/damage/served/data";
/// Socket of a replica.
const REPLICA: &str = "/run/damage-replica.sock";

const PLAIN: Variant =
    Variant { name: "plain", source: "db1:", targets: &["db2:"], data: DATA, directory: EMPTY, options: &[] };

pub(crate) const VARIANTS: [Variant; 13] = [
    PLAIN,
    Variant {
        name: "parallel",
        options: &["--parallel-checksum", "--no-encrypt", "--no-compress", "--port", "4444"],
        ..PLAIN
    },
    Variant { name: "replace", directory: WITH_OLD, options: &["--replace"], ..PLAIN },
    Variant { name: "keep-old", directory: WITH_OLD, options: &["--replace", "--keep-old"], ..PLAIN },
    Variant { name: "keep-staging", options: &["--keep-staging"], ..PLAIN },
    Variant { name: "two-targets", targets: &["db2:", "db3:"], ..PLAIN },
    Variant { name: "local-source", source: "", ..PLAIN },
    Variant { name: "sudo", source: "dba@db1:", targets: &["dba@db2:"], options: &["--sudo"], ..PLAIN },
    Variant { name: "reader", source: "dba@db1:", ..PLAIN },
    Variant { name: "small", directory: SMALL, ..PLAIN },
    Variant { name: "cold", data: SERVED, options: &["--stop-server", "source"], ..PLAIN },
    Variant {
        name: "hot",
        data: REPLICA,
        options: &["--type", "mariabackup", "--stop-replication"],
        ..PLAIN
    },
    Variant { name: "fill", data: ARCHIVE, options: &["--type", "decompress"], ..PLAIN },
];

impl Variant {
    /// Whether it has other leases than the plain variant at that moment, or takes them elsewhere.
    pub(crate) fn differs_at(&self, moment: &Moment) -> bool {
        match self.name {
            // A server or its replication is stopped, or is about to be.
            "cold" | "hot" => moment.is_from("resting") && !moment.is_from("publishing"),
            _ if ["resting", "restarting"].contains(&moment.name) => false,
            // The old copy is only read until then.
            "replace" | "keep-old" => moment.is_from("syncing"),
            "keep-staging" => moment.is_from("staging"),
            // The source is the controller, or has another account.
            "local-source" | "reader" => {
                moment.name == "connecting" || moment.is_from("sender") && !moment.is_from("closing")
            }
            // Another port, and other pipelines.
            "parallel" => moment.is_from("port") && !moment.is_from("publishing"),
            // Another way of publishing.
            "fill" => ["syncing", "publishing", "published"].contains(&moment.name),
            _ => true,
        }
    }

    pub(crate) fn replaces(&self) -> bool {
        self.directory == WITH_OLD
    }

    /// Whether the copy has no name of its own.
    pub(crate) fn fills(&self) -> bool {
        self.data == ARCHIVE || self.is_hot()
    }

    /// Whether a server or its replication has to run again.
    pub(crate) fn stops_something(&self) -> bool {
        self.data == SERVED || self.is_hot()
    }

    /// Whether a running server is copied.
    pub(crate) fn is_hot(&self) -> bool {
        self.data == REPLICA
    }

    pub(crate) fn keeps_old(&self) -> bool {
        self.options.contains(&"--keep-old")
    }

    pub(crate) fn keeps_staging(&self) -> bool {
        self.options.contains(&"--keep-staging")
    }

    /// Whether the run must not try another port.
    pub(crate) fn has_one_port(&self) -> bool {
        self.options.contains(&"--port")
    }

    /// Returns the first port that a run tries.
    pub(crate) fn port(&self) -> u16 {
        if self.has_one_port() { 4444 } else { 4400 }
    }
}

/// Returns the host of a prefix: `db1` for `dba@db1:`, and the controller for none.
pub(crate) fn host_of(prefix: &str) -> &str {
    let host = prefix.trim_end_matches(':');
    if host.is_empty() { "ctl" } else { host.rsplit('@').next().unwrap_or(host) }
}
