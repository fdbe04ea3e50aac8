//! Conversation with an agent: commands and their answers, events, and heartbeats.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::link::{self, Link};
use super::{Input, words};
use crate::proto::command::{
    Answer, Code, Command, Ending, EndingSignal, Event, Failure, FromAgent, ToAgent,
};
use crate::proto::frame;
use crate::proto::vault::{Sealed, Vault};

/// Time limit of a command on the host. Commands sync the journal first, which may wait behind a lot of data
/// that was written just before.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_secs(900);
/// Longest time between two heartbeats.
const LONGEST_BEAT: Duration = Duration::from_secs(15);
/// Time for an agent that no longer reads commands to report why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Error of a command to an agent.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The agent or the connection to it is gone. The host rolls back on its own.
    #[error("{host}: lost contact with the agent of this run ({})", reason(*.ending))]
    Lost {
        /// Host of the agent.
        host: String,
        /// Reason, if the agent could still report it.
        ending: Option<Ending>,
    },
    /// The command failed.
    #[error("{host}: {text}")]
    Failed {
        /// Host of the agent.
        host: String,
        /// Reason, as far as the controller acts on it.
        code: Code,
        /// Reason, for people.
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
        Some(Ending::Signal(signal)) => {
            let name = match signal {
                EndingSignal::Hangup => "SIGHUP",
                EndingSignal::Interrupt => "SIGINT",
                EndingSignal::Terminate => "SIGTERM",
            };
            format!("it was terminated there by {name}")
        }
        Some(Ending::Released) | None => {
            "the host is down, the connection was cut or the agent was killed".to_owned()
        }
    }
}

/// Receiver of what an agent reports by itself.
pub(crate) trait Listener: Send + Sync + 'static {
    /// Takes an event.
    fn hear(&self, event: Event);
    /// Takes notice that the agent or the connection to it is gone.
    fn lose(&self);
}

/// Conversation with one agent. Dropping it closes the agent's input, and the agent rolls back.
#[derive(Debug)]
pub(crate) struct Conversation {
    host: String,
    vault: Vault,
    /// Queue of messages to the agent. Closing it closes the agent's input once all of them were written.
    input: Mutex<Option<mpsc::UnboundedSender<ToAgent>>>,
    calls: Arc<Mutex<Calls>>,
    reader: JoinHandle<()>,
}

/// Commands that wait for their answers.
#[derive(Debug, Default)]
struct Calls {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, Failure>>>,
    is_lost: bool,
    ending: Option<Ending>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Conversation {
    /// Takes a conversation over that has begun. `silence` is the time without a heartbeat after which the agent
    /// may roll back.
    pub(crate) fn new(host: String, link: Link, silence: Duration, listener: Arc<dyn Listener>) -> Self {
        let Link { input, mut output, vault, process } = link;
        let calls = Arc::<Mutex<Calls>>::default();
        let reader = tokio::spawn({
            let (calls, listener) = (Arc::clone(&calls), Arc::clone(&listener));
            async move {
                // What is no message, or a broken channel, means the same as the end of output.
                while let Ok(Some(message)) = link::read::<FromAgent>(&mut output).await {
                    take(&calls, listener.as_ref(), message);
                }
                lose(&calls, listener.as_ref());
                drop(process);
            }
        });
        let (queue, messages) = mpsc::unbounded_channel();
        let period = (silence / 4).min(LONGEST_BEAT);
        let writer_calls = Arc::clone(&calls);
        tokio::spawn(async move {
            if write(input, messages, period).await.is_err() {
                // The agent no longer reads. Its output may stay open, held by jobs that outlived a killed
                // agent, so its end cannot be waited for. An agent that ends in order gets the time to report it.
                tokio::time::sleep(LAST_WORDS).await;
                lose(&writer_calls, listener.as_ref());
            }
        });
        Self { host, vault, input: Mutex::new(Some(queue)), calls, reader }
    }

    /// Returns the host as the user named it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Encrypts a secret for the agent.
    pub(crate) fn seal(&self, secret: &[u8]) -> Result<Sealed, AgentError> {
        self.vault.seal(secret).map_err(|error| self.failed(error.to_string()))
    }

    /// Decrypts a secret of the agent.
    pub(crate) fn open(&self, sealed: Sealed) -> Result<zeroize::Zeroizing<Vec<u8>>, AgentError> {
        self.vault.open(sealed).map_err(|error| self.failed(error.to_string()))
    }

    /// Sends a command and returns its answer.
    pub(crate) async fn call(&self, command: Command) -> Result<Answer, AgentError> {
        self.call_within(REPLY_LIMIT, command).await
    }

    /// Sends a command and waits at most this long for its answer.
    pub(crate) async fn call_within(&self, limit: Duration, command: Command) -> Result<Answer, AgentError> {
        let action = words::action(&command);
        tracing::debug!(host = self.host, "{}: {}", self.host, words::describe(&command));
        let Some((id, reply)) = self.expect_reply() else { return Err(self.lost()) };
        if !self.send(ToAgent::Call { id, command }) {
            return Err(self.lost());
        }
        match tokio::time::timeout(limit, reply).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(Failure { code, text }))) => {
                Err(AgentError::Failed { host: self.host.clone(), code, text: text.to_string() })
            }
            Ok(Err(_)) => Err(self.lost()),
            Err(_) => Err(self.failed(format!("cannot {action}: no answer within {} s", limit.as_secs()))),
        }
    }

    /// Returns the error for an answer that does not belong to its command.
    pub(crate) fn unexpected(&self) -> AgentError {
        self.failed("the agent gave an unexpected answer".to_owned())
    }

    /// Returns the error of a conversation that is over.
    pub(crate) fn lost(&self) -> AgentError {
        AgentError::Lost { host: self.host.clone(), ending: locked(&self.calls).ending }
    }

    /// Tells the agent to roll back and to end.
    pub(crate) fn release(&self) {
        // Its input is closed, too: the agent ends even if this message is lost.
        self.send(ToAgent::Release);
        locked(&self.input).take();
    }

    fn failed(&self, text: String) -> AgentError {
        AgentError::Failed { host: self.host.clone(), code: Code::Other, text }
    }

    /// Registers a command: returns its number and the receiver of its answer; `None` when the agent is gone.
    fn expect_reply(&self) -> Option<(u64, oneshot::Receiver<Result<Answer, Failure>>)> {
        let mut calls = locked(&self.calls);
        if calls.is_lost {
            return None;
        }
        let (sender, reply) = oneshot::channel();
        calls.last += 1;
        let id = calls.last;
        calls.waiting.insert(id, sender);
        Some((id, reply))
    }

    /// Queues a message. Returns false when the input is already closed.
    fn send(&self, message: ToAgent) -> bool {
        locked(&self.input).as_ref().is_some_and(|input| input.send(message).is_ok())
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn take(calls: &Mutex<Calls>, listener: &dyn Listener, message: FromAgent) {
    match message {
        FromAgent::Reply { id, result } => {
            let waiting = locked(calls).waiting.remove(&id);
            if let Some(waiting) = waiting {
                let _ = waiting.send(result);
            }
        }
        FromAgent::Event(event) => {
            if let Event::Ending(ending) = event {
                locked(calls).ending = Some(ending);
            }
            listener.hear(event);
        }
    }
}

/// Ends all commands that wait, and those to come.
fn lose(calls: &Mutex<Calls>, listener: &dyn Listener) {
    {
        let mut calls = locked(calls);
        calls.is_lost = true;
        calls.waiting.clear();
    }
    listener.lose();
}

/// Writes queued messages, with heartbeats in between, until the queue is closed. A task of its own: a cancelled
/// caller must not leave half a message.
async fn write(
    mut input: Input,
    mut messages: mpsc::UnboundedReceiver<ToAgent>,
    period: Duration,
) -> io::Result<()> {
    let mut beat = tokio::time::interval(period);
    loop {
        let message = tokio::select! {
            // Commands first: a heartbeat after the last one would meet a closed pipe.
            biased;
            message = messages.recv() => message,
            _ = beat.tick() => Some(ToAgent::Ping),
        };
        // Dropping the input ends it.
        let Some(message) = message else { return Ok(()) };
        input.write_all(&frame::encode(&message).map_err(io::Error::other)?).await?;
        input.flush().await?;
    }
}
