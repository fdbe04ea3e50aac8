//! Results of a run, from how the transfer and its agents ended. Pure.

use super::agents::Releases;
use super::lane::Ended;
use crate::config::settings::Replace;
use crate::error::Error;
use crate::lease::{Leftover, Release, Remains};
use crate::plan::{Plan, StopPlan, TargetPlan};
use crate::proto::journal::Undo;
use crate::report::outcome::Outcome;
use crate::report::{OldData, Report, ServerState, TargetReport};

/// Completes the report with the results of the transfer, which may have ended early, and of the releases. `error`
/// prevented the transfer to all targets.
pub(super) fn record(
    report: &mut Report,
    plan: &Plan,
    result: Result<Vec<Ended>, Error>,
    error: Option<Error>,
    releases: Releases,
) {
    let Releases { source: of_source, targets: of_targets, leftovers } = releases;
    // Where the transfer ended early, the ports are not known.
    let early = |outcome: Outcome| Ended { port: 0, outcome };
    let (ended, error) = match result {
        Ok(ended) => (ended, error),
        // Everything is published, so the time limit no longer matters.
        Err(Error::Failed(_)) if of_targets.iter().all(|release| release.published) => {
            (of_targets.iter().map(|_| early(Outcome::Published)).collect(), None)
        }
        Err(error) => {
            let outcome = |release: &Release| match error {
                _ if release.published => Outcome::Published,
                Error::Interrupted(signal) => Outcome::Failed(Error::Interrupted(signal)),
                _ => Outcome::Failed(Error::Failed(error.chain())),
            };
            (of_targets.iter().map(|release| early(outcome(release))).collect(), Some(error))
        }
    };
    report.error = error;
    if let Some(run) = &mut report.run {
        run.log = of_source.as_ref().map(|release| release.log.clone()).unwrap_or_default();
    }
    for ((target, release), ended) in plan.targets.iter().zip(&of_targets).zip(ended) {
        report.targets.push(target_report(plan, target, release, ended));
    }
    // Without an agent nothing is known of them.
    report.servers =
        of_source.as_ref().map(|release| servers(&plan.source.servers, release)).unwrap_or_default();
    report.leftovers.extend(leftovers);
    let releases = of_source.into_iter().chain(of_targets);
    report.leftovers.extend(releases.flat_map(|release| release.leftovers));
}

/// Returns the report of a target that got as far as its release.
fn target_report(plan: &Plan, target: &TargetPlan, release: &Release, ended: Ended) -> TargetReport {
    TargetReport {
        endpoint: target.endpoint.clone(),
        final_path: Some(target.final_path.clone()),
        addresses: Some((target.address, target.peer)),
        port: Some(ended.port).filter(|port| *port != 0),
        outcome: ended.outcome,
        published: release.published,
        is_uncertain: release.lost && !release.published && (!release.left_the_name || plan.keep_staging),
        kept: release.kept.clone(),
        log: release.log.clone(),
        old: old_data(plan, target, release),
        servers: if release.published { Vec::new() } else { servers(&target.servers, release) },
    }
}

/// Returns what became of the servers of a host, without those that are leftovers.
fn servers(planned: &[StopPlan], release: &Release) -> Vec<(String, ServerState)> {
    let is_unconfirmed = release.leftovers.iter().any(Leftover::is_unconfirmed);
    let only_begun = release.stopping.iter().filter(|unit| !release.stopped.contains(unit));
    let touched = release.stopped.iter().map(|what| (what, ServerState::Restored));
    let touched = touched.chain(only_begun.map(|unit| (unit, ServerState::Running)));
    let touched = touched.filter(|(what, _)| !release.leftovers.iter().any(|left| is_down(left, what)));
    let touched = touched
        .map(|(what, state)| (what.clone(), if is_unconfirmed { ServerState::MayBeStopped } else { state }));
    // The host of a lost agent may have gone down, and its servers with it.
    let of_untouched = if release.lost { ServerState::RunningWhenLost } else { ServerState::LeftRunning };
    let untouched = planned.iter().map(|server| &server.unit).filter(|unit| !release.stopping.contains(unit));
    touched.chain(untouched.map(|unit| (unit.clone(), of_untouched))).collect()
}

/// Returns whether a leftover says that a server, by its unit, or its replication may be down.
fn is_down(leftover: &Leftover, what: &str) -> bool {
    match &leftover.what {
        Remains::Lease(held) => match &held.lease {
            Undo::Server { unit, .. } => unit == what,
            Undo::Replication { .. } | Undo::ServerReplication { .. } | Undo::Provisional { .. } => true,
            _ => false,
        },
        Remains::InProgress { .. } => true,
        Remains::Foreign(_) | Remains::Unconfirmed(_) => false,
    }
}

/// Returns what became of the data that had the final name before.
fn old_data(plan: &Plan, target: &TargetPlan, release: &Release) -> OldData {
    if release.old_kept {
        return OldData::Kept(target.old_path.clone());
    }
    // A directory that is filled has no data to be replaced.
    let is_replaced = plan.replace != Replace::No && target.old.is_some();
    if !is_replaced {
        return OldData::Unknown;
    }
    match release.published {
        // The old data may be what is left.
        true if !release.leftovers.is_empty() => OldData::Unknown,
        true => OldData::Removed,
        false if release.left_the_name && release.lost => OldData::UnchangedWhenLost,
        false if release.left_the_name => OldData::Unchanged,
        false => OldData::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::agent::Held;
    use crate::proto::Text;
    use crate::proto::server::{DataDirectory, Login, StartState, Threads};

    fn unconfirmed() -> Vec<Leftover> {
        vec![Leftover { host: "db2".into(), what: Remains::Unconfirmed("no answer".into()) }]
    }

    fn planned() -> [StopPlan; 1] {
        [StopPlan {
            unit: "mariadb.service".into(),
            socket: String::new(),
            defaults_file: String::new(),
            datadir: "/var/lib/mysql".into(),
            timeout: std::time::Duration::ZERO,
        }]
    }

    fn stopped() -> Release {
        let units = vec!["mariadb.service".to_owned()];
        Release { stopping: units.clone(), stopped: units, ..Release::default() }
    }

    fn states(release: &Release) -> Vec<ServerState> {
        servers(&planned(), release).into_iter().map(|(_, state)| state).collect()
    }

    #[test]
    fn servers_of_a_lost_host_are_reported_as_last_seen() {
        let lost = |release: Release| Release { lost: true, leftovers: unconfirmed(), ..release };
        assert_eq!(states(&lost(Release::default())), [ServerState::RunningWhenLost]);
        assert_eq!(states(&lost(stopped())), [ServerState::MayBeStopped]);
        // Its watchdog has rolled back.
        assert_eq!(states(&Release { lost: true, ..stopped() }), [ServerState::Restored]);
        assert_eq!(states(&Release { lost: true, ..Release::default() }), [ServerState::RunningWhenLost]);
    }

    #[test]
    fn only_servers_that_are_leftovers_are_down() {
        assert_eq!(states(&Release::default()), [ServerState::LeftRunning]);
        assert_eq!(states(&stopped()), [ServerState::Restored]);
        assert_eq!(states(&Release { stopped: Vec::new(), ..stopped() }), [ServerState::Running]);
        let left = |lease: Undo| {
            let what = Remains::Lease(Held { lease, reason: Text::default() });
            Release { leftovers: vec![Leftover { host: "db2".into(), what }], ..stopped() }
        };
        let server = || Login { socket: "/run/s".into(), defaults_file: "".into() };
        let data = DataDirectory { path: "/var/lib/mysql".into(), inode: 7 };
        let unit = "mariadb.service".to_owned();
        let stopped = Undo::Server { unit, server: server(), start: StartState::Configured, data };
        assert_eq!(states(&left(stopped)), []);
        let threads = Threads { io: true, sql: true };
        let connection = "main".to_owned();
        assert_eq!(states(&left(Undo::Replication { server: server(), connection, threads })), []);
        let staging = Undo::Staging { path: "/srv/.transfer".into(), keep: false };
        assert_eq!(states(&left(staging)), [ServerState::Restored]);
    }
}
