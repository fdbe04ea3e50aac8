//! The controller's side of an agent: one that answers questions, and becomes the agent of a run.
//!
//! The host's side is `crate::agent`; `docs/design/agent.md` describes both.

use std::sync::Arc;
use std::time::Duration;

pub mod told;

use super::attach::WayBack;
use super::conversation::{AgentError, Conversation, Listener};
use super::{Host, HostError};
use crate::base::endpoint::HostName;
use crate::base::run_id::AgentId;
use crate::config::settings::Login;
use crate::proto::Text;
use crate::proto::command::{Answer, Begin, Code, Command, Event};
use crate::proto::job::JobName;
use crate::proto::journal::Undo;
use crate::proto::name::AgentName;
use crate::proto::status::{RollbackEvent, StatusEntry};
pub use told::{Fault, Job};
use told::{Shared, State};

/// Time for an idle agent to end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Agent that no run has: it answers questions. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct IdleAgent {
    conversation: Conversation,
    shared: Arc<Shared>,
    host: HostName,
    login: Login,
}

/// Agent of a run. Dropping it closes the agent's input, and the agent rolls back.
#[derive(Debug)]
pub struct Agent {
    id: AgentId,
    conversation: Conversation,
    shared: Arc<Shared>,
}

/// Parameters of the agent of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge<'a> {
    /// Role of the host in the run: `source`, `target` or `controller`.
    pub role: &'a str,
    /// Time without a heartbeat after which the agent rolls back.
    pub lease: Duration,
    /// Nice value of its jobs, 0 to 19.
    pub nice: u8,
    /// Path that the run copies, shown by `status`.
    pub path: &'a [u8],
}

/// Lease that is held although it should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: Undo,
    /// Reason, as the host gave it; empty if unknown.
    pub reason: Text,
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.lease, self.reason.is_empty()) {
            (lease, true) => lease.fmt(f),
            // The reason is a predicate, such as `failed (exit status 1)`.
            (lease @ Undo::Hook(_), false) => write!(f, "{lease} {}", self.reason),
            (lease, false) => write!(f, "{lease} ({})", self.reason),
        }
    }
}

/// Result of releasing an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// The agent ended in order and reported these leftovers.
    Told(Vec<Held>),
    /// The agent was lost before it reported.
    Lost,
}

impl IdleAgent {
    /// Starts an agent on a host. `silence` is the time without a heartbeat after which it may end.
    pub(super) async fn start(host: &Host, silence: Duration) -> Result<Self, HostError> {
        let link = host.start_agent().await?;
        let shared = Arc::<Shared>::default();
        let listener: Arc<dyn Listener> = Arc::clone(&shared) as _;
        let conversation = Conversation::new(host.name().to_string(), link, silence, listener);
        Ok(Self { conversation, shared, host: host.name.clone(), login: host.login.clone() })
    }

    /// Returns the conversation, to ask questions.
    pub(crate) fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// Returns whether the agent or the connection to it is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.shared.state().lost
    }

    /// Returns the runs that have changes in place on the host.
    pub(crate) async fn status(&self) -> Result<Vec<StatusEntry>, AgentError> {
        self.done(Command::Status).await?;
        Ok(std::mem::take(&mut self.shared.state().runs))
    }

    /// Lets the agent roll back runs of others, and returns what happened. The command is [`Command::Clean`] or
    /// [`Command::Settle`].
    pub(crate) async fn roll_back(
        &self,
        limit: Duration,
        command: Command,
    ) -> Result<Vec<RollbackEvent>, AgentError> {
        match self.conversation.call_within(limit, command).await? {
            Answer::Done => Ok(std::mem::take(&mut self.shared.state().rollback)),
            _ => Err(self.conversation.unexpected()),
        }
    }

    /// Begins a run: from now on the agent rolls back when it ends.
    pub(crate) async fn begin(self, id: &AgentId, charge: Charge<'_>) -> Result<Agent, AgentError> {
        let controller = format!(
            "{} (pid {})",
            nix::unistd::gethostname().unwrap_or_default().to_string_lossy(),
            std::process::id()
        );
        let agent = AgentName::new(id.as_str()).ok_or_else(|| self.conversation.unexpected())?;
        self.done(Command::Begin(Begin {
            agent: agent.clone(),
            role: Text::new(charge.role),
            lease_seconds: charge.lease.as_secs(),
            nice: charge.nice,
            controller: Text::from(controller),
            path: charge.path.to_vec().into(),
        }))
        .await?;
        let Self { conversation, shared, host, login } = self;
        conversation.survive(WayBack { host, login, lease: charge.lease, agent });
        Ok(Agent { id: id.clone(), conversation, shared })
    }

    /// Ends the agent, and waits for a moment until it has removed itself from the host.
    pub(super) async fn end(self) {
        self.conversation.release();
        let mut changes = self.shared.changed.subscribe();
        let ended = async { while !self.is_lost() && changes.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(END_LIMIT, ended).await;
    }

    async fn done(&self, command: Command) -> Result<(), AgentError> {
        match self.conversation.call(command).await? {
            Answer::Done => Ok(()),
            _ => Err(self.conversation.unexpected()),
        }
    }
}

impl Agent {
    /// Returns the host as the user named it.
    #[must_use]
    pub fn host(&self) -> &str {
        self.conversation.host()
    }

    /// Returns the agent's ID.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Returns the conversation, to ask questions.
    pub(crate) fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// Sends a command and returns its answer.
    pub(crate) async fn call(&self, command: Command) -> Result<Answer, AgentError> {
        let publishes = matches!(
            command,
            Command::Publish(_) | Command::Fill(_) | Command::PublishProvisionally(_) | Command::Commit
        );
        if publishes {
            self.shared.state().publishing = true;
        }
        let answer = self.conversation.call(command).await;
        if let Err(AgentError::Failed { code: Code::Exists, .. }) = answer {
            self.shared.state().foreign = true;
        }
        answer
    }

    /// Sends a command that has no answer.
    pub(crate) async fn order(&self, command: Command) -> Result<(), AgentError> {
        match self.call(command).await? {
            Answer::Done => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// Returns the error for an answer that does not belong to its command.
    pub(crate) fn unexpected(&self) -> AgentError {
        self.conversation.unexpected()
    }

    /// Returns a snapshot of a job's state.
    #[must_use]
    pub fn job(&self, name: JobName) -> Job {
        self.shared.state().jobs.get(&name).cloned().unwrap_or_default()
    }

    /// Forgets a job's state, so that another job of this name can start.
    pub(crate) fn forget(&self, name: JobName) {
        self.shared.state().jobs.remove(&name);
    }

    /// Waits until a job has ended. Fails when the agent is lost.
    pub(crate) async fn ended(&self, name: JobName) -> Result<Job, AgentError> {
        self.until(name, |job| job.exit.is_some()).await
    }

    /// Waits until a job's state satisfies a condition. Fails when the agent is lost.
    pub(crate) async fn until(
        &self,
        name: JobName,
        condition: impl Fn(&Job) -> bool,
    ) -> Result<Job, AgentError> {
        self.wait_forever(|state| match state.jobs.get(&name) {
            Some(job) if condition(job) => Some(Ok(job.clone())),
            _ if state.lost => Some(Err(self.conversation.lost())),
            _ => None,
        })
        .await
    }

    /// Returns whether the agent reported that the copy has its final name.
    #[must_use]
    pub fn published(&self) -> bool {
        self.shared.state().published
    }

    /// Notes that a unit is about to be stopped.
    pub(crate) fn note_stopping(&self, unit: &str) {
        self.shared.state().stopping.push(unit.to_owned());
    }

    /// Returns the units that this run has stopped or tried to stop.
    #[must_use]
    pub fn stopping(&self) -> Vec<String> {
        self.shared.state().stopping.clone()
    }

    /// Notes that a unit or replication was stopped.
    pub(crate) fn note_stopped(&self, what: &str) {
        self.shared.state().stopped.push(what.to_owned());
    }

    /// Returns the units and replication that this run has stopped.
    #[must_use]
    pub fn stopped(&self) -> Vec<String> {
        self.shared.state().stopped.clone()
    }

    /// Returns whether another process has taken the final name.
    #[must_use]
    pub fn has_lost_the_name(&self) -> bool {
        self.shared.state().foreign
    }

    /// Returns whether the agent was asked to publish the copy.
    #[must_use]
    pub fn has_tried_to_publish(&self) -> bool {
        self.shared.state().publishing
    }

    /// Returns whether the data that had the final name before is kept under another name.
    #[must_use]
    pub fn old_kept(&self) -> bool {
        self.shared.state().old_kept
    }

    /// Returns the staging directories that the agent kept on request.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        let state = self.shared.state();
        let kept = state.rollback.iter().filter_map(|event| match event {
            RollbackEvent::Kept { agent, path } if agent.as_str() == self.id.as_str() => {
                Some(path.to_string())
            }
            _ => None,
        });
        kept.collect()
    }

    /// Waits until the agent is lost.
    pub(crate) async fn lost(&self) -> AgentError {
        self.wait_forever(|state| state.lost.then(|| self.conversation.lost())).await
    }

    /// Returns whether the connection was cut and may come back: its progress is not known.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.shared.state().is_cut_off
    }

    /// Returns whether the agent or the connection to it is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.state().lost
    }

    /// Tells the agent to roll back and waits until it has, or until `deadline` has passed.
    pub(crate) async fn release(&self, deadline: Duration) -> Released {
        self.conversation.release();
        let ended = self.wait(deadline, |state| (state.bye || state.lost).then_some(state.bye)).await;
        if ended != Some(true) {
            return Released::Lost;
        }
        let mut ours = Vec::new();
        for event in &self.shared.state().rollback {
            match event {
                RollbackEvent::Left { agent, undo, reason } if agent.as_str() == self.id.as_str() => {
                    ours.push(Held { lease: undo.clone(), reason: reason.clone() });
                }
                RollbackEvent::Left { agent, undo, reason } => {
                    let held = Held { lease: undo.clone(), reason: reason.clone() };
                    tracing::warn!(
                        "{}: leftover of an earlier run ({agent}), not rolled back: {held}",
                        self.host()
                    );
                }
                RollbackEvent::Foreign(journal) => {
                    tracing::warn!(
                        "{}: leftovers of an earlier run are not rolled back: {journal}",
                        self.host()
                    );
                }
                // The host is asked once more.
                RollbackEvent::Failed { agent, .. } if agent.as_str() == self.id.as_str() => {
                    return Released::Lost;
                }
                RollbackEvent::Failed { agent, reason } => {
                    tracing::warn!("{}: the journal of {agent}: {reason}", self.host());
                }
                _ => {}
            }
        }
        Released::Told(ours)
    }

    async fn wait_forever<T>(&self, mut check: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.shared.changed.subscribe();
        loop {
            if let Some(value) = check(&self.shared.state()) {
                return value;
            }
            // Cannot fail: `self` owns the sender.
            let _ = changes.changed().await;
        }
    }

    async fn wait<T>(&self, limit: Duration, check: impl FnMut(&State) -> Option<T>) -> Option<T> {
        tokio::time::timeout(limit, self.wait_forever(check)).await.ok()
    }
}

impl Listener for Shared {
    fn hear(&self, event: Event) {
        self.take(event);
    }

    fn contact(&self, is_there: bool) {
        self.state().is_cut_off = !is_there;
        self.changed.send_replace(());
    }

    fn lose(&self) {
        self.state().lost = true;
        self.changed.send_replace(());
    }
}
