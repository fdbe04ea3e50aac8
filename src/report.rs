//! What a run came to: one short summary per target, what is left on hosts, and the exit code. Pure.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::HumanBytes;

use crate::backup::log::completed;
use crate::dry_run::DryRun;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::command::look_after;
use crate::host::wire::printable;
use crate::lease::Leftover;
use crate::plan::{Compression, Plan, StreamDigest};
use crate::preflight::Finding;
use crate::run_id::RunId;
use crate::settings::Login;
use crate::transfer::{BackupFacts, Copied, Followed, Outcome};
use crate::values::{AttributeKind, TableCheck, files};

mod json;

/// Lines of a backup's log that are shown where it failed.
const LOG_LINES: usize = 5;

/// The end of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The run's name; `None` when there was none yet.
    pub id: Option<RunId>,
    /// What the run was; `None` when it did not come to a plan.
    pub run: Option<RunFacts>,
    /// What became of each target.
    pub targets: Vec<TargetReport>,
    /// What the preflight found: what was refused, and what was only to be known.
    pub findings: Vec<Finding>,
    /// What could not be undone, or is not known to be.
    pub leftovers: Vec<Leftover>,
    /// How long each phase took.
    pub phases: Vec<(&'static str, Duration)>,
    /// What would have been done.
    pub dry_run: Option<DryRun>,
    /// What ended the run as a whole.
    pub error: Option<Error>,
    /// How the hosts were logged in on.
    pub login: Login,
}

/// What a run was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// Its name.
    pub id: String,
    /// Where the data was.
    pub source: Endpoint,
    /// Files, directories and all else of the source, as the preflight found it.
    pub entries: u64,
    /// Its regular files.
    pub files: u64,
    /// Their sizes in bytes, added up.
    pub bytes: u64,
    /// The bytes that they take on its disk.
    pub disk_bytes: u64,
    /// How it was compressed.
    pub compression: Option<Compression>,
    /// Whether it was encrypted.
    pub encrypted: bool,
    /// Which digest of the stream was compared.
    pub stream_digest: Option<StreamDigest>,
    /// Patterns of what was left out.
    pub exclude: Vec<String>,
    /// The last lines that a backup program wrote there.
    pub log: Vec<String>,
}

impl RunFacts {
    /// Those of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self {
            id: plan.run.to_string(),
            source: plan.source.endpoint.clone(),
            entries: plan.source.entries,
            files: plan.source.files,
            bytes: plan.source.bytes,
            disk_bytes: plan.source.disk_bytes,
            compression: plan.compression,
            encrypted: plan.encrypt,
            stream_digest: plan.stream_digest,
            exclude: plan.exclude.iter().map(|pattern| printable(pattern.0.as_encoded_bytes())).collect(),
            log: Vec::new(),
        }
    }
}

/// The end of one target.
#[derive(Debug)]
pub struct TargetReport {
    /// As the user wrote it.
    pub endpoint: Endpoint,
    /// The path of the copy when it is done, if the run came so far.
    pub final_path: Option<PathBuf>,
    /// Its address on the data path and the source's, if the run came so far.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The last port that it listened on.
    pub port: Option<u16>,
    /// What became of it.
    pub outcome: Outcome,
    /// Where what has arrived was kept.
    pub kept: Vec<String>,
    /// Where what had the final name before is now, if it was kept.
    pub old: Option<PathBuf>,
    /// The last lines that the preparation of a backup wrote there.
    pub log: Vec<String>,
}

impl Report {
    /// The exit code of the whole run.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let mut exit = self.error.as_ref().map_or(Exit::Done, Error::exit);
        // What stands against targets has come to one thing that stands against the run.
        if self.ended_before_it_began() {
            return exit;
        }
        for target in &self.targets {
            if let Outcome::Failed(error) = &target.outcome {
                exit = exit.worse(error.exit());
            }
        }
        if self.leftovers.is_empty() { exit } else { exit.worse(Exit::Leftovers) }
    }
}

impl Report {
    /// The preflight has ended the run.
    fn ended_before_it_began(&self) -> bool {
        self.run.is_none() && self.error.is_some()
    }

    /// Where something went wrong after hosts were changed: that nobody has to look after them.
    fn assurance(&self) -> Option<String> {
        let began = self.run.is_some() && self.dry_run.is_none();
        let stays = |target: &TargetReport| {
            !target.kept.is_empty() || matches!(target.outcome, Outcome::Done(_) | Outcome::Published)
        };
        let else_of = if self.targets.iter().any(stays) { "else of" } else { "of" };
        (began && self.leftovers.is_empty() && self.exit() != Exit::Done)
            .then(|| format!("transfer: nothing {else_of} this run is left on the hosts"))
    }
}

impl Report {
    /// Something became a replica.
    fn replicates(&self) -> bool {
        let is_one = |target: &TargetReport| matches!(&target.outcome, Outcome::Done(copied) if copied.replica.is_some());
        self.targets.iter().any(is_one)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        lines.extend(self.dry_run.as_ref().map(ToString::to_string));
        if let Some(error) = &self.error {
            lines.push(format!("transfer: {}", error.chain()));
        }
        for target in &self.targets {
            let endpoint = &target.endpoint;
            match &target.outcome {
                Outcome::Done(copied) => {
                    lines.extend(copied.replica.iter().flat_map(|replica| follows(target, replica)));
                    lines.push(format!(
                        "{endpoint}: done: {} in {} entries, {:.1} s",
                        HumanBytes(copied.bytes),
                        copied.entries,
                        copied.took.as_secs_f64()
                    ));
                    lines.push(format!("  {}", way(target, copied)));
                    lines.push(format!("  the same on both sides: {}", checks(copied)));
                    lines.extend(dropped(copied));
                    lines.extend(copied.backup.iter().flat_map(|backup| described(backup)));
                    let left_out = self.run.as_ref().map(|run| run.exclude.join(", "));
                    lines.extend(
                        left_out.filter(|list| !list.is_empty()).map(|list| format!("  left out: {list}")),
                    );
                    lines.extend(old(target));
                    lines.extend(copied.remarks.iter().map(|remark| format!("  note: {remark}")));
                }
                Outcome::Published => {
                    lines.push(format!("{endpoint}: done: verified and published before the interruption"));
                    lines.extend(old(target));
                }
                // Told once for all of them.
                Outcome::Failed(Error::Interrupted(_)) => {}
                Outcome::Failed(_) if self.ended_before_it_began() => {}
                Outcome::Failed(error) => {
                    lines.push(format!("{endpoint}: FAILED: {}", error.chain()));
                    let of_source = self.run.as_ref().map_or(&[][..], |run| &run.log);
                    let log = if target.log.is_empty() { of_source } else { target.log.as_slice() };
                    // What failed behind a backup that went well is not in its log.
                    let log = if completed(log) { &[][..] } else { log };
                    let last = &log[log.len().saturating_sub(LOG_LINES)..];
                    lines.extend(last.iter().map(|line| format!("  log: {line}")));
                }
            }
            lines.extend(
                target
                    .kept
                    .iter()
                    .map(|path| format!("{endpoint}: what has arrived is kept (--keep-staging): {path}")),
            );
        }
        if self.replicates() {
            let steps = self
                .phases
                .iter()
                .map(|(name, took)| format!("{} {:.1}", name.replace('_', " "), took.as_secs_f64()));
            lines.push(format!("seconds: {}", steps.collect::<Vec<_>>().join(", ")));
        }
        for leftover in &self.leftovers {
            lines.push(format!("{}: NOT ROLLED BACK: {}", leftover.host, leftover.what));
        }
        let mut hosts: Vec<&str> = self.leftovers.iter().map(|leftover| leftover.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        if !hosts.is_empty() {
            let rests = |leftover: &Leftover| {
                ["server ", "replication ", "trial ", "hook "].iter().any(|kind| leftover.is(kind))
            };
            let (what, clean) = if self.leftovers.iter().any(rests) {
                ("to start and run what has to, and remove what is left", "clean --start-servers")
            } else {
                ("to remove what is left", "clean")
            };
            lines.push(format!("{what}: {}", look_after(&self.login, clean, &hosts.join(" "))));
        }
        lines.extend(self.assurance());
        f.write_str(&lines.join("\n"))
    }
}

/// What a replica is, in lines.
fn follows(target: &TargetReport, replica: &Followed) -> Vec<String> {
    let Followed { primary, place, user, gtid, began, .. } = replica;
    let host = &target.endpoint.host;
    let lag = replica.lag.as_secs_f64();
    let has = if gtid.is_empty() { String::new() } else { format!("it has GTID {gtid}, and ") };
    let mut lines = vec![
        format!("{host}: replicates from {primary} ({place}), {lag:.1} s behind, read-only"),
        format!("  {has}it began from {began}"),
    ];
    if let Some((check, tables, moment)) = &replica.tables {
        let how = match check {
            TableCheck::Checksum => "by their checksums",
            TableCheck::Rows => "by their numbers of rows",
        };
        let what = if *tables == 1 { "1 table is that".into() } else { format!("{tables} tables are those") };
        lines.push(format!("  {what} of the source at {moment}, {how}"));
    }
    if replica.made {
        lines.push(format!("  the account {user} was made for it on {primary}"));
    }
    lines
}

/// Bytes a second of the source while it was copied.
fn rate(copied: &Copied) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for display, never negative"
    )]
    ((copied.read_bytes as f64 / copied.streamed.as_secs_f64().max(0.001)) as u64)
}

/// Where what was replaced is now.
fn old(target: &TargetReport) -> Option<String> {
    let old = printable(target.old.as_ref()?.as_os_str().as_encoded_bytes());
    Some(format!("  the old one is now {old}"))
}

/// How it travelled.
fn way(target: &TargetReport, copied: &Copied) -> String {
    let mut text = format!(
        "{} on the wire, {}/s while copying",
        HumanBytes(copied.wire_bytes),
        HumanBytes(rate(copied))
    );
    if let (Some((address, peer)), Some(port)) = (target.addresses, target.port) {
        text.push_str(&format!(", {peer} to {address} port {port}"));
    }
    text
}

/// What a backup is, in lines.
fn described(backup: &BackupFacts) -> Vec<String> {
    let state =
        if backup.prepared { "prepared" } else { "to be prepared before a server can be started with it" };
    let mut lines = vec![format!("  a backup of {} by {}, {state}", backup.server_version, backup.tool)];
    if let Some((file, position)) = &backup.binlog {
        let gtid = if backup.gtid.is_empty() { String::new() } else { format!(", GTID {}", backup.gtid) };
        lines.push(format!("  as of {file}:{position} of its binary log{gtid}"));
    }
    lines.extend(
        backup
            .source_position
            .as_ref()
            .map(|text| format!("  on the replica that it is of: {}", text.trim())),
    );
    lines
}

/// The attributes that were dropped, if there are any.
fn dropped(copied: &Copied) -> Option<String> {
    let of_kind = |(kind, count): (&AttributeKind, &u64)| format!("{} of {}", kind.plural(), files(*count));
    let dropped: Vec<String> = copied.dropped.iter().map(of_kind).collect();
    (!dropped.is_empty()).then(|| format!("  dropped: {}", dropped.join(", ")))
}

/// What was found to be the same.
fn checks(copied: &Copied) -> String {
    let mut checks =
        vec![if copied.listed { "all names and sizes" } else { "the number of bytes" }.to_owned()];
    checks.extend(copied.stream_digest.as_ref().map(|name| format!("{name} of the stream")));
    let disks = if copied.synced { "on both disks" } else { "(not waiting for the target's disk)" };
    checks.extend(copied.files_compared.map(|(digest, files)| match files {
        1 => format!("{} of its file {disks}", digest.name()),
        _ => format!("{} of {files} files {disks}", digest.name()),
    }));
    if copied.changed {
        checks.push("but for what changed meanwhile".into());
    }
    checks.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::FileDigest;
    use std::ffi::OsStr;

    fn end(outcome: Outcome) -> TargetReport {
        let addresses = Some(("10.77.0.12".parse().unwrap(), "10.77.0.11".parse().unwrap()));
        TargetReport {
            endpoint: endpoint(),
            final_path: Some("/srv/sqldata".into()),
            addresses,
            port: Some(4400),
            outcome,
            kept: Vec::new(),
            log: Vec::new(),
            old: None,
        }
    }

    fn endpoint() -> Endpoint {
        Endpoint::parse(OsStr::new("db2:/srv")).unwrap()
    }

    fn copied() -> Outcome {
        Outcome::Done(Copied {
            entries: 12,
            bytes: 1 << 30,
            read_bytes: 1 << 30,
            wire_bytes: 1 << 29,
            took: Duration::from_millis(9_800),
            streamed: Duration::from_secs(8),
            stream_digest: Some("sha256".into()),
            stream_value: Some("ab".into()),
            files_compared: Some((FileDigest::Md5, 10)),
            entries_digest: "cd".into(),
            synced: true,
            changed: false,
            listed: true,
            backup: None,
            replica: None,
            dropped: [].into(),
            remarks: vec!["tar: ./d/s: socket ignored".into()],
        })
    }

    #[test]
    fn dropped_attributes_are_counted() {
        let Outcome::Done(mut copy) = copied() else { unreachable!("a good copy") };
        copy.dropped = [(AttributeKind::Acls, 3), (AttributeKind::Xattrs, 1)].into();
        let report = Report { targets: vec![end(Outcome::Done(copy))], ..Report::default() };
        let text = report.to_string();
        assert!(text.contains("\n  dropped: extended attributes of 1 file, ACLs of 3 files\n"), "{text}");
    }

    #[test]
    fn a_good_copy_is_a_line_its_facts_and_its_notes() {
        let report = Report { targets: vec![end(copied())], ..Report::default() };
        assert_eq!(
            report.to_string(),
            "db2:/srv: done: 1.00 GiB in 12 entries, 9.8 s\n  \
             512.00 MiB on the wire, 128.00 MiB/s while copying, 10.77.0.11 to 10.77.0.12 port 4400\n  \
             the same on both sides: all names and sizes, sha256 of the stream, md5 of 10 files on both disks\n  \
             note: tar: ./d/s: socket ignored"
        );
        assert_eq!(report.exit(), Exit::Done);
    }

    #[test]
    fn what_is_left_is_listed_with_the_command_that_removes_it() {
        let report = Report {
            targets: vec![end(copied()), end(Outcome::Failed(Error::Verification("db3: bad".into())))],
            leftovers: vec![Leftover {
                host: "db2".into(),
                what: "nftables IPv4 rules transfer-r-target1".into(),
            }],
            ..Report::default()
        };
        let text = report.to_string();
        assert!(text.contains("db2:/srv: FAILED: db3: bad"), "{text}");
        assert!(text.ends_with("to remove what is left: transfer clean db2"), "{text}");
        assert_eq!(report.exit(), Exit::Leftovers, "6 whatever else happened");
    }
}
