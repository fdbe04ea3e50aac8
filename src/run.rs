//! Sequence of a run: probe, preflight, plan, agents, transfer, release, report.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use futures_util::future::{Either, join_all, pending};

use crate::cli;
use crate::dry_run::DryRun;
use crate::endpoint::Endpoint;
use crate::error::{Error, chain};
use crate::history::place;
use crate::hooks::{self, Status};
use crate::host::agent::{Agent, Charge};
use crate::host::command::look_after;
use crate::host::{Host, HostError};
use crate::lease::{self, End};
use crate::plan::replica::{AccountPlan, ReplicaPlan};
use crate::plan::{Plan, StopPlan, TargetFactsOf, TargetPlan};
use crate::preflight::{self, Before, Finding, Side, Weight};
use crate::probe::{self, Hosts, Probe, ProbedTarget};
use crate::progress::{Phase, Progress};
use crate::replica::{self, Turned};
use crate::report::{OldData, Report, RunFacts, ServerState, TargetReport};
use crate::run_id::{AgentId, RunId};
use crate::settings::{Login, Replace, Settings};
use crate::shape::final_name;
use crate::signals::Interrupts;
use crate::transfer::{self, Outcome};
use crate::values::HookEnd;

/// Work of a run.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// A copy.
    Copy(&'a Endpoint, &'a [Endpoint]),
    /// Creation of replicas.
    Replica(&'a cli::Replica),
}

impl Work<'_> {
    /// Returns the source and the targets as records name them: a target with the name that was given for the
    /// copy.
    #[must_use]
    pub fn named(&self, settings: &Settings) -> (String, Vec<String>) {
        match self {
            Self::Copy(source, targets) => {
                (place(source), targets.iter().map(|target| self.name(settings, target)).collect())
            }
            Self::Replica(order) => {
                (order.primary.to_string(), order.hosts().iter().map(ToString::to_string).collect())
            }
        }
    }

    /// Returns the name of one target.
    #[must_use]
    pub fn name(&self, settings: &Settings, target: &Endpoint) -> String {
        match (self, &settings.rename) {
            (Self::Replica(_), _) => target.host.to_string(),
            (Self::Copy(..), Some(name)) => {
                place(&Endpoint { path: target.path.join(&name.0), ..target.clone() })
            }
            (Self::Copy(..), None) => place(target),
        }
    }
}

/// Input of the plan: settings, endpoints, and results of the probe.
struct Begun {
    settings: Settings,
    source: Endpoint,
    targets: Vec<Endpoint>,
    replica: Option<ReplicaPlan>,
    probe: Probe,
}

/// Executes the command line, up to the end of the release. Prints nothing.
pub async fn run(id: &RunId, settings: &Settings, work: Work<'_>, interrupts: &Interrupts) -> Report {
    let began = jiff::Timestamp::now();
    let (progress, renderer) = Progress::start(settings.progress, settings.json);
    let mut report = Report { id: Some(id.clone()), login: settings.login.clone(), ..Report::default() };
    let ending = ending(settings, interrupts);
    tokio::pin!(ending);
    let begun = tokio::select! {
        begun = begin(settings, work, &mut report.findings) => begun,
        error = &mut ending => Err(error),
    };
    match begun {
        Ok(mut begun) => {
            let hosts = std::mem::take(&mut begun.probe.hosts);
            let plan = plan(id, &begun, &mut report);
            for finding in &report.findings {
                progress.emit("finding", finding);
            }
            match plan {
                Ok(plan) if settings.dry_run => {
                    report.run = Some(RunFacts::of(&plan));
                    report.dry_run = Some(DryRun::of(&plan));
                }
                Ok(plan) => {
                    report.run = Some(RunFacts::of(&plan));
                    interrupts.on_second(farewell(&hosts, &report.login));
                    execute(plan, &hosts, ending, &progress, &mut report).await;
                }
                Err(error) => report.error = Some(error),
            }
            drop(begun);
            close(hosts).await;
        }
        // Nothing has been changed so far.
        Err(error) => {
            for finding in &report.findings {
                progress.emit("finding", finding);
            }
            report.error = Some(error);
        }
    }
    report.phases = progress.phases();
    report.time = Some((began, jiff::Timestamp::now()));
    drop(progress);
    renderer.finish().await;
    report
}

/// Connects to all hosts and probes them.
async fn begin(settings: &Settings, work: Work<'_>, findings: &mut Vec<Finding>) -> Result<Begun, Error> {
    let begun = |settings: &Settings, (source, targets): (&Endpoint, &[Endpoint]), replica, probe| Begun {
        settings: settings.clone(),
        source: source.clone(),
        targets: targets.to_vec(),
        replica,
        probe,
    };
    let refused_by = |error: HostError| refused(&[chain(&error)]);
    match work {
        Work::Copy(source, targets) => {
            let names = targets.iter().chain([source]).map(|end| end.host.clone()).collect();
            let connections = probe::connect(settings, names).await;
            let probe = probe::probe(settings, source, targets, connections).await.map_err(refused_by)?;
            Ok(begun(settings, (source, targets), None, probe))
        }
        Work::Replica(order) => {
            let connections = probe::connect(settings, replica::hosts(order)).await;
            let mut note = |found: Vec<Finding>| note(findings, found);
            let turned = replica::turn(settings, order, &connections, &mut note).await;
            let Turned { settings, source, targets, replica } =
                turned.map_err(|reasons| refused(&reasons))?;
            let probe = probe::probe(&settings, &source, &targets, connections).await.map_err(refused_by)?;
            Ok(begun(&settings, (&source, &targets), Some(replica), probe))
        }
    }
}

/// Waits for the event that ends a run early: the first signal, or the time limit.
async fn ending(settings: &Settings, interrupts: &Interrupts) -> Error {
    let too_long = match settings.max_duration {
        Some(limit) => Either::Left(tokio::time::sleep(limit)),
        None => Either::Right(pending()),
    };
    tokio::select! {
        signal = interrupts.first() => Error::Interrupted(signal),
        () = too_long => {
            let seconds = settings.max_duration.unwrap_or_default().as_secs();
            Error::Failed(format!("not done within {seconds} s (--max-duration); give it more time or omit the option"))
        }
    }
}

/// Runs the preflight and makes the plan. Findings and skipped targets go into the report.
fn plan(id: &RunId, begun: &Begun, report: &mut Report) -> Result<Plan, Error> {
    let Begun { settings, source, targets, replica, probe } = begun;
    let of_source = Side {
        endpoint: source,
        facts: &probe.source.facts,
        skew: probe.source.skew,
        foreign: probe.source.foreign,
        peer: None,
    };
    let mut refusals: Vec<String> = note(&mut report.findings, preflight::source(settings, of_source));
    let source_is_good = refusals.is_empty();
    let mut accepted = Vec::new();
    let mut left_out = Vec::new();
    let mut busy: Vec<String> = Vec::new();
    let (mut named, mut good): (Vec<Side<'_>>, Vec<Side<'_>>) = Default::default();
    for (endpoint, probed) in targets.iter().zip(&probe.targets) {
        let reasons = match probed {
            Ok(ProbedTarget { end, address, peer, .. }) => {
                let addresses = address.zip(*peer);
                let side = Side {
                    endpoint,
                    facts: &end.facts,
                    skew: end.skew,
                    foreign: end.foreign,
                    peer: addresses.map(|(_, peer)| peer),
                };
                let before = Before { replicas: replica.is_some(), named: &named, accepted: &good };
                let reasons =
                    note(&mut report.findings, preflight::target(settings, of_source, side, before));
                named.push(side);
                let writer = end.facts.target.as_ref().and_then(|target| target.busy.as_deref());
                match (addresses, writer) {
                    (Some((address, peer)), None) if reasons.is_empty() => {
                        accepted.push(TargetFactsOf { endpoint, facts: &end.facts, address, peer });
                        good.push(side);
                        continue;
                    }
                    (_, Some(writer)) if reasons.is_empty() => {
                        let name = final_name(settings, source, Some(of_source.facts)).unwrap_or_default();
                        let path = endpoint.path.join(name);
                        let error = lease::busy(&end.host, &path, writer);
                        let reason = error.chain();
                        busy.push(reason.clone());
                        vec![reason]
                    }
                    _ => reasons,
                }
            }
            Err(error) => vec![chain(error)],
        };
        left_out.push((endpoint, reasons));
    }
    let goes_on = source_is_good && !accepted.is_empty() && (left_out.is_empty() || settings.skip_refused);
    if !goes_on {
        // The run's own error lists everything for people; programs want a status for each target.
        report.targets.extend(targets.iter().map(|endpoint| {
            let found = left_out.iter().find(|(other, _)| std::ptr::eq(*other, endpoint));
            let error = match found {
                Some((_, reasons)) if reasons.iter().all(|reason| busy.contains(reason)) => {
                    Error::Busy(reasons.join("; "))
                }
                Some((_, reasons)) => Error::Refused(reasons.join("; ")),
                None => {
                    Error::Refused("no finding for this target; the run was refused for other reasons".into())
                }
            };
            without_copy(endpoint.clone(), error)
        }));
        refusals.extend(left_out.into_iter().flat_map(|(_, reasons)| reasons));
        // All reasons are temporary: other runs are writing.
        return Err(if busy == refusals { Error::Busy(busy.join("; ")) } else { refused(&refusals) });
    }
    // The other targets are changed, so the run as a whole is no longer refused.
    report.targets.extend(left_out.into_iter().map(|(endpoint, reasons)| {
        let text = format!("left out (--skip-refused): {}", reasons.join("; "));
        without_copy(endpoint.clone(), Error::Failed(text))
    }));
    let plan = Plan::new(id, settings, (source, of_source.facts), &accepted);
    Ok(match replica {
        Some(replica) => plan.for_replicas(replica.clone()),
        None => plan,
    })
}

/// Adds findings to the report, logs warnings, and returns the refusals.
fn note(findings: &mut Vec<Finding>, found: Vec<Finding>) -> Vec<String> {
    let (refusals, warnings): (Vec<&Finding>, Vec<&Finding>) =
        found.iter().partition(|finding| finding.weight == Weight::Refusal);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let refusals = refusals.into_iter().map(ToString::to_string).collect();
    findings.extend(found);
    refusals
}

fn without_copy(endpoint: Endpoint, error: Error) -> TargetReport {
    TargetReport {
        endpoint,
        final_path: None,
        addresses: None,
        port: None,
        outcome: Outcome::Failed(error),
        kept: Vec::new(),
        log: Vec::new(),
        old: OldData::Unknown,
        published: false,
        is_uncertain: false,
        servers: Vec::new(),
    }
}

/// Error that lists all refusals.
fn refused(reasons: &[String]) -> Error {
    let mut listed: Vec<&str> = Vec::new();
    for reason in reasons {
        // A host with two roles can have the same finding twice.
        if !listed.contains(&reason.as_str()) {
            listed.push(reason);
        }
    }
    Error::Refused(format!("refused, nothing was changed:\n  {}", listed.join("\n  ")))
}

/// Starts the agents, transfers the data, and always releases the agents.
async fn execute(
    mut plan: Plan,
    hosts: &Hosts,
    ending: impl Future<Output = Error>,
    progress: &Progress,
    report: &mut Report,
) {
    let controller = match hooks::controller(&plan).await {
        Ok(controller) => controller,
        Err(error) => {
            report.error = Some(error.into());
            return;
        }
    };
    // Not cancellable: every agent that started must be released below; none has changed anything yet.
    let ((source, started), primary) = tokio::join!(start_agents(&plan, hosts), start_primary(&plan, hosts));
    let mut targets: Vec<End> = Vec::new();
    let mut lost: Vec<(Arc<Host>, AgentId)> = Vec::new();
    let wanted = std::mem::take(&mut plan.targets);
    for (target, end) in wanted.into_iter().zip(started) {
        match end {
            Ok(end) => {
                targets.push(end);
                plan.targets.push(target);
            }
            Err(NotStarted { error, lost: agent }) => {
                lost.extend(agent);
                report.targets.push(without_copy(target.endpoint, error));
            }
        }
    }
    let (primary, no_primary) = match primary {
        Some(Ok(end)) => (Some(end), None),
        Some(Err(NotStarted { error, lost: agent })) => {
            lost.extend(agent);
            (None, Some(error))
        }
        None => (None, None),
    };
    let result = match &source {
        Ok(source) if !targets.is_empty() && no_primary.is_none() => {
            let work = async {
                hooks::before(&plan, controller.as_ref(), source, &targets).await?;
                Ok(transfer::transfer(&plan, (source, primary.as_ref()), &targets, progress).await)
            };
            tokio::select! {
                outcomes = work => outcomes,
                error = ending => Err(error),
            }
        }
        _ => Ok(Vec::new()),
    };
    let is_done = |outcomes: &Vec<(u16, Outcome)>| {
        !outcomes.is_empty() && outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Done(_)))
    };
    progress.phase(if result.as_ref().is_ok_and(is_done) { Phase::Releasing } else { Phase::RollingBack });
    conclude(&plan, controller.as_ref(), source.as_ref().ok(), &targets).await;
    let (source, error) = match source {
        Ok(source) => (Some(source), no_primary),
        Err(NotStarted { error, lost: agent }) => {
            lost.extend(agent);
            (None, Some(error))
        }
    };
    let released = async |end: Option<End>| match end {
        Some(end) => lease::release(end, plan.lease_time).await,
        None => lease::Release::default(),
    };
    let of_source = released(source);
    let of_targets = join_all(targets.into_iter().map(|end| lease::release(end, plan.lease_time)));
    let of_lost = join_all(lost.iter().map(|(host, agent)| lease::settle(host, agent, plan.lease_time)));
    let (of_source, of_targets, of_lost) = tokio::join!(of_source, of_targets, of_lost);
    report.leftovers.extend(of_lost.into_iter().flatten());
    // After the targets: once they are rolled back, none needs its account.
    report.leftovers.extend(released(primary).await.leftovers);
    // The hooks of the controller run after those of all hosts.
    if let Some(end) = controller {
        report.leftovers.extend(lease::release(end, plan.lease_time).await.leftovers);
    }
    let (outcomes, error) = match result {
        Ok(outcomes) => (outcomes, error),
        // Everything is published, so the time limit no longer matters.
        Err(Error::Failed(_)) if of_targets.iter().all(|release| release.published) => {
            (of_targets.iter().map(|_| (0, Outcome::Published)).collect(), None)
        }
        Err(early) => {
            let outcome = |release: &lease::Release| match early {
                _ if release.published => Outcome::Published,
                Error::Interrupted(signal) => Outcome::Failed(Error::Interrupted(signal)),
                _ => Outcome::Failed(Error::Failed(early.chain())),
            };
            (of_targets.iter().map(|release| (0, outcome(release))).collect(), Some(early))
        }
    };
    report.error = error;
    if let Some(run) = &mut report.run {
        run.log.clone_from(&of_source.log);
    }
    for ((target, release), (port, outcome)) in plan.targets.iter().zip(&of_targets).zip(outcomes) {
        report.targets.push(target_report(&plan, target, release, port, outcome));
    }
    report.servers = servers(&plan.source.servers, &of_source);
    let releases = [of_source].into_iter().chain(of_targets);
    report.leftovers.extend(releases.flat_map(|release| release.leftovers));
}

/// Returns the report of a target that got as far as its release.
fn target_report(
    plan: &Plan,
    target: &TargetPlan,
    release: &lease::Release,
    port: u16,
    outcome: Outcome,
) -> TargetReport {
    TargetReport {
        endpoint: target.endpoint.clone(),
        final_path: Some(target.final_path.clone()),
        addresses: Some((target.address, target.peer)),
        port: Some(port).filter(|port| *port != 0),
        outcome,
        published: release.published,
        is_uncertain: release.lost && !release.published && (!release.left_the_name || plan.keep_staging),
        kept: release.kept.clone(),
        log: release.log.clone(),
        old: old_data(plan, target, release),
        servers: if release.published { Vec::new() } else { servers(&target.servers, release) },
    }
}

/// Returns what became of the servers of a host. Leftovers name those that are still stopped.
fn servers(planned: &[StopPlan], release: &lease::Release) -> Vec<(String, ServerState)> {
    let untouched = planned.iter().map(|server| &server.unit).filter(|unit| !release.stopping.contains(unit));
    let none = Vec::new();
    let (stopped, of_stopped, of_untouched) = match release.leftovers.as_slice() {
        [] if !release.lost => (&release.stopped, ServerState::Restored, ServerState::LeftRunning),
        left if left.iter().any(|leftover| leftover.is_unconfirmed) => {
            (&release.stopping, ServerState::StoppedWhenLost, ServerState::RunningWhenLost)
        }
        _ => (&none, ServerState::Restored, ServerState::LeftRunning),
    };
    let stopped = stopped.iter().map(|what| (what.clone(), of_stopped));
    stopped.chain(untouched.map(|unit| (unit.clone(), of_untouched))).collect()
}

/// Returns what became of the data that had the final name before.
fn old_data(plan: &Plan, target: &TargetPlan, release: &lease::Release) -> OldData {
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

/// Tells each end the result, for its hooks.
async fn conclude(plan: &Plan, controller: Option<&End>, source: Option<&End>, targets: &[End]) {
    let status = |done: bool| if done { Status::Done } else { Status::Failed };
    let done = |end: &End| end.agent.published();
    // A publication in progress finishes before its agent reads this, and then corrects the status.
    join_all(targets.iter().map(|end| hooks::conclude(plan, end, HookEnd::Target, status(done(end))))).await;
    let all = status(!targets.is_empty() && targets.iter().all(done));
    let of_others = [(source, HookEnd::Source), (controller, HookEnd::Controller)];
    join_all(
        of_others
            .into_iter()
            .filter_map(|(end, which)| Some((end?, which)))
            .map(|(end, which)| hooks::conclude(plan, end, which, all)),
    )
    .await;
}

/// Error of an agent that did not start; `lost` if it may be running nevertheless and must be settled.
struct NotStarted {
    error: Error,
    lost: Option<(Arc<Host>, AgentId)>,
}

impl From<Error> for NotStarted {
    fn from(error: Error) -> Self {
        Self { error, lost: None }
    }
}

/// Starts the agents of the source and of the targets in parallel.
async fn start_agents(plan: &Plan, hosts: &Hosts) -> (Result<End, NotStarted>, Vec<Result<End, NotStarted>>) {
    let start = |endpoint, id, role| start_agent(plan, hosts, endpoint, id, role);
    tokio::join!(
        start(&plan.source.endpoint, &plan.source.agent, "source"),
        join_all(plan.targets.iter().map(|target| start(&target.endpoint, &target.agent, "target")))
    )
}

/// Starts the agent on the upstream, if accounts are to be created there.
async fn start_primary(plan: &Plan, hosts: &Hosts) -> Option<Result<End, NotStarted>> {
    match plan.replica.as_ref().map(|replica| &replica.account) {
        Some(AccountPlan::Create { place, .. }) => {
            Some(start_agent(plan, hosts, place, &plan.run.primary_agent(), "primary").await)
        }
        _ => None,
    }
}

async fn start_agent(
    plan: &Plan,
    hosts: &Hosts,
    endpoint: &Endpoint,
    id: &AgentId,
    role: &str,
) -> Result<End, NotStarted> {
    let host: Arc<Host> = hosts
        .get(&endpoint.host)
        .map(Arc::clone)
        .ok_or_else(|| Error::Failed(format!("{}: no connection", endpoint.host)))?;
    let path = endpoint.path.as_os_str().as_bytes();
    let charge = Charge { role, lease: plan.lease_time, nice: plan.nice, path };
    match Agent::start(&host, id, charge).await {
        Ok(agent) => Ok(End { agent, host }),
        Err(error @ HostError::Refused { .. }) => Err(Error::from(error).into()),
        Err(error) => Err(NotStarted { error: error.into(), lost: Some((host, id.clone())) }),
    }
}

/// Text that a second signal prints.
fn farewell(hosts: &Hosts, login: &Login) -> String {
    let names: Vec<String> = hosts.keys().map(ToString::to_string).collect();
    let names = names.join(" ");
    format!(
        "transfer: exiting at once; the hosts continue to roll back this run\n  \
         to see what is left: {}\n  to clean up: {}",
        look_after(login, "status", &names),
        look_after(login, "clean", &names)
    )
}

async fn close(hosts: Hosts) {
    join_all(hosts.into_values().filter_map(Arc::into_inner).map(Host::close)).await;
}
