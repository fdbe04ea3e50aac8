//! The end of an agent: it releases everything that it holds, and a host whose agent was lost is asked what is left.

use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};

use super::End;
use super::leftover::{Leftover, Remains};
use crate::base::run_id::AgentId;
use crate::error::chain;
use crate::host::agent::{Held, Released};
use crate::host::{Host, HostError};
use crate::proto::command::Command;
use crate::proto::job::JobName;
use crate::proto::name::AgentName;
use crate::proto::status::RollbackEvent;

/// Time beyond the lease time that a lost agent or its watchdog gets to roll back.
const SETTLE: Duration = Duration::from_secs(15);
/// Maximum time of a rollback; the user sees that it continues, and can leave with a second signal.
const UNDO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Pause between two questions whether the rollback is complete.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of leftovers that are kept per host.
const MOST_LEFT: usize = 64;

/// Result of an agent's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one agent")]
pub struct Release {
    /// Effects that are not rolled back, or not known to be.
    pub leftovers: Vec<Leftover>,
    /// Whether the copy has its final name.
    pub published: bool,
    /// Whether the data that had the final name before was kept under another one.
    pub old_kept: bool,
    /// Kept staging directories, as paths on the host.
    pub kept: Vec<String>,
    /// Last lines that a backup, or its preparation, has logged there.
    pub log: Vec<String>,
    /// Units that the run has stopped or tried to stop there.
    pub stopping: Vec<String>,
    /// Units and replication that the run has stopped there.
    pub stopped: Vec<String>,
    /// The agent was lost, and its host had to be asked for what is left.
    pub lost: bool,
    /// The final name is known to lead to what it led to before.
    pub left_the_name: bool,
}

/// Releases everything that an agent holds, and makes sure of it: the host of an agent that was lost is asked
/// over the same connection, or over a new one. `silence` is as in [`Host::connect`].
pub(crate) async fn release(end: End, silence: Duration) -> Release {
    let End { agent, host } = end;
    let name = agent.host().to_owned();
    let id = agent.id().clone();
    let released = agent.release(UNDO_LIMIT).await;
    let (published, old_kept, kept) = (agent.published(), agent.old_kept(), agent.kept());
    let log = [JobName::Sender, JobName::Prepare].into_iter().flat_map(|job| agent.job(job).log).collect();
    let (stopping, stopped) = (agent.stopping(), agent.stopped());
    let (is_taken, has_tried) = (agent.has_lost_the_name(), agent.has_tried_to_publish());
    drop(agent);
    let lost = matches!(released, Released::Lost);
    let leftovers = match released {
        Released::Told(left) => {
            let leftover = |held| Leftover { host: name.clone(), what: Remains::Lease(held) };
            left.into_iter().map(leftover).collect()
        }
        Released::Lost => settle(&host, &id, silence).await,
    };
    // A lost agent may have published, and what is left may be the publication itself.
    let is_uncertain = has_tried && (lost || !leftovers.is_empty());
    let left_the_name = !(published || is_taken || is_uncertain);
    Release { leftovers, published, old_kept, kept, log, stopping, stopped, lost, left_the_name }
}

/// Makes sure that a lost agent's leases are rolled back; returns those that are not.
/// `silence` is as in [`Host::connect`].
pub(crate) async fn settle(host: &Host, id: &AgentId, silence: Duration) -> Vec<Leftover> {
    // If only our side of the connection broke, the agent waits for the whole lease time before it rolls
    // back.
    let patience = silence + SETTLE;
    let began = Instant::now();
    let name = host.name().to_string();
    let mut answer = ask_to_settle(host, id, patience).await;
    if let Err(first) = &answer {
        // The connection may come back while the agent itself waits for the controller.
        let logins = ExponentialBuilder::default()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(10))
            .without_max_times();
        let again = (|| host.connect_again()).retry(logins).when(HostError::may_pass);
        let again = match tokio::time::timeout(patience, again).await {
            Ok(Ok(host)) => {
                // The rollback may take longer than the logins.
                let answer = ask_to_settle(&host, id, patience).await;
                host.close().await;
                answer
            }
            Ok(Err(second)) => Err(second),
            Err(_) => {
                let text = format!("{}; then no answer within {} s", chain(first), patience.as_secs());
                return vec![unknown(&name, &text)];
            }
        };
        answer = match again {
            Err(second) => {
                return vec![unknown(&name, &format!("{}; then {}", chain(first), chain(&second)))];
            }
            answer => answer,
        };
    }
    match answer {
        Ok(events) => settled(&events, began.elapsed(), &host.look_after("status"))
            .into_iter()
            .map(|what| Leftover { host: name.clone(), what })
            .collect(),
        Err(error) => vec![unknown(&name, &chain(&error))],
    }
}

/// Leftovers in the answer of a host that was asked to settle an agent's leases; `status` is the command that
/// shows more.
#[must_use]
pub fn settled(events: &[RollbackEvent], waited: Duration, status: &str) -> Vec<Remains> {
    let left = |event: &RollbackEvent| match event {
        RollbackEvent::Left { undo, reason, .. } => {
            Some(Remains::Lease(Held { lease: undo.clone(), reason: reason.clone() }))
        }
        RollbackEvent::Live { .. } => Some(Remains::InProgress { waited, status: status.to_owned() }),
        RollbackEvent::Foreign(journal) => Some(Remains::Foreign(journal.clone())),
        RollbackEvent::Failed { reason, .. } => Some(Remains::Unconfirmed(reason.to_string())),
        RollbackEvent::Undone { .. }
        | RollbackEvent::Kept { .. }
        | RollbackEvent::Forgotten { .. }
        | RollbackEvent::Other { .. } => None,
    };
    events.iter().filter_map(left).take(MOST_LEFT).collect()
}

fn unknown(host: &str, error: &str) -> Leftover {
    Leftover { host: host.to_owned(), what: Remains::Unconfirmed(error.to_owned()) }
}

/// Asks a host until an agent's leases are gone, or its lock stays held for `patience`. A process that still
/// holds the journal then is rolling back, which may take long for a large staging directory, as in
/// [`release`].
async fn ask_to_settle(
    host: &Host,
    id: &AgentId,
    patience: Duration,
) -> Result<Vec<RollbackEvent>, HostError> {
    let seconds = patience.as_secs();
    let Some(agent) = AgentName::new(id.as_str()) else { return Ok(Vec::new()) };
    let idle = host.agent().await?;
    let end = Instant::now() + UNDO_LIMIT;
    let events = loop {
        let settle = Command::Settle { agent: agent.clone(), seconds };
        let events = idle.roll_back(UNDO_LIMIT, settle).await?;
        let is_held = events.iter().any(|event| matches!(event, RollbackEvent::Live { .. }));
        if !is_held || Instant::now() > end {
            break events;
        }
        // The host has waited already, unless it answered at once.
        tokio::time::sleep(ASK_PAUSE).await;
    };
    host.keep(idle);
    Ok(events)
}
