//! Leases of a journal, as agents report them, and in plain words, as users read them.

use std::fmt;

use super::wire::{Field, LONGEST_PATH, LONGEST_TEXT, message, short};

/// A lease that is held, with the reason why its undo failed, if it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// Reason, as the host gave it; empty if the undo was not tried.
    pub reason: String,
}

/// Change of a run on a host that has an undo. All texts are printable and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Processes of the job of this name.
    Job(String),
    /// A locked port.
    Port(String),
    /// The lock file of a final name.
    Name(String),
    /// The lock file of a server.
    Quiesced(String),
    /// Firewall rules.
    Rules {
        /// Layer of the firewall.
        layer: String,
        /// `4` or `6`.
        family: String,
        /// Comment of the rules.
        tag: String,
    },
    /// A staging directory.
    Staging(String),
    /// A copy that was renamed away from its final name.
    Unpublished(String),
    /// Replaced data.
    Replaced(String),
    /// Entries that were published in a directory.
    Filled(String),
    /// The changed mode of a file.
    Mode(String),
    /// A stopped server, by its unit.
    Server(String),
    /// Stopped replication.
    Replication {
        /// Socket of the server.
        socket: String,
        /// Name of the connection.
        connection: String,
    },
    /// Provisional data of a server.
    Provisional {
        /// Unit of the server.
        unit: String,
        /// The data directory.
        path: String,
    },
    /// A replication account.
    Account {
        /// Socket of the server.
        socket: String,
        /// Name of the account.
        user: String,
        /// Host of the account.
        from: String,
    },
    /// An after-hook that has not run.
    Hook {
        /// End of the run: source, target or controller.
        end: String,
        /// The command.
        command: String,
    },
    /// A kind that this version does not know, as it is.
    Unknown(String),
}

impl Lease {
    /// Returns whether its undo starts a server or runs a command of the user.
    #[must_use]
    pub fn restarts(&self) -> bool {
        matches!(
            self,
            Self::Server(_) | Self::Replication { .. } | Self::Provisional { .. } | Self::Hook { .. }
        )
    }
}

impl Held {
    /// Parses the fields of a journal's record: kind and arguments and, if the undo failed, the reason in
    /// parentheses.
    #[must_use]
    pub fn parse(fields: &[Field]) -> Self {
        let word =
            |index: usize| fields.get(index).map(|field| short(field, LONGEST_PATH)).unwrap_or_default();
        let kind = word(0);
        // Number of arguments, without optional ones: a reason is behind them.
        let (arguments, lease) = match kind.as_str() {
            "job" => (1, Lease::Job(job(&word(1)).to_owned())),
            "port" => (1, Lease::Port(word(1))),
            "target" => (1, Lease::Name(word(1))),
            "rest" => (1, Lease::Quiesced(word(1))),
            "rule" => (3, Lease::Rules { layer: word(1), family: word(2), tag: word(3) }),
            "staging" | "kept_staging" => (1, Lease::Staging(word(1))),
            "aside" => (2, Lease::Unpublished(word(1))),
            "old" => (1, Lease::Replaced(word(1))),
            "fill" => (2, Lease::Filled(word(1))),
            "mode" => (3, Lease::Mode(word(1))),
            "server" => (6, Lease::Server(word(1))),
            "replication" => (5, Lease::Replication { socket: word(1), connection: word(3) }),
            "trial" => (6, Lease::Provisional { unit: word(1), path: word(2) }),
            "account" => (4, Lease::Account { socket: word(1), user: word(3), from: word(4) }),
            "hook" => (5, Lease::Hook { end: word(1), command: word(3) }),
            _ => {
                let words: Vec<String> = (0..fields.len()).map(word).collect();
                return Self { lease: Lease::Unknown(cut(words.join(" "))), reason: String::new() };
            }
        };
        let reason = fields.last().filter(|last| fields.len() > arguments + 1 && last.starts_with(b"("));
        Self { lease, reason: reason.map(|reason| message(reason, LONGEST_TEXT)).unwrap_or_default() }
    }

    /// Returns the reason as it is put behind a description: ` (REASON)`, or for a command ` failed (exit status
    /// N)`.
    #[must_use]
    pub fn failure(&self) -> String {
        match self.reason.strip_prefix("(status ").and_then(|rest| rest.strip_suffix(')')) {
            Some(status) => format!(" failed (exit status {})", status.trim_end_matches(": ")),
            None if self.reason.is_empty() => String::new(),
            None => format!(" {}", self.reason),
        }
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(name) => write!(f, "processes of job {name}"),
            Self::Port(port) => write!(f, "port {port}"),
            Self::Name(lock) => write!(f, "lock of the target name, {lock}"),
            Self::Quiesced(lock) => write!(f, "lock of the server, {lock}"),
            Self::Rules { layer, family, tag } => write!(f, "{layer} IPv{family} rules {tag}"),
            Self::Staging(path) => write!(f, "staging directory {path}"),
            Self::Unpublished(path) => write!(f, "unpublished copy {path}"),
            Self::Replaced(path) => write!(f, "replaced data {path}"),
            Self::Filled(path) => write!(f, "published entries in {path}"),
            Self::Mode(path) => write!(f, "original mode of {path}"),
            Self::Server(unit) => write!(f, "stopped server {unit}"),
            Self::Replication { socket, connection } => {
                write!(f, "stopped replication '{connection}' of the server on {socket}")
            }
            Self::Provisional { unit, path } => write!(f, "provisional data of {unit} in {path}"),
            Self::Account { socket, user, from } => {
                write!(f, "account '{user}'@'{from}' of the server on {socket}")
            }
            Self::Hook { end, command } => write!(f, "after-{end} hook `{command}`"),
            Self::Unknown(words) => f.write_str(words),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&cut(format!("{}{}", self.lease, self.failure())))
    }
}

/// Name of a job by its lock file, `…/NAME.job`.
fn job(lock: &str) -> &str {
    let name = lock.rsplit('/').next().unwrap_or_default();
    name.strip_suffix(".job").unwrap_or(name)
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_PATH {
        let end = (0..=LONGEST_PATH).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::decode;

    #[test]
    fn known_kinds_are_described_in_words() {
        for (lease, text) in [
            ("job\t/var/lib/transfer/r-target1/receiver.job", "processes of job receiver"),
            ("port\t4400", "port 4400"),
            ("rule\tnftables\t4\ttransfer-r-target1", "nftables IPv4 rules transfer-r-target1"),
            ("staging\t/srv/.transfer (a)", "staging directory /srv/.transfer (a)"),
            ("staging\t/srv/.transfer\t(busy)", "staging directory /srv/.transfer (busy)"),
            ("server\tmariadb.service\t/run/s\t\truns\t/var/lib/mysql\t7", "stopped server mariadb.service"),
            ("replication\t/run/s\t\tmain\tyes\tyes", "stopped replication 'main' of the server on /run/s"),
            (
                "hook\ttarget\t0\ttest -e /srv/ready\tdb1:/srv/x\tdb3:/srv\t(status 1: )",
                "after-target hook `test -e /srv/ready` failed (exit status 1)",
            ),
            (
                "hook\ttarget\t0\tunmask\tdb1:/srv/x\tdb3:/srv\t(it has not run)",
                "after-target hook `unmask` (it has not run)",
            ),
            ("something\telse", "something else"),
        ] {
            assert_eq!(Held::parse(&decode(lease.as_bytes())).to_string(), text);
        }
    }

    #[test]
    fn servers_and_hooks_are_restarted() {
        let restarts = |kind: &str| Held::parse(&[kind.into()]).lease.restarts();
        assert!(["server", "replication", "trial", "hook"].into_iter().all(restarts));
        assert!(!["staging", "account", "something"].into_iter().any(restarts));
        assert_eq!(Held::parse(&[]).to_string(), "");
    }
}
