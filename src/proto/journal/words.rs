//! Leases in words, as users read them.

use std::fmt;

use super::{Family, Undo};
use crate::base::printable::{LONGEST_PATH, short};

/// Shows the change that the undo takes back.
impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Job { lock } => format!("processes of job {}", job(&lock.to_string())),
            Self::Port(port) => format!("port {port}"),
            Self::Name { lock } => format!("lock of the target name, {lock}"),
            Self::ServerLock { lock } => format!("lock of the server, {lock}"),
            Self::Rules { layer, family, tag } => format!("{} {family} rules {tag}", layer.name()),
            Self::Staging { path, .. } => format!("staging directory {path}"),
            Self::Unpublished { path, .. } => format!("unpublished copy {path}"),
            Self::RolledBack { path, .. } => format!("provisional data {path}"),
            Self::Replaced { path } => format!("replaced data {path}"),
            Self::Filled { directory, .. } => format!("published entries in {directory}"),
            Self::Mode { path, .. } => format!("original mode of {path}"),
            Self::Server { unit, .. } => format!("stopped server {unit}"),
            Self::Replication { server, connection, .. }
            | Self::ServerReplication { server, connection, .. } => {
                format!("stopped replication '{connection}' of the server on {}", server.socket)
            }
            Self::Provisional { unit, data, .. } => format!("provisional data of {unit} in {}", data.path),
            Self::Account(account) => {
                format!(
                    "account '{}'@'{}' of the server on {}",
                    account.user, account.host, account.server.socket
                )
            }
            Self::Hook(hook) => format!("after-{} hook `{}`", hook.end, hook.command),
        };
        f.write_str(&short(words.as_bytes(), LONGEST_PATH))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Undo {
    /// Returns whether the undo starts a server or runs a command of the user.
    #[must_use]
    pub fn restarts(&self) -> bool {
        matches!(
            self,
            Self::Server { .. }
                | Self::Replication { .. }
                | Self::ServerReplication { .. }
                | Self::Provisional { .. }
                | Self::Hook(_)
        )
    }
}

/// Returns the name of a job by its lock file, `…/NAME.job`.
fn job(lock: &str) -> &str {
    let name = lock.rsplit('/').next().unwrap_or_default();
    name.strip_suffix(".job").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::{Hook, Layer};
    use super::*;
    use crate::proto::journal::samples::login;

    #[test]
    fn leases_are_described_in_words() {
        let tag = "transfer-r-target1".to_owned();
        for (undo, text) in [
            (
                Undo::Job { lock: "/var/lib/transfer/r-target1/receiver.job".into() },
                "processes of job receiver",
            ),
            (Undo::Port(4400), "port 4400"),
            (
                Undo::Rules { layer: Layer::Nftables, family: Family::V4, tag },
                "nftables IPv4 rules transfer-r-target1",
            ),
            (
                Undo::Staging { path: "/srv/.transfer\n(a)".into(), keep: false },
                "staging directory /srv/.transfer\\n(a)",
            ),
            (
                Undo::Replication {
                    server: login("/run/s"),
                    connection: "main".into(),
                    threads: crate::proto::server::Threads { io: true, sql: true },
                },
                "stopped replication 'main' of the server on /run/s",
            ),
            (
                Undo::Hook(Hook {
                    end: "target".into(),
                    number: 0,
                    command: "test -e /srv/\u{1b}[2J".into(),
                    source: "db1:/srv/x".into(),
                    targets: "db3:/srv".into(),
                }),
                "after-target hook `test -e /srv/\\u{1b}[2J`",
            ),
        ] {
            assert_eq!(undo.to_string(), text);
        }
    }
}
