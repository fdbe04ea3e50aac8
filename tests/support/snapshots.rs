//! The state of a whole host, to show that a run restored it. `snapshot.sh` defines what belongs to it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::hosts::Host;
use super::waiting::eventually;

/// State of a host at one time: facts, and how often each was seen (processes may look alike).
pub(crate) struct Snapshot {
    facts: BTreeMap<String, usize>,
    dirs: Vec<String>,
}

impl Snapshot {
    /// Takes the state of a host: processes, listening sockets, mounts, units, firewall rules of all four
    /// kinds and of nftables, the files in `/run/transfer`, `/var/lib/transfer`, `/run/lock` and `/tmp`, and
    /// those in `dirs`.
    #[track_caller]
    pub(crate) fn of(host: &Host, dirs: &[&str]) -> Self {
        Self::read(&Self::text(host, dirs), dirs)
    }

    /// Returns the text that [`Snapshot::read`] parses, now or in another process.
    #[track_caller]
    pub(crate) fn text(host: &Host, dirs: &[&str]) -> String {
        let mut args = vec!["bash", "--norc", "-s", "--"];
        args.extend(dirs);
        host.command(&args).stdin(include_str!("snapshot.sh")).run().expect_success().stdout
    }

    /// Parses a text that [`Snapshot::text`] returned.
    pub(crate) fn read(text: &str, dirs: &[&str]) -> Self {
        let mut facts = BTreeMap::new();
        for line in text.lines() {
            *facts.entry(line.replacen('\t', ": ", 1)).or_insert(0) += 1;
        }
        Self { facts, dirs: dirs.iter().map(ToString::to_string).collect() }
    }

    /// Returns the present differences of the host.
    #[track_caller]
    fn differences(&self, host: &Host) -> Vec<String> {
        let dirs: Vec<&str> = self.dirs.iter().map(String::as_str).collect();
        Self::diff(self, &Self::of(host, &dirs))
    }

    /// Returns the facts of only one of them: `+ listening: tcp *:4444` was added, `- unit: …` is gone.
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

    /// Waits until the host is in this state again, for at most `within`, and returns the differences that
    /// remain. Even after a clean end, sshd needs a moment to notice that a connection is gone.
    pub(crate) fn remaining(&self, host: &Host, within: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        eventually(within, || {
            lines = self.differences(host);
            lines.is_empty()
        });
        lines
    }
}
