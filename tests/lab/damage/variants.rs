//! Variants of running a transfer that differ in what they lease, and where.

use super::lane::DATA;
use super::moments::Moment;

/// One of them. Its name is the one in a cell's.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// What stands before the source's path: a login and a host, or nothing for the controller itself.
    pub(crate) source: &'static str,
    /// The same of each target.
    pub(crate) targets: &'static [&'static str],
    /// What is copied.
    pub(crate) data: &'static str,
    /// Where the copy goes.
    pub(crate) directory: &'static str,
    pub(crate) options: &'static [&'static str],
}

/// A directory that is empty, one with an older tree of the copy's name, and one on a small file system of its own.
pub(crate) const EMPTY: &str = "/srv/damage/in";
pub(crate) const WITH_OLD: &str = "/srv/damage/old";
pub(crate) const SMALL: &str = "/srv/damage/small/in";

/// The same data as archive, and where a server is at work.
pub(crate) const ARCHIVE: &str = "/srv/damage/archive";
pub(crate) const SERVED: &str = "/srv/damage/served/data";
/// Where a replica listens.
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
    /// Whether it leases at that moment anything else than the plain variant does, or by anybody else.
    pub(crate) fn differs_at(&self, moment: &Moment) -> bool {
        match self.name {
            // Something rests, or is about to.
            "cold" | "hot" => moment.is_from("resting") && !moment.is_from("publishing"),
            _ if ["resting", "restarting"].contains(&moment.name) => false,
            // Until then the old one is only looked at.
            "replace" | "keep-old" => moment.is_from("syncing"),
            // Its staging directory goes when it is empty, by no program that could be held.
            "keep-staging" => moment.is_from("staging") && moment.name != "releasing",
            // The end of the source, which is this machine's, or another account's.
            "local-source" | "reader" => {
                moment.name == "connecting" || moment.is_from("sender") && !moment.is_from("closing")
            }
            // The port, and what the pipelines are.
            "parallel" => moment.is_from("port") && !moment.is_from("publishing"),
            // It is the publication.
            "fill" => ["syncing", "publishing", "published"].contains(&moment.name),
            _ => true,
        }
    }

    pub(crate) fn replaces(&self) -> bool {
        self.directory == WITH_OLD
    }

    /// The copy has no name of its own.
    pub(crate) fn fills(&self) -> bool {
        self.data == ARCHIVE || self.is_hot()
    }

    /// A server, or what it replicates, has to run again.
    pub(crate) fn makes_rest(&self) -> bool {
        self.data == SERVED || self.is_hot()
    }

    /// What is copied is a server that runs.
    pub(crate) fn is_hot(&self) -> bool {
        self.data == REPLICA
    }

    pub(crate) fn keeps_old(&self) -> bool {
        self.options.contains(&"--keep-old")
    }

    pub(crate) fn keeps_staging(&self) -> bool {
        self.options.contains(&"--keep-staging")
    }

    /// Whether it may not try another port.
    pub(crate) fn has_one_port(&self) -> bool {
        self.options.contains(&"--port")
    }

    /// The first port that a run tries.
    pub(crate) fn port(&self) -> u16 {
        if self.has_one_port() { 4444 } else { 4400 }
    }
}

/// `dba@db1:` is on `db1`, and nothing is on the controller.
pub(crate) fn host_of(prefix: &str) -> &str {
    let host = prefix.trim_end_matches(':');
    if host.is_empty() { "ctl" } else { host.rsplit('@').next().unwrap_or(host) }
}
