//! Effects on a host, each with its undo in the agent's journal: port, firewall rules, staging, servers,
//! processes.
//!
//! The undos themselves belong to the agent; nothing is undone here. [`release`] is the only end of a set of
//! agents.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};

use crate::busy::{Busy, Resource};
use crate::error::{Error, chain};
use crate::host::agent::command::{self, Naming, Server};
use crate::host::agent::{Agent, AgentError, Code, Command, Released};
use crate::host::leases::Held;
use crate::host::scripts::Script;
use crate::host::wire::{Field, LONGEST_TEXT, printable, short};
use crate::host::{Host, HostError};
use crate::plan::replica::{Account, Follow};
use crate::plan::{BackupPlan, Plan, StopPlan, TargetPlan};
use crate::run_id::AgentId;
use crate::shape::{Consumer, Publication};

/// Time beyond the lease time that a lost agent or its watchdog gets to roll back.
const SETTLE: Duration = Duration::from_secs(15);
/// Maximum time of a rollback; the user sees that it continues, and can leave with a second signal.
const UNDO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Pause between two questions whether the rollback is complete.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of leftovers that are kept per host.
const MOST_LEFT: usize = 64;

/// One end of a run: its agent and the connection to its host.
#[derive(Debug)]
pub struct End {
    /// The agent.
    pub agent: Agent,
    /// The connection.
    pub host: Arc<Host>,
}

/// Locks the first free port of a range.
pub async fn port(end: &End, (first, last): (u16, u16)) -> Result<u16, Error> {
    let agent = &end.agent;
    let reply = agent.call(Command::LeasePort { first, last }).await;
    let reply = reply.map_err(|error| match error {
        AgentError::Failed { code: Code::Busy, text: holder, .. } => {
            let range = (first, last);
            let resource = if first == last {
                Resource::Port { port: first, holder }
            } else {
                Resource::Ports { range, holder }
            };
            busy(&end.host, resource).into()
        }
        other => Error::from(other),
    })?;
    if let Some(ignored) = reply.get(1) {
        let name = short(ignored, LONGEST_TEXT);
        tracing::warn!(
            "{}: ignored {name}: not a lock of transferpy (those are directories owned by root)",
            agent.host()
        );
    }
    leased(&reply, (first, last)).map_err(|text| {
        Error::Failed(format!("{}: expected a port from the agent, got {text:?}", agent.host()))
    })
}

/// Returns the port of an agent's reply if it is within the range, otherwise the reply.
pub fn leased(reply: &[Field], (first, last): (u16, u16)) -> Result<u16, String> {
    let text = reply.first().map(|field| short(field, LONGEST_TEXT)).unwrap_or_default();
    text.parse().ok().filter(|port| (first..=last).contains(port)).ok_or(text)
}

/// Opens every layer of the target's firewall for the source on that port.
pub async fn firewall(agent: &Agent, target: &TargetPlan, port: u16) -> Result<(), AgentError> {
    for layer in &target.layers {
        agent.call(Command::OpenRule { layer: layer.name(), peer: target.peer, port }).await?;
    }
    Ok(())
}

/// Closes the layers again, for another try on another port.
pub async fn close_firewall(agent: &Agent, target: &TargetPlan, port: u16) -> Result<(), AgentError> {
    for layer in &target.layers {
        agent.call(Command::UndoRules { layer: layer.name(), peer: target.peer, port }).await?;
    }
    Ok(())
}

/// Locks the final name against other runs and creates the staging directory.
pub async fn staging(plan: &Plan, end: &End, target: &TargetPlan) -> Result<(), Error> {
    let directory = &target.endpoint.path;
    let (name, how) = match plan.shape.publication {
        Publication::Fill => (OsStr::new("."), Naming::Fill),
        _ => (target.final_path.file_name().unwrap_or_default(), Naming::Rename(plan.replace)),
    };
    let seen = target.old.as_deref().unwrap_or_default();
    end.agent.call(Command::TakeTarget { directory, name, how, seen }).await.map_err(
        |error| match error {
            AgentError::Failed { code: Code::Busy, text, .. } => {
                busy(&end.host, busy_name(&target.final_path, &text)).into()
            }
            AgentError::Failed { code: Code::Exists, .. } => {
                let path = printable(target.final_path.as_os_str().as_bytes());
                let is_filled = plan.shape.publication == Publication::Fill;
                let resource = if is_filled { Resource::FilledName(path) } else { Resource::NewName(path) };
                busy(&end.host, resource).into()
            }
            other => Error::from(other),
        },
    )?;
    // Data without a name of its own arrives in a directory.
    let inner = if plan.shape.consumer == Consumer::Tree { OsStr::new("") } else { &plan.staged };
    end.agent
        .call(Command::MakeStaging { path: &target.staging, keep: plan.keep_staging, how, inner })
        .await?;
    Ok(())
}

/// Opens the data to be copied, which must still be the one that the preflight saw; from then on it cannot be
/// exchanged.
pub async fn hold_source(plan: &Plan, source: &End) -> Result<(), Error> {
    if plan.source.inode.is_empty() {
        return Ok(());
    }
    let (path, inode) = (&plan.source.endpoint.path, &plan.source.inode);
    let held = source.agent.call(Command::HoldSource { path, inode }).await;
    held.map(drop).map_err(text_only)
}

/// Fails if the source's path leads to something else by now.
pub async fn check_source(plan: &Plan, source: &End) -> Result<(), Error> {
    if plan.source.inode.is_empty() {
        return Ok(());
    }
    let path = &plan.source.endpoint.path;
    source.agent.call(Command::CheckSource(path)).await.map(drop).map_err(text_only)
}

/// Converts a failure whose text is complete without the name of the failed command.
fn text_only(error: AgentError) -> Error {
    match error {
        AgentError::Failed { host, text, .. } => Error::Failed(format!("{host}: {text}")),
        lost @ AgentError::Lost { .. } => lost.into(),
    }
}

/// Stops the running replication threads of a server, until [`restart`] or the agent's end.
/// Returns the number of connections that were stopped.
pub async fn stop_replication(end: &End, socket: &Path, backup: &BackupPlan) -> Result<u32, Error> {
    let server =
        Server { socket: socket.as_os_str(), defaults_file: &backup.defaults_file, datadir: &backup.datadir };
    let reply = end.agent.call(Command::StopReplication(server)).await;
    let reply = reply.map_err(|error| not_quiesced(end, &backup.datadir, error))?;
    let stopped = reply.first().and_then(|count| short(count, LONGEST_TEXT).parse().ok()).unwrap_or_default();
    if stopped > 0 {
        end.agent.note_stopped("replication");
    }
    Ok(stopped)
}

/// Removes the old data at the agent's end, when the new data is on the disk.
pub async fn drop_old(end: &End, target: &TargetPlan) -> Result<(), AgentError> {
    end.agent.call(Command::DropOld { old: &target.old_path, new: &target.final_path }).await.map(drop)
}

/// Stops servers together with their replication, until [`restart`] or the agent's end.
/// Returns whether some of them replicated.
pub async fn stop_servers(end: &End, servers: &[StopPlan]) -> Result<bool, Error> {
    let mut some_stopped = false;
    for server in servers {
        let reply = end.agent.call(Command::NoteReplication(login(server))).await;
        let reply = reply.map_err(|error| not_quiesced(end, &server.datadir, error))?;
        some_stopped |= reply.first().is_some_and(|word| word == b"rests");
    }
    for server in servers {
        end.agent.note_stopping(&server.unit);
        let (unit, timeout) = (&server.unit, server.timeout);
        end.agent
            .call(Command::StopServer {
                unit,
                server: login(server),
                timeout,
                replication_stopped: some_stopped,
            })
            .await?;
        end.agent.note_stopped(&server.unit);
    }
    Ok(some_stopped)
}

fn login(server: &StopPlan) -> Server<'_> {
    let StopPlan { socket, defaults_file, datadir, .. } = server;
    Server { socket: OsStr::new(socket), defaults_file, datadir }
}

/// Explains why a server cannot be quiesced.
fn not_quiesced(end: &End, datadir: &Path, error: AgentError) -> Error {
    match error {
        AgentError::Failed { code: Code::Busy, text: holder, .. } => {
            let datadir = printable(datadir.as_os_str().as_bytes());
            busy(&end.host, Resource::Server { datadir, holder }).into()
        }
        other => other.into(),
    }
}

/// Starts the stopped servers and replication again; replication stays stopped where the data was replaced.
/// Returns the units that were already running.
pub async fn restart(agent: &Agent) -> Result<Vec<String>, AgentError> {
    let already = agent.call(Command::Restart).await?;
    Ok(already.iter().map(|unit| short(unit, LONGEST_TEXT)).collect())
}

/// Makes the rollback restore the old data of a target's server, until [`accept`].
pub async fn put_on_trial(
    plan: &Plan,
    end: &End,
    target: &TargetPlan,
    how: &Follow,
) -> Result<(), AgentError> {
    let staged = target.inbox().join(&plan.staged);
    let upgraded = how.upgraded.as_ref().map(|(file, version)| (file.as_str(), version.as_str()));
    let command = Command::PublishProvisionally {
        unit: &how.unit,
        path: &target.final_path,
        staged: &staged,
        old: &target.old_path,
        timeout: how.timeout,
        holds_databases: how.holds,
        upgraded: upgraded.unwrap_or_default(),
    };
    end.agent.call(command).await.map(drop)
}

/// Starts a target's server with the provisional data.
pub async fn start_server(
    end: &End,
    target: &TargetPlan,
    how: &Follow,
    defaults_file: &str,
) -> Result<(), AgentError> {
    let server = Server { socket: OsStr::new(&how.socket), defaults_file, datadir: &target.final_path };
    end.agent.call(Command::StartServer { unit: &how.unit, server }).await.map(drop)
}

/// Commits the provisional data.
pub async fn accept(end: &End, target: &TargetPlan) -> Result<(), AgentError> {
    end.agent.call(Command::Commit(&target.final_path)).await.map(drop)
}

/// Creates an account for replication from one host, on the server behind a socket.
/// The rollback drops it, until [`keep_account`].
pub async fn make_account(
    end: &End,
    server: (&str, &str),
    account: (&Account, &str),
) -> Result<(), AgentError> {
    let hash = account.0.hash();
    end.agent.call(Command::MakeAccount { account: on(server, account), hash: &hash }).await.map(drop)
}

/// Keeps the account.
pub async fn keep_account(
    end: &End,
    server: (&str, &str),
    account: (&Account, &str),
) -> Result<(), AgentError> {
    end.agent.call(Command::KeepAccount(on(server, account))).await.map(drop)
}

/// Drops a kept account at the agent's end.
pub async fn give_up_account(
    end: &End,
    server: (&str, &str),
    account: (&Account, &str),
) -> Result<(), AgentError> {
    end.agent.call(Command::GiveUpAccount(on(server, account))).await.map(drop)
}

fn on<'a>(
    (socket, defaults_file): (&'a str, &'a str),
    (account, host): (&'a Account, &'a str),
) -> command::Account<'a> {
    command::Account { socket, defaults_file, user: &account.user, host }
}

/// Returns the error for a resource of a host that is in use.
#[must_use]
pub fn busy(host: &Host, resource: Resource) -> Busy {
    Busy { host: host.name().clone(), resource, status: host.look_after("status") }
}

/// Returns a name that another run writes to; `holder` describes that run, as reported by the host.
#[must_use]
pub fn busy_name(path: &Path, holder: &str) -> Resource {
    Resource::Name { path: printable(path.as_os_str().as_bytes()), holder: holder.to_owned() }
}

/// Starts a job: a script in processes of its own. A key reaches it on a pipe.
pub async fn job(agent: &Agent, name: &str, script: &[u8], key: &str) -> Result<(), AgentError> {
    agent.forget(name);
    agent.call(Command::StartJob { job: name, script, key }).await.map(drop)
}

/// Effect of a run that is still on a host, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The host.
    pub host: String,
    /// Lease that is left there, or the reason why that is not known.
    pub what: Remains,
}

/// Lease that is left on a host, or the reason why that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// A lease that is still held.
    Lease(Held),
    /// A rollback that the agent or its watchdog had not completed.
    InProgress {
        /// Time for which it has been waited for.
        waited: Duration,
        /// Command that shows more.
        status: String,
    },
    /// Unknown, since the host could not be asked, for this reason.
    Unconfirmed(String),
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(held) => held.fmt(f),
            Self::InProgress { waited, status } => write!(
                f,
                "rollback still in progress after {} s (by the run's agent or watchdog); see: {status}",
                waited.as_secs()
            ),
            Self::Unconfirmed(reason) => write!(f, "rollback not confirmed ({reason})"),
        }
    }
}

impl Leftover {
    /// Returns whether its rollback starts a server or runs a command of the user.
    #[must_use]
    pub fn restarts(&self) -> bool {
        matches!(&self.what, Remains::Lease(held) if held.lease.restarts())
    }

    /// Returns whether the host could not be asked.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        matches!(self.what, Remains::Unconfirmed(_))
    }
}

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
pub async fn release(end: End, silence: Duration) -> Release {
    let End { agent, host } = end;
    let name = agent.host().to_owned();
    let id = agent.id().clone();
    let released = agent.release(UNDO_LIMIT).await;
    let (published, old_kept, kept) = (agent.published(), agent.old_kept(), agent.kept());
    let log = ["sender", "prepare"].into_iter().flat_map(|job| agent.job(job).log).collect();
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
pub async fn settle(host: &Host, id: &AgentId, silence: Duration) -> Vec<Leftover> {
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
        let again = || async {
            let host = host.connect_again(silence).await?;
            let answer = ask_to_settle(&host, id, patience).await;
            host.close().await;
            answer
        };
        let again = again.retry(logins).when(HostError::may_pass);
        answer = match tokio::time::timeout(patience, again).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(second)) => {
                return vec![unknown(&name, &format!("{}; then {}", chain(first), chain(&second)))];
            }
            Err(_) => {
                let text = format!("{}; then no answer within {} s", chain(first), patience.as_secs());
                return vec![unknown(&name, &text)];
            }
        };
    }
    match answer {
        Ok(messages) => settled(&messages, began.elapsed(), &host.look_after("status"))
            .into_iter()
            .map(|what| Leftover { host: name.clone(), what })
            .collect(),
        Err(error) => vec![unknown(&name, &chain(&error))],
    }
}

/// Leftovers in the answer of a host that was asked to settle an agent's leases; `status` is the command that
/// shows more.
#[must_use]
pub fn settled(messages: &[Vec<Field>], waited: Duration, status: &str) -> Vec<Remains> {
    let left = |message: &Vec<Field>| match message.first().map(Vec::as_slice) {
        Some(b"left") => Some(Remains::Lease(Held::parse(message.get(2..).unwrap_or_default()))),
        Some(b"held") => Some(Remains::InProgress { waited, status: status.to_owned() }),
        _ => None,
    };
    messages.iter().filter_map(left).take(MOST_LEFT).collect()
}

fn unknown(host: &str, error: &str) -> Leftover {
    Leftover { host: host.to_owned(), what: Remains::Unconfirmed(error.to_owned()) }
}

/// Asks a host until an agent's leases are gone, or its lock stays held for `patience`. A process that still
/// holds the journal then is rolling back, which may take long for a large staging directory, as in
/// [`release`].
async fn ask_to_settle(host: &Host, id: &AgentId, patience: Duration) -> Result<Vec<Vec<Field>>, HostError> {
    let seconds = patience.as_secs().to_string();
    let script = Script::admin(&["settle", id.as_str(), &seconds]);
    let end = Instant::now() + UNDO_LIMIT;
    loop {
        let answer = host.ask("clean-up", &script).await?;
        let held = answer.iter().any(|message| message.first().is_some_and(|word| word == b"held"));
        if !held || Instant::now() > end {
            return Ok(answer);
        }
        // The host has waited already, unless it answered at once.
        tokio::time::sleep(ASK_PAUSE).await;
    }
}
