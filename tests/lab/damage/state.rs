//! State of the hosts of a lane, compared with the one before the run.

use std::thread;
use std::time::{Duration, Instant};

use super::experiment::Experiment;
use super::lane::DATA;
use super::published::Found;
use super::variants::host_of;
use crate::support::trees;

/// Limit, from the end of the run, for pipelines, ports and firewall rules.
pub(super) const CLOSED: Duration = Duration::from_secs(5);
/// Time between two comparisons.
const LOOK: Duration = Duration::from_millis(300);

impl Experiment {
    /// Whether a line is about a final name, where a run may leave a copy.
    pub(super) fn is_ours(&self, line: &str) -> bool {
        let names: &[&str] = match self.variant {
            variant if variant.keeps_staging() => &["data", ".transfer-"],
            variant if variant.fills() => {
                &["ibdata1", "one", "two", "three", "sub", "link", "xtrabackup_checkpoints"]
            }
            _ => &["data"],
        };
        names.iter().any(|name| line.contains(&format!("file: {}/{name}", self.variant.directory)))
    }

    /// Waits until no line that counts differs on any of these hosts.
    pub(super) fn await_gone(&self, hosts: &[&'static str], until: Instant, counts: impl Fn(&str) -> bool) {
        let mut hosts = hosts.to_vec();
        loop {
            let mut lines = self.lane.differences(&hosts);
            lines.retain(|line| counts(line));
            if lines.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "not gone in time: {lines:#?}");
            // Hosts without differences are not compared again.
            hosts.retain(|host| lines.iter().any(|line| line.starts_with(&format!("{host}:"))));
            thread::sleep(LOOK);
        }
    }

    /// Asserts that orphaned runs are shown, and that one command rolls them back.
    pub(super) fn clear(&self, orphans: &[&str], code: i32) {
        let sudo: &[&str] = if self.variant.options.contains(&"--sudo") { &["--sudo"] } else { &[] };
        let ends = [self.variant.source].into_iter().chain(self.variant.targets.iter().copied());
        let logins: Vec<&str> =
            ends.map(|end| end.trim_end_matches(':')).filter(|login| !login.is_empty()).collect();
        for login in logins.iter().filter(|login| orphans.contains(&host_of(login))) {
            let status = self.transfer(&[sudo, &["status", login]].concat()).expect_success().stdout;
            assert!(
                status.contains(" orphaned ") && status.contains("clean"),
                "no orphaned run is shown: {status}"
            );
        }
        if !orphans.is_empty() || code == 6 {
            let start: &[&str] = if self.variant.stops_something() { &["--start-servers"] } else { &[] };
            let cleaned = self.transfer(&[sudo, &["clean"], start, &logins[..]].concat());
            println!("clean: {cleaned}");
            cleaned.expect_success();
        }
    }

    /// Runs the same transfer again, with nothing in between.
    pub(super) fn follow(&self) {
        let output = self.program(false).run();
        assert!(output.status.success(), "the following transfer: {output}");
        for target in self.variant.targets {
            let host = host_of(target);
            assert_eq!(self.found(host), Found::Copy, "after the following transfer");
            self.reset(host);
        }
        self.expect_as_before();
    }

    /// Returns the hosts of the run.
    pub(super) fn hosts(&self) -> Vec<&'static str> {
        let targets = self.variant.targets.iter().copied();
        let mut hosts: Vec<&'static str> =
            [":", self.variant.source].into_iter().chain(targets).map(host_of).collect();
        hosts.dedup();
        hosts
    }

    /// Returns all differences from the state before the run.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut lines = self.lane.differences(&self.hosts());
        let source = host_of(self.variant.source);
        if trees::list(&self.lane.host(source), DATA) != self.lane.data_of(source) {
            lines.push(format!("{source}: the source is not what it was"));
        }
        let sockets = self.lane.host("ctl").sh("find /run/transfer-ssh -mindepth 1 2>/dev/null || :");
        lines.extend(sockets.lines().map(|socket| format!("ctl: + file: {socket}")));
        lines
    }

    pub(super) fn expect_as_before(&self) {
        let end = Instant::now() + CLOSED;
        loop {
            let lines = self.leftovers();
            if lines.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "not as before: {lines:#?}");
        }
    }
}

/// Whether a line is about a pipeline, a port or a firewall rule.
pub(crate) fn is_open(line: &str) -> bool {
    const PIPELINE: [&str; 6] = ["tar", "nc", "zstd", "openssl", "pigz", "gzip"];
    let Some((_, fact)) = line.split_once(": + ") else { return false };
    match fact.split_once(": ") {
        Some(("process", process)) => {
            PIPELINE.contains(&process.split(' ').next().unwrap_or_default())
                || process.ends_with(" transfer-agent job")
        }
        Some((section, _)) => section == "listening" || section == "nft" || section.contains("tables"),
        None => false,
    }
}
