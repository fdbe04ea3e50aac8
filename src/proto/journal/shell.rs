//! Journals of the version that worked with shell scripts: only read, to say what it has left.
//!
//! A record is a line of fields separated by tabs, with the escapes `\\`, `\t` and `\n`, and ends with the field `.`:
//! `lease SCOPE KIND ARGUMENT... .`, `closed SCOPE KIND ARGUMENT... .` or `accepted .`.

use crate::base::printable::{LONGEST_PATH, short};
use crate::proto::Text;

/// Beginning of the journals.
pub(super) const BEGINNING: &[u8] = b"transfer-journal ";
/// Maximum number of leases that are described.
const MOST: usize = 64;
/// Kinds that a commit makes void.
const COMMITTED: [&[u8]; 3] = [b"trial", b"server", b"replication"];

/// Describes the leases that are still held.
pub(super) fn leases(journal: &[u8]) -> Vec<Text> {
    let mut held: Vec<Vec<Vec<u8>>> = Vec::new();
    for line in journal.split(|&byte| byte == b'\n').skip(1) {
        let mut fields: Vec<Vec<u8>> = line.split(|&byte| byte == b'\t').map(plain).collect();
        // A torn record was never acted upon.
        if fields.len() < 2 || fields.pop().as_deref() != Some(b".") {
            continue;
        }
        match fields[0].as_slice() {
            b"lease" => held.push(fields.split_off(1)),
            b"closed" => {
                let closed = fields.split_off(1);
                if let Some(at) = held.iter().rposition(|lease| *lease == closed) {
                    held.remove(at);
                }
            }
            b"accepted" => {
                held.retain(|lease| !COMMITTED.iter().any(|kind| lease.get(1).is_some_and(|of| of == kind)));
            }
            _ => {}
        }
    }
    held.iter().take(MOST).map(|lease| describe(lease.get(1..).unwrap_or_default())).collect()
}

/// Returns a field without escapes.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut bytes = field.iter().copied();
    let mut plain = Vec::with_capacity(field.len());
    while let Some(byte) = bytes.next() {
        plain.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            (byte, true) => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(other) => other,
                None => byte,
            },
        });
    }
    plain
}

/// Describes a lease by its kind and arguments.
fn describe(lease: &[Vec<u8>]) -> Text {
    let word = |index: usize| lease.get(index).map(|field| short(field, LONGEST_PATH)).unwrap_or_default();
    Text::from(match word(0).as_str() {
        "job" => format!("processes with the lock file {}", word(1)),
        "port" => format!("port {}", word(1)),
        "target" => format!("lock of the target name, {}", word(1)),
        "rest" => format!("lock of the server, {}", word(1)),
        "rule" => format!("{} IPv{} rules {}", word(1), word(2), word(3)),
        "staging" | "kept_staging" => format!("staging directory {}", word(1)),
        "aside" => format!("unpublished copy {}", word(1)),
        "old" => format!("replaced data {}", word(1)),
        "fill" => format!("published entries in {}", word(1)),
        "mode" => format!("original mode of {}", word(1)),
        "server" => format!("stopped server {}", word(1)),
        "replication" => format!("stopped replication '{}' of the server on {}", word(3), word(1)),
        "trial" => format!("provisional data of {} in {}", word(1), word(2)),
        "account" => format!("account '{}'@'{}' of the server on {}", word(3), word(4), word(1)),
        "hook" => format!("after-{} hook `{}`", word(1), word(3)),
        _ => (0..lease.len()).map(word).collect::<Vec<_>>().join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_leases_are_described() {
        let journal = b"transfer-journal 1\tboot\ttarget\tctl\t1700000000\t/srv/x\t.\n\
            lease\tboot\tport\t4400\t.\n\
            lease\tboot\trule\tnftables\t4\ttransfer-r-target1\t.\n\
            lease\ttree\tstaging\t/srv/.transfer\\t-r\t.\n\
            closed\tboot\trule\tnftables\t4\ttransfer-r-target1\t.\n\
            lease\tserver\tserver\tmariadb.service\t/run/s\t\truns\t/var/lib/mysql\t7\t.\n\
            something\tnew\t.\n\
            lease\tboot\tport\t44";
        let texts: Vec<String> = leases(journal).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["port 4400", "staging directory /srv/.transfer\\t-r", "stopped server mariadb.service"]
        );
        let committed = [&journal[..], b"00\t.\naccepted\t.\n"].concat();
        assert_eq!(leases(&committed).len(), 3, "two ports and the staging directory");
    }

    #[test]
    fn rubbish_is_harmless() {
        for journal in [&b""[..], b"\n\n\t.\n.\n", b"x\nlease\t.\n", b"x\nlease\t\t\\"] {
            assert!(leases(journal).len() <= 1);
        }
        let many = b"lease\tboot\tport\t1\t.\n".repeat(1000);
        assert_eq!(leases(&[b"transfer-journal 1\n", &many[..]].concat()).len(), MOST);
    }
}
