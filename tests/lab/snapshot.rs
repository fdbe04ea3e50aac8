//! The state of a whole host, to show that a run left it as it was. What is looked at is in `snapshot.sh`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::{Host, eventually};

/// What a host looked like at one time: facts, and how often each was seen (of processes there may be several alike).
pub(crate) struct Snapshot {
    facts: BTreeMap<String, usize>,
    dirs: Vec<String>,
}

impl Snapshot {
    /// Looks at a host: processes, listening sockets, mounts, units, firewall rules of all four kinds and of nftables,
    /// the files in `/run/transfer`, `/var/lib/transfer`, `/run/lock` and `/tmp`, and those in `dirs`.
    #[track_caller]
    pub(crate) fn of(host: &Host, dirs: &[&str]) -> Self {
        Self::read(&Self::text(host, dirs), dirs)
    }

    /// What [`Snapshot::read`] makes a snapshot of, now or in another process.
    #[track_caller]
    pub(crate) fn text(host: &Host, dirs: &[&str]) -> String {
        let mut args = vec!["bash", "--norc", "-s", "--"];
        args.extend(dirs);
        host.command(&args).stdin(include_str!("snapshot.sh")).run().expect_success().stdout
    }

    /// A snapshot by the text that was taken of it.
    pub(crate) fn read(text: &str, dirs: &[&str]) -> Self {
        let mut facts = BTreeMap::new();
        for line in text.lines() {
            *facts.entry(line.replacen('\t', ": ", 1)).or_insert(0) += 1;
        }
        Self { facts, dirs: dirs.iter().map(ToString::to_string).collect() }
    }

    /// What differs on the host now.
    #[track_caller]
    pub(crate) fn differences(&self, host: &Host) -> Vec<String> {
        let dirs: Vec<&str> = self.dirs.iter().map(String::as_str).collect();
        Self::diff(self, &Self::of(host, &dirs))
    }

    /// What one snapshot has and the other has not: `+ listening: tcp *:4444` came, `- unit: …` went.
    pub(crate) fn diff(before: &Self, after: &Self) -> Vec<String> {
        let surplus = |sign: char, ours: &Self, theirs: &Self| -> Vec<String> {
            let more = |fact: &String, count: usize| {
                count - theirs.facts.get(fact).map_or(0, |other| count.min(*other))
            };
            ours.facts
                .iter()
                .flat_map(|(fact, count)| vec![format!("{sign} {fact}"); more(fact, *count)])
                .collect()
        };
        let mut lines = surplus('-', before, after);
        lines.extend(surplus('+', after, before));
        lines
    }

    /// What still differs on the host once it has had time to get back to this state, at most `within`. Even after a
    /// clean end, sshd needs a moment to notice that a connection is gone.
    pub(crate) fn remaining(&self, host: &Host, within: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        eventually(within, || {
            lines = self.differences(host);
            lines.is_empty()
        });
        lines
    }
}
