//! Leases of a journal in plain words, as users read them.

use super::wire::{Field, LONGEST_PATH, LONGEST_TEXT, message, short};

/// First words of the description of a kind whose undo starts a server or runs a command; `None` for other
/// kinds.
#[must_use]
pub fn beginning(kind: &str) -> Option<&'static str> {
    match kind {
        "server" => Some("stopped server "),
        "replication" => Some("stopped replication "),
        "trial" => Some("provisional data of "),
        "hook" => Some("after-"),
        _ => None,
    }
}

/// Describes a lease: its kind and arguments and, if its undo failed, the reason in parentheses.
/// A kind that this version does not know is shown as it is.
#[must_use]
pub fn describe(lease: &[Field]) -> String {
    let words: Vec<String> = lease.iter().map(|field| short(field, LONGEST_PATH)).collect();
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let kind = word(0);
    let start = beginning(kind).unwrap_or_default();
    let text = match kind {
        "job" => format!("processes of job {}", job(word(1))),
        "port" => format!("port {}", word(1)),
        "target" => format!("lock of the target name, {}", word(1)),
        "rest" => format!("lock of the server, {}", word(1)),
        "rule" => format!("{} IPv{} rules {}", word(1), word(2), word(3)),
        "staging" | "kept_staging" => format!("staging directory {}", word(1)),
        "aside" => format!("unpublished copy {}", word(1)),
        "old" => format!("replaced data {}", word(1)),
        "fill" => format!("published entries in {}", word(1)),
        "mode" => format!("original mode of {}", word(1)),
        "server" => format!("{start}{}", word(1)),
        "replication" => format!("{start}'{}' of the server on {}", word(3), word(1)),
        "trial" => format!("{start}{} in {}", word(1), word(2)),
        "account" => format!("account '{}'@'{}' of the server on {}", word(3), word(4), word(1)),
        "hook" => format!("{start}{} hook `{}`", word(1), word(3)),
        _ => return cut(words.join(" ")),
    };
    let reason = lease.last().filter(|last| lease.len() > arguments(kind) + 1 && last.starts_with(b"("));
    cut(match reason {
        Some(reason) => format!("{text}{}", failure(&message(reason, LONGEST_TEXT))),
        None => text,
    })
}

/// Returns the reason why an undo failed, to be put behind the description: ` (REASON)`, or for a command
/// ` failed (exit status N)`.
#[must_use]
pub fn failure(reason: &str) -> String {
    match reason.strip_prefix("(status ").and_then(|rest| rest.strip_suffix(')')) {
        Some(status) => format!(" failed (exit status {})", status.trim_end_matches(": ")),
        None if reason.is_empty() => String::new(),
        None => format!(" {reason}"),
    }
}

/// Number of arguments of a kind, without optional ones: a reason is behind them.
fn arguments(kind: &str) -> usize {
    match kind {
        "rule" | "mode" => 3,
        "aside" | "fill" => 2,
        "server" | "trial" => 6,
        "replication" | "hook" => 5,
        "account" => 4,
        _ => 1,
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
            assert_eq!(describe(&decode(lease.as_bytes())), text);
        }
    }

    #[test]
    fn descriptions_begin_with_the_words_of_their_kind() {
        for kind in ["server", "replication", "trial", "hook"] {
            assert!(describe(&[kind.into()]).starts_with(beginning(kind).unwrap()), "{kind}");
        }
        assert!(describe(&[]).is_empty() && beginning("staging").is_none());
    }
}
