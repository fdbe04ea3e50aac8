//! Sequence of a run: probe, preflight, plan, agents, transfer, release, report.

mod agents;
mod arrive;
mod complete;
pub mod findings;
mod hooks;
mod jobs;
mod lane;
pub mod recorded;
mod refusals;
mod results;
mod transfer;

use std::sync::Arc;

use futures_util::future::{Either, join_all, pending};

use crate::base::endpoint::Endpoint;
use crate::base::run_id::RunId;
use crate::base::signals::Interrupts;
use crate::cli;
use crate::config::settings::{Login, Settings};
use crate::config::values::HookEnd;
use crate::error::{Error, chain};
use crate::history::place;
use crate::host::command::look_after;
use crate::host::{Host, HostError};
use crate::lease::End;
use crate::mariadb::plan::ReplicaPlan;
use crate::mariadb::replica::{self, Turned};
use crate::plan::{Plan, TargetPlan};
use crate::preflight::Finding;
use crate::probe::{self, Hosts, Probe};
use crate::progress::{Phase, Progress};
use crate::report::dry_run::DryRun;
use crate::report::outcome::Outcome;
use crate::report::{Report, RunFacts};

use self::agents::Ready;
use self::hooks::Status;
use self::lane::Ended;
use self::refusals::{Reason, note, plan, refused};
use self::transfer::Ends;

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
    pub(crate) fn named(&self, settings: &Settings) -> (String, Vec<String>) {
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
    pub(crate) fn name(&self, settings: &Settings, target: &Endpoint) -> String {
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
pub(crate) async fn run(id: &RunId, settings: &Settings, work: Work<'_>, interrupts: &Interrupts) -> Report {
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
                    let receive = |target: &TargetPlan| plan.engine.describe_target(&plan, target);
                    report.dry_run = Some(DryRun::of(&plan, plan.engine.describe_source(&plan), receive));
                }
                Ok(plan) => {
                    report.run = Some(RunFacts::of(&plan));
                    interrupts.on_second(farewell(&hosts, &report.login));
                    Box::pin(execute(plan, &hosts, ending, &progress, &mut report)).await;
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
    let begun = |settings: &Settings, source: &Endpoint, targets: &[Endpoint], replica, probe| Begun {
        settings: settings.clone(),
        source: source.clone(),
        targets: targets.to_vec(),
        replica,
        probe,
    };
    let refused_by = |error: HostError| refused(&[Reason::Refusal(chain(&error))]);
    match work {
        Work::Copy(source, targets) => {
            let names = targets.iter().chain([source]).map(|end| end.host.clone()).collect();
            let connections = probe::connect(settings, names).await;
            let probe = probe::probe(settings, source, targets, connections).await.map_err(refused_by)?;
            Ok(begun(settings, source, targets, None, probe))
        }
        Work::Replica(order) => {
            let connections = probe::connect(settings, replica::hosts(order)).await;
            let mut note = |found| note(findings, found).iter().map(ToString::to_string).collect();
            let turned = replica::turn(settings, order, &connections, &mut note).await;
            let Turned { settings, source, targets, replica } = turned
                .map_err(|reasons| refused(&reasons.into_iter().map(Reason::Refusal).collect::<Vec<_>>()))?;
            let probe = probe::probe(&settings, &source, &targets, connections).await.map_err(refused_by)?;
            Ok(begun(&settings, &source, &targets, Some(replica), probe))
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
    let mut agents = agents::start(&mut plan, hosts, controller, report).await;
    let controller = agents.controller.as_ref();
    let result = match agents.ready(&plan) {
        Some(Ready { source, replication }) if !agents.targets.is_empty() => {
            let targets = &agents.targets;
            let ends = Ends { source, targets, replication };
            let work = async {
                hooks::before(&plan, controller, source, targets).await?;
                Ok(transfer::transfer(&plan, ends, progress).await)
            };
            tokio::select! {
                outcomes = work => outcomes,
                error = ending => Err(error),
            }
        }
        _ => Ok(Vec::new()),
    };
    let is_done = |ended: &Vec<Ended>| {
        !ended.is_empty() && ended.iter().all(|ended| matches!(ended.outcome, Outcome::Done(_)))
    };
    progress.phase(if result.as_ref().is_ok_and(is_done) { Phase::Releasing } else { Phase::RollingBack });
    conclude(&plan, controller, agents.source.as_ref(), &agents.targets).await;
    let error = agents.error.take();
    let releases = Box::pin(agents.release(&plan)).await;
    results::record(report, &plan, result, error, releases);
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
