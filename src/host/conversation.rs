//! Conversation with an agent: commands and their answers, events, and heartbeats. It survives a cut connection.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::attach::WayBack;
use super::link::{self, Link};
use super::{Input, words};
use crate::proto::attach::beat;
use crate::proto::command::{
    Answer, Code, Command, Ending, EndingSignal, Event, Failure, FromAgent, ToAgent,
};
use crate::proto::frame;
use crate::proto::vault::{Sealed, Vault};

/// Time limit of a command on the host. Commands sync the journal first, which may wait behind a lot of data
/// that was written just before.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_secs(900);
/// Number of bytes from the agent after which it learns before the next heartbeat what has arrived.
const MOST_UNCONFIRMED: u64 = 1 << 20;
/// Shortest time between two connections to an agent.
const SHORTEST: Duration = Duration::from_secs(1);
/// Time for an agent that no longer reads commands to report why.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
            "no heartbeat from this controller within the lease time, --lease-time; was the connection cut, or \
             this machine suspended?"
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
    /// Takes notice that the connection was cut, or that this is over.
    fn contact(&self, is_there: bool);
    /// Takes notice that the agent or the connection to it is gone.
    fn lose(&self);
}

/// Conversation with one agent. Dropping it closes the agent's input, and the agent rolls back.
#[derive(Debug)]
pub(crate) struct Conversation {
    host: String,
    vault: Arc<Vault>,
    /// Queue of messages to the agent. Closing it closes the agent's input once all of them were written.
    input: Mutex<Option<mpsc::UnboundedSender<ToAgent>>>,
    talk: Arc<Talk>,
    carrier: JoinHandle<()>,
}

/// State of a conversation.
struct Talk {
    calls: Mutex<Calls>,
    listener: Arc<dyn Listener>,
    /// The agent has to learn what has arrived.
    confirm: Notify,
    /// The agent was released.
    released: Notify,
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talk").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// Commands that wait for their answers.
#[derive(Debug, Default)]
struct Calls {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Number of messages that have arrived.
    arrived: u64,
    /// Size in bytes of those of which the agent does not know it.
    unconfirmed: u64,
    /// Way to the agent of a run by another connection.
    way_back: Option<Arc<WayBack>>,
    is_lost: bool,
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Waiting {
    /// The command, to be repeated behind a cut.
    command: Command,
    /// `None` when the agent has begun to end: it may answer, but does not have to.
    reply: Option<oneshot::Sender<Result<Answer, Failure>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Conversation {
    /// Takes a conversation over that has begun. `silence` is the time without a heartbeat after which the agent
    /// may roll back.
    pub(crate) fn new(host: String, link: Link, silence: Duration, listener: Arc<dyn Listener>) -> Self {
        let Link { channel, vault } = link;
        let vault = Arc::new(vault);
        let talk = Arc::new(Talk {
            calls: Mutex::default(),
            listener,
            confirm: Notify::new(),
            released: Notify::new(),
        });
        let (queue, messages) = mpsc::unbounded_channel();
        let carrier =
            tokio::spawn(carry_on(channel, messages, Arc::clone(&talk), Arc::clone(&vault), beat(silence)));
        Self { host, vault, input: Mutex::new(Some(queue)), talk, carrier }
    }

    /// Lets the conversation survive a cut from now on.
    pub(super) fn survive(&self, way_back: WayBack) {
        locked(&self.talk.calls).way_back = Some(Arc::new(way_back));
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
        // Statements follow each other by the thousand.
        if words::is_frequent(&command) {
            tracing::trace!(host = self.host, "{}: {}", self.host, words::describe(&command));
        } else {
            tracing::debug!(host = self.host, "{}: {}", self.host, words::describe(&command));
        }
        let Some(reply) = self.send_call(command) else { return Err(self.lost()) };
        match tokio::time::timeout(limit, reply).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(Failure { code, text }))) => {
                Err(AgentError::Failed { host: self.host.clone(), code, text: text.to_string() })
            }
            Ok(Err(_)) => Err(self.lost()),
            Err(_) => Err(self.failed(format!("cannot {action}: no answer within {} s", limit.as_secs()))),
        }
    }

    /// Sends a command without waiting for its answer.
    pub(crate) fn post(&self, command: Command) {
        // Nobody takes its answer, which is expected nevertheless.
        drop(self.send_call(command));
    }

    /// Returns the error for an answer that does not belong to its command.
    pub(crate) fn unexpected(&self) -> AgentError {
        self.failed("the agent gave an unexpected answer".to_owned())
    }

    /// Returns the error of a conversation that is over.
    pub(crate) fn lost(&self) -> AgentError {
        AgentError::Lost { host: self.host.clone(), ending: locked(&self.talk.calls).ending }
    }

    /// Tells the agent to roll back and to end.
    pub(crate) fn release(&self) {
        // Its input is closed, too: the agent ends even if this message is lost.
        if let Some(input) = locked(&self.input).take() {
            let _ = input.send(ToAgent::Release);
        }
        self.talk.released.notify_one();
    }

    fn failed(&self, text: String) -> AgentError {
        AgentError::Failed { host: self.host.clone(), code: Code::Other, text }
    }

    /// Sends a command and returns the receiver of its answer; `None` when the agent is gone.
    fn send_call(&self, command: Command) -> Option<oneshot::Receiver<Result<Answer, Failure>>> {
        let (sender, reply) = oneshot::channel();
        let input = locked(&self.input);
        let mut calls = locked(&self.talk.calls);
        let input = input.as_ref().filter(|_| !calls.is_lost && calls.ending.is_none())?;
        calls.last += 1;
        let id = calls.last;
        calls.waiting.insert(id, Waiting { command: command.clone(), reply: Some(sender) });
        input.send(ToAgent::Call { id, command }).is_ok().then_some(reply)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Talk {
    /// Takes a message. Returns false for an answer to a command that was not sent or is answered already, which
    /// ends the conversation: an agent could otherwise send such answers forever.
    fn take(&self, message: FromAgent, length: usize) -> bool {
        let mut calls = locked(&self.calls);
        calls.arrived += 1;
        calls.unconfirmed += length as u64;
        if calls.unconfirmed > MOST_UNCONFIRMED {
            self.confirm.notify_one();
        }
        match message {
            FromAgent::Reply { id, result } => {
                let Some(waiting) = calls.waiting.remove(&id) else { return false };
                // The caller may have given up.
                let _ = waiting.reply.map(|reply| reply.send(result));
            }
            FromAgent::Event(event) => {
                if let Event::Ending(ending) = event {
                    calls.ending = Some(ending);
                    // It executes no further commands.
                    calls.waiting.values_mut().for_each(|waiting| waiting.reply = None);
                }
                drop(calls);
                self.listener.hear(event);
            }
        }
        true
    }

    /// Returns the message that tells what has arrived.
    fn ping(&self) -> ToAgent {
        let mut calls = locked(&self.calls);
        calls.unconfirmed = 0;
        ToAgent::Ping { arrived: calls.arrived }
    }

    /// Returns the commands that have no answer and have not arrived at the agent.
    fn unanswered(&self, arrived: u64) -> Vec<ToAgent> {
        let calls = locked(&self.calls);
        let later = calls.waiting.range((Bound::Excluded(arrived), Bound::Unbounded));
        later.map(|(&id, waiting)| ToAgent::Call { id, command: waiting.command.clone() }).collect()
    }

    /// Reaches the agent by another connection, after a pause.
    async fn find_back(&self, vault: &Vault, pause: Duration) -> Option<(link::Channel, Vec<ToAgent>)> {
        let (way_back, arrived) = {
            let calls = locked(&self.calls);
            // An agent that ends will not go on.
            let way_back = calls.way_back.clone().filter(|_| calls.ending.is_none());
            (way_back?, calls.arrived)
        };
        self.listener.contact(false);
        let search = async {
            // A host must not keep the controller busy with logins.
            tokio::time::sleep(pause).await;
            way_back.find(vault, arrived).await
        };
        let found = tokio::select! {
            () = self.released.notified() => None,
            found = search => found,
        };
        self.listener.contact(true);
        let (channel, call) = found?;
        Some((channel, self.unanswered(call)))
    }

    /// Ends all commands that wait, and those to come.
    fn lose(&self) {
        {
            let mut calls = locked(&self.calls);
            calls.is_lost = true;
            calls.waiting.clear();
        }
        self.listener.lose();
    }
}

/// Reason for the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// The connection has ended.
    Cut,
    /// Bytes arrived that are no message of this conversation.
    Nonsense,
}

/// Carries the messages of a conversation, over one connection after the other. A task of its own: a cancelled
/// caller must not leave half a message.
async fn carry_on(
    mut channel: link::Channel,
    mut messages: mpsc::UnboundedReceiver<ToAgent>,
    talk: Arc<Talk>,
    vault: Arc<Vault>,
    period: Duration,
) {
    let mut repeated = Vec::new();
    loop {
        let began = Instant::now();
        if carry(channel, repeated, &mut messages, &talk, period).await != Break::Cut {
            break;
        }
        let Some(found) = talk.find_back(&vault, SHORTEST.saturating_sub(began.elapsed())).await else {
            break;
        };
        (channel, repeated) = found;
    }
    talk.lose();
}

/// Carries messages over one connection until it breaks.
async fn carry(
    channel: link::Channel,
    repeated: Vec<ToAgent>,
    messages: &mut mpsc::UnboundedReceiver<ToAgent>,
    talk: &Talk,
    period: Duration,
) -> Break {
    let link::Channel { input, mut output, holder } = channel;
    let mut reading = pin!(async {
        loop {
            match link::read::<FromAgent>(&mut output).await {
                Ok(Some((message, length))) => {
                    if !talk.take(message, length) {
                        return Break::Nonsense;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Break::Nonsense,
                Ok(None) | Err(_) => return Break::Cut,
            }
        }
    });
    let writing = pin!(write(input, repeated, messages, talk, period));
    let reason = tokio::select! {
        reason = &mut reading => reason,
        written = writing => match written {
            // The input is closed: the agent ends.
            Ok(()) => reading.await,
            // The agent no longer reads. Its output may stay open, held by jobs that outlived a killed agent, so its
            // end cannot be waited for. An agent that ends in order gets the time to report it.
            Err(_) => tokio::time::timeout(LAST_WORDS, reading).await.unwrap_or(Break::Cut),
        },
    };
    drop(holder);
    reason
}

/// Writes messages, with heartbeats in between, until the queue is closed.
async fn write(
    mut input: Input,
    repeated: Vec<ToAgent>,
    messages: &mut mpsc::UnboundedReceiver<ToAgent>,
    talk: &Talk,
    period: Duration,
) -> io::Result<()> {
    for message in repeated {
        send(&mut input, &message).await?;
    }
    let mut heartbeat = tokio::time::interval(period);
    loop {
        let message = tokio::select! {
            // Commands first: a heartbeat after the last one would meet a closed pipe.
            biased;
            message = messages.recv() => message,
            () = talk.confirm.notified() => Some(talk.ping()),
            _ = heartbeat.tick() => Some(talk.ping()),
        };
        // Dropping the input ends it.
        let Some(message) = message else { return Ok(()) };
        send(&mut input, &message).await?;
    }
}

async fn send(input: &mut Input, message: &ToAgent) -> io::Result<()> {
    input.write_all(&frame::encode(message).map_err(io::Error::other)?).await?;
    input.flush().await
}
