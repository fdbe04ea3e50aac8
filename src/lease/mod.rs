//! Effects on a host, each with its undo in the agent's journal: port, firewall rules, staging, servers,
//! processes.
//!
//! The undos themselves belong to the agent; nothing is undone here. [`release`] is the only end of a set of
//! agents.

pub(crate) mod job;
mod leftover;
mod release;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

pub use leftover::{Leftover, Remains};
pub use release::{Release, settled};
pub(crate) use release::{release, settle};

use crate::base::printable::printable;
use crate::config::values::PortRange;
use crate::error::Error;
use crate::error::busy::{Busy, Resource};
use crate::host::Host;
use crate::host::agent::Agent;
use crate::host::conversation::AgentError;
use crate::mariadb::plan::Follow;
use crate::plan::{BackupPlan, Plan, StopPlan, TargetPlan};
use crate::proto::HostBytes;
use crate::proto::command::{Answer, Code, Command};
use crate::proto::files::{Naming, StagingTask};
use crate::proto::journal::Family;
use crate::proto::server::{
    Account, Login, OldData, Provisional, Server, StartServer, StartState, StopServer, UpgradeMark,
};
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
    let answer = agent.call(Command::LeasePort { first, last }).await.map_err(|error| match error {
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
    let Answer::Port { port, ignored } = answer else { return Err(agent.unexpected().into()) };
    if let Some(ignored) = ignored {
        tracing::warn!(
            "{}: ignored {}: not a lock of transferpy (those are directories owned by root)",
            agent.host(),
            ignored.path
        );
    }
    if (first..=last).contains(&port) {
        return Ok(port);
    }
    Err(Error::Failed(format!("{}: expected a port of {ports} from the agent, got {port}", agent.host())))
}

/// Opens every layer of the target's firewall for the source on that port.
pub(crate) async fn firewall(agent: &Agent, target: &TargetPlan, port: u16) -> Result<(), AgentError> {
    for layer in &target.layers {
        agent.call(Command::OpenRule { layer: *layer, peer: target.peer, port }).await?;
    }
    Ok(())
}

/// Closes the layers again, for another try on another port.
pub(crate) async fn close_firewall(agent: &Agent, target: &TargetPlan) -> Result<(), AgentError> {
    let family = if target.peer.is_ipv4() { Family::V4 } else { Family::V6 };
    for layer in &target.layers {
        agent.order(Command::CloseRules { layer: *layer, family }).await?;
    }
    Ok(())
}

/// Locks the final name against other runs and creates the staging directory.
pub(crate) async fn staging(plan: &Plan, end: &End, target: &TargetPlan) -> Result<(), Error> {
    let (name, naming) = match plan.shape.publication {
        Publication::Fill => (OsStr::new("."), Naming::Fill),
        _ => (target.final_path.file_name().unwrap_or_default(), Naming::Rename(plan.replace)),
    };
    let directory = HostBytes::from(&target.endpoint.path);
    let take = Command::TakeName { directory, name: HostBytes::from(name), naming, seen: target.old };
    end.agent.order(take).await.map_err(|error| match error {
        AgentError::Failed { code: Code::Busy, text, .. } => {
            busy(&end.host, busy_name(&target.final_path, &text)).into()
        }
        AgentError::Failed { code: Code::Exists, .. } => {
            let path = printable(target.final_path.as_os_str().as_encoded_bytes());
            let is_filled = plan.shape.publication == Publication::Fill;
            let resource = if is_filled { Resource::FilledName(path) } else { Resource::NewName(path) };
            busy(&end.host, resource).into()
        }
        other => Error::from(other),
    })?;
    // Data without a name of its own arrives in a directory.
    let inner = if plan.shape.consumer == Consumer::Tree { OsStr::new("") } else { &plan.staged };
    let task = StagingTask {
        path: HostBytes::from(&target.staging),
        keep: plan.keep_staging,
        naming,
        inner: HostBytes::from(inner),
    };
    Ok(end.agent.order(Command::MakeStaging(task)).await?)
}

/// Opens the data to be copied, which must still be the one that the preflight saw; from then on it cannot be
/// exchanged.
pub(crate) async fn hold_source(plan: &Plan, source: &End) -> Result<(), Error> {
    let Some(id) = plan.source.id else { return Ok(()) };
    let path = HostBytes::from(&plan.source.endpoint.path);
    Ok(source.agent.order(Command::HoldSource { path, id }).await?)
}

/// Fails if the source's path leads to something else by now.
pub(crate) async fn check_source(plan: &Plan, source: &End) -> Result<(), Error> {
    if plan.source.id.is_none() {
        return Ok(());
    }
    Ok(source.agent.order(Command::CheckSource).await?)
}

/// Stops the running replication threads of a server, until [`restart`] or the agent's end.
/// Returns the number of connections that were stopped.
pub(crate) async fn stop_replication(end: &End, socket: &Path, backup: &BackupPlan) -> Result<u32, Error> {
    let server = Server {
        login: login(socket.as_os_str(), &backup.defaults_file),
        datadir: HostBytes::from(&backup.datadir),
    };
    let answer = end.agent.call(Command::StopReplication(server)).await;
    let answer = answer.map_err(|error| not_quiesced(end, &backup.datadir, error))?;
    let Answer::Stopped(stopped) = answer else { return Err(end.agent.unexpected().into()) };
    if stopped > 0 {
        end.agent.note_stopped("replication");
    }
    Ok(stopped)
}

/// Removes the old data at the agent's end, when the new data is on the disk.
pub(crate) async fn drop_old(end: &End, target: &TargetPlan) -> Result<(), AgentError> {
    let (old, new) = (HostBytes::from(&target.old_path), HostBytes::from(&target.final_path));
    end.agent.order(Command::DropOld { old, new }).await
}

/// Stops servers together with their replication, until [`restart`] or the agent's end.
/// Returns whether some of them replicated only partly.
pub(crate) async fn stop_servers(end: &End, servers: &[StopPlan]) -> Result<bool, Error> {
    let mut partly_stopped = false;
    for plan in servers {
        let answer = end.agent.call(Command::NoteReplication(server(plan))).await;
        let answer = answer.map_err(|error| not_quiesced(end, &plan.datadir, error))?;
        let Answer::Replicating { partly } = answer else { return Err(end.agent.unexpected().into()) };
        partly_stopped |= partly;
    }
    for plan in servers {
        end.agent.note_stopping(&plan.unit);
        let request = StopServer {
            unit: plan.unit.clone(),
            server: server(plan),
            seconds: plan.timeout.as_secs(),
            // A server with stopped threads would start them on its own.
            start: if partly_stopped { StartState::NoReplication } else { StartState::Configured },
        };
        end.agent.order(Command::StopServer(request)).await?;
        end.agent.note_stopped(&plan.unit);
    }
    Ok(partly_stopped)
}

/// Returns a login through a socket of the host.
pub(crate) fn login(socket: &OsStr, defaults_file: &str) -> Login {
    Login { socket: HostBytes::from(socket), defaults_file: HostBytes::from(defaults_file) }
}

fn server(plan: &StopPlan) -> Server {
    let StopPlan { socket, defaults_file, datadir, .. } = plan;
    Server { login: login(OsStr::new(socket), defaults_file), datadir: HostBytes::from(datadir) }
}

/// Explains why a server cannot be quiesced.
fn not_quiesced(end: &End, datadir: &Path, error: AgentError) -> Error {
    match error {
        AgentError::Failed { code: Code::Busy, text: holder, .. } => {
            let datadir = printable(datadir.as_os_str().as_encoded_bytes());
            busy(&end.host, Resource::Server { datadir, holder }).into()
        }
        other => other.into(),
    }
}

/// Starts the stopped servers and replication again; replication stays stopped where the data was replaced.
/// Returns the units that were already running.
pub(crate) async fn restart(agent: &Agent) -> Result<Vec<String>, AgentError> {
    match agent.call(Command::Restore).await? {
        Answer::Restored(restored) => Ok(restored.already_running.iter().map(ToString::to_string).collect()),
        _ => Err(agent.unexpected()),
    }
}

/// Makes the rollback restore the old data of a target's server, until [`commit`].
pub(crate) async fn publish_provisionally(
    plan: &Plan,
    end: &End,
    target: &TargetPlan,
    how: &Follow,
) -> Result<(), AgentError> {
    let upgraded = how.upgraded.clone().map(|(file, version)| UpgradeMark { file, version });
    let request = Provisional {
        unit: how.unit.clone(),
        datadir: HostBytes::from(&target.final_path),
        staged: HostBytes::from(&plan.staged),
        aside: HostBytes::from(&target.old_path),
        seconds: how.timeout.as_secs(),
        old: if how.holds { OldData::Any } else { OldData::NoDatabases },
        upgraded,
    };
    end.agent.order(Command::PublishProvisionally(request)).await
}

/// Starts a target's server with the provisional data.
pub(crate) async fn start_server(
    end: &End,
    target: &TargetPlan,
    how: &Follow,
    defaults_file: &str,
) -> Result<(), AgentError> {
    let server = Server {
        login: login(OsStr::new(&how.socket), defaults_file),
        datadir: HostBytes::from(&target.final_path),
    };
    end.agent.order(Command::StartServer(StartServer { unit: how.unit.clone(), server })).await
}

/// Commits the provisional data.
pub(crate) async fn commit(end: &End) -> Result<(), AgentError> {
    end.agent.order(Command::Commit).await
}

/// Creates an account for replication from one host, on the server behind a socket.
/// The rollback drops it, until [`keep_account`].
pub(crate) async fn make_account(end: &End, account: Account, hash: &str) -> Result<(), AgentError> {
    let hash = end.agent.conversation().seal(hash.as_bytes())?;
    end.agent.order(Command::MakeAccount { account, hash }).await
}

/// Keeps the account.
pub(crate) async fn keep_account(end: &End, account: Account) -> Result<(), AgentError> {
    end.agent.order(Command::KeepAccount(account)).await
}

/// Drops a kept account at the agent's end.
pub(crate) async fn give_up_account(end: &End, account: Account) -> Result<(), AgentError> {
    end.agent.order(Command::DropAccount(account)).await
}

/// Returns the error for a resource of a host that is in use.
#[must_use]
pub(crate) fn busy(host: &Host, resource: Resource) -> Busy {
    Busy { host: host.name().clone(), resource, status: host.look_after("status") }
}

/// Returns a name that another run writes to; `holder` describes that run, as reported by the host.
#[must_use]
pub(crate) fn busy_name(path: &Path, holder: &str) -> Resource {
    Resource::Name { path: printable(path.as_os_str().as_encoded_bytes()), holder: holder.to_owned() }
}
