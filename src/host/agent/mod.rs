//! The Rust half of an agent: commands out, replies and events in, and the heartbeat. The other half is `../sh/guard.sh`;
//! the protocol is in `docs/guard-protocol.md`.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub mod told;

use super::scripts::Script;
use super::wire::{Field, decode, encode, read_record};
use super::{Begun, Host, HostError, Input};
use crate::run_id::AgentId;
pub use told::{Fault, Job, Manifest};
use told::{Shared, State};

/// The longest that any command may take on the host. All of them sync the journal first, which may wait behind a great
/// deal of data that was written just before.
const REPLY_LIMIT: Duration = Duration::from_secs(900);
/// How long an agent that takes no commands any more may go on telling.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running agent. When this is dropped its input ends, and it undoes everything.
#[derive(Debug)]
pub struct Agent {
    id: AgentId,
    host: String,
    /// Whole lines to the agent. Closing this ends the agent's input, after what was sent before.
    input: Mutex<Option<mpsc::UnboundedSender<Vec<u8>>>>,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

/// What an agent is told when it starts.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// The end of the run that it agents: `source`, `target` or `controller`.
    pub role: &'a str,
    /// Silence after which it undoes everything.
    pub lease: Duration,
    /// How much its jobs stand back, 0 to 19.
    pub nice: u8,
    /// The path that the run is about, to be shown.
    pub path: &'a [u8],
}

/// Why a command to an agent had no effect that counts.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent or the way to it is gone. It undoes everything by itself.
    #[error("{host}: lost the agent of this run ({})", reason(.ending.as_deref()))]
    Lost {
        /// The host.
        host: String,
        /// Why, if it could tell.
        ending: Option<String>,
    },
    /// The host did not do it.
    #[error("{host}: {action}: {text}")]
    Failed {
        /// The host.
        host: String,
        /// The command.
        action: &'static str,
        /// A word of the protocol, such as `busy` or `exists`.
        code: String,
        /// What the host said.
        text: String,
    },
}

fn reason(ending: Option<&str>) -> String {
    match ending {
        Some("silence") => {
            "it heard nothing from this controller for the lease time, --lease-time; was this machine suspended?"
                .to_owned()
        }
        Some("eof") => "its connection ended".to_owned(),
        Some(signal @ ("HUP" | "INT" | "TERM")) => format!("it was ended there by SIG{signal}"),
        _ => "its process or the connection ended".to_owned(),
    }
}

/// What is left of an agent's leases after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// It said good-bye; these are the leases that it could not undo.
    Told(Vec<String>),
    /// It went without a word.
    Lost,
}

impl Agent {
    /// Starts an agent on a host and waits until it is ready to take commands.
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
                // A line that is too long, or a broken channel, is the end of an agent as much as its end of output.
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
            None => HostError::Incomplete { host, action: "start of the agent", said: "nothing".into() },
        }
    }

    /// The host, as the user named it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The agent's name.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Sends a command and waits for its reply's fields. Arguments may be secret: they are never logged.
    pub async fn call(&self, action: &'static str, arguments: &[&[u8]]) -> Result<Vec<Field>, AgentError> {
        let Some((sequence, reply)) = self.shared.expect_reply() else {
            return Err(self.gone(&self.shared.state()));
        };
        tracing::debug!(host = self.host, action, "agent");
        let sequence = sequence.to_string();
        let mut fields: Vec<&[u8]> = vec![sequence.as_bytes(), action.as_bytes()];
        fields.extend(arguments);
        if !self.write(&fields) {
            return Err(self.gone(&self.shared.state()));
        }
        match tokio::time::timeout(REPLY_LIMIT, reply).await {
            Ok(Ok(Ok(fields))) => Ok(fields),
            Ok(Ok(Err((code, text)))) => {
                Err(AgentError::Failed { host: self.host.clone(), action, code, text })
            }
            Ok(Err(_)) => Err(self.gone(&self.shared.state())),
            Err(_) => Err(AgentError::Failed {
                host: self.host.clone(),
                action,
                code: "timeout".into(),
                text: format!("no reply within {} s", REPLY_LIMIT.as_secs()),
            }),
        }
    }

    /// False when the agent's input has ended already.
    fn write(&self, fields: &[&[u8]]) -> bool {
        let mut line = encode(fields);
        line.push(b'\n');
        self.input().as_ref().is_some_and(|input| input.send(line).is_ok())
    }

    fn input(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Vec<u8>>>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a job has told so far.
    #[must_use]
    pub fn job(&self, name: &str) -> Job {
        self.shared.state().jobs.get(name).cloned().unwrap_or_default()
    }

    /// Forgets what a job told, before another of that name.
    pub fn forget(&self, name: &str) {
        self.shared.state().jobs.remove(name);
    }

    /// Waits until a job has ended. An error when the agent is lost.
    pub async fn ended(&self, name: &str) -> Result<Job, AgentError> {
        self.until(name, |job| job.exit.is_some()).await
    }

    /// Waits until a job has told something. An error when the agent is lost.
    pub async fn until(&self, name: &str, told: impl Fn(&Job) -> bool) -> Result<Job, AgentError> {
        self.wait_forever(|state| match state.jobs.get(name) {
            Some(job) if told(job) => Some(Ok(job.clone())),
            _ if state.lost => Some(Err(self.gone(state))),
            _ => None,
        })
        .await
    }

    /// The copy has its final name, whatever was heard or not heard afterwards.
    #[must_use]
    pub fn published(&self) -> bool {
        self.shared.state().published
    }

    /// What had the final name before the copy was kept under another one.
    #[must_use]
    pub fn old_kept(&self) -> bool {
        self.shared.state().old_kept
    }

    /// Staging directories that were kept at the end, as the host told them.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        self.shared.state().kept.clone()
    }

    /// Waits until the agent is lost; never returns before.
    pub async fn lost(&self) -> AgentError {
        self.wait_forever(|state| state.lost.then(|| self.gone(state))).await
    }

    fn gone(&self, state: &State) -> AgentError {
        AgentError::Lost { host: self.host.clone(), ending: state.ending.clone() }
    }

    /// The agent is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.state().lost
    }

    /// Tells the agent to undo everything and waits until it has, or until `deadline` has passed.
    pub async fn release(&self, deadline: Duration) -> Released {
        // Its input ends too: whatever happens to this message, the agent starts.
        self.write(&[b"0", b"release"]);
        self.input().take();
        let ended = self
            .wait(deadline, |state| (state.bye || state.lost).then(|| (state.bye, state.left.clone())))
            .await;
        let Some((true, left)) = ended else { return Released::Lost };
        let (ours, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(agent, _)| agent == self.id.as_str());
        for (agent, what) in others {
            tracing::warn!(
                "{}: an earlier run ({agent}) left something that cannot be undone: {what}",
                self.host
            );
        }
        Released::Told(ours.into_iter().map(|(_, what)| what).collect())
    }

    async fn wait_forever<T>(&self, mut check: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.shared.changed.subscribe();
        loop {
            if let Some(value) = check(&self.shared.state()) {
                return value;
            }
            // The sender lives in `self`, so this cannot fail.
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

/// Writes, behind the script, line by line, and a heartbeat in between, until nobody sends any more. In a task of its own: a caller that is
/// cancelled must not leave half a line, which would glue itself to the next command.
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
                // A heartbeat behind the last command would find nobody.
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
        // Nobody reads any more. Its output need not end with it: jobs that outlived a killed agent hold it open. One that
        // ends in order is given the time to say so.
        tokio::time::sleep(LAST_WORDS).await;
        shared.lose();
    }
}
