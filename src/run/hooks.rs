//! Commands of the user, before and after the work on each end. Those for afterwards are leases, so they
//! always run, as the last ones.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::base::endpoint::HostName;
use crate::config::settings::Login;
use crate::config::values::{Hook, HookEnd, Phase};
use crate::error::Error;
use crate::host::agent::Charge;
use crate::host::{Host, HostError};
use crate::lease::{End, job};
use crate::plan::Plan;
use crate::proto::command::Command;
use crate::proto::job::JobName;
use crate::proto::journal;
use crate::run::jobs;

/// Maximum time for an end to record its result.
const CONCLUDE_LIMIT: Duration = Duration::from_secs(10);

/// Result of an end, passed to its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Copy published; for the source and the controller: all copies are.
    Done,
    /// Not published.
    Failed,
}

/// Starts the agent on the controller, if there are hooks for it.
pub(crate) async fn controller(plan: &Plan) -> Result<Option<End>, HostError> {
    if !plan.hooks.iter().any(|hook| hook.end == HookEnd::Controller) {
        return Ok(None);
    }
    // As the current user, even if `--sudo` is used on hosts.
    let host = Arc::new(Host::connect(&HostName::Local, &Login::default(), plan.lease_time).await?);
    let path = plan.source.endpoint.path.as_os_str().as_encoded_bytes();
    let charge = Charge { role: "controller", lease: plan.lease_time, nice: 0, path };
    let agent = host.agent().await?.begin(&plan.run.controller_agent(), charge).await?;
    Ok(Some(End { agent, host }))
}

/// Journals the hooks for afterwards and runs the hooks for before: on the controller first, then on all
/// other ends. Returns the first error.
pub(crate) async fn before(
    plan: &Plan,
    controller: Option<&End>,
    source: &End,
    targets: &[End],
) -> Result<(), Error> {
    if plan.hooks.is_empty() {
        return Ok(());
    }
    if let Some(controller) = controller {
        on(plan, controller, HookEnd::Controller).await?;
    }
    let of_targets = join_all(targets.iter().map(|end| on(plan, end, HookEnd::Target)));
    let (of_source, of_targets) = tokio::join!(on(plan, source, HookEnd::Source), of_targets);
    of_source?;
    of_targets.into_iter().collect()
}

async fn on(plan: &Plan, end: &End, which: HookEnd) -> Result<(), Error> {
    let source = plan.source.endpoint.to_string();
    let targets: Vec<String> = plan.targets.iter().map(|target| target.endpoint.to_string()).collect();
    let targets = targets.join(" ");
    let here = |phase: Phase| plan.hooks.iter().filter(move |hook| hook.end == which && hook.phase == phase);
    // The journal is replayed from its end.
    let mut after: Vec<(usize, &Hook)> = here(Phase::After).enumerate().collect();
    after.reverse();
    for (number, hook) in after {
        let hook = journal::Hook {
            end: which.name().to_owned(),
            number: u32::try_from(number).unwrap_or(u32::MAX),
            command: hook.command.clone(),
            source: source.clone(),
            targets: targets.clone(),
        };
        end.agent.order(Command::LeaseHook(hook)).await?;
    }
    for hook in here(Phase::Before) {
        let task = jobs::hook(plan, hook, &source, &targets);
        job::start(&end.agent, JobName::Hook, task, None).await?;
        let ended = end.agent.ended(JobName::Hook).await?;
        if ended.exit != Some(0) {
            let status = ended.stages.first().map_or(1, |(_, status)| *status);
            let output = ended.complaints.last().map_or_else(String::new, |line| format!(": {line}"));
            return Err(Error::Failed(format!(
                "{}: {hook} hook failed with exit status {status}{output}",
                end.agent.host()
            )));
        }
    }
    Ok(())
}

/// Tells an end its result, for the hooks that run there afterwards.
pub(crate) async fn conclude(plan: &Plan, end: &End, which: HookEnd, status: Status) {
    if !plan.hooks.iter().any(|hook| hook.end == which && hook.phase == Phase::After) {
        return;
    }
    let done = matches!(status, Status::Done);
    // An end that does not learn it in time passes `lost` to its hooks.
    let reply = tokio::time::timeout(CONCLUDE_LIMIT, end.agent.call(Command::Conclude { done })).await;
    if !matches!(reply, Ok(Ok(_))) {
        tracing::debug!(host = end.agent.host(), "cannot pass the result of the run to hooks");
    }
}
