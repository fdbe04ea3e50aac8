//! Effects on a host, each with its undo in the agent's journal: port, firewall rules, staging, servers,
//! processes.
//!
//! The undos themselves belong to the agent; nothing is undone here. [`release`] is the only end of a set of
//! agents.

pub(crate) mod job;
mod leftover;
mod release;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

pub use leftover::{Leftover, Remains};
pub use release::{Release, release, settle, settled};

use crate::config::values::PortRange;
use crate::error::Error;
use crate::error::busy::{Busy, Resource};
use crate::host::Host;
use crate::host::agent::command::{self, Naming, Server};
use crate::host::agent::{Agent, AgentError, Code, Command};
use crate::host::wire::{Field, LONGEST_TEXT, printable, short};
use crate::mariadb::plan::Follow;
use crate::plan::{BackupPlan, Plan, StopPlan, TargetPlan};
use crate::shape::{Consumer, Publication};

/// One end of a run: its agent and the connection to its host.
#[derive(Debug)]
pub struct End {
    /// The agent.
    pub agent: Agent,
    /// The connection.
    pub host: Arc<Host>,
}

/// Locks the first free port of a range.
pub(crate) async fn port(end: &End, ports: PortRange) -> Result<u16, Error> {
    let PortRange { first, last } = ports;
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
    leased(&reply, ports).map_err(|text| {
        Error::Failed(format!("{}: expected a port from the agent, got {text:?}", agent.host()))
    })
}

/// Returns the port of an agent's reply if it is within the range, otherwise the reply.
pub fn leased(reply: &[Field], PortRange { first, last }: PortRange) -> Result<u16, String> {
    let text = reply.first().map(|field| short(field, LONGEST_TEXT)).unwrap_or_default();
    text.parse().ok().filter(|port| (first..=last).contains(port)).ok_or(text)
}

/// Opens every layer of the target's firewall for the source on that port.
pub(crate) async fn firewall(agent: &Agent, target: &TargetPlan, port: u16) -> Result<(), AgentError> {
    for layer in &target.layers {
        agent.call(Command::OpenRule { layer: layer.name(), peer: target.peer, port }).await?;
    }
    Ok(())
}

/// Closes the layers again, for another try on another port.
pub(crate) async fn close_firewall(agent: &Agent, target: &TargetPlan, port: u16) -> Result<(), AgentError> {
    for layer in &target.layers {
        agent.call(Command::UndoRules { layer: layer.name(), peer: target.peer, port }).await?;
    }
    Ok(())
}

/// Locks the final name against other runs and creates the staging directory.
pub(crate) async fn staging(plan: &Plan, end: &End, target: &TargetPlan) -> Result<(), Error> {
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
pub(crate) async fn hold_source(plan: &Plan, source: &End) -> Result<(), Error> {
    if plan.source.inode.is_empty() {
        return Ok(());
    }
    let (path, inode) = (&plan.source.endpoint.path, &plan.source.inode);
    let held = source.agent.call(Command::HoldSource { path, inode }).await;
    held.map(drop).map_err(text_only)
}

/// Fails if the source's path leads to something else by now.
pub(crate) async fn check_source(plan: &Plan, source: &End) -> Result<(), Error> {
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
pub(crate) async fn stop_replication(end: &End, socket: &Path, backup: &BackupPlan) -> Result<u32, Error> {
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
pub(crate) async fn drop_old(end: &End, target: &TargetPlan) -> Result<(), AgentError> {
    end.agent.call(Command::DropOld { old: &target.old_path, new: &target.final_path }).await.map(drop)
}

/// Stops servers together with their replication, until [`restart`] or the agent's end.
/// Returns whether some of them replicated.
pub(crate) async fn stop_servers(end: &End, servers: &[StopPlan]) -> Result<bool, Error> {
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
pub(crate) async fn restart(agent: &Agent) -> Result<Vec<String>, AgentError> {
    let already = agent.call(Command::Restart).await?;
    Ok(already.iter().map(|unit| short(unit, LONGEST_TEXT)).collect())
}

/// Makes the rollback restore the old data of a target's server, until [`accept`].
pub(crate) async fn put_on_trial(
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
pub(crate) async fn start_server(
    end: &End,
    target: &TargetPlan,
    how: &Follow,
    defaults_file: &str,
) -> Result<(), AgentError> {
    let server = Server { socket: OsStr::new(&how.socket), defaults_file, datadir: &target.final_path };
    end.agent.call(Command::StartServer { unit: &how.unit, server }).await.map(drop)
}

/// Commits the provisional data.
pub(crate) async fn accept(end: &End, target: &TargetPlan) -> Result<(), AgentError> {
    end.agent.call(Command::Commit(&target.final_path)).await.map(drop)
}

/// Creates an account for replication from one host, on the server behind a socket.
/// The rollback drops it, until [`keep_account`].
pub(crate) async fn make_account(
    end: &End,
    account: command::Account<'_>,
    hash: &str,
) -> Result<(), AgentError> {
    end.agent.call(Command::MakeAccount { account, hash }).await.map(drop)
}

/// Keeps the account.
pub(crate) async fn keep_account(end: &End, account: command::Account<'_>) -> Result<(), AgentError> {
    end.agent.call(Command::KeepAccount(account)).await.map(drop)
}

/// Drops a kept account at the agent's end.
pub(crate) async fn give_up_account(end: &End, account: command::Account<'_>) -> Result<(), AgentError> {
    end.agent.call(Command::GiveUpAccount(account)).await.map(drop)
}

/// Returns the error for a resource of a host that is in use.
#[must_use]
pub(crate) fn busy(host: &Host, resource: Resource) -> Busy {
    Busy { host: host.name().clone(), resource, status: host.look_after("status") }
}

/// Returns a name that another run writes to; `holder` describes that run, as reported by the host.
#[must_use]
pub(crate) fn busy_name(path: &Path, holder: &str) -> Resource {
    Resource::Name { path: printable(path.as_os_str().as_bytes()), holder: holder.to_owned() }
}
