//! Report for people: a summary per target, the state of the hosts, and the command that comes next.

use std::fmt;

use indicatif::HumanBytes;
use jiff::tz::TimeZone;

use super::{OldData, Report, RunFacts, ServerState, TargetReport, rate};
use crate::base::endpoint::Endpoint;
use crate::base::exit::Exit;
use crate::base::printable::printable;
use crate::config::values::{AttributeKind, TableCheck, files};
use crate::error::Error;
use crate::host::command::look_after;
use crate::lease::Leftover;
use crate::mariadb::backup::log::completed;
use crate::report::outcome::{BackupFacts, Copied, Followed, Outcome};

/// Log lines of a backup that are shown when it failed.
const LOG_LINES: usize = 5;

impl Report {
    /// Returns the state of the hosts after a run that failed, and whether the command can be repeated.
    fn assurance(&self) -> Option<String> {
        let began = self.run.is_some() && self.dry_run.is_none();
        if !began || !self.leftovers.is_empty() || self.exit() == Exit::Done {
            return None;
        }
        // Beside finished copies, only targets that were left out before they were changed.
        let is_unchanged = |target: &TargetReport| target.is_done() || target.addresses.is_none();
        if self.targets.iter().any(TargetReport::is_done) && self.targets.iter().all(is_unchanged) {
            return None;
        }
        let safe = "it is safe to run the transfer again";
        Some(if self.targets.iter().any(|target| target.is_uncertain) {
            "transfer: all other changes were rolled back; check the paths named above".to_owned()
        } else if self.targets.iter().any(TargetReport::stays) {
            "transfer: all other changes were rolled back; the copies and data named above remain".to_owned()
        } else if matches!(self.error, Some(Error::Interrupted(_))) {
            format!("transfer: all changes on the hosts were rolled back; {safe}")
        } else {
            format!(
                "transfer: all changes on the hosts were rolled back; once the cause is corrected, {safe}"
            )
        })
    }

    /// Returns what to do about leftovers, for the line before the command that does it.
    fn advice(&self) -> String {
        let mut silent: Vec<&str> = self
            .leftovers
            .iter()
            .filter(|left| left.is_unconfirmed())
            .map(|left| left.host.as_str())
            .collect();
        silent.sort_unstable();
        silent.dedup();
        let when = match silent.as_slice() {
            [] => String::new(),
            hosts => format!("once {} can be reached, ", hosts.join(" and ")),
        };
        let then = if self.targets.iter().any(TargetReport::stays) {
            ""
        } else {
            "; then it is safe to run the transfer again"
        };
        // Beside a run that is still rolling back, it does not say so.
        format!(
            "transfer: {when}run the command below, and those that it names, until it says \"nothing to roll \
             back\"{then}"
        )
    }

    /// Returns the name and the times of the run, if it changed hosts.
    fn trailer(&self) -> Option<String> {
        let run = self.run.as_ref().filter(|_| self.dry_run.is_none())?;
        let (began, ended) = self.time?;
        let [began, ended] = [began, ended].map(|time| time.to_zoned(TimeZone::system()));
        let (began, ended) = (began.strftime("%F %T"), ended.strftime("%F %T %:z"));
        Some(format!("run {}: {began} to {ended}", run.id))
    }

    /// Returns the remarks about the source if several copies have them, so that they are shown once.
    fn shared_remarks(&self) -> &[String] {
        let mut done = self.targets.iter().filter_map(|target| match &target.outcome {
            Outcome::Done(copied) => Some(copied.source_remarks.as_slice()),
            _ => None,
        });
        match (done.next(), done.next()) {
            (Some(remarks), Some(_)) => remarks,
            _ => &[],
        }
    }
}

impl Report {
    /// Returns the lines of one target.
    fn of_target(&self, target: &TargetReport, shared: &[String]) -> Vec<String> {
        let mut lines = Vec::new();
        let endpoint = &target.endpoint;
        match &target.outcome {
            Outcome::Done(copied) => {
                lines.extend(copied.replica.iter().flat_map(|replica| follows(target, replica)));
                lines.push(format!(
                    "{}: done: {} in {} entries, {:.1} s",
                    target.place(),
                    HumanBytes(copied.bytes),
                    copied.entries,
                    copied.took.as_secs_f64()
                ));
                lines.push(format!("  sent: {}", way(self.run.as_ref(), target, copied)));
                lines.push(format!("  verified: {}", checks(copied)));
                lines.extend(dropped(copied));
                lines.extend(copied.backup.iter().flat_map(|backup| described(backup)));
                let excluded = self.run.as_ref().map(|run| run.exclude.join(", "));
                lines.extend(
                    excluded.filter(|list| !list.is_empty()).map(|list| format!("  excluded: {list}")),
                );
                lines.extend(old(target));
                let of_source = if shared.is_empty() { copied.source_remarks.as_slice() } else { &[] };
                lines.extend(
                    of_source.iter().chain(&copied.remarks).map(|remark| format!("  note: {remark}")),
                );
            }
            Outcome::Published => {
                lines.push(format!(
                    "{}: done: verified and published before the interruption",
                    target.place()
                ));
                lines.extend(old(target));
            }
            // The run's own error reports these once.
            Outcome::Failed(Error::Interrupted(_)) => lines.extend(unharmed(target)),
            Outcome::Failed(_) if self.ended_before_it_began() => {}
            Outcome::Failed(error) => {
                // The run's own error may say the same.
                if self.error.as_ref().is_none_or(|run| run.chain() != error.chain()) {
                    lines.push(format!("{endpoint}: FAILED: {}", error.chain()));
                }
                let of_source = self.run.as_ref().map_or(&[][..], |run| &run.log);
                let log = if target.log.is_empty() { of_source } else { target.log.as_slice() };
                // A failure after a successful backup is not in the backup's log.
                let log = if completed(log) { &[][..] } else { log };
                let last = &log[log.len().saturating_sub(LOG_LINES)..];
                lines.extend(last.iter().map(|line| format!("  log: {line}")));
                lines.extend(unharmed(target));
            }
        }
        lines.extend(
            target.kept.iter().map(|path| format!("{endpoint}: partial copy kept (--keep-staging): {path}")),
        );
        lines
    }
}

impl Report {
    /// Returns whether a target became a replica.
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
        let shared = self.shared_remarks();
        for target in &self.targets {
            lines.extend(self.of_target(target, shared));
        }
        lines.extend(shared.iter().map(|remark| format!("note: {remark}")));
        if self.exit() != Exit::Done {
            let host = self.run.as_ref().map(|run| run.source.host.to_string()).unwrap_or_default();
            lines.extend(self.servers.iter().map(|(what, state)| server_line(&host, what, *state)));
        }
        if self.replicates() {
            let steps = self
                .phases
                .iter()
                .map(|(name, took)| format!("{} {:.1}", name.replace('_', " "), took.as_secs_f64()));
            lines.push(format!("seconds: {}", steps.collect::<Vec<_>>().join(", ")));
        }
        lines.extend(self.trailer());
        for leftover in &self.leftovers {
            lines.push(format!("{}: NOT ROLLED BACK: {}", leftover.host, leftover.what));
        }
        let mut hosts: Vec<&str> = self.leftovers.iter().map(|leftover| leftover.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        if !hosts.is_empty() {
            let (purpose, clean) = if self.leftovers.iter().any(Leftover::restarts) {
                ("to roll back, restart servers and run hooks", "clean --start-servers")
            } else {
                ("to roll back", "clean")
            };
            lines.push(self.advice());
            lines.push(format!("{purpose}: {}", look_after(&self.login, clean, &hosts.join(" "))));
        }
        lines.extend(self.assurance());
        f.write_str(&lines.join("\n"))
    }
}

impl TargetReport {
    /// Returns whether the copy is complete.
    fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done(_) | Outcome::Published)
    }

    /// Returns whether data of the run remains on the host, or may.
    fn stays(&self) -> bool {
        !self.kept.is_empty() || self.published || self.is_uncertain || self.is_done()
    }

    /// Returns host and final path of the copy.
    fn place(&self) -> String {
        match &self.final_path {
            Some(path) => Endpoint { path: path.clone(), ..self.endpoint.clone() }.to_string(),
            None => self.endpoint.to_string(),
        }
    }
}

/// Describes a replica.
fn follows(target: &TargetReport, replica: &Followed) -> Vec<String> {
    let Followed { primary, place, user, gtid, began, .. } = replica;
    let host = &target.endpoint.host;
    let lag = replica.lag.as_secs_f64();
    let mut lines = vec![
        format!("{host}: replicates from {primary} ({place}), {lag:.1} s behind, read-only"),
        format!("  started from {began}"),
    ];
    if !gtid.is_empty() {
        lines.push(format!("  current GTID {gtid}"));
    }
    if let Some((check, tables, moment)) = &replica.tables {
        let how = match check {
            TableCheck::Checksum => "by checksum",
            TableCheck::Rows => "by number of rows",
        };
        let tables = if *tables == 1 { "1 table".to_owned() } else { format!("all {tables} tables") };
        lines.push(format!("  verified: {tables} equal to the donor's at {moment}, {how}"));
    }
    if replica.made {
        lines.push(format!("  account {user} was created for it on {primary}"));
    }
    lines
}

/// Describes what happened to replaced data.
fn old(target: &TargetReport) -> Option<String> {
    match &target.old {
        OldData::Kept(path) => Some(format!(
            "  replaced: the old data is now {}",
            printable(path.as_os_str().as_encoded_bytes())
        )),
        OldData::Removed => Some("  replaced: the old data was removed".to_owned()),
        OldData::Unknown | OldData::Unchanged | OldData::UnchangedWhenLost => None,
    }
}

/// Describes what a failed run has left in place: the old data, and servers that run again.
fn unharmed(target: &TargetReport) -> Vec<String> {
    let host = &target.endpoint.host;
    let mut lines = Vec::new();
    if target.is_uncertain {
        let place = target.place();
        lines.push(format!(
            "{place}: contact was lost before the result was known; check whether the old data, the copy or a \
             staging directory is there"
        ));
    }
    lines.extend(old(target));
    let place = target.place();
    match target.old {
        OldData::Unchanged => lines.push(format!("{place}: the old data is in place")),
        OldData::UnchangedWhenLost => {
            lines.push(format!(
                "{place}: the old data is in place; contact was lost before its replacement began"
            ));
        }
        _ => {}
    }
    let line = |(what, state): &(String, ServerState)| server_line(&host.to_string(), what, *state);
    lines.extend(target.servers.iter().map(line));
    lines
}

/// Describes the state of a server after a failed run.
fn server_line(host: &str, what: &str, state: ServerState) -> String {
    match state {
        ServerState::Restored => format!("{host}: {what} was stopped and is running again"),
        ServerState::Running => format!("{host}: {what} is running"),
        ServerState::LeftRunning => format!("{host}: {what} is still running; it was not stopped"),
        ServerState::RunningWhenLost => {
            format!("{host}: {what} was running when contact was lost; this run had not stopped it")
        }
        ServerState::MayBeStopped => {
            format!("{host}: {what} may have been stopped when contact was lost; check whether it is running")
        }
    }
}

/// Describes how the data travelled.
fn way(run: Option<&RunFacts>, target: &TargetReport, copied: &Copied) -> String {
    let mut text = format!("{}", HumanBytes(copied.wire_bytes));
    if let Some(run) = run {
        let compression = run.compression.map_or_else(
            || "not compressed".to_owned(),
            |how| format!("{} level {}", how.program.name(), how.level),
        );
        let encryption = if run.encrypted { "encrypted" } else { "not encrypted" };
        text.push_str(&format!(" ({compression}, {encryption})"));
    }
    text.push_str(&format!(", {}/s", HumanBytes(rate(copied))));
    if let (Some((address, peer)), Some(port)) = (target.addresses, target.port) {
        text.push_str(&format!(", {peer} to {address} port {port}"));
    }
    text
}

/// Describes a backup.
fn described(backup: &BackupFacts) -> Vec<String> {
    let state =
        if backup.prepared { "prepared" } else { "not prepared: prepare it before a server starts on it" };
    let mut lines = vec![format!("  backup of {} by {}, {state}", backup.server_version, backup.tool)];
    if let Some((file, position)) = &backup.binlog {
        let gtid = if backup.gtid.is_empty() { String::new() } else { format!(", GTID {}", backup.gtid) };
        lines.push(format!("  binlog position {file}:{position}{gtid}"));
    }
    lines.extend(
        backup
            .source_position
            .as_ref()
            .map(|text| format!("  position of its replication: {}", text.trim().replace("\\n", " "))),
    );
    lines
}

/// Describes the attributes that were dropped, if any were.
fn dropped(copied: &Copied) -> Option<String> {
    let of_kind = |(kind, count): (&AttributeKind, &u64)| format!("{} of {}", kind.plural(), files(*count));
    let dropped: Vec<String> = copied.dropped.iter().map(of_kind).collect();
    (!dropped.is_empty()).then(|| format!("  dropped: {}", dropped.join(", ")))
}

/// Returns the name of a digest as its standard writes it.
fn digest_name(name: &str) -> &str {
    match name {
        "md5" => "MD5",
        "sha256" => "SHA-256",
        "blake2b" => "BLAKE2b",
        "blake3" => "BLAKE3",
        other => other,
    }
}

/// Describes the checks that the copy passed.
fn checks(copied: &Copied) -> String {
    let mut checks = vec![if copied.listed { "names and sizes" } else { "number of bytes" }.to_owned()];
    checks.extend(copied.stream_digest.as_ref().map(|name| format!("{} of the stream", digest_name(name))));
    let disks =
        if copied.synced { "read back from both disks" } else { "the target's may not be on its disk yet" };
    checks.extend(
        copied
            .files_compared
            .map(|(digest, count)| format!("{} of {} ({disks})", digest_name(digest.name()), files(count))),
    );
    if copied.changed {
        checks.push("except for files that changed during the copy".into());
    }
    checks.join(", ")
}

#[cfg(test)]
mod tests;
