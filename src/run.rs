//! The story of a run: probe, preflight, plan, guards, transfer, release, report.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::dry_run::DryRun;
use crate::endpoint::Endpoint;
use crate::error::{Error, chain};
use crate::host::Host;
use crate::host::guard::Guard;
use crate::lease::{self, End};
use crate::plan::{Plan, TargetFactsOf};
use crate::preflight;
use crate::probe::{self, Hosts, Probe};
use crate::progress::{Phase, Progress};
use crate::report::Report;
use crate::run_id::{GuardId, RunId};
use crate::settings::Settings;
use crate::signals::Interrupts;
use crate::transfer::{self, Outcome};

/// Does what the command line asked for, to the end of its release. Prints nothing but the plan of a dry run.
pub async fn run(
    settings: &Settings,
    source: &Endpoint,
    targets: &[Endpoint],
    interrupts: &Interrupts,
) -> Report {
    let (progress, renderer) = Progress::start();
    let mut report = Report::default();
    let probed = tokio::select! {
        probed = probe::probe(source, targets, settings.lease_time) => probed,
        signal = interrupts.first() => {
            renderer.finish().await;
            report.error = Some(Error::Interrupted(signal));
            return report;
        }
    };
    match probed {
        Ok(mut probe) => {
            let hosts = std::mem::take(&mut probe.hosts);
            match plan(settings, source, targets, &probe, &mut report) {
                Ok(plan) if settings.dry_run => print_plan(&plan),
                Ok(plan) => execute(plan, &hosts, interrupts, &progress, &mut report).await,
                Err(error) => report.error = Some(error),
            }
            drop(probe);
            close(hosts).await;
        }
        // Nothing has been changed, wherever it failed.
        Err(error) => report.error = Some(refused(&[chain(&error)])),
    }
    renderer.finish().await;
    report
}

/// Preflight and plan. Targets that are left out are in the report.
fn plan(
    settings: &Settings,
    source: &Endpoint,
    targets: &[Endpoint],
    probe: &Probe,
    report: &mut Report,
) -> Result<Plan, Error> {
    let of_source = &probe.source.facts;
    let findings = preflight::source(settings, source, of_source);
    if !findings.is_empty() {
        return Err(refused(&findings.iter().map(ToString::to_string).collect::<Vec<_>>()));
    }
    let mut accepted = Vec::new();
    let mut left_out = Vec::new();
    let mut before = Vec::new();
    for (endpoint, probed) in targets.iter().zip(&probe.targets) {
        let reasons = match probed {
            Ok(target) => {
                let addresses = target.address.zip(target.peer);
                let facts = &target.end.facts;
                let mut found =
                    preflight::target(settings, (source, of_source), (endpoint, facts), addresses.is_some());
                found.extend(preflight::same_place(endpoint, facts, &before));
                before.push((endpoint, facts));
                match addresses {
                    Some((address, peer)) if found.is_empty() => {
                        accepted.push(TargetFactsOf { endpoint, facts, address, peer });
                        continue;
                    }
                    _ => found.iter().map(ToString::to_string).collect(),
                }
            }
            Err(error) => vec![chain(error)],
        };
        left_out.push((endpoint, reasons));
    }
    if !left_out.is_empty() && (!settings.skip_refused || accepted.is_empty()) {
        let reasons: Vec<String> = left_out.into_iter().flat_map(|(_, reasons)| reasons).collect();
        return Err(refused(&reasons));
    }
    // The others are changed, so this is no refusal of the run any more.
    report.targets.extend(left_out.into_iter().map(|(endpoint, reasons)| {
        (
            endpoint.clone(),
            Outcome::Failed(Error::Failed(format!("left out (--skip-refused): {}", reasons.join("; ")))),
        )
    }));
    let run =
        RunId::new().map_err(|error| Error::Failed(format!("no random numbers for a name: {error}")))?;
    Ok(Plan::new(&run, settings, (source, of_source), &accepted))
}

/// Everything that stands against the run, at once.
fn refused(reasons: &[String]) -> Error {
    Error::Refused(match reasons {
        [one] => format!("refused, nothing was changed: {one}"),
        _ => format!("refused, nothing was changed:\n  {}", reasons.join("\n  ")),
    })
}

/// Starts the guards, transfers, and releases whatever happened.
async fn execute(
    mut plan: Plan,
    hosts: &Hosts,
    interrupts: &Interrupts,
    progress: &Progress,
    report: &mut Report,
) {
    interrupts.on_second(farewell(hosts));
    // Not to be interrupted: who has begun is released, and none has made anything yet.
    let (source, started) = start_guards(&plan, hosts).await;
    let mut targets: Vec<End> = Vec::new();
    let wanted = std::mem::take(&mut plan.targets);
    for (target, end) in wanted.into_iter().zip(started) {
        match end {
            Ok(end) => {
                targets.push(end);
                plan.targets.push(target);
            }
            Err(error) => report.targets.push((target.endpoint, Outcome::Failed(error))),
        }
    }
    let result = match &source {
        Ok(source) if !targets.is_empty() => tokio::select! {
            outcomes = transfer::transfer(&plan, source, &targets, progress) => Ok(outcomes),
            signal = interrupts.first() => Err(Error::Interrupted(signal)),
        },
        _ => Ok(Vec::new()),
    };
    progress.phase(Phase::Releasing);
    let (source, error) = match source {
        Ok(source) => (Some(source), None),
        Err(error) => (None, Some(error)),
    };
    let of_source = async {
        match source {
            Some(end) => lease::release(end, plan.lease_time).await,
            None => lease::Release::default(),
        }
    };
    let of_targets = join_all(targets.into_iter().map(|end| lease::release(end, plan.lease_time)));
    let (of_source, of_targets) = tokio::join!(of_source, of_targets);
    let endpoints = plan.targets.iter().map(|target| target.endpoint.clone());
    match result {
        Ok(outcomes) => {
            report.error = error;
            report.targets.extend(endpoints.zip(outcomes));
        }
        Err(interrupted) => {
            report.error = Some(interrupted);
            let published = endpoints.zip(&of_targets).filter(|(_, release)| release.published);
            report.targets.extend(published.map(|(endpoint, _)| (endpoint, Outcome::Published)));
        }
    }
    report.leftovers =
        [of_source].into_iter().chain(of_targets).flat_map(|release| release.leftovers).collect();
}

/// The guards of the source and of the targets, side by side.
async fn start_guards(plan: &Plan, hosts: &Hosts) -> (Result<End, Error>, Vec<Result<End, Error>>) {
    let start = |endpoint, id, role| start_guard(hosts, endpoint, id, role, plan.lease_time);
    tokio::join!(
        start(&plan.source.endpoint, &plan.source.guard, "source"),
        join_all(plan.targets.iter().map(|target| start(&target.endpoint, &target.guard, "target")))
    )
}

async fn start_guard(
    hosts: &Hosts,
    endpoint: &Endpoint,
    id: &GuardId,
    role: &str,
    lease: Duration,
) -> Result<End, Error> {
    let host: Arc<Host> = hosts
        .get(&endpoint.host)
        .map(Arc::clone)
        .ok_or_else(|| Error::Failed(format!("{}: no connection", endpoint.host)))?;
    let guard = Guard::start(&host, id, role, lease, endpoint.path.as_os_str().as_bytes()).await?;
    Ok(End { guard, host })
}

/// What a second signal leaves on the screen.
fn farewell(hosts: &Hosts) -> String {
    let names: Vec<String> = hosts.keys().map(ToString::to_string).collect();
    let names = names.join(" ");
    format!(
        "left at once; the hosts go on undoing what this run did there\n\
         to see what is left: transfer status {names}\nto remove it: transfer clean {names}"
    )
}

fn print_plan(plan: &Plan) {
    use std::io::Write as _;
    // A closed pipe is the reader's wish.
    let _ = writeln!(std::io::stdout(), "{}", DryRun(plan));
}

async fn close(hosts: Hosts) {
    join_all(hosts.into_values().filter_map(Arc::into_inner).map(Host::close)).await;
}
