//! The controller's side of an agent: sends commands and heartbeats, receives replies and events.
//!
//! The host's side is `../sh/guard.sh`; the protocol is described in `docs/guard-protocol.md`.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub mod command;
pub mod event;
pub mod told;

use super::scripts::Script;
use super::wire::{Field, decode, encode, read_record};
use super::{Begun, Host, HostError, Input};
use crate::base::run_id::AgentId;
use crate::host::leases::Held;
pub use command::Command;
pub use event::{Dropped, Ending, FaultClass, JobName, List, Manifest, Meter, Program};
pub use told::{Code, Fault, Job};
use told::{Shared, State};

/// Time limit of a command on the host. Commands sync the journal first, which may wait behind a lot of data
/// that was written just before.
const REPLY_LIMIT: Duration = Duration::from_secs(900);
/// Time for an agent that no longer reads commands to report why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running agent. Dropping it closes the agent's input, and the agent rolls back.
#[derive(Debug)]
pub struct Agent {
    id: AgentId,
    host: String,
    /// Queue of whole lines for the agent. Closing it closes the agent's input once all queued lines were
    /// written.
    input: Mutex<Option<mpsc::UnboundedSender<Vec<u8>>>>,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

/// Parameters of a new agent.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// Role of the host in the run: `source`, `target` or `controller`.
    pub role: &'a str,
    /// Time without a heartbeat after which the agent rolls back.
    pub lease: Duration,
    /// Nice value of its jobs, 0 to 19.
    pub nice: u8,
    /// Path that the run copies, shown by `status`.
    pub path: &'a [u8],
}

/// Error of a command to an agent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent or the connection to it is gone. The host rolls back on its own.
    #[error("{host}: lost contact with the agent of this run ({})", reason(*.ending))]
    Lost {
        /// Host of the agent.
        host: String,
        /// Reason, if the agent could still report it.
        ending: Option<Ending>,
    },
    /// The command failed.
    #[error("{host}: {action}: {text}")]
    Failed {
        /// Host of the agent.
        host: String,
        /// Command of the protocol.
        action: &'static str,
        /// Reason.
        code: Code,
        /// Message of the host.
        text: String,
    },
}

fn reason(ending: Option<Ending>) -> String {
    match ending {
        Some(Ending::Silence) => {
            "no heartbeat from this controller within the lease time, --lease-time; was this machine suspended?"
                .to_owned()
        }
        Some(Ending::Closed) => "its connection was closed".to_owned(),
        Some(Ending::Signal(signal)) => format!("it was terminated there by SIG{signal}"),
        None => "the host is down, the connection was cut or the agent was killed".to_owned(),
    }
}

/// Result of releasing an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// The agent ended in order and reported these leftovers.
    Told(Vec<Held>),
    /// The agent was lost before it reported.
    Lost,
}

impl Agent {
    /// Starts an agent on a host and waits until it is ready for commands.
    pub async fn start(
        host: &Host,
        id: &AgentId,
        Charge { role, lease, nice, path }: Charge<'_>,
    ) -> Result<Self, HostError> {
        let controller = format!(
            "{} (pid {})",
            nix::unistd::gethostname().unwrap_or_default().to_string_lossy(),
            std::process::id()
        );
        let arguments: Vec<Field> = vec![
            id.as_str().into(),
            role.into(),
            lease.as_secs().to_string().into(),
            nice.to_string().into(),
            controller.into(),
            path.into(),
        ];
        let shell = host.shell("start of the agent", &Script::agent(&arguments)).await?;
        let Begun { sent, mut stdout, _process: process } = shell;
        let shared = Arc::<Shared>::default();
        let reader = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                // A line that is too long or a broken channel means the same as the end of output: the agent
                // is lost.
                while let Ok(Some(line)) = read_record(&mut stdout, b'\n').await {
                    shared.take(&decode(&line));
                }
                shared.lose();
                drop(process);
            }
        });
        let (input, lines) = mpsc::unbounded_channel();
        tokio::spawn(write_lines(sent, lines, (lease / 4).min(Duration::from_secs(15)), Arc::clone(&shared)));
        let agent = Self {
            id: id.clone(),
            host: host.name().to_string(),
            input: Mutex::new(Some(input)),
            shared,
            reader,
        };
        let began = agent
            .wait(REPLY_LIMIT, |state| match () {
                () if state.ready => Some(Ok(())),
                () if state.refused.is_some() || state.lost => Some(Err(state.refused.clone())),
                () => None,
            })
            .await;
        match began {
            Some(Ok(())) => Ok(agent),
            Some(Err(said)) => Err(agent.did_not_start(said)),
            None => Err(agent.did_not_start(None)),
        }
    }

    fn did_not_start(&self, said: Option<String>) -> HostError {
        let host = self.host.clone();
        match said {
            Some(text) => HostError::Refused { host, text },
            None => HostError::Incomplete { host, action: "start of the agent", said: "none".into() },
        }
    }

    /// Returns the host as the user named it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the agent's ID.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Sends a command and returns the fields of its reply. Secret arguments are never logged.
    pub async fn call(&self, command: Command<'_>) -> Result<Vec<Field>, AgentError> {
        let Some((sequence, reply)) = self.shared.expect_reply() else {
            return Err(self.gone(&self.shared.state()));
        };
        let encoded = command.encode();
        let action = encoded.action;
        tracing::debug!(host = self.host, action, "{}: {}", self.host, encoded.describe());
        if command.publishes() {
            self.shared.state().publishing = true;
        }
        let sequence = sequence.to_string();
        let mut fields: Vec<&[u8]> = vec![sequence.as_bytes(), action.as_bytes()];
        fields.extend(encoded.fields.iter().map(Vec::as_slice));
        if !self.write(&fields) {
            return Err(self.gone(&self.shared.state()));
        }
        match tokio::time::timeout(REPLY_LIMIT, reply).await {
            Ok(Ok(Ok(fields))) => Ok(fields),
            Ok(Ok(Err((code, text)))) => {
                self.shared.state().foreign |= code == Code::Exists;
                Err(AgentError::Failed { host: self.host.clone(), action, code, text })
            }
            Ok(Err(_)) => Err(self.gone(&self.shared.state())),
            Err(_) => Err(AgentError::Failed {
                host: self.host.clone(),
                action,
                code: Code::Other,
                text: format!("no reply within {} s", REPLY_LIMIT.as_secs()),
            }),
        }
    }

    /// Queues a line for the agent. Returns false when its input is already closed.
    fn write(&self, fields: &[&[u8]]) -> bool {
        let mut line = encode(fields);
        line.push(b'\n');
        self.input().as_ref().is_some_and(|input| input.send(line).is_ok())
    }

    fn input(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Vec<u8>>>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a snapshot of a job's state.
    #[must_use]
    pub fn job(&self, name: JobName) -> Job {
        self.shared.state().jobs.get(&name).cloned().unwrap_or_default()
    }

    /// Forgets a job's state, so that another job of this name can start.
    pub fn forget(&self, name: JobName) {
        self.shared.state().jobs.remove(&name);
    }

    /// Waits until a job has ended. Fails when the agent is lost.
    pub async fn ended(&self, name: JobName) -> Result<Job, AgentError> {
        self.until(name, |job| job.exit.is_some()).await
    }

    /// Waits until a job's state satisfies a condition. Fails when the agent is lost.
    pub async fn until(&self, name: JobName, condition: impl Fn(&Job) -> bool) -> Result<Job, AgentError> {
        self.wait_forever(|state| match state.jobs.get(&name) {
            Some(job) if condition(job) => Some(Ok(job.clone())),
            _ if state.lost => Some(Err(self.gone(state))),
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
    pub fn note_stopping(&self, unit: &str) {
        self.shared.state().stopping.push(unit.to_owned());
    }

    /// Returns the units that this run has stopped or tried to stop.
    #[must_use]
    pub fn stopping(&self) -> Vec<String> {
        self.shared.state().stopping.clone()
    }

    /// Notes that a unit or replication was stopped.
    pub fn note_stopped(&self, what: &str) {
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
        self.shared.state().kept.clone()
    }

    /// Waits until the agent is lost.
    pub async fn lost(&self) -> AgentError {
        self.wait_forever(|state| state.lost.then(|| self.gone(state))).await
    }

    fn gone(&self, state: &State) -> AgentError {
        AgentError::Lost { host: self.host.clone(), ending: state.ending }
    }

    /// Returns whether the agent or the connection to it is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.state().lost
    }

    /// Tells the agent to roll back and waits until it has, or until `deadline` has passed.
    pub async fn release(&self, deadline: Duration) -> Released {
        // Its input is closed, too: the agent starts even if this message is lost.
        self.write(&[b"0", b"release"]);
        self.input().take();
        let ended = self
            .wait(deadline, |state| (state.bye || state.lost).then(|| (state.bye, state.left.clone())))
            .await;
        let Some((true, left)) = ended else { return Released::Lost };
        let (ours, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(agent, _)| agent == self.id.as_str());
        for (agent, what) in others {
            tracing::warn!("{}: leftover of an earlier run ({agent}), not rolled back: {what}", self.host);
        }
        Released::Told(ours.into_iter().map(|(_, held)| held).collect())
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

impl Drop for Agent {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Writes queued lines after the script, with heartbeats in between, until the queue is closed. A task of its
/// own: a cancelled caller must not leave half a line, which would merge with the next command.
async fn write_lines(
    sent: JoinHandle<io::Result<Input>>,
    mut lines: mpsc::UnboundedReceiver<Vec<u8>>,
    period: Duration,
    shared: Arc<Shared>,
) {
    let write = async {
        let mut input = sent.await.map_err(io::Error::other)??;
        let mut beat = tokio::time::interval(period);
        loop {
            let line = tokio::select! {
                // Commands first: a heartbeat after the last one would meet a closed pipe.
                biased;
                line = lines.recv() => line,
                _ = beat.tick() => Some(b"0\tping\n".to_vec()),
            };
            // Dropping the input ends it.
            let Some(line) = line else { return Ok::<(), io::Error>(()) };
            input.write_all(&line).await?;
            input.flush().await?;
        }
    };
    if write.await.is_err() {
        // The agent no longer reads. Its output may stay open, held by jobs that outlived a killed agent, so
        // its end cannot be waited for. An agent that ends in order gets the time to report it.
        tokio::time::sleep(LAST_WORDS).await;
        shared.lose();
    }
}
