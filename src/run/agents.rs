//! Agents of a run: their start, and their release.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::base::endpoint::Endpoint;
use crate::base::run_id::AgentId;
use crate::error::Error;
use crate::host::Host;
use crate::host::agent::Charge;
use crate::host::conversation::AgentError;
use crate::lease::{self, End, Leftover, Release};
use crate::mariadb::plan::{AccountPlan, ReplicaPlan};
use crate::mariadb::replicate::{Creation, Credentials};
use crate::plan::Plan;
use crate::probe::Hosts;
use crate::report::{Report, TargetReport};

/// Agents that started, each with its host.
pub(super) struct Agents {
    /// Agent of this machine, for its hooks.
    pub(super) controller: Option<End>,
    /// The source's.
    pub(super) source: Option<End>,
    /// The upstream's, if accounts are to be created there.
    pub(super) primary: Option<End>,
    /// One of each target, in the order of the plan.
    pub(super) targets: Vec<End>,
    /// Agents that may be running although they did not answer.
    lost: Vec<(Arc<Host>, AgentId)>,
    /// Error that prevents the transfer to all targets.
    pub(super) error: Option<Error>,
}

/// Agents without which nothing can be transferred.
pub(super) struct Ready<'a> {
    /// The source's.
    pub(super) source: &'a End,
    /// Replication, if the targets become replicas.
    pub(super) replication: Option<Replication<'a>>,
}

/// Plan of the replication, and its accounts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replication<'a> {
    pub(super) plan: &'a ReplicaPlan,
    pub(super) credentials: Credentials<'a>,
}

/// Ends of all agents.
pub(super) struct Releases {
    /// The source's, if it had an agent.
    pub(super) source: Option<Release>,
    /// One of each target, in the order of the plan.
    pub(super) targets: Vec<Release>,
    /// Leftovers of the others.
    pub(super) leftovers: Vec<Leftover>,
}

/// Starts all agents. Targets without one are removed from the plan and reported.
pub(super) async fn start(
    plan: &mut Plan,
    hosts: &Hosts,
    controller: Option<End>,
    report: &mut Report,
) -> Agents {
    let ((source, started), primary) = tokio::join!(start_agents(plan, hosts), start_primary(plan, hosts));
    let mut agents = Agents {
        controller,
        source: None,
        primary: None,
        targets: Vec::new(),
        lost: Vec::new(),
        error: None,
    };
    let wanted = std::mem::take(&mut plan.targets);
    for (target, end) in wanted.into_iter().zip(started) {
        match end {
            Ok(end) => {
                agents.targets.push(end);
                plan.targets.push(target);
            }
            Err(NotStarted { error, lost }) => {
                agents.lost.extend(lost);
                report.targets.push(TargetReport::without_copy(target.endpoint, error));
            }
        }
    }
    agents.primary = primary.and_then(|end| agents.keep(end));
    // Its error is the more important one.
    agents.source = agents.keep(source);
    agents
}

impl Agents {
    /// Returns the end whose agent started; otherwise notes the error and the agent that may be running.
    fn keep(&mut self, end: Result<End, NotStarted>) -> Option<End> {
        match end {
            Ok(end) => Some(end),
            Err(NotStarted { error, lost }) => {
                self.lost.extend(lost);
                self.error = Some(error);
                None
            }
        }
    }

    /// Returns the agents that a transfer needs, if all of them have started.
    pub(super) fn ready<'a>(&'a self, plan: &'a Plan) -> Option<Ready<'a>> {
        let source = self.source.as_ref().filter(|_| self.error.is_none())?;
        let Some(replica) = &plan.replica else { return Some(Ready { source, replication: None }) };
        let credentials = match &replica.account {
            AccountPlan::Given(account) => Credentials::Given(account),
            AccountPlan::Create { socket, .. } => {
                let (end, defaults_file) = (self.primary.as_ref()?, &replica.defaults_file);
                Credentials::Create(Creation { end, socket, defaults_file })
            }
        };
        Some(Ready { source, replication: Some(Replication { plan: replica, credentials }) })
    }

    /// Releases all agents: first those of source and targets, then the upstream's, whose account no replica needs
    /// any more, then this machine's, whose hooks run last.
    pub(super) async fn release(self, plan: &Plan) -> Releases {
        let lease_time = plan.lease_time;
        let released = async |end: Option<End>| match end {
            Some(end) => Some(lease::release(end, lease_time).await),
            None => None,
        };
        let targets = join_all(self.targets.into_iter().map(|end| lease::release(end, lease_time)));
        let lost = join_all(self.lost.iter().map(|(host, agent)| lease::settle(host, agent, lease_time)));
        let (source, targets, lost) = tokio::join!(released(self.source), targets, lost);
        let mut leftovers: Vec<Leftover> = lost.into_iter().flatten().collect();
        for end in [self.primary, self.controller] {
            leftovers.extend(released(end).await.into_iter().flat_map(|release| release.leftovers));
        }
        Releases { source, targets, leftovers }
    }
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
    let path = endpoint.path.as_os_str().as_encoded_bytes();
    let charge = Charge { role, lease: plan.lease_time, nice: plan.nice, path };
    // Until it has begun the run, an agent changes nothing.
    let idle = host.agent().await.map_err(Error::from)?;
    match idle.begin(id, charge).await {
        Ok(agent) => Ok(End { agent, host }),
        Err(error @ AgentError::Failed { .. }) => {
            let text = format!("{error}; check free space and write permission");
            Err(Error::Failed(text).into())
        }
        Err(error) => Err(NotStarted { error: error.into(), lost: Some((host, id.clone())) }),
    }
}
